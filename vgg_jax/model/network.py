"""The network of a config; its parameters and multiply-adds."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from vgg_jax.console.errors import UserError
from vgg_jax.model.vgg import VGG
from vgg_jax.settings import code
from vgg_jax.settings.fields import Config


def make_model(config: Config, num_classes: int, axis_name: str = "") -> nn.Module:
    """A `VGG`, or the module from the config's own `get_model`: any Linen module that takes `train=`.

    Its variables are `params` and `batch_stats`; its only RNG in training is `dropout`. axis_name is
    passed to a `VGG`, for `pmap`.

    Raises: UserError when `get_model` returns something else.
    """
    if get_model := code.of(config, "get_model"):
        with code.blamed(config, "the network"):
            model = get_model(config, num_classes)
        if not isinstance(model, nn.Module):
            raise UserError(f"get_model returns {type(model).__name__}, not a flax.linen.Module")
        return model
    fields: Any = config.model
    return VGG(num_classes=num_classes, axis_name=axis_name, **fields)


def check(config: Config, num_classes: int) -> None:
    """Call a network of one's own as training and evaluation will, without computing anything.

    Raises: UserError when it fails, or gives something else than logits [N, num_classes].
    """
    if not code.of(config, "get_model"):
        return
    sides, key, found = [config.data.image_size, config.augment.small_size], jax.random.key(0), []
    model = make_model(config, num_classes)
    with code.blamed(config, "the network"):
        variables = shapes(model, sides[0])
        train: Any = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        for side in filter(None, sides):
            images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
            found += [jax.eval_shape(functools.partial(model.apply, train=False), variables, images)]
            found += [jax.eval_shape(lambda v, x: train(v, x, rngs={"dropout": key})[0], variables, images)]
    for logits in found:
        if getattr(logits, "shape", None) != (2, num_classes):
            raise UserError(
                f"the network of get_model gives {getattr(logits, 'shape', type(logits).__name__)} for 2 images and "
                f"{num_classes} classes, not logits (2, {num_classes})"
            )


def shapes(model: nn.Module, image_size: int) -> Any:
    """The variables' shapes and dtypes."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)


class LayerCount(NamedTuple):
    name: str
    parameters: int  # 0 where the layer was called before
    multiply_adds: int  # per image


def count(model: nn.Module, image_size: int = 32) -> list[LayerCount]:
    """Parameters and multiply-adds of every convolution, dense layer and BatchNorm, in the order of the network.

    Only convolutions and dense layers have multiply-adds: kernel elements x output pixels.
    """
    return _traced(model, image_size)[1]


def _traced(model: nn.Module, image_size: int) -> tuple[Any, list[LayerCount]]:
    """`shapes` and `count`, by one trace."""
    rows, seen = [], set()

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        layer = context.module
        if isinstance(layer, (nn.Conv, nn.Dense, nn.BatchNorm)) and context.method_name == "__call__":
            leaves = layer.variables.get("params", {})
            pixels = math.prod(output.shape[1:-1])
            multiply_adds = leaves["kernel"].size * pixels if "kernel" in leaves else 0
            parameters = 0 if layer.path in seen else sum(leaf.size for leaf in leaves.values())
            seen.add(layer.path)
            rows.append(LayerCount(str(layer.name), parameters, multiply_adds))
        return output

    with nn.intercept_methods(record):
        return shapes(model, image_size), rows


def totals(model: nn.Module, image_size: int) -> dict[str, int]:
    """The network's "parameters", and its "multiply_adds" per image."""
    variables, rows = _traced(model, image_size)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "multiply_adds": sum(row.multiply_adds for row in rows),
    }


def line(config: Config, num_classes: int) -> str:
    """One line that describes a config's network."""
    total = totals(make_model(config, num_classes), config.data.image_size)
    own = code.of(config, "get_model")
    name = "own network" if own else f"VGG {config.model.stages}, BatchNorm {config.model.batch_norm}"
    return f"{name}: {total['parameters']:,} parameters, {total['multiply_adds'] / 1e6:,.1f} M multiply-adds an image"
