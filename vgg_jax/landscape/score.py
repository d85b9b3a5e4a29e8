"""The loss that the study looks at around a network: on fixed training images, without dropout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vgg_jax.datasets.batches import normalise
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape.surface import Score
from vgg_jax.model import layers
from vgg_jax.settings.fields import Config
from vgg_jax.training.optim import make_loss

# BatchNorm's statistics as weights move: the run's running averages, or those of the images at every point anew.
STATISTICS = ("stored", "recomputed")


def make_score(config: Config, model: nn.Module, chosen: Dataset, statistics: str) -> Score:
    """score(params, batch_stats) -> (mean loss, accuracy) on the chosen images, not augmented."""
    pictures, labels = normalise(jnp.asarray(chosen.images), chosen.mean, chosen.std), jnp.asarray(chosen.labels)
    loss = make_loss(config)

    def score(params: Any, batch_stats: Any) -> tuple[jax.Array, jax.Array]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any
        if statistics == "recomputed":
            logits, _ = in_training(model, variables, pictures)
        else:
            logits = model.apply(variables, pictures, train=False)
        return loss(logits, labels).mean(), jnp.mean(logits.argmax(-1) == labels)

    return score


def in_training(model: nn.Module, variables: Any, images: jax.Array) -> tuple[Any, Any]:
    """(logits, new batch_stats) in training mode, but without dropout, also of a network of one's own."""

    def without(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        drops = isinstance(context.module, (nn.Dropout, layers.Dropout)) and context.method_name == "__call__"
        return args[0] if drops else call(*args, **kwargs)

    with nn.intercept_methods(without):
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])  # type: ignore[misc]
    return logits, updated.get("batch_stats", {})


def settled(model: nn.Module, variables: Any, images: jax.Array) -> Any:
    """variables with BatchNorm's statistics those of images [N, H, W, 3], as after many passes over them.

    A running average goes from s to m s + (1 - m) t. From s = 0 and s = 1 follow m and t, for any momentum m.
    """
    stats = variables.get("batch_stats", {})

    def after(start: float) -> Any:
        begun = jax.tree.map(lambda s: jnp.full_like(s, start), stats)
        return in_training(model, variables | {"batch_stats": begun}, images)[1]

    found = jax.tree.map(lambda from_0, from_1: from_0 / (1 - (from_1 - from_0)), after(0.0), after(1.0))
    return variables | {"batch_stats": found}
