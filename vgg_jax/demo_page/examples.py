"""Example pictures: from the run's own test images, where these lie on this machine already."""

from typing import NamedTuple

import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.datasets import cifar
from vgg_jax.evaluation.trained import TrainedRun
from vgg_jax.settings import code

COUNT = 12


class Example(NamedTuple):
    """A test image, uint8 [S, S, 3], and the name of its class."""

    pixels: np.ndarray
    label: str


def examples(run: TrainedRun) -> tuple[list[Example], str]:
    """Test images of different classes as far as they go, and a sentence that says where they are from.

    Nothing is downloaded for them: without the data there are none, and the sentence says so.
    """
    name, data_dir = run.config.data.name, run.config.data.data_dir
    try:
        standard = name in cifar.SOURCES and not code.of(run.config, "get_data")
        if standard and not cifar.find_prepared(name, cifar.find_root(data_dir)):
            return [], (
                f"No examples: {name} is not on this machine, and the demo downloads nothing. If you have it, start "
                "the demo with --config.data.data_dir=DIR."
            )
        dataset = run.data("test").sample(500)
    except (UserError, OSError) as error:
        return [], f"No examples: {error}"
    order = np.argsort([int((dataset.labels[:i] == y).sum()) for i, y in enumerate(dataset.labels)], kind="stable")
    chosen = [Example(dataset.images[i], dataset.class_names[dataset.labels[i]]) for i in order[:COUNT]]
    return chosen, "Examples from the first run's test images:"
