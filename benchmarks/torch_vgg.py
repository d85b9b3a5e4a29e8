"""The same networks in PyTorch, for comparison."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from vgg_jax.settings.fields import STAGES

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.1), "gelu": lambda: nn.GELU("tanh")}
ACTIVATIONS["silu"] = nn.SiLU
Layers = Iterator[tuple[str, nn.Module]]


def build(c: Any, num_classes: int = 10) -> nn.Module:
    """config.model's network, NCHW, its layers named as in Flax. It has no residual blocks and ends in one pixel."""
    channels = 2 * 3 * c.whitening**2 or 3
    last = max(1, round(STAGES[c.stages][-1][-1] * c.width))
    return nn.Sequential(OrderedDict([*_whitening(c, channels), *_stages(c, channels), *_head(c, last, num_classes)]))


def _whitening(c: Any, channels: int) -> Layers:
    if c.whitening:
        before = (c.whitening - 1) // 2  # as XLA's SAME
        yield "pad", nn.ZeroPad2d((before, c.whitening - 1 - before) * 2)
        yield "whiten", nn.Conv2d(3, channels, c.whitening, bias=False).requires_grad_(False)
        yield "act_whiten", ACTIVATIONS[c.activation]()


def _stages(c: Any, channels: int) -> Layers:
    for s, widths in enumerate(STAGES[c.stages], 1):
        for i, width in enumerate(widths, 1):
            features = max(1, round(width * c.width))
            yield f"conv{s}_{i}", nn.Conv2d(channels, features, 3, padding=1, bias=c.bias)
            if c.pool == "first" and i == 1:
                yield f"pool{s}", nn.MaxPool2d(2)
            yield from _activate(c, f"{s}_{i}", nn.BatchNorm2d, features)
            if c.stage_dropout and i < len(widths):
                yield f"dropout{s}_{i}", nn.Dropout(c.stage_dropout[s - 1])
            channels = features
        if c.pool == "last":
            yield f"pool{s}", nn.MaxPool2d(2)
    if c.global_pool:
        yield "global_pool", nn.AdaptiveMaxPool2d(1)


def _head(c: Any, channels: int, num_classes: int) -> Layers:
    yield "flatten", nn.Flatten()
    for i, hidden in enumerate(c.hidden, 1):
        if c.head_dropout:
            yield f"dropout_fc{i}", nn.Dropout(c.head_dropout[i - 1])
        yield f"fc{i}", nn.Linear(channels, hidden, bias=c.bias)
        yield from _activate(c, f"_fc{i}", nn.BatchNorm1d if c.batch_norm_head else None, hidden)
        channels = hidden
    if c.head_dropout:
        yield "dropout_logits", nn.Dropout(c.head_dropout[-1])
    yield "logits", nn.Linear(channels, num_classes, bias=c.bias)


def _activate(c: Any, name: str, norm: type[nn.Module] | None, features: int) -> Layers:
    layers = [(f"act{name}", ACTIVATIONS[c.activation]())]
    if norm and c.batch_norm != "none":
        layer = norm(features, eps=c.batch_norm_epsilon)
        layer.weight.requires_grad = c.batch_norm_scale
        layers.insert(0 if c.batch_norm == "before" else 1, (f"bn{name}", layer))
    yield from layers


def load(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy Flax weights {"conv1_1/kernel": [3, 3, C, O], ...} in."""
    layers = dict(model.named_children())
    with torch.no_grad():
        for path, value in weights.items():
            layer, leaf = path.split("/")
            turned = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            getattr(layers[layer], "bias" if leaf == "bias" else "weight").copy_(torch.tensor(turned))
