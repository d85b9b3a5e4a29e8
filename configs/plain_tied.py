"""Project 1's network without BatchNorm and without dropout as it was: equal convolutions share their kernels.

COMMAND   python -m vgg_jax.main --config configs/plain_tied.py
RUNTIME   not measured; plain.py takes about 6 minutes an epoch on two CPU cores with AVX-512
EXPECTED  reported: 86.65 %
"""

from ml_collections import ConfigDict

from configs.plain import get_config as plain_config


def get_config() -> ConfigDict:
    config = plain_config()
    config.model.tied = True
    return config
