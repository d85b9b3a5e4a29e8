"""Project 2's VGG_A trained on the squared error against one-hot targets ("L2 loss" in its usual sense).

COMMAND   python -m vgg_jax.main --config configs/vgg_a_mse.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  none reported
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.loss.name = "squared_error"
    return config
