"""Checks of a config's values, each alone and in combination. Configs are flat here: {"train.epochs": 300}."""

import ast
from collections.abc import Mapping
from typing import Any

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.settings.fields import FIELDS, Field
from vgg_jax.settings.stages import STAGES

_UNDECLARED = ("own.", "code.")  # groups without declared fields: settings of a user's own code, and its file
_SHORT = {  # what people call parts of fields' names
    "lr": "learning_rate", "wd": "weight_decay", "ema": "average", "bn": "batch_norm", "act": "activation",
    "eps": "batch_norm_epsilon", "bn_eps": "batch_norm_epsilon",
    "bs": "batch_size", "num_epochs": "epochs", "optim": "optimizer", "sched": "schedule", "aug": "augment",
}  # fmt: skip


class MalformedError(UserError):
    """A config has unknown fields or lacks some."""


def check_values(flat: Mapping[str, Any]) -> None:
    """Raises: UserError naming the first field whose value cannot work."""
    for name, field in FIELDS.items():
        if name in flat:  # the landscape fields are only in the landscape configs
            check_value(name, field, flat[name])
    _check_model(flat)
    _check_training(flat)
    if not flat.get("landscape.surface_points", 1) % 2:
        raise UserError("config.landscape.surface_points must be odd, so that the middle is the network itself")
    if flat.get("landscape.images") == 1 and _meets_one_value(flat):
        raise UserError("config.landscape.images=1 has no statistics for BatchNorm; the smallest that works is 2")
    for field in ("landscape.step_sizes", "landscape.update_sizes", "landscape.learning_rates"):
        if flat.get(field) == ():
            raise UserError(f"config.{field} needs at least one number")


def check_value(name: str, field: Field, value: Any) -> None:
    if field.choices and value not in field.choices:
        hint = suggest(str(value), field.choices) or f"; one of {', '.join(field.choices)}"
        raise UserError(f"config.{name} cannot be {value!r}{hint}")
    wanted = type(field.default)
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise UserError(f"config.{name} takes {_kind(name, wanted)}, not {value!r}")
    if field.low == -float("inf"):
        return
    for number in value if isinstance(value, tuple) else (value,):
        if type(number) not in (int, float) or not field.low <= number <= field.high:
            raise UserError(f"config.{name} must lie in [{field.low:g}, {field.high:g}], not {number!r}")
        if _is_whole(field) and type(number) is not int:
            raise UserError(f"config.{name} takes whole numbers, not {number!r}")


def does_something(name: str, flat: Mapping[str, Any]) -> bool:
    """Whether the field changes anything beside these others; `get_data` may read what data.name makes idle."""
    if name not in FIELDS or not FIELDS[name].only:
        return True
    other, *values = FIELDS[name].only
    if other == "data.name" and flat.get("code.data"):
        return True
    return flat.get(other) in values if values else flat.get(other) not in (0, "", "none", ())


def needs(field: Field) -> str:
    """What a field with `only` does something with, in words: 'optimizer.name=sgd or sgdw'."""
    other, *values = field.only
    return f"{other}={' or '.join(values)}" if values else other


def idle(flat: Mapping[str, Any]) -> list[str]:
    """A line for every field that is set and does nothing."""
    return [
        f"config.{name}={flat[name]} does nothing without {needs(field)}"
        for name, field in FIELDS.items()
        if name in flat and flat[name] != field.default and not does_something(name, flat)
    ]


def _is_whole(field: Field) -> bool:
    """Whether the field is a tuple of whole numbers."""
    return isinstance(field.default, tuple) and {type(x) for x in field.default} == {int}


def _check_model(flat: Mapping[str, Any]) -> None:
    stages = STAGES[flat["model.stages"]]
    if flat["augment.small_size"] >= flat["data.image_size"]:
        raise UserError(f"config.augment.small_size must be less than config.data.image_size={flat['data.image_size']}")
    if not flat.get("code.model"):
        _check_sizes(flat, 2 ** len(stages))
    places = (("stage", "stage", len(stages)), ("head", "dense layer", len(flat["model.hidden"]) + 1))
    for field, field_name, most in places:
        if len(flat[f"model.{field}_dropout"]) not in (0, most):
            raise UserError(
                f"config.model.{field}_dropout takes no rates or {most}, one for each {field_name}; 0 drops nothing"
            )
    if flat["model.residual"] and flat["model.pool"] == "first":
        raise UserError("config.model.pool='first' is not for residual blocks; take last")
    if flat["model.residual"] and flat["model.tied"]:
        raise UserError("config.model.tied is not for residual blocks")


def _check_sizes(flat: Mapping[str, Any], unit: int) -> None:
    """Images must be a multiple of unit pixels wide, so that every pool halves its maps."""
    size, small, stages = flat["data.image_size"], flat["augment.small_size"], flat["model.stages"]
    if size % unit:
        raise UserError(
            f"config.data.image_size={size} cannot be halved by the {len(STAGES[stages])} pools of stages {stages}; "
            f"take a multiple of {unit}"
        )
    if small % unit:
        takes = f"a multiple of {unit}" if size > unit else f"no images smaller than {unit}x{unit}"
        raise UserError(f"config.augment.small_size={small} does not fit: stages {stages} take {takes}")
    if small and not flat["model.global_pool"]:
        raise UserError("config.augment.small_size needs config.model.global_pool=True, for a head of any size")


def _check_training(flat: Mapping[str, Any]) -> None:
    if flat["optimizer.name"] == "muon" and not flat["optimizer.learning_rate"]:
        raise UserError("config.optimizer.learning_rate must be above 0 for muon: it trains all but the convolutions")
    batch, micro_batch = flat["train.batch_size"], flat["train.micro_batch"]
    slices = micro_batches(batch, micro_batch)
    if batch % slices:
        nearest = min(range(1, 2 * batch), key=lambda b: (b % micro_batches(b, micro_batch) > 0, abs(b - batch)))
        raise UserError(
            f"config.train.batch_size={batch} does not divide into {slices} equal micro-batches of at most "
            f"{micro_batch}; the nearest that does is {nearest}"
        )
    if batch == slices and (place := _meets_one_value(flat)):
        given = f"micro_batch={micro_batch}" if batch > 1 else "batch_size=1"
        least = next((m for m in range(2, batch) if batch % micro_batches(batch, m) == 0), max(2, batch))
        raise UserError(
            f"config.train.{given}: BatchNorm {place} would see one value per channel, of variance 0, and nothing "
            f"below it could learn; the smallest that works is {least}"
        )


def _meets_one_value(flat: Mapping[str, Any]) -> str:
    """Where a BatchNorm has one value per channel of an image; "" if nowhere, or in a network of one's own.

    Several devices share their statistics, and micro-batches do not: what counts is the images of one micro-batch.
    """
    normalises = flat["model.batch_norm"] != "none" or "landscape.seeds" in flat  # the study trains both networks
    if flat.get("code.model") or not normalises:
        return ""
    if flat["model.hidden"] and flat["model.batch_norm_head"]:
        return "after a dense layer"
    smallest = flat["augment.small_size"] or flat["data.image_size"]
    last = smallest // 2 ** len(STAGES[flat["model.stages"]])  # pixels a side, after all pools
    return "on a map of one pixel" if flat["model.pool"] == "first" and last == 1 else ""


def micro_batches(batch_size: int, micro_batch: int) -> int:
    """Number of micro-batches in a batch, each of at most micro_batch images; 1 if micro_batch is 0."""
    return -(-batch_size // micro_batch) if micro_batch else 1


def check_fields(flat: Mapping[str, Any]) -> None:
    """Raises: MalformedError for a field that is missing or unknown."""
    known, given = set(FIELDS), {field for field in flat if not field.startswith(_UNDECLARED)}
    if not any(field.startswith("landscape.") for field in flat):
        known = {field for field in known if not field.startswith("landscape.")}
    if unknown := sorted(given - known):
        raise MalformedError(f"no config field {unknown[0]}{suggest(unknown[0], known)}")
    if missing := sorted(known - given):
        raise MalformedError(f"config field {missing[0]} is missing; see configs/default.py")


def parse(field: str, text: str, old: Any) -> Any:
    """text as a value of old's type."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if old is None:  # a field of one's own that says nothing about its type
        return value
    old = tuple(old) if isinstance(old, list) else old
    if isinstance(old, tuple) and isinstance(value, (int, float, list)) and not isinstance(value, bool):
        value = tuple(value) if isinstance(value, list) else (value,)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(str(value))  # inf if the int is too large
    if type(value) is not type(old):
        raise UserError(f"config.{field} takes {_kind(field, type(old))}, not {text!r}")
    return value


def _kind(field: str, kind: type) -> str:
    """In words, what a field of that type takes."""
    if field not in FIELDS:
        return f"a value of type {kind.__name__}"
    many = "whole numbers, as (512, 512)" if _is_whole(FIELDS[field]) else "numbers, as (0.3, 0.4)"
    return {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: many}[kind]


def suggest(name: str, known: Any) -> str:
    known, name = list(known), ".".join(_SHORT.get(part, part) for part in name.split("."))
    elsewhere = [k for k in known if k.split(".")[-1] == name.split(".")[-1]]  # the right field in the wrong group
    return errors.suggest(name, known) or errors.suggest(name, elsewhere, 0)
