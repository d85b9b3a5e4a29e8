"""Project 2's VGG_Dropout_BN_Res_Leaky: residual blocks, leaky ReLU (project 2's own code cannot build it).

COMMAND   python -m vgg_jax.main --config configs/vgg_a_dropout_bn_res_leaky.py
RUNTIME   not measured
EXPECTED  none reported
"""

from ml_collections import ConfigDict

from configs.vgg_a_dropout_bn_res import get_config as vgg_a_dropout_bn_res_config


def get_config() -> ConfigDict:
    config = vgg_a_dropout_bn_res_config()
    config.model.activation = "leaky_relu"
    return config
