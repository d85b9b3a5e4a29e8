"""The same weights under PyTorch's names and under Flax's: a table of both, without PyTorch.

A network of plain layers has torchvision's names (features.0.weight, classifier.6.bias), another one those of our
layers (conv1_1a.weight). Where the two differ in layout, nothing is rounded: arrays are only turned.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.model.chain import Layer, is_plain, walk

Arrays = dict[str, np.ndarray]


class Leaf(NamedTuple):
    """One array.

    Attributes:
      layer: the layer's name in Flax.
      key: its name in PyTorch.
      path: its place in Flax's variables: params/conv1_1/kernel; "" for the 1s of a BatchNorm without scale.
      shape: in PyTorch.
      to_torch, to_flax: from the one layout to the other.
    """

    layer: str
    key: str
    path: str
    shape: tuple[int, ...]
    to_torch: Callable[[np.ndarray], np.ndarray] = np.asarray
    to_flax: Callable[[np.ndarray], np.ndarray] = np.asarray


def prefixes(layers: list[Layer]) -> dict[str, str]:
    """{"conv1_1": "features.0", ...}, or every layer by its own name if torchvision has none for some."""
    if not is_plain(layers):
        return {layer.name: layer.name for layer in walk(layers)}
    middle = next(i for i, layer in enumerate(layers) if layer.kind == "flatten")
    head = enumerate(layers[middle + 1 :])
    return {layer.name: f"features.{i}" for i, layer in enumerate(layers[:middle])} | {
        layer.name: f"classifier.{i}" for i, layer in head
    }


def leaves(model: Any, layers: list[Layer]) -> list[Leaf]:
    """Every array of the network of config.model and its `chain`, in the order of the layers."""
    names = prefixes(layers)
    flatten = next(layer for layer in layers if layer.kind == "flatten")
    first = next(layer.name for layer in layers if layer.kind == "dense")
    found: list[Leaf] = []
    for layer in {layer.name: layer for layer in walk(layers)}.values():
        if layer.kind in ("conv", "whiten"):
            found += _conv(layer, names[layer.name], model.bias)
        elif layer.kind == "dense":
            found += _dense(layer, names[layer.name], model.bias, flatten if layer.name == first else None)
        elif layer.kind == "norm":
            found += _norm(layer, names[layer.name], model.batch_norm_scale)
    return found


def to_torch(table: list[Leaf], variables: Mapping[str, np.ndarray], steps: int = 0) -> Arrays:
    """PyTorch's state dict, as NumPy arrays, of Flax's variables {"params/conv1_1/kernel": ...}.

    steps: the training steps done, which PyTorch's BatchNorm counts too.
    """
    state: Arrays = {}
    for leaf in table:
        value = np.asarray(variables[leaf.path]) if leaf.path else np.ones(leaf.shape, np.float32)
        state[leaf.key] = np.array(leaf.to_torch(value), order="C")
        if leaf.key.endswith(".running_var"):
            state[leaf.key.replace("running_var", "num_batches_tracked")] = np.array(steps, np.int64)
    return state


def to_flax(table: list[Leaf], state: Mapping[str, np.ndarray]) -> Arrays:
    """Flax's variables {"params/conv1_1/kernel": ...} of PyTorch's state dict, whose shapes are the table's."""
    return {leaf.path: np.ascontiguousarray(leaf.to_flax(state[leaf.key])) for leaf in table if leaf.path}


def _bias(layer: Layer, prefix: str, bias: bool) -> Iterator[Leaf]:
    if bias:
        yield Leaf(layer.name, f"{prefix}.bias", f"params/{layer.name}/bias", (layer.outputs,))


def _conv(layer: Layer, prefix: str, bias: bool) -> Iterator[Leaf]:
    """PyTorch [O, C, K, K], Flax [K, K, C, O]; the fixed whitening filters are among Flax's statistics."""
    fixed = layer.kind == "whiten"
    yield Leaf(
        layer.name,
        f"{prefix}.weight",
        f"{'batch_stats' if fixed else 'params'}/{layer.name}/kernel",
        (layer.outputs, layer.inputs, int(layer.size), int(layer.size)),
        lambda kernel: kernel.transpose(3, 2, 0, 1),
        lambda weight: weight.transpose(2, 3, 1, 0),
    )
    yield from _bias(layer, prefix, bias and not fixed)


def _dense(layer: Layer, prefix: str, bias: bool, flatten: Layer | None) -> Iterator[Leaf]:
    """PyTorch [O, I], Flax [I, O]; the map that is flattened before the first has channels first in PyTorch only."""
    path, shape = f"params/{layer.name}/kernel", (layer.outputs, layer.inputs)
    if flatten is None or flatten.size == 1:
        yield Leaf(layer.name, f"{prefix}.weight", path, shape, np.transpose, np.transpose)
    else:
        side, channels = int(flatten.size), flatten.inputs
        yield Leaf(
            layer.name,
            f"{prefix}.weight",
            path,
            shape,
            lambda kernel: kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(shape),
            lambda weight: weight.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(shape[::-1]),
        )
    yield from _bias(layer, prefix, bias)


def _norm(layer: Layer, prefix: str, scale: bool) -> Iterator[Leaf]:
    name, shape = layer.name, (layer.outputs,)
    yield Leaf(name, f"{prefix}.weight", f"params/{name}/scale" if scale else "", shape)
    yield Leaf(name, f"{prefix}.bias", f"params/{name}/bias", shape)
    yield Leaf(name, f"{prefix}.running_mean", f"batch_stats/{name}/mean", shape)
    yield Leaf(name, f"{prefix}.running_var", f"batch_stats/{name}/var", shape)
