"""Progressive resizing: smaller images, which cost less, in the first part of a run (Howard 2018)."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from vgg_jax.datasets.batches import Batch


def small_at_first(gradients: Callable[..., Any], size: int, steps: int) -> Callable[..., Any]:
    """gradients(params, batch_stats, batch, key) -> the same with the step as a first argument; size x size at first.

    One program has both sizes and takes longer to compile.
    """

    def small(params: Any, batch_stats: Any, batch: Batch, key: jax.Array) -> Any:
        return gradients(params, batch_stats, resized(batch, size), key)

    def of_step(step: jax.Array, *given: Any) -> Any:
        return lax.cond(step < steps, small, gradients, *given) if steps else gradients(*given)

    return of_step


def resized(batch: Batch, size: int) -> Batch:
    """The batch with its images scaled to [N, size, size, C]."""
    images = batch["image"]
    return batch | {"image": jax.image.resize(images, (len(images), size, size, images.shape[-1]), "linear")}
