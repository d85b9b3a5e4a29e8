"""Progressive resizing: smaller images, which cost less, in the first part of a run (Howard 2018)."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def small_at_first(gradients: Callable[..., Any], size: int, steps: int) -> Callable[..., Any]:
    """gradients(params, batch_stats, batch, key) -> the same with a step before them; size x size in the first steps.

    One program has both sizes and takes longer to compile. Under `vmap` over runs it computes both in each step.
    """

    def small(params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        images = batch["image"]
        shape = len(images), size, size, images.shape[-1]
        return gradients(params, batch_stats, batch | {"image": jax.image.resize(images, shape, "linear")}, key)

    def of_step(step: jax.Array, *given: Any) -> Any:
        return lax.cond(step < steps, small, gradients, *given) if steps else gradients(*given)

    return of_step
