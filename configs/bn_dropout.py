"""Project 1's VGG16 with BatchNorm and dropout, which drops whole feature maps.

COMMAND   python -m vgg_jax.main --config configs/bn_dropout.py
RUNTIME   7 minutes an epoch on two CPU cores with AVX-512, 14 without; GPU not yet measured
EXPECTED  reported: 89.89 %
"""

from ml_collections import ConfigDict

from configs.bn import get_config as bn_config


def get_config() -> ConfigDict:
    config = bn_config()
    config.model.update(stage_dropout=(0.3, 0.4, 0.4, 0.4, 0.4), spatial_dropout=True, head_dropout=(0.5, 0.5))
    return config
