"""Project 1's VGG16 with BatchNorm, without dropout.

COMMAND   python -m vgg_jax.main --config configs/bn.py
RUNTIME   about 6 minutes an epoch on two CPU cores with AVX-512, 9 to 11 without; GPU not yet measured
EXPECTED  reported: 88.73 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.batch_norm = "before"  # the default, made explicit
    return config
