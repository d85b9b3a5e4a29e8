"""Project 2's VGG_Dropout: VGG_A with dropout twice in the head.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_dropout.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  none reported
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.model.update(head_dropout=(0.5, 0.5, 0), kernel_init="pytorch", bias_init="pytorch")
    return config
