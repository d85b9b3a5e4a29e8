"""The same networks and SGD in PyTorch, for comparison."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from vgg_jax.console import errors
from vgg_jax.model.vgg import STAGES

ACTIVATIONS = {"relu": nn.ReLU, "gelu": lambda: nn.GELU("tanh"), "silu": nn.SiLU}


def build(c: Any, num_classes: int = 10) -> nn.Module:
    """The network of config.model in NCHW, with layers named as in Flax.

    Raises: UserError for networks that are not implemented here.
    """
    if c.residual or c.batch_norm == "after" or c.activation not in ACTIVATIONS:
        raise errors.UserError("the PyTorch side has only conv-BatchNorm-activation networks")
    if not c.global_pool and len(STAGES[c.stages]) < 5:
        raise errors.UserError("the PyTorch side has only networks that end in one pixel")
    layers: dict[str, nn.Module] = {}
    channels = 3

    def activate(name: str, norm: type[nn.Module], features: int) -> None:
        if c.batch_norm != "none":
            layers[f"bn{name}"] = norm(features, eps=c.batch_norm_epsilon)
            layers[f"bn{name}"].weight.requires_grad = c.batch_norm_scale
        layers[f"act{name}"] = ACTIVATIONS[c.activation]()

    if c.whitening:
        before = (c.whitening - 1) // 2  # as XLA's SAME
        layers["pad"] = nn.ZeroPad2d((before, c.whitening - 1 - before) * 2)
        channels = 2 * 3 * c.whitening**2
        layers["whiten"] = nn.Conv2d(3, channels, c.whitening, bias=False).requires_grad_(False)
        layers["act_whiten"] = ACTIVATIONS[c.activation]()
    for s, widths in enumerate(STAGES[c.stages], 1):
        for i, width in enumerate(widths, 1):
            features = round(width * c.width)
            layers[f"conv{s}_{i}"] = nn.Conv2d(channels, features, 3, padding=1, bias=c.bias)
            if c.pool == "first" and i == 1:
                layers[f"pool{s}"] = nn.MaxPool2d(2)
            activate(f"{s}_{i}", nn.BatchNorm2d, features)
            if c.stage_dropout and i < len(widths):
                layers[f"dropout{s}_{i}"] = nn.Dropout(c.stage_dropout[s - 1])
            channels = features
        if c.pool == "last":
            layers[f"pool{s}"] = nn.MaxPool2d(2)
    if c.global_pool:
        layers["global_pool"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    for i, hidden in enumerate(c.hidden, 1):
        if c.head_dropout:
            layers[f"dropout_fc{i}"] = nn.Dropout(c.head_dropout[i - 1])
        layers[f"fc{i}"] = nn.Linear(channels, hidden, bias=c.bias)
        if c.batch_norm_head:
            activate(f"_fc{i}", nn.BatchNorm1d, hidden)
        else:
            layers[f"act_fc{i}"] = ACTIVATIONS[c.activation]()
        channels = hidden
    if c.head_dropout:
        layers["dropout_logits"] = nn.Dropout(c.head_dropout[-1])
    layers["logits"] = nn.Linear(channels, num_classes, bias=c.bias)
    return nn.Sequential(OrderedDict(layers))


def load(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy Flax weights {"conv1_1/kernel": [3, 3, C, O], ...} into the model."""
    layers = dict(model.named_children())
    with torch.no_grad():
        for path, value in weights.items():
            layer, leaf = path.split("/")
            turned = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            getattr(layers[layer], "bias" if leaf == "bias" else "weight").copy_(torch.tensor(turned))
