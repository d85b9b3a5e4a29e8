"""How far every 3x3 convolution of a network is from float64: a table of the output's and both gradients' errors.

python -m benchmarks.rounding [--config configs/bn.py] [--images 8] [--json FILE]
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.model import layers
from vgg_jax.model.chain import chain, walk
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config

DTYPES = ("float32", "bfloat16")


class Shape(NamedTuple):
    """A convolution: maps of side x side pixels with so many channels, to others of the same size."""

    side: int
    inputs: int
    outputs: int


def shapes(config: Config) -> list[Shape]:
    """The different 3x3 convolutions of a config's network, in its order."""
    found, side = {}, config.data.image_size
    for layer in walk(chain(config.model, 10, side)):
        if layer.kind == "pool":
            side //= 2
        elif layer.kind == "conv" and layer.size == 3:
            found[Shape(side, layer.inputs, layer.outputs)] = None
    return list(found)


def measure(shape: Shape, images: int) -> dict[str, list[float]]:
    """By dtype: ||computed - exact|| / ||exact|| of the output, of the images' and of the kernel's gradient.

    Images, kernel and the output's gradient are random and normal. They are rounded to the dtype first, as in training;
    exact is what float64 makes of them unrounded.
    """
    side, inputs, outputs = shape
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((images, side, side, c)) for c in (inputs, outputs))
    kernel = rng.standard_normal((3, 3, inputs, outputs)) * (2 / (9 * inputs)) ** 0.5
    exact = _run(lax.conv_general_dilated, *(jnp.asarray(array) for array in (x, kernel, dy)))
    found = {}
    for dtype in DTYPES:
        computed = _run(layers.conv_general_dilated, *(jnp.asarray(array, dtype) for array in (x, kernel, dy)))
        found[dtype] = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(computed, exact)]
    return found


def _run(conv: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, dy: jax.Array) -> list[np.ndarray]:
    layout = ("NHWC", "HWIO", "NHWC")
    output, pullback = jax.vjp(lambda x, kernel: conv(x, kernel, (1, 1), "SAME", dimension_numbers=layout), x, kernel)
    return [np.asarray(array, np.float64) for array in (output, *pullback(dy))]


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"default": "configs/bn.py", "help": "the network's config; default configs/bn.py"},
        "--images": {"type": int, "default": 8, "help": "random images at once; default 8"},
        "--json": {"type": flags.path, "help": "where to write the figures"},
    })  # fmt: skip
    config, rows = configs.load(given.config, overrides), []
    if code.of(config, "get_model"):
        raise UserError(f"{given.config} has a network of its own; this is for a VGG")
    parts = ("output", "images' gradient", "kernel's gradient")
    print("| convolution | " + " | ".join(f"{dtype}, {part}" for dtype in DTYPES for part in parts) + " |")
    print("|" + " --- |" * 7)
    for shape in shapes(config):
        with jax.enable_x64():
            found = measure(shape, given.images)
        rows.append(shape._asdict() | found)
        cells = [f"{error:.1e}" for dtype in DTYPES for error in found[dtype]]
        print(f"| {shape.side}x{shape.side}, {shape.inputs} to {shape.outputs} | {' | '.join(cells)} |", flush=True)
    if given.json:
        Path(given.json).write_text(json.dumps({"images": given.images, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    errors.run(main)
