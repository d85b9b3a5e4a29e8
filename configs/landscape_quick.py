"""Why BatchNorm helps, as a study for two CPU cores: a quarter of the width, 5,000 images.

COMMAND   python -m vgg_jax.landscape --config configs/landscape_quick.py
RUNTIME   about 8 minutes on two CPU cores (7.6 measured, n=1)
EXPECTED  a verdict and ten pictures; docs/landscape.md says how to read them
"""

from ml_collections import ConfigDict

from configs.landscape import get_config as landscape_config


def get_config() -> ConfigDict:
    config = landscape_config()
    config.data.train_size = 5000
    config.model.width = 0.25
    config.train.update(epochs=4, eval_epochs=4)
    config.landscape.update(probe_steps=12, band_epochs=1, images=256)
    config.landscape.update(surface_points=13, hessian_iterations=10, ascent_steps=5)
    return config
