"""Small configs and data that the tests share."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vgg_jax.datasets.load import Dataset
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config

ROOT = Path(__file__).parent.parent
TIMING = ("images_per_second", "seconds")  # the fields of a record that a repetition changes
ALL = "VGG_JAX_ALL" in os.environ  # `make test-all`: the tests in full size

SHIPPED = "VGG_JAX_SHIPPED" in os.environ  # `make test-all`: some tests compile as users do

# A network that compiles in a second or two, on digits, which need no download.
SMALL = {
    "data.name": "digits",
    "data.train_size": "160",
    "data.validation_size": "40",
    "model.stages": "light",
    "model.width": "0.5",
    "model.hidden": "(16,)",
    "model.stage_dropout": "()",
    "train.batch_size": "32",
    "train.devices": "1",  # of the eight fake ones
    "train.epochs": "2",
}


# A config file with a network of one's own, with or without BatchNorm.
OWN_NETWORK = """'A small network of my own'
from flax import linen as nn
from configs.landscape_quick import get_config

class Halved(nn.Module):
    def setup(self):
        self.conv = nn.Conv(6, (3, 3), 2)

    def __call__(self, x):
        return self.conv(x), x

class Small(nn.Module):
    batch_norm: bool

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x) if self.batch_norm else x
        x, _ = Halved()(x)
        return nn.Dense(10)(nn.relu(x).mean((1, 2)))

def get_model(config, num_classes):
    return Small(config.model.batch_norm != "none")
"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def plain_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution as one product of patches and kernel (im2col). [N,H,W,C], [K,K,C,O] -> [N,H,W,O], K odd"""
    (_, h, w, c), size = x.shape, len(kernel)
    wide = jnp.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    seen = [wide[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
    return jnp.concatenate(seen, -1) @ kernel.reshape(size * size * c, -1)


def touch(figure: Figure, file: Path, **_: Any) -> None:
    """Replaces `Figure.savefig`."""
    file.touch()


def pmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.pmap` over "data", which JAX keeps but no longer develops."""
    if not hasattr(jax, "pmap"):
        pytest.skip("this JAX has no pmap")
    return jax.pmap(function, "data")


# The first line of programs that tests start; they find this file and the package through PYTHONPATH.
QUICK = "" if ALL else "import small; from vgg_jax.model import layers; layers.conv_cpu = small.plain_convolution\n"

PYTHONPATH = f"{ROOT}:{ROOT / 'tests'}"


def config(name: str = "default", overrides: Mapping[str, str] = SMALL, **more: Any) -> Config:
    """A shipped config made small; more: further fields, with __ for the dot: train__epochs=3."""
    given = {field.replace("__", "."): str(value) for field, value in more.items()}
    return configs.load(str(ROOT / "configs" / f"{name}.py"), dict(overrides) | given)


def flags(overrides: Mapping[str, str]) -> list[str]:
    return [f"--config.{field}={value}" for field, value in overrides.items()]


def dataset(n: int = 64, classes: int = 4, seed: int = 0, size: int = 32) -> Dataset:
    """Random images; each class a little brighter than the last."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    images = rng.integers(0, 128, (n, size, size, 3)) + 30 * labels[:, None, None, None]
    names = tuple(f"class{i}" for i in range(classes))
    return Dataset(images.astype(np.uint8), labels, names, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def write_folder(root: Path, counts: Mapping[str, int], size: int = 32) -> Path:
    """root/train/<class>/ and root/test/<class>/ with counts[class] random pictures each."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, count in counts.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{i}.png")
    return root
