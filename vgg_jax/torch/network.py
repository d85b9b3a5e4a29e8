"""The same networks in PyTorch: to use exported weights there, and to compare speed. Needs PyTorch, not JAX.

```python
from vgg_jax.torch.network import load

model = load("folder")  # that `vgg-jax export --to pytorch` or `--to safetensors` has written
probabilities = model(model.normalise(images)).softmax(-1)  # images: uint8 [N, H, W, 3]
```
"""
# pyright: reportAttributeAccessIssue=false
# Where PyTorch is not installed, pyright takes this folder for it.

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from vgg_jax.console.errors import UserError, is_of_the_machine
from vgg_jax.model.chain import Layer, chain, is_plain, walk
from vgg_jax.settings import config as configs
from vgg_jax.torch.names import Arrays

ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "gelu": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
}


class Whitening(nn.Conv2d):
    """A fixed convolution, padded as XLA's SAME: an even side has one more pixel at the lower right."""

    def __init__(self, channels: int, size: int):
        super().__init__(3, channels, size, bias=False)
        self.requires_grad_(False)
        before = (size - 1) // 2
        self.around = (before, size - 1 - before) * 2

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, channels, H, W]"""
        return super().forward(functional.pad(input, self.around))


class VGG(nn.Module):
    """The network of config.model, NCHW; its state dict has the names of `names.prefixes`.

    Attributes:
      logits_scale: factor on the logits.
      mean, std: per channel, in units of [0, 1], for `normalise`; not part of the state dict.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        model: Any,
        num_classes: int = 10,
        image_size: int = 32,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        super().__init__()
        self.logits_scale = model.logits_scale
        for name, colour in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(colour).reshape(1, 3, 1, 1), persistent=False)
        layers = chain(model, num_classes, image_size)
        middle = next(i for i, layer in enumerate(layers) if layer.kind == "flatten")
        features, head = layers[:middle], layers[middle + 1 :]
        self._plain, self._parts = is_plain(layers), (features, head)
        if self._plain:
            self.features = nn.Sequential(*(_module(layer, model, False) for layer in features))
            self.classifier = nn.Sequential(*(_module(layer, model, True) for layer in head))
            return
        for part, flat in ((features, False), (head, True)):
            for layer in walk(part):
                if layer.kind != "residual":
                    self.add_module(layer.name, _module(layer, model, flat))

    def normalise(self, images: Any) -> torch.Tensor:
        """uint8 [N, H, W, 3], an array or a tensor -> float32 [N, 3, H, W]"""
        x = torch.as_tensor(images, device=self.mean.device).permute(0, 3, 1, 2)
        return (x.float() / 255 - self.mean) / self.std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] normalised images -> [N, num_classes] float32 logits."""
        if self._plain:
            x = self.classifier(self.features(x).flatten(1))
        else:
            x = self._run(self._parts[1], self._run(self._parts[0], x).flatten(1))
        return x.float() * self.logits_scale

    def _run(self, layers: Sequence[Layer], x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            if layer.kind == "residual":
                x = self._run(layer.inside, x) + self._run(layer.beside, x)
            else:
                x = getattr(self, layer.name)(x)
        return x


def _module(layer: Layer, model: Any, flat: bool) -> nn.Module:
    """A layer's module; flat: whether it follows the flattening."""
    if layer.kind == "conv":
        size = int(layer.size)
        return nn.Conv2d(layer.inputs, layer.outputs, size, padding=size // 2, bias=model.bias)
    if layer.kind == "dense":
        return nn.Linear(layer.inputs, layer.outputs, bias=model.bias)
    if layer.kind == "norm":
        norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(
            layer.outputs, eps=model.batch_norm_epsilon, momentum=1 - model.batch_norm_momentum
        )
        norm.weight.requires_grad = model.batch_norm_scale
        return norm
    if layer.kind == "whiten":
        return Whitening(layer.outputs, int(layer.size))
    if layer.kind == "act":
        return ACTIVATIONS[model.activation]()
    if layer.kind == "dropout":
        return (nn.Dropout2d if model.spatial_dropout and not flat else nn.Dropout)(layer.size)
    return nn.MaxPool2d(2) if layer.kind == "pool" else nn.AdaptiveMaxPool2d(1)


def copy(model: nn.Module, arrays: Arrays) -> None:
    """Copy the arrays of `names.to_torch` into a model."""
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def load(folder: str | os.PathLike[str]) -> VGG:
    """The network that `vgg-jax export` wrote to a folder, in evaluation mode.

    Raises: UserError when the folder holds no such network.
    """
    there = Path(folder)
    try:
        described = json.loads((there / "config.json").read_text())
        config = configs.from_json(json.dumps(described["vgg_jax"]["config"]))
        colours = described["pretrained_cfg"]
        model = VGG(config.model, described["num_classes"], config.data.image_size, colours["mean"], colours["std"])
        model.load_state_dict(_state(there))
    except Exception as error:  # whatever a stranger's files lead to
        if is_of_the_machine(error):
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{there} holds no network that vgg-jax has exported ({why})") from None
    return model.eval()


def _state(folder: Path) -> Any:
    if (folder / "model.safetensors").exists():
        from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]

        return load_file(folder / "model.safetensors")
    return torch.load(folder / "model.pt", weights_only=True)
