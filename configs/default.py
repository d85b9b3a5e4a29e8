"""Every field at its default: the Torch7 post's VGG16 with BatchNorm, trained as project 1 trains its own.

docs/fields.md explains them all. An overlay (`speedrun.py`, ...) starts from here and changes a few; the command line
can change any (`--config.train.epochs=1`).
"""

from ml_collections import ConfigDict

from vgg_jax.settings.config import default


def get_config() -> ConfigDict:
    return default()
