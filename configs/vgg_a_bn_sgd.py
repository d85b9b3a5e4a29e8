"""Project 2's VGG_BatchNorm + SGD: VGG_BatchNorm trained by SGD instead of Adam.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_bn_sgd.py
RUNTIME   not measured; vgg_a.py takes 2.8 minutes an epoch on two CPU cores
EXPECTED  reported: 75.53 % (best epoch on the test set)
"""

from ml_collections import ConfigDict

from configs.vgg_a_bn import get_config as vgg_a_bn_config


def get_config() -> ConfigDict:
    config = vgg_a_bn_config()
    config.optimizer.update(name="sgd", learning_rate=1e-3, momentum=0.9)
    return config
