"""Project 2's VGG_A_LeakyReLU: VGG_A with leaky ReLU of slope 0.1 and Kaiming's initialisation for it.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_leaky_relu.py
RUNTIME   4.5 minutes an epoch on one AMD EPYC core with AVX-512 (n=1); GPU not yet measured
EXPECTED  reported: 82.16 % (best epoch on the test set); ours: 78.48 % likewise, 78.29 % at the final epoch (n=1)
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.model.update(activation="leaky_relu", kernel_init="kaiming_leaky")
    return config
