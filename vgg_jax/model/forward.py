"""A network in evaluation mode: uint8 images to logits, with or without test-time augmentation."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import normalise

EVAL_BATCH = 512  # images of 32x32, a power of two
IN_FLIGHT = 8  # batches dispatched ahead; with more than 32, several CPU devices wait for each other until JAX aborts

Forward = Callable[[Any, jax.Array], jax.Array]  # (variables, uint8 images [B, H, W, 3]) -> logits [B, classes]


def make_forward(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Forward:
    """forward(variables, uint8 images [B, H, W, 3]) -> logits [B, classes] float32, compiled for each B."""
    return jax.jit(lambda variables, images: model.apply(variables, normalise(images, mean, std), train=False))


def make_features(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Forward:
    """As `make_forward`, but gives the input of the network's last dense layer, [B, F] float32.

    Raises: UserError when the network has none.
    """

    def features(variables: Any, images: jax.Array) -> jax.Array:
        inputs = []

        def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
                inputs.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            model.apply(variables, normalise(images, mean, std), train=False)
        if not inputs:
            raise UserError("the network has no dense layer, whose input would be its features")
        return inputs[-1].astype(np.float32)

    return jax.jit(features)


def batch_for(count: int, side: int) -> int:
    """The batch in which so many images of side x side are evaluated, fewer of larger ones.

    It is a power of two, so that few programs serve any number.
    """
    most = max(1, EVAL_BATCH * 32**2 // max(side, 32) ** 2)
    return min(1 << (most.bit_length() - 1), 1 << (count - 1).bit_length())


def predict(
    forward: Forward,
    variables: Any,
    images: np.ndarray,
    batch_size: int = 0,
    tta: str = "none",
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Logits [N, classes] of uint8 images [N, H, W, 3], weighted over `views`; all batches have one compiled size.

    Args:
      batch_size: 0 for `batch_for` these images.
      known: the logits of the images themselves, where there are some, so that they are not computed again.
    """
    batch_size = batch_size or batch_for(*images.shape[:2])
    weighted = views(images, tta)
    weight, itself = next(weighted)
    logits = weight * (_predict(forward, variables, itself, batch_size) if known is None else known)
    return sum((w * _predict(forward, variables, view, batch_size) for w, view in weighted), logits)


def views(images: np.ndarray, tta: str) -> Iterator[tuple[float, np.ndarray]]:
    """The (weight, images) that test-time augmentation averages, first the images as they are.

    none: the images. flip: also their mirror images. flip_shift: also all of these shifted by a pixel
    to the upper left and the lower right, with half of the total weight (the six views of Jordan 2024).
    """
    shifted = []
    if tta == "flip_shift":
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        shifted = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    for share, view in zip([0.5, 0.25, 0.25] if shifted else [1.0], [images, *shifted]):
        if tta == "none":
            yield share, view
        else:
            yield share / 2, view
            yield share / 2, view[:, :, ::-1]


def _predict(forward: Forward, variables: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    logits: list[jax.Array] = []
    for i, start in enumerate(range(0, len(images), batch_size)):
        batch: Any = images[start : start + batch_size]
        if short := batch_size - len(batch):
            batch = np.concatenate([batch, np.zeros((short, *images.shape[1:]), images.dtype)])
        logits.append(forward(variables, batch))
        if i >= IN_FLIGHT:
            jax.block_until_ready(logits[i - IN_FLIGHT])
    return np.concatenate([np.asarray(x) for x in logits])[: len(images)]
