"""Project 2's VGG_Light: two convolutions of 16 and 32 channels, head 128-128-10.

COMMAND   python -m vgg_jax.main --config configs/vgg_light.py
RUNTIME   31 seconds an epoch on one AMD EPYC core with AVX-512, other work beside it (n=1); GPU not yet measured
EXPECTED  reported: 68.71 % (best epoch on the test set); ours: 68.30 % likewise, 67.77 % at the final epoch (n=1)
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.model.update(stages="light", hidden=(128, 128), kernel_init="pytorch", bias_init="pytorch")
    return config
