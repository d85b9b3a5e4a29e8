"""Why BatchNorm helps, as a study for two CPU cores: a quarter of the width, 5,000 images.

COMMAND   python -m vgg_jax.landscape --config configs/landscape_quick.py
RUNTIME   13.4 and 16.2 minutes on two CPU cores with AVX-512 (n=2; the longer with other work beside)
EXPECTED  a verdict and eleven pictures; docs/landscape.md says how to read them
"""

from ml_collections import ConfigDict

from configs.landscape import get_config as landscape_config


def get_config() -> ConfigDict:
    config = landscape_config()
    config.data.train_size = 5000
    config.model.width = 0.25
    config.train.update(epochs=4, eval_epochs=4)
    config.landscape.update(probe_steps=13, step_sizes=(0.01, 0.05, 0.2), update_sizes=(0.5, 2.0, 8.0))
    config.landscape.update(learning_rates=(2e-3, 5e-4, 1e-4), band_epochs=1, images=128, equal_loss=1.8)
    config.landscape.update(surface_points=25, directions=4, hessian_iterations=24, ascent_steps=5)
    return config
