"""Configs: load a file, apply overrides, check values. The declarations in `fields` are the schema."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from vgg_jax.console.errors import UserError
from vgg_jax.settings import check, files
from vgg_jax.settings.check import MalformedError, check_fields, check_values, parse, suggest
from vgg_jax.settings.fields import FIELDS, GROUPS, Config, Data


def default() -> ConfigDict:
    """Every field at its default, without those of the landscape study."""
    groups = {name: group(name) for name in GROUPS if name != "landscape"}
    return ConfigDict({"seed": FIELDS["seed"].default} | groups)


def group(name: str) -> ConfigDict:
    """One group of fields at its defaults, such as "landscape"."""
    return ConfigDict({f.split(".")[1]: field.default for f, field in FIELDS.items() if f.startswith(f"{name}.")})


def load(source: str | Path | ConfigDict | FrozenConfigDict, overrides: Mapping[str, Any] | None = None) -> Config:
    """A checked config.

    Args:
      source: a shipped name ("bn_dropout"), a file with `get_config()`, or a ConfigDict.
      overrides: {"train.epochs": 2}; a value may also be text, as on the command line ("2").

    Raises: UserError for a missing file, an unknown field or a value out of range.
    """
    if isinstance(source, (ConfigDict, FrozenConfigDict)):
        return override(_typed(source), overrides or {})
    try:
        return override(_typed(files.run(source)), overrides or {})
    except MalformedError as error:
        raise UserError(f"{source}: {error}") from None


def _typed(config: ConfigDict | FrozenConfigDict) -> Config:
    """The same object, with the type that the type checker shall see."""
    return cast(Config, config)


def _untyped(config: Config) -> Any:
    return config


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A checked copy of config with {"train.epochs": "1"} applied, each text parsed as its field's type."""
    changed = ConfigDict(_plain(_untyped(config).to_dict()))
    check_fields(flatten(_typed(changed)))
    to_json(_typed(changed))  # refuses what a run could not record
    for field, given in overrides.items():
        *parents, leaf = field.split(".")
        section: Any = changed
        for name in parents:
            section = section.get(name) if isinstance(section, ConfigDict) else None
        if not isinstance(section, ConfigDict) or leaf not in section:
            raise UserError(f"no config field {field}{suggest(field, flatten(_typed(changed)))}")
        old: Any = section[leaf]
        if isinstance(old, ConfigDict):
            raise UserError(
                f"config.{field} is a group; set one of its fields, e.g. --config.{field}.{next(iter(old))}=VALUE"
            )
        section[leaf] = parse(field, _text(given), old)
    try:
        frozen = _typed(FrozenConfigDict(changed))  # lists are tuples from here on
    except ValueError as error:  # a dict in a list
        raise UserError(f"a field of the config cannot be kept ({str(error).splitlines()[0]})") from None
    check_values(flatten(frozen))
    return frozen


def _plain(value: Any) -> Any:
    """The value with Python's numbers in place of NumPy's."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _text(given: Any) -> str:
    """An override as text, as on the command line."""
    given = given.tolist() if hasattr(given, "tolist") else given  # NumPy's numbers and arrays
    return os.fspath(given) if isinstance(given, (str, os.PathLike)) else repr(given)


def with_code(config: Config, other: Config) -> Config:
    """config with its own functions taken from the file that other came from."""
    plain, file = _untyped(config).to_dict(), _untyped(other).code
    its = plain.get("code", {}) | {"file": file.file, "sha256": file.sha256}
    return _typed(FrozenConfigDict(plain | {"code": its}))


def without(config: Config, name: str) -> Config:
    """config without the group called name."""
    return _typed(ConfigDict({key: value for key, value in _untyped(config).to_dict().items() if key != name}))


def seeded(config: Config, n: int) -> list[Config]:
    """n copies of the config, with seeds config.seed, config.seed + 1, ..."""
    return [override(config, {"seed": str(config.seed + i)}) for i in range(n)]


def from_json(text: str) -> Config:
    """The config that `to_json` wrote in this or an earlier version."""
    given = json.loads(text)
    for name, field in FIELDS.items():
        section, _, leaf = name.partition(".")
        if field.before is not None and (section in given or section != "landscape"):
            given[section].setdefault(leaf, field.before)
    given.get("landscape", {}).pop("surface_statistics", None)  # of earlier versions, which chose one kind
    if isinstance(given["augment"]["flip"], bool):  # as in earlier versions
        given["augment"]["flip"] = "random" if given["augment"]["flip"] else "none"
    return _typed(FrozenConfigDict(given))


def to_json(config: Config) -> str:
    """Raises: UserError for a field of one's own that JSON cannot hold."""
    try:
        return json.dumps(_untyped(config).to_dict(), indent=2) + "\n"
    except TypeError as error:
        raise UserError(
            f"a field of the config cannot be kept in config.json ({error}); "
            "take text, numbers, True, False, None or tuples of them"
        ) from None


def flatten(config: Config) -> dict[str, Any]:
    """{"train.epochs": 300, ...}"""
    flat = {}
    for name, value in _untyped(config).items():
        if isinstance(value, (ConfigDict, FrozenConfigDict)):
            flat |= {f"{name}.{inner}": v for inner, v in flatten(_typed(value)).items()}
        else:
            flat[name] = value
    return flat


def check_trains(config: Config) -> None:
    """Say which fields do nothing.

    Raises: UserError for the config of a study, of which training alone would use a part.
    """
    flat = flatten(config)
    if "landscape.seeds" in flat:
        raise UserError(
            "a config with landscape fields is for python -m vgg_jax.landscape; "
            "configs/vgg_a.py and vgg_a_bn.py train its two networks"
        )
    for line in check.idle(flat):
        print(line, file=sys.stderr)


def micro_batches(config: Config) -> int:
    """Number of micro-batches in a batch, each of at most config.train.micro_batch images; 1 if that is 0."""
    return check.micro_batches(config.train.batch_size, config.train.micro_batch)


def data_fields(overrides: Mapping[str, Any]) -> Data:
    """The group `data` alone, with overrides such as {"name": "digits"} applied and checked.

    Raises: UserError for an unknown field or a value out of range.
    """
    fields: Any = group("data")
    for name, given in overrides.items():
        if name not in fields:
            raise UserError(f"no config field data.{name}{suggest(name, fields)}")
        fields[name] = parse(f"data.{name}", _text(given), fields[name])
    for name, value in fields.items():
        check.check_value(f"data.{name}", FIELDS[f"data.{name}"], value)
    return fields
