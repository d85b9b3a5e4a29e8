"""Project 1's VGG16 with dropout, which drops whole feature maps, without BatchNorm.

COMMAND   python -m vgg_jax.main --config configs/dropout.py
RUNTIME   about 6 minutes an epoch on two CPU cores with AVX-512, 9 to 11 without; GPU not yet measured
EXPECTED  reported: 88.67 %
"""

from ml_collections import ConfigDict

from configs.bn_dropout import get_config as bn_dropout_config


def get_config() -> ConfigDict:
    config = bn_dropout_config()
    config.model.batch_norm = "none"
    return config
