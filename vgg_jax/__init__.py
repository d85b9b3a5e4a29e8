"""The VGG-on-CIFAR-10 laboratory in JAX. docs/library.md shows how to use it from Python."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vgg_jax.console.errors import Stopped, UserError
    from vgg_jax.datasets.load import Dataset, data
    from vgg_jax.evaluation.opening import load, load_pretrained, train
    from vgg_jax.evaluation.trained import TrainedRun
    from vgg_jax.page.writing import report
    from vgg_jax.settings.config import load as config

__all__ = [
    "Dataset",
    "Stopped",
    "TrainedRun",
    "UserError",
    "config",
    "data",
    "load",
    "load_pretrained",
    "report",
    "train",
]

_PLACES = {
    "config": ("vgg_jax.settings.config", "load"),
    "data": ("vgg_jax.datasets.load", "data"),
    "Dataset": ("vgg_jax.datasets.load", "Dataset"),
    "load": ("vgg_jax.evaluation.opening", "load"),
    "load_pretrained": ("vgg_jax.evaluation.opening", "load_pretrained"),
    "report": ("vgg_jax.page.writing", "report"),
    "train": ("vgg_jax.evaluation.opening", "train"),
    "TrainedRun": ("vgg_jax.evaluation.trained", "TrainedRun"),
    "Stopped": ("vgg_jax.console.errors", "Stopped"),
    "UserError": ("vgg_jax.console.errors", "UserError"),
}


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that commands without JAX do not wait for its import."""
    if name not in _PLACES:
        raise AttributeError(f"module 'vgg_jax' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
