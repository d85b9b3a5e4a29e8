"""Why BatchNorm helps: VGG-A without it and with it, measured on the way and at the end.

COMMAND   python -m vgg_jax.landscape --config configs/landscape.py
RUNTIME   awaits a GPU: not yet measured; configs/landscape_quick.py is for two CPU cores
EXPECTED  docs/landscape.md; not yet measured at this size
"""

from ml_collections import ConfigDict

from configs.vgg_a import get_config as vgg_a_config


def get_config() -> ConfigDict:
    config = vgg_a_config()
    config.train.batch_size = 128
    config.landscape = landscape = ConfigDict()
    landscape.seeds = 3  # networks of each kind, from config.seed on
    landscape.probe_steps = 50  # training steps between two probes along the gradient
    landscape.step_sizes = (0.01, 0.02, 0.05, 0.1, 0.2)  # e of w - e * gradient
    landscape.learning_rates = (1e-3, 2e-3, 1e-4, 5e-4)  # of the learning-rate band
    landscape.band_epochs = 5  # of the learning-rate band
    landscape.images = 1024  # training images that surfaces, sharpness and their like are measured on
    landscape.surface_points = 41  # a side; odd, so that the middle is the network itself
    landscape.surface_radius = 1.0  # in units of each filter's norm
    landscape.surface_statistics = "stored"  # BatchNorm's at every point: stored | batch (of the images)
    landscape.hessian_iterations = 30  # of Lanczos
    landscape.ascent_radius = 0.01  # of the worst case, in units of each filter's norm
    landscape.ascent_steps = 20
    return config
