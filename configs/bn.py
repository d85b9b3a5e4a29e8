"""Project 1's VGG16 with BatchNorm, without dropout.

COMMAND   python -m vgg_jax.main --config configs/bn.py
RUNTIME   about 6 minutes an epoch on two CPU cores with AVX-512, 9 to 11 without; GPU not yet measured
EXPECTED  reported: 88.73 %
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.normalization = "half"
    config.model.update(batch_norm_head=False, batch_norm_epsilon=1e-5, bias_init="pytorch")
    return config
