"""Learning-rate schedules, optimizers and losses, from the config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vgg_jax.settings import code
from vgg_jax.settings.fields import Config


def make_parts(config: Config, steps_per_epoch: int) -> tuple[optax.Schedule, Any, Callable[..., jax.Array]]:
    """The schedule, the optimizer and the loss: those of the config's own file, else ours."""
    schedule = code.make(config, "get_schedule", make_schedule, steps_per_epoch)
    optimizer = code.make(config, "get_optimizer", make_optimizer, schedule)
    return schedule, optax.with_extra_args_support(optimizer), code.make(config, "get_loss", make_loss)


def make_schedule(config: Config, steps_per_epoch: int) -> optax.Schedule:
    """step -> learning rate. Epochs in the config are counted from the start, warm-up included."""
    peak, c = config.optimizer.learning_rate, config.schedule
    total = config.train.epochs * steps_per_epoch
    warmup = round(warmup_epochs(config) * steps_per_epoch)
    if c.name == "one_cycle":
        return optax.cosine_onecycle_schedule(total, peak, c.peak)
    if c.name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, min(warmup, total - 1), total)
    if c.name == "triangular":
        top = round(c.peak * total)
        rise = optax.linear_schedule(c.start * peak, peak, top)
        return optax.join_schedules([rise, optax.linear_schedule(peak, c.end * peak, total - top)], [top])
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


def warmup_epochs(config: Config) -> float:
    """Epochs of warm-up: the config's, or half of the run if they would fill it."""
    asked, epochs = config.schedule.warmup_epochs, config.train.epochs
    return asked if asked < epochs or config.schedule.name in ("one_cycle", "triangular") else epochs / 2


def goes_on(config: Config, longer: Config) -> bool:
    """Whether a run of more epochs has this one's learning rates and image sizes in this one's epochs."""
    if any(code.of(longer, name) for name in code.TRAINING):  # they may read train.epochs
        return False
    if config.augment.small_size and config.augment.small_part < 1:
        return False
    return warmup_epochs(config) == warmup_epochs(longer) and config.schedule.name in ("constant", "step", "milestones")


def make_optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The optimizer; its `update` takes grad_fn, (params, _) -> gradients on the same batch, for SAM.

    sgd and adam take weight decay as an L2 gradient (PyTorch's convention), sgdw and adamw decoupled.

    muon trains the convolution kernels, without decay, and sgd everything else. bias_rate multiplies
    the learning rate of every bias. sam_radius makes the gradients those at w + radius g / |g| (Foret et al. 2021),
    where g is the gradient of the whole batch; weight decay stays that at w.
    """
    optimizer = _make_optimizer(config, schedule)
    if radius := config.optimizer.sam_radius:
        optimizer = optax.contrib.sam(optimizer, optax.stateless(_uphill(radius)), opaque_mode=True)
    return optax.with_extra_args_support(optimizer)


def _uphill(radius: float) -> Callable[[Any, Any], Any]:
    """-radius g / |g|, and 0 for a gradient of 0; SAM steps against it."""

    def update(gradient: Any, _: Any) -> Any:
        norm = jnp.maximum(optax.tree.norm(gradient), 1e-12)
        return jax.tree.map(lambda g: -radius / norm * g, gradient)

    return update


def _make_optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    c = config.optimizer
    mask = functools.partial(is_named, "kernel") if c.decay == "kernels" else None
    decay = [optax.add_decayed_weights(c.weight_decay, mask)] if c.weight_decay else []
    sgd = optax.trace(c.momentum, c.nesterov) if c.momentum else optax.identity()
    rule = optax.scale_by_adam() if c.name.startswith("adam") else sgd
    steps = [rule, *decay] if c.name in ("sgdw", "adamw") else [*decay, rule]
    if c.bias_rate != 1:
        steps.append(optax.masked(optax.scale(c.bias_rate), functools.partial(is_named, "bias")))
    update = optax.chain(*steps, optax.scale_by_learning_rate(schedule))
    if c.name != "muon":
        return update
    kinds = functools.partial(jax.tree.map, lambda x: "filters" if x.ndim == 4 else "rest")
    return optax.partition({"filters": _muon(config, schedule), "rest": update}, kinds)


def _muon(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Muon (Jordan 2024) on convolution kernels as matrices [9 C, O]; every update has spectral norm ~ 1.

    Each kernel's norm is held at sqrt(O), so muon_rate is the size of a step relative to the kernel.
    """
    c = config.optimizer
    matrix = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    muon = optax.contrib.scale_by_muon(
        beta=c.muon_momentum,
        ns_steps=3,
        nesterov=True,
        weight_dimension_numbers=lambda params: jax.tree.map(lambda _: matrix, params),
    )
    rate = optax.scale_by_learning_rate(lambda step: c.muon_rate / c.learning_rate * schedule(step))
    return optax.chain(muon, rate, optax.stateless_with_tree_map(_hold_norm))


def _hold_norm(update: Any, kernel: Any) -> jax.Array:
    """The update plus a rescaling of the kernel [..., O] to norm sqrt(O)."""
    norm = jnp.maximum(jnp.linalg.norm(kernel), 1e-12)  # a kernel of zeros has no norm to hold
    return update + kernel * (jnp.sqrt(kernel.shape[-1]) / norm - 1)


def is_named(name: str, params: Any) -> Any:
    """A tree of bools: True for every leaf with that name, such as "kernel" or "bias" (BatchNorm's too)."""

    def has_name(path: tuple[Any, ...], _: Any) -> bool:
        keys = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]  # others are in boxes or lists
        return keys[-1:] == [name]

    return jax.tree_util.tree_map_with_path(has_name, params)


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
