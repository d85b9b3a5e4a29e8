"""Project 2's VGG_Dropout_BN_Res: residual blocks with BatchNorm, dropout twice in the head.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_dropout_bn_res.py
RUNTIME   not measured
EXPECTED  reported: 81.96 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.vgg_a_dropout import get_config as vgg_a_dropout_config


def get_config() -> ConfigDict:
    config = vgg_a_dropout_config()
    config.model.update(batch_norm="before", residual=True)
    return config
