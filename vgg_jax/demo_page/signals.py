"""What passes through a network on its way from image to logits: maps of its stages, BatchNorm's input and output."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from vgg_jax.model import layers
from vgg_jax.model.vgg import VGG


class Signals(NamedTuple):
    """What one pass gives, [N, H, W, C] by stage.

    Attributes:
      logits: [N, classes].
      maps: of the stage's last layer.
      values: input and output of the stage's last BatchNorm; without one, output of the last 3x3 convolution and None.
    """

    logits: jax.Array
    maps: dict[str, jax.Array]
    values: dict[str, tuple[jax.Array, jax.Array | None]]


def watch(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    added: dict[str, jax.Array] | None = None,
    dropout_key: jax.Array | None = None,
) -> Signals:
    """One pass in evaluation mode.

    A VGG's stages end at its max-pools, and a map is what the stage's last block gives. In a network of your own
    a stage is all layers with maps of one size, and a map is what a convolution gives.

    Args:
      images: normalised, [N, H, W, 3].
      added: by stage, what is added to its maps on the way (zeros, to differentiate by them).
      dropout_key: with one, dropout drops as in training, while BatchNorm stays as it is.
    """
    wanted = _last_layers(model, variables, images)
    maps: dict[str, jax.Array] = {}
    values: dict[str, tuple[jax.Array, jax.Array | None]] = {}
    block = ""

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal block
        layer = context.module
        block = args[3] if _is_block(context) else block
        if dropout_key is not None and _is_off(layer) and context.method_name == "__call__":
            return _drop(layer, call, args[0])
        output = call(*args, **kwargs)
        name = _name(model, context, args, output)
        if (stage := wanted.get(name)) and stage not in maps:
            maps[stage] = output = output + added[stage] if added and stage in added else output
        if context.method_name == "__call__" and isinstance(layer, (nn.BatchNorm, nn.Conv)) and output.ndim == 4:
            _keep(values, _stage(model, block or str(layer.name), output), layer, args[0], output)
        return output

    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    with nn.intercept_methods(record):
        logits: Any = model.apply(variables, images, train=False, rngs=rngs)
    return Signals(logits, maps, values)


def _keep(values: dict[str, Any], stage: str, layer: nn.Module, given: jax.Array, output: jax.Array) -> None:
    """Take note of a call for `Signals.values`: a BatchNorm counts more than a convolution."""
    normalised = stage in values and values[stage][1] is not None
    if isinstance(layer, nn.BatchNorm):
        values[stage] = (given, output)
    elif isinstance(layer, nn.Conv) and layer.kernel_size not in (1, (1, 1)) and not normalised:
        values[stage] = (output, None)


def dropouts(model: nn.Module, variables: Any, images: jax.Array) -> dict[str, float]:
    """The rate of every dropout layer that drops anything, by its name."""
    found: dict[str, float] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if rate(context.module):
            found["/".join(context.module.path)] = rate(context.module)
        return call(*args, **kwargs)

    _trace(model, variables, images, record)
    return found


def rate(layer: nn.Module) -> float:
    """The share that a layer drops in training, 0 for all but dropout layers."""
    return layer.rate if isinstance(layer, (layers.Dropout, nn.Dropout)) else 0.0


def _drop(layer: Any, call: Callable, x: jax.Array) -> jax.Array:
    """What a dropout layer gives in training."""
    if isinstance(layer, layers.Dropout):
        return call(x, True)
    active = layer.clone(parent=None, deterministic=False)
    return active.apply({}, x, rngs={active.rng_collection: layer.make_rng("dropout")})


def _is_off(layer: nn.Module) -> bool:
    """Whether it is a dropout layer that drops nothing now; an active copy that `_drop` calls is seen as well."""
    return rate(layer) > 0 and getattr(layer, "deterministic", None) is not False


def _last_layers(model: nn.Module, variables: Any, images: jax.Array) -> dict[str, str]:
    """{name of the layer: stage} of the last layer in every stage."""
    last: dict[str, str] = {}

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if name := _name(model, context, args, output):
            last[_stage(model, name, output)] = name
        return output

    _trace(model, variables, images, record)
    return {name: stage for stage, name in last.items()}


def _trace(model: nn.Module, variables: Any, images: jax.Array, record: Any) -> None:
    with nn.intercept_methods(record):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)


def _name(model: nn.Module, context: nn.module.InterceptorContext, args: Any, output: Any) -> str:
    """The name of a call whose output is maps that a stage may end with, else ""."""
    if isinstance(model, VGG):
        return args[3] if _is_block(context) else ""
    called = isinstance(context.module, nn.Conv) and context.method_name == "__call__"
    return "/".join(context.module.path) if called and output.ndim == 4 else ""


def _is_block(context: nn.module.InterceptorContext) -> bool:
    return isinstance(context.module, VGG) and context.method_name == "_block"


def _stage(model: nn.Module, name: str, output: jax.Array) -> str:
    if isinstance(model, VGG) and (number := re.search(r"\d+", name)):
        return f"stage {number[0]}"
    return f"{output.shape[1]}x{output.shape[2]}"
