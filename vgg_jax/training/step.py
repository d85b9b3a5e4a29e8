"""The training step and its chunks: pure functions on a `TrainState`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn, struct
from jax import lax

from vgg_jax.datasets.batches import DROPOUT, INIT, Batch, epoch_order, make_get_batch, normalise
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.network import make_model
from vgg_jax.settings.config import micro_batches
from vgg_jax.settings.fields import Config
from vgg_jax.training.optim import make_parts
from vgg_jax.training.resizing import small_at_first
from vgg_jax.training.sharding import ONE_DEVICE, Placement

_NO_IMAGES = np.zeros((1, 32, 32, 3), np.float32)


class TrainState(struct.PyTreeNode):
    """All that changes in training; with the config and the data it determines the rest of a run.

    Attributes:
      step: scalar int32, optimizer steps done.
      key: the run's PRNG key, never changed; all randomness is folded in from it and the step.
      params, batch_stats: the variables of `VGG`; batch_stats is {} without BatchNorm and whitening.
      average: moving average of params and batch_stats after every step, or {} when none is kept.
      opt_state: the optax optimizer's state.
      sums: totals since the last log point: loss, correct and count (summed over examples), and
        bad_step, the first step whose loss was not finite, or -1.
    """

    step: jax.Array
    key: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    sums: dict[str, jax.Array]
    average: Any

    @property
    def trained(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate: the average if one is kept, else the trained ones."""
        return self.average or self.trained


class Recipe(NamedTuple):
    """The training part of a config, as functions and numbers."""

    model: nn.Module
    axis_name: str  # a mapped axis to average over, or ""
    schedule: optax.Schedule
    optimizer: optax.GradientTransformationExtraArgs
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    slices: int  # micro-batches in a batch
    average: float  # decay of the moving average, or 0
    small: tuple[int, int]  # side of the images in the first so many steps
    steps_per_epoch: int
    total_steps: int


def make_recipe(config: Config, num_classes: int, train_size: int, axis_name: str = "") -> Recipe:
    steps = train_size // config.train.batch_size
    model = make_model(config, num_classes, axis_name)
    schedule, optimizer, loss = make_parts(config, steps)
    slices, total = micro_batches(config), steps * config.train.epochs
    side, part = config.augment.small_size, config.augment.small_part
    small = side, round(part * total) if side else 0
    return Recipe(model, axis_name, schedule, optimizer, loss, slices, config.train.average, small, steps, total)


def first_images(config: Config, dataset: Dataset) -> jax.Array:
    """Images [N, H, W, 3] to initialise a network with; only a whitening layer uses more than their size."""
    enough = max(1, 5000 * 32**2 // dataset.images[0, :, :, 0].size) if config.model.whitening else 1
    return normalise(dataset.sample(enough).images, dataset.mean, dataset.std)


def init_state(recipe: Recipe, seed: jax.typing.ArrayLike, images: jax.Array | np.ndarray = _NO_IMAGES) -> TrainState:
    """The state before the first step. images: `first_images`."""
    key = jax.random.key(seed)
    variables = recipe.model.init(jax.random.fold_in(key, INIT), images, train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    trained = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        batch_stats=batch_stats,
        opt_state=recipe.optimizer.init(params),
        sums=zero_sums(),
        average=jax.tree.map(jnp.copy, trained) if recipe.average else {},
    )


def zero_sums() -> dict[str, jax.Array]:
    return {
        "loss": jnp.zeros(()),
        "correct": jnp.zeros((), jnp.int32),
        "count": jnp.zeros((), jnp.int32),
        "bad_step": jnp.full((), -1, jnp.int32),
    }


def training_loss(
    recipe: Recipe, params: Any, batch_stats: Any, batch: Batch, dropout_key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    """Mean loss of a batch in training mode, and (logits, new batch_stats)."""
    logits: Any
    logits, updated = recipe.model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
    )
    loss = recipe.loss(logits, batch["label"])
    if "other" in batch:  # mixed images; the gradient is that against a mixed target
        loss = batch["share"] * loss + (1 - batch["share"]) * recipe.loss(logits, batch["other"])
    return loss.mean(), (logits, updated.get("batch_stats", {}))


def step_dropout_key(state: TrainState) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step)


def make_gradients(
    recipe: Recipe, placement: Placement = ONE_DEVICE
) -> Callable[[Any, Any, Batch, jax.Array], tuple[Any, Any, dict[str, jax.Array]]]:
    """gradients(params, batch_stats, batch, dropout key) -> (mean gradients, new batch_stats, metrics).

    With micro-batches (slices), each device processes its own one after the other: activations stay small
    and devices synchronise once a step. BatchNorm then normalises by each slice's statistics (ghost
    BatchNorm, Hoffer et al. 2017); their mean updates the running statistics once a step.
    """

    def whole(params: Any, batch_stats: Any, batch: Batch, key: jax.Array) -> tuple[Any, Any, dict[str, jax.Array]]:
        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            return training_loss(recipe, params, batch_stats, batch, key)

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return grads, batch_stats, {"loss": loss, "accuracy": jnp.mean(logits.argmax(-1) == batch["label"])}

    def mean(shared: tuple[Any, Any, jax.Array], slices: tuple[jax.Array, Batch]) -> Any:
        params, batch_stats, key = shared

        def add_one(sums: Any, one: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            more = whole(params, batch_stats, one[1], jax.random.fold_in(key, one[0]))
            return jax.tree.map(jnp.add, sums, more), None

        zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
        sums = lax.scan(add_one, (*jax.tree.map(jnp.zeros_like, (params, batch_stats)), zeros), slices)[0]
        return jax.tree.map(lambda x: x / len(slices[0]), sums)

    def sliced(params: Any, batch_stats: Any, batch: Batch, key: jax.Array) -> tuple[Any, Any, dict[str, jax.Array]]:
        slices = jax.tree.map(lambda x: x.reshape(recipe.slices, -1, *x.shape[1:]), batch)
        return placement.mean(mean)((params, batch_stats, key), (jnp.arange(recipe.slices), slices))

    return whole if recipe.slices == 1 else sliced


def make_train_step(
    recipe: Recipe, placement: Placement = ONE_DEVICE
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """train_step(state, `Batch` of normalised images [B, H, W, 3]) -> (state, metrics).

    With the recipe's axis_name set, gradients, BatchNorm statistics and metrics are averaged over
    that mapped axis, so the same step runs under `pmap`.
    """
    axis = recipe.axis_name
    gradients = small_at_first(make_gradients(recipe, placement), *recipe.small)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        dropout_key = step_dropout_key(state)
        if axis:
            dropout_key = jax.random.fold_in(dropout_key, lax.axis_index(axis))
        grads, batch_stats, metrics = gradients(state.step, state.params, state.batch_stats, batch, dropout_key)
        if axis:
            grads, metrics = lax.pmean((grads, metrics), axis)

        def elsewhere(params: Any, _: int) -> Any:
            grads = gradients(state.step, params, state.batch_stats, batch, dropout_key)[0]
            return lax.pmean(grads, axis) if axis else grads

        updates, opt_state = recipe.optimizer.update(grads, state.opt_state, state.params, grad_fn=elsewhere)
        params = optax.apply_updates(state.params, updates)
        state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        if recipe.average:
            share = _share_of_newest(recipe.average, state.step)
            state = state.replace(average=optax.incremental_update(state.trained, state.average, share))
        return state, metrics

    return train_step


def _share_of_newest(decay: float, steps: jax.Array) -> jax.Array:
    """What the newest of so many weights has in their moving average: 1 at first, 1 - decay at last.

    (1 - decay) / (1 - decay^steps): the average has no trace of the initialisation, like Adam's (Kingma & Ba 2015).
    """
    return (1 - decay) / -jnp.expm1(steps * math.log(decay))


def add_metrics(
    sums: dict[str, jax.Array], metrics: dict[str, jax.Array], batch_size: int, step: jax.Array
) -> dict[str, jax.Array]:
    """sums with one step's metrics added."""
    bad = (sums["bad_step"] < 0) & ~jnp.isfinite(metrics["loss"])
    return {
        "loss": sums["loss"] + metrics["loss"] * batch_size,
        "correct": sums["correct"] + jnp.round(metrics["accuracy"] * batch_size).astype(jnp.int32),
        "count": sums["count"] + batch_size,
        "bad_step": jnp.where(bad, step, sums["bad_step"]),
    }


def make_train_chunk(
    config: Config, recipe: Recipe, dataset: Dataset, placement: Placement = ONE_DEVICE, train_step: Any = None
) -> Callable[[TrainState, Batch, jax.typing.ArrayLike], TrainState]:
    """train_chunk(state, data, n) -> the state n steps on, all within one epoch.

    train_step: one of your own, as `make_train_step` makes them; its metrics are loss and accuracy.

    n is an argument, not a constant: one compiled program serves chunks of any length, which does
    not change the results. data is {"image": [N, H, W, 3] uint8, "label": [N]}. Each batch is split
    over the devices of placement; random draws do not depend on them.
    """
    train_step = train_step or make_train_step(recipe, placement)
    get_batch = make_get_batch(config, dataset)

    def train_chunk(state: TrainState, data: Batch, n: jax.typing.ArrayLike) -> TrainState:
        order = epoch_order(state.key, state.step // recipe.steps_per_epoch, len(dataset))

        def body(_: jax.Array, state: TrainState) -> TrainState:
            done, metrics = train_step(state, placement.split(get_batch(state.key, state.step, data, order)))
            return done.replace(sums=add_metrics(state.sums, metrics, config.train.batch_size, state.step))

        return lax.fori_loop(0, n, body, state)

    return train_chunk
