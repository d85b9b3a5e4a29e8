"""Every field at its default: VGG16 with BatchNorm, also in the head; project 1's optimizer and schedule.

docs/fields.md explains them all. A recipe (`speedrun.py`, ...) starts from here and changes a few; the command line
can change any (`--config.train.epochs=1`).
"""

from ml_collections import ConfigDict

from vgg_jax.settings.config import default


def get_config() -> ConfigDict:
    return default()
