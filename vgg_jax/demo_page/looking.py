"""One picture through one run: probabilities, where the network looked, what each stage made of it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import normalise
from vgg_jax.demo_page import signals
from vgg_jax.evaluation.trained import TrainedRun
from vgg_jax.landscape import interpret
from vgg_jax.model import scores

DRAWS = 30  # passes with dropout on
SHOWN = 8  # maps of a stage
SMALLEST = 4  # a map of fewer cells a side does not say where


class Stage(NamedTuple):
    """What a stage made of a picture.

    Attributes:
      name: "stage 1", or the size of the maps in a network of one's own.
      shape: (H, W, C) of its maps.
      strongest: the SHOWN maps [K, H, W] with the highest means, strongest first.
      off: the share of all maps' elements that are not above zero.
      values: input and output of the stage's last BatchNorm [H, W, C]; without one, output of the last 3x3 convolution
        and None; None without either.
    """

    name: str
    shape: tuple[int, ...]
    strongest: np.ndarray
    off: float
    values: tuple[np.ndarray, np.ndarray | None] | None


class Look(NamedTuple):
    """What a network saw in a picture.

    Attributes:
      pixels: what the network was shown, uint8 [S, S, 3].
      probabilities: [classes].
      saliency: [S, S], of the class with the highest probability.
      evidence: Grad-CAM of that class, [H, W] of the stage `evidence_stage`.
      draws: probabilities with dropout on, [DRAWS, classes]; None for a network that has none.
      rates: of its dropout layers, by name.
    """

    pixels: np.ndarray
    probabilities: np.ndarray
    saliency: np.ndarray
    evidence: np.ndarray | None
    evidence_stage: str
    stages: list[Stage]
    draws: np.ndarray | None
    rates: dict[str, float]


class Looker:
    """A run with its one compiled program."""

    def __init__(self, run: TrainedRun):
        self.run = run
        size = run.config.data.image_size
        self._blank = np.zeros((1, size, size, 3), np.uint8)
        self._rates = signals.dropouts(run.model, run.variables, jnp.zeros(self._blank.shape, jnp.float32))
        self._program = jax.jit(functools.partial(_look, run.model, run.mean, run.std, bool(self._rates)))

    def compile(self) -> None:
        """Compile and run once, so that the first picture does not wait for it."""
        jax.block_until_ready(self._program(self.run.variables, self._blank, jax.random.key(0)))

    def look(self, pixels: np.ndarray) -> Look:
        """Look at one picture, uint8 [S, S, 3]; the same picture gives the same draws.

        Raises: UserError when the network had diverged.
        """
        found = jax.device_get(self._program(self.run.variables, pixels[None], jax.random.key(0)))
        if not np.isfinite(found["logits"]).all():
            raise UserError(f"the network of {self.run.workdir} had diverged: its outputs are not finite")
        temperature = self.run.temperature
        stages = [_stage(name, maps[0], found["values"].get(name)) for name, maps in _in_order(found["maps"])]
        where = evidence_stage({name: maps.shape for name, maps in found["maps"].items()})
        return Look(
            pixels,
            scores.softmax(found["logits"] / temperature).astype(np.float32)[0],
            found["saliency"][0],
            found["evidence"][0] if where else None,
            where,
            stages,
            scores.softmax(found["draws"] / temperature).astype(np.float32) if self._rates else None,
            self._rates,
        )


def _in_order(maps: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Stages from the image on; jit sorts a dict by its names."""
    return sorted(maps.items(), key=lambda item: (-item[1].shape[1], item[0]))


def _look(
    model: Any, mean: Any, std: Any, drops: bool, variables: Any, images: jax.Array, key: jax.Array
) -> dict[str, Any]:
    """The compiled part, for uint8 images [1, S, S, 3]."""
    pixels = normalise(images, mean, std)
    seen = signals.watch(model, variables, pixels)
    label = seen.logits.argmax(-1)
    found = {
        "logits": seen.logits,
        "maps": seen.maps,
        "values": seen.values,
        "saliency": interpret.saliency(model, variables, pixels, label),
    }
    if where := evidence_stage({name: maps.shape for name, maps in seen.maps.items()}):

        def logit(added: jax.Array) -> jax.Array:
            return signals.watch(model, variables, pixels, {where: added}).logits[0, label[0]]

        gradients = jax.grad(logit)(jnp.zeros_like(seen.maps[where]))
        found["evidence"] = interpret.class_evidence(seen.maps[where], gradients)
    if drops:
        found["draws"] = signals.watch(model, variables, jnp.repeat(pixels, DRAWS, 0), dropout_key=key).logits
    return found


def evidence_stage(shapes: dict[str, tuple[int, ...]]) -> str:
    """The last stage with maps of at least SMALLEST cells a side, or the first where none has; "" without maps."""
    ordered = sorted(shapes, key=lambda name: (-shapes[name][1], name))
    large = [name for name in ordered if min(shapes[name][1:3]) >= SMALLEST]
    return (large[-1:] or ordered[:1] or [""])[0]


def _stage(name: str, maps: np.ndarray, values: Any) -> Stage:
    strongest = np.argsort(-maps.mean((0, 1)), kind="stable")[:SHOWN]
    through = (values[0][0], None if values[1] is None else values[1][0]) if values else None
    return Stage(name, maps.shape, np.moveaxis(maps[..., strongest], -1, 0), float((maps <= 0).mean()), through)
