"""Project 2's VGG_A_LeakyReLU: VGG_A with leaky ReLU of slope 0.1 and Kaiming's initialisation for it.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_leaky_relu.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  reported: 82.16 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.model.update(activation="leaky_relu", kernel_init="kaiming_leaky")
    return config
