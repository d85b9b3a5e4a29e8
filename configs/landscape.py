"""Why BatchNorm helps: VGG-A without and with it, measured during training and at the end.

COMMAND   python -m vgg_jax.landscape --config configs/landscape.py
RUNTIME   needs a GPU; not yet measured; configs/landscape_quick.py is for two CPU cores
EXPECTED  docs/landscape.md; not yet measured at this size
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config
from vgg_jax.settings.config import group


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.train.batch_size = 128
    config.landscape = group("landscape")
    return config
