"""What leaves: a checkpoint with all that others need to use it, and the config.json that says it."""

import importlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.model.chain import Layer, chain, walk
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.torch.names import Arrays, leaves, prefixes, to_torch

_NAMES = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


class Outgoing(NamedTuple):
    """A checkpoint on its way out.

    Attributes:
      config: of its run.
      variables: Flax's {"params", "batch_stats"}.
      facts: run.json.
      checkpoint: "latest" or "best".
      step: training steps done.
      record: the run's record of metrics at this step, if there is one.
      chosen_on: the split on which the checkpoint was the best; None if it was not chosen.
      report: `evaluate`'s report on the test images, if there is one of this step.
      half: write the arrays in float16.
      calibration: {"temperature", ...} as the run's `calibrate` stored it, if it did.
    """

    config: Config
    variables: Any
    facts: Mapping[str, Any]
    checkpoint: str
    step: int
    record: Mapping[str, Any] | None = None
    chosen_on: str | None = None
    calibration: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    half: bool = False

    @property
    def temperature(self) -> float:
        """Probabilities are softmax(logits / temperature)."""
        return self.calibration["temperature"] if self.calibration else 1.0

    @property
    def classes(self) -> int:
        return len(self.facts["class_names"])

    @property
    def is_own(self) -> bool:
        """Whether the network comes from a user's own code."""
        return code.of(self.config, "get_model") is not None


def layers(out: Outgoing) -> list[Layer]:
    """Raises: UserError for a network of one's own, of which only JAX knows the layers."""
    if out.is_own:
        raise UserError("a network of one's own cannot be written layer by layer; take --to safetensors or stablehlo")
    return chain(out.config.model, out.classes, out.config.data.image_size)


def flat(out: Outgoing) -> Arrays:
    """{"params/conv1_1/kernel": ...}"""
    found: Any = traverse_util.flatten_dict(jax.device_get(out.variables), sep="/")
    return {name: np.asarray(array) for name, array in found.items()}


def state(out: Outgoing) -> Arrays:
    """The arrays under PyTorch's names and in its layout; those of a network of one's own as Flax has them."""
    if out.is_own:
        arrays = {name: np.array(array, order="C") for name, array in flat(out).items()}
    else:
        arrays = to_torch(leaves(out.config.model, layers(out)), flat(out), out.step)
    return {name: _halved(name, array) for name, array in arrays.items()} if out.half else arrays


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    """In float16; counters as they are.

    Raises: UserError for numbers that are too large.
    """
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(f"{name} has numbers over 65,504, too large for float16; export it without --half")
    return half


def architecture(out: Outgoing) -> str:
    """timm's name of the network: vgg16_bn; vgg11_bn_residual or vgg_speed for those that it has none for."""
    if out.is_own:
        return "own"
    model = out.config.model
    name = _NAMES.get(model.stages, f"vgg_{model.stages}") + ("" if model.batch_norm == "none" else "_bn")
    return name + ("_residual" if model.residual else "") + ("_tied" if model.tied else "")


def portable(config: Config) -> Config:
    """The config without paths of the machine that trained it; no result depends on them."""
    name = config.train.start_from.rstrip("/").rpartition("/")[2]
    return configs.override(config, {"data.data_dir": "", "data.archive": "", "train.start_from": name})


def describe(out: Outgoing) -> str:
    """config.json: timm's fields, and in `vgg_jax` all that an import needs to give the run back."""
    names, size = list(out.facts["class_names"]), out.config.data.image_size
    ends = {"first_conv": None, "classifier": None}
    if not out.is_own:
        every = layers(out)
        found = [layer.name for layer in walk(every) if layer.kind in ("whiten", "conv", "dense")]
        table = prefixes(every)
        ends = {"first_conv": table[found[0]], "classifier": table[found[-1]]}
    text = {
        "architecture": architecture(out),
        "num_classes": out.classes,
        "label_names": names,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": list(out.facts["mean"]),
            "std": list(out.facts["std"]),
            "num_classes": out.classes,
            **ends,
        },
        "vgg_jax": {
            "layout": "flax" if out.is_own else "pytorch",
            "checkpoint": out.checkpoint,
            "step": out.step,
            "calibration": out.calibration,
            "run": {name: value for name, value in out.facts.items() if name != "data_dir"},
            "config": json.loads(configs.to_json(portable(out.config))),
        },
    }
    return json.dumps(text, indent=2) + "\n"


def need(module: str) -> ModuleType:
    """A module that only an export or import needs: of onnx or torch, our extras of the same names, or safetensors.

    Raises: UserError that says how to install it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library of PyTorch's cannot be loaded
        package = module.partition(".")[0]
        what = package if package == "safetensors" else f"'vgg_jax[{package}]'"
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UserError(f"this needs {package}, which is not installed; pip install {what}") from None
        raise UserError(errors.broken_installation(error, what)) from None
