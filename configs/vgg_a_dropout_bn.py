"""Project 2's VGG_Dropout_BN: BatchNorm after the ReLU, dropout twice in the head.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_dropout_bn.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  reported: 81.66 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.vgg_a_dropout import get_config as vgg_a_dropout_config


def get_config() -> ConfigDict:
    config = vgg_a_dropout_config()
    config.model.batch_norm = "after"
    return config
