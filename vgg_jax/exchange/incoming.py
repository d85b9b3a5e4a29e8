"""Weights that come in: a run directory made of somebody's file, or of a folder that we have exported."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import traverse_util

from vgg_jax.console.errors import UserError
from vgg_jax.datasets import load as data
from vgg_jax.exchange import matching
from vgg_jax.exchange.files import Found, read
from vgg_jax.exchange.outgoing import portable
from vgg_jax.model.chain import chain
from vgg_jax.model.network import make_model, shapes
from vgg_jax.runs import directory, given, origin
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.check import MalformedError
from vgg_jax.settings.fields import Config
from vgg_jax.torch.names import Arrays, Leaf, leaves, to_flax

Colours = tuple[Sequence[float], Sequence[float]]  # mean, std

SHIPPED = Path(__file__).parent.parent / "pretrained"  # a folder that we have exported, part of the package
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
# What published weights were trained with; the deviations of the first two are not CIFAR-10's (0.247 0.243 0.262).
NORMALIZATIONS: dict[str, Colours] = {
    "chenyaofo": _CIFAR,
    "kuangliu": _CIFAR,
    "chenyaofo_cifar100": ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
    "half": ((0.5,) * 3, (0.5,) * 3),
}


def import_weights(
    source: Path,
    workdir: Path,
    config: str | None = None,
    normalization: Colours | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the run directory of a weight file or an exported folder; returns its run.json.

    Args:
      config: the recipe whose network the weights are for; an exported folder brings its own, and takes one only for
        the code of a network of one's own.
      normalization: what the weights were trained with; default that of a timm config.json beside them, else that of
        the config's data.
      overrides: of fields of the config; for an exported folder, of where the data are.

    Raises: UserError when the file cannot be read or does not fit, or workdir is not empty; nothing is written then.
    """
    given.refuse_if_filled(workdir)
    found = read(source)
    comes_from = {"file": f"{source.resolve().name}/{found.file.name}" if source.is_dir() else source.name}
    comes_from["sha256"] = found.sha256
    if "vgg_jax" in found.described:
        its_config, facts, step, more = _ours(found, config, normalization, overrides or {})
    else:
        its_config, facts = _foreign(found, config, normalization, overrides or {})
        step, more = 0, {}
    facts |= {"sealed": True, "data_dir": directory.data_dir(its_config), "origin": comes_from}
    variables = _variables(found, its_config, len(facts["class_names"]))
    given.make(workdir, its_config, facts, step, variables, more)
    return facts


def read_exported(folder: Path, overrides: Mapping[str, Any]) -> tuple[Config, dict[str, Any], int, Any]:
    """(config, run.json, step, variables) of a folder that we have exported.

    Raises: UserError when it is damaged, or overrides would change a result.
    """
    found = read(folder)
    config, facts, step, _ = _ours(found, None, None, overrides)
    return config, facts, step, _variables(found, config, len(facts["class_names"]))


def _foreign(
    found: Found, config: str | None, normalization: Colours | None, overrides: Mapping[str, Any]
) -> tuple[Config, dict[str, Any]]:
    if config is None:
        raise UserError(f"{found.file} does not say which network it is for; give --config, e.g. vgg16_bn")
    its_config = configs.load(config, overrides)
    if code.of(its_config, "get_model"):
        raise UserError(f"{config} has a network of its own; only weights that vgg-jax has exported can come into one")
    facts = directory.describe(data.load(its_config))
    if colours := normalization or _of_timm(found):
        facts["mean"], facts["std"] = colours
    made = {name: value for name, value in origin.describe().items() if name != "device"}  # it was trained elsewhere
    return its_config, facts | made


def _of_timm(found: Found) -> Colours | None:
    """The normalisation of timm's config.json, if there is one."""
    its = found.described.get("pretrained_cfg", {})
    colours = (its.get("mean"), its.get("std")) if isinstance(its, dict) else (None, None)
    return colours if all(map(_is_colour, colours)) and all(colours[1]) else None  # type: ignore[return-value]


def _is_colour(value: Any) -> bool:
    """Whether a value is a mean or a deviation of three channels, in units of [0, 1]."""
    return isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) and 0 <= x <= 1 for x in value)


def _ours(
    found: Found, config: str | None, normalization: Colours | None, overrides: Mapping[str, Any]
) -> tuple[Config, dict[str, Any], int, dict[str, str]]:
    """(config, facts, step, further files) of a folder that we have exported."""
    folder = found.file.parent
    if normalization:
        raise UserError(f"{folder} says itself how its pictures are normalised; leave out --normalization")
    try:
        its: dict[str, Any] = found.described["vgg_jax"]
        then = portable(configs.from_json(json.dumps(its["config"])))
        then = configs.override(directory.with_code(folder, then, config) if config else then, {})
        facts, step, calibration = dict(its["run"]), its["step"], its["calibration"]
        directory.check_facts(facts)
        if type(step) is not int or step < 0:
            raise ValueError("step must be a whole number, 0 or more")
        if calibration is not None and not (
            0 < calibration["temperature"] < 1e9 and type(calibration["images"]) is int and calibration["split"]
        ):
            raise ValueError("calibration must have a temperature above 0, a number of images and a split")
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, MalformedError) as error:
        raise UserError(f"{folder / 'config.json'} is damaged ({type(error).__name__}: {error})") from None
    directory.refuse_changes(folder, overrides)
    more = {"calibration.json": json.dumps({"latest": calibration}, indent=2) + "\n"} if calibration else {}
    return configs.override(then, overrides), facts, step, more


def _variables(found: Found, config: Config, classes: int) -> Any:
    """Flax's variables {"params", "batch_stats"} of the arrays found."""
    model = make_model(config, classes)
    expected: Any = traverse_util.flatten_dict(shapes(model, config.data.image_size), sep="/")
    if code.of(config, "get_model"):
        table = [Leaf(name, name, name, x.shape) for name, x in expected.items()]
    else:
        table = leaves(config.model, chain(config.model, classes, config.data.image_size))
    arrays: Arrays = to_flax(table, matching.matched(found.arrays, table, str(found.file)))
    assert {name: array.shape for name, array in arrays.items()} == {name: x.shape for name, x in expected.items()}
    return {"batch_stats": {}} | traverse_util.unflatten_dict(arrays, sep="/")
