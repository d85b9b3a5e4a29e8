"""The learning-rate band: one network trained at several learning rates from one initialisation."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vgg_jax.console.progress import Progress
from vgg_jax.datasets.batches import Batch, epoch_order, make_get_batch
from vgg_jax.datasets.load import Dataset
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training.optim import make_optimizer
from vgg_jax.training.step import TrainState, first_images, init_state, make_recipe, make_train_step


def train(
    config: Config, dataset: Dataset, learning_rates: Sequence[float], seeds: Sequence[int], epochs: int
) -> np.ndarray:
    """Training loss of every step [seeds, learning rates, steps]; all networks train in one program.

    Each rate replaces the schedule's peak; the seed determines initialisation and the order and
    augmentation of the images. Losses that are not finite are kept.
    """
    recipe = make_recipe(config, len(dataset.class_names), len(dataset))
    rates = jnp.tile(jnp.array(learning_rates, jnp.float32), len(seeds))
    images, init = first_images(config, dataset), jax.jit(functools.partial(init_state, recipe))
    states = [one for seed in seeds for one in [init(np.uint32(seed), images)] * len(learning_rates)]
    state = jax.tree.map(lambda *xs: jnp.stack(xs), *states)
    data = jax.device_put({"image": dataset.images, "label": dataset.labels})
    epoch = make_epoch(config, dataset)

    def step_all(many: TrainState, rates: jax.Array, data: Batch) -> tuple[TrainState, jax.Array]:
        return lax.map(lambda one: epoch(one[0], one[1], data), (many, rates))

    run = jax.jit(step_all, donate_argnums=0)
    progress, losses = Progress(epochs, "learning rates", " epochs"), []
    for _ in range(epochs):
        state, loss = run(state, rates, data)
        losses.append(np.asarray(loss))
        progress.update(1)
    progress.close()
    return np.concatenate(losses, -1).reshape(len(seeds), len(learning_rates), -1)


def make_epoch(
    config: Config, dataset: Dataset
) -> Callable[[TrainState, jax.Array, Batch], tuple[TrainState, jax.Array]]:
    """epoch(state, rate, data) -> (state an epoch later, loss of every step); rate is the schedule's peak."""
    config = configs.override(config, {"optimizer.learning_rate": "1.0"})  # the schedule is multiplied by rate
    recipe = make_recipe(config, len(dataset.class_names), len(dataset))
    get_batch = make_get_batch(config, dataset)

    def epoch(state: TrainState, rate: jax.Array, data: Batch) -> tuple[TrainState, jax.Array]:
        optimizer = make_optimizer(config, lambda step: rate * recipe.schedule(step))
        train_step = make_train_step(recipe._replace(optimizer=optimizer))
        order = epoch_order(state.key, state.step // recipe.steps_per_epoch, len(dataset))

        def body(state: TrainState, _: Any) -> tuple[TrainState, jax.Array]:
            state, metrics = train_step(state, get_batch(state.key, state.step, data, order))
            return state, metrics["loss"]

        return lax.scan(body, state, length=recipe.steps_per_epoch)

    return epoch
