"""Project 1's VGG16 without BatchNorm and without dropout, each convolution with a kernel of its own.

COMMAND   python -m vgg_jax.main --config configs/plain.py
RUNTIME   about 6 minutes an epoch on two CPU cores with AVX-512, 9 to 11 without; GPU not yet measured
EXPECTED  none reported: project 1's network without both is plain_tied.py
"""

from ml_collections import ConfigDict

from configs.bn import get_config as bn_config


def get_config() -> ConfigDict:
    config = bn_config()
    config.model.batch_norm = "none"
    return config
