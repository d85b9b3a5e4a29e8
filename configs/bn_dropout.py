"""Project 1's VGG16 with BatchNorm and dropout.

COMMAND   python -m vgg_jax.main --config configs/bn_dropout.py
RUNTIME   6.5 minutes an epoch on two CPU cores with AVX-512, 13 to 14 without; GPU not yet measured
EXPECTED  reported: 89.89 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.update(stage_dropout=(0.3, 0.4, 0.4, 0.4, 0.4), head_dropout=(0.5, 0.5))
    return config
