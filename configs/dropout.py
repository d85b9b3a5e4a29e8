"""Project 1's VGG16 with dropout, without BatchNorm.

COMMAND   python -m vgg_jax.main --config configs/dropout.py
RUNTIME   about 6 minutes an epoch on two CPU cores with AVX-512, 9 to 11 without; GPU not yet measured
EXPECTED  reported: 88.67 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.batch_norm = "none"
    config.model.update(stage_dropout=(0.3, 0.4, 0.4, 0.4, 0.4), head_dropout=(0.5, 0.5))
    return config
