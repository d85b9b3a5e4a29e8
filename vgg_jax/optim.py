"""Learning-rate schedules, optimizers and losses, from the config."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vgg_jax.types import Config

LOSSES = ("cross_entropy", "squared_error")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "milestones", "cosine", "one_cycle")


def make_schedule(config: Config, steps_per_epoch: int) -> optax.Schedule:
    """step -> learning rate. Epochs in the config are counted from the start, warm-up included."""
    peak, c = config.optimizer.learning_rate, config.schedule
    total = config.train.epochs * steps_per_epoch
    warmup = min(round(c.warmup_epochs * steps_per_epoch), total - 1)
    if c.name == "one_cycle":
        return optax.cosine_onecycle_schedule(total, peak, c.peak)
    if c.name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, total)
    drops: list[int] = []
    if c.name == "step":
        count = int(config.train.epochs / c.decay_epochs)
        drops = [round((i + 1) * c.decay_epochs * steps_per_epoch) for i in range(count)]
    elif c.name == "milestones":
        drops = [round(epoch * steps_per_epoch) for epoch in c.milestones]
    boundaries = jnp.array(sorted(min(step, 2**31 - 1) for step in drops), jnp.int32)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        rate = peak * c.decay_rate ** jnp.sum(step >= boundaries)
        return rate * jnp.minimum(1.0, step / warmup) if warmup else rate

    return schedule


def make_optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD and Adam take weight decay as an L2 gradient (PyTorch's convention), AdamW decoupled."""
    c = config.optimizer
    mask = is_kernel if c.decay == "kernels" else None
    if c.name == "adamw":
        return optax.adamw(schedule, weight_decay=c.weight_decay, mask=mask)
    update = optax.sgd(schedule, c.momentum or None, c.nesterov) if c.name == "sgd" else optax.adam(schedule)
    return optax.chain(optax.add_decayed_weights(c.weight_decay, mask), update) if c.weight_decay else update


def is_kernel(params: Any) -> Any:
    """A tree of bools: True for the kernels of convolutions and dense layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_loss(config: Config) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(logits [N, C], labels [N]) -> loss of each example [N].

    cross_entropy is in nats; squared_error is the mean over classes of (logit - target)^2.
    Targets are one-hot, mixed with uniform ones by label_smoothing.
    """
    squared, smoothing = config.loss.name == "squared_error", config.loss.label_smoothing

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
        if squared:
            return jnp.mean((logits - targets) ** 2, -1)
        return optax.softmax_cross_entropy(logits, targets)

    return loss
