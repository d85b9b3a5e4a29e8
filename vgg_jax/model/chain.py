"""A VGG in evaluation mode as a list of layers, for those who write it down elsewhere: PyTorch, ONNX, weight files.

It says in plain Python, without JAX, what `vgg.VGG` computes; names of layers with arrays are Flax's.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from vgg_jax.settings.stages import STAGES


class Layer(NamedTuple):
    """One layer.

    Attributes:
      kind: whiten, conv, norm, act, pool, dropout, residual, global_pool, flatten or dense.
      name: unique in its network, but for convolutions that share their arrays.
      inputs, outputs: channels; for flatten those before it and all numbers after it.
      size: whiten, conv: side of the kernel. flatten: side of the map. dropout: the rate. Else 0.
      inside, beside: residual: the layers whose outputs are added, before an activation.
    """

    kind: str
    name: str
    inputs: int = 0
    outputs: int = 0
    size: float = 0
    inside: tuple["Layer", ...] = ()
    beside: tuple["Layer", ...] = ()


def chain(model: Any, num_classes: int, image_size: int) -> list[Layer]:
    """The layers of the network of config.model, in order."""
    features = list(_features(model))
    stages = STAGES[model.stages]
    channels = _width(model, stages[-1][-1])
    side = 1 if model.global_pool else image_size // 2 ** len(stages)
    flatten = Layer("flatten", "flatten", channels, channels * side**2, side)
    return [*features, flatten, *_head(model, flatten.outputs, num_classes)]


def walk(layers: list[Layer] | tuple[Layer, ...]) -> Iterator[Layer]:
    """Every layer, and those inside and beside residual blocks before the block."""
    for layer in layers:
        yield from walk(layer.inside)
        yield from walk(layer.beside)
        yield layer


def is_plain(layers: list[Layer]) -> bool:
    """Whether torchvision has names for its layers: no whitening, no residual blocks, no shared arrays."""
    unique = len({layer.name for layer in layers}) == len(layers)
    return unique and not any(layer.kind in ("whiten", "residual") for layer in layers)


def _features(model: Any) -> Iterator[Layer]:
    channels = 3
    if model.whitening:
        channels = 2 * 3 * model.whitening**2
        yield Layer("whiten", "whiten", 3, channels, model.whitening)
        yield Layer("act", "act_whiten")
    for s, widths in enumerate(STAGES[model.stages], 1):
        for i, width in enumerate(widths, 1):
            outputs, pool = _width(model, width), [Layer("pool", f"pool{s}")]
            first = model.pool == "first" and i == 1
            yield from _block(model, channels, outputs, f"{s}_{i}", pool if first else [])
            if model.stage_dropout and i < len(widths):
                yield Layer("dropout", f"dropout{s}_{i}", size=model.stage_dropout[s - 1])
            channels = outputs
        if model.pool == "last":
            yield Layer("pool", f"pool{s}")
    if model.global_pool:
        yield Layer("global_pool", "global_pool")


def _block(model: Any, inputs: int, outputs: int, name: str, pool: list[Layer]) -> Iterator[Layer]:
    """One convolution and its activation, or the residual block that replaces them."""
    if not model.residual:
        yield _conv(model, f"conv{name}", inputs, outputs)
        yield from pool
        yield from _activate(model, name, outputs)
        return
    inside = [_conv(model, f"conv{name}a", inputs, outputs), *_activate(model, f"{name}a", outputs)]
    inside += [_conv(model, f"conv{name}b", outputs, outputs), *_norm(model, f"{name}b", outputs)]
    beside = []
    if inputs != outputs:
        beside = [Layer("conv", f"proj{name}", inputs, outputs, 1), *_norm(model, f"{name}p", outputs)]
    yield Layer("residual", f"block{name}", inputs, outputs, 0, tuple(inside), tuple(beside))
    yield Layer("act", f"act{name}")


def _conv(model: Any, name: str, inputs: int, outputs: int) -> Layer:
    return Layer("conv", f"conv{outputs}" if model.tied and inputs == outputs else name, inputs, outputs, 3)


def _head(model: Any, channels: int, num_classes: int) -> Iterator[Layer]:
    """Dropout follows every hidden layer, if only at rate 0: so the dense layers have torchvision's numbers 0, 3, 6."""
    rates = dict(enumerate(model.head_dropout))
    if rates.get(0):
        yield Layer("dropout", "dropout_first", size=rates[0])
    for i, hidden in enumerate(model.hidden, 1):
        yield Layer("dense", f"fc{i}", channels, hidden)
        yield from _activate(model, f"_fc{i}", hidden, model.batch_norm_head)
        yield Layer("dropout", f"dropout_fc{i}", size=rates.get(i, 0.0))
        channels = hidden
    yield Layer("dense", "logits", channels, num_classes)


def _activate(model: Any, name: str, channels: int, norm: bool = True) -> list[Layer]:
    norms = _norm(model, name, channels) if norm else []
    act = Layer("act", f"act{name}")
    return [*norms, act] if model.batch_norm == "before" else [act, *norms]


def _norm(model: Any, name: str, channels: int) -> list[Layer]:
    return [] if model.batch_norm == "none" else [Layer("norm", f"bn{name}", channels, channels)]


def _width(model: Any, features: int) -> int:
    return max(1, round(features * model.width))
