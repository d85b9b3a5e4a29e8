"""Project 2's VGG_A + L2: VGG_A with weight decay as an L2 gradient in Adam.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_l2.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  reported: 74.98 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.optimizer.weight_decay = 1e-4
    return config
