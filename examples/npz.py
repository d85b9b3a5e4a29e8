"""Your own images from an .npz file with train_images, train_labels, test_images and test_labels.

COMMAND   python -m vgg_jax.main --config examples/npz.py --config.own.file=my.npz --config.data.image_size=SIDE
RUNTIME   depends on the network and the images
EXPECTED  depends on the images
"""

import numpy as np
from ml_collections import ConfigDict

from configs.quickstart import get_config as quickstart_config
from vgg_jax import Dataset, data


def get_data(config: ConfigDict) -> dict[str, Dataset]:
    """Images uint8 [N, H, W, 3]; labels [N], whole numbers from 0. Some training images are held out."""
    with np.load(config.own.file) as arrays:
        splits = {split: (arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test")}
    given = config.data
    return data(**splits, normalization=given.normalization, validation_size=given.validation_size, seed=given.seed)


def get_config() -> ConfigDict:
    config = quickstart_config()
    config.own = ConfigDict({"file": "my.npz"})  # read only by get_data
    return config
