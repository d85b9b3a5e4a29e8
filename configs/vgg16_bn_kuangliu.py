"""VGG16 with BatchNorm and one dense layer, as the weights of kuangliu/pytorch-cifar and edadaltocg have it.

COMMAND   python -m vgg_jax.main --config configs/vgg16_bn_kuangliu.py
RUNTIME   not measured
EXPECTED  not trained here; kuangliu reports 92.64 % (epoch not named; no Nesterov, PyTorch's initialisation)
"""

from ml_collections import ConfigDict

from configs.vgg16_bn import get_config as vgg16_bn_config


def get_config() -> ConfigDict:
    config = vgg16_bn_config()
    config.model.update(hidden=(), head_dropout=())
    return config
