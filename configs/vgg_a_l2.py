"""Project 2's VGG_A + L2: VGG_A with weight decay as an L2 gradient in Adam.

COMMAND   python -m vgg_jax.main --config configs/vgg_a_l2.py
RUNTIME   4.3 to 4.6 minutes an epoch on one AMD EPYC core with AVX-512 (n=1); GPU not yet measured
EXPECTED  reported: 74.98 % (best epoch on the test set); ours: 75.03 % likewise, 74.38 % at the final epoch (n=1)
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.optimizer.weight_decay = 1e-4
    return config
