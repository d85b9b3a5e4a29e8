"""Configs: load a file, apply overrides, check values. The fields are the schema."""

import ast
import contextlib
import difflib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from vgg_jax.errors import UserError
from vgg_jax.fields import CHOICES, OTHERS, RANGES, WHOLE, YOUNGER
from vgg_jax.models import STAGES
from vgg_jax.types import Config

# Inside the package when it was installed from a wheel, beside it in a checkout.
SHIPPED = next(p for p in (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs") if p.is_dir())


class MalformedError(UserError):
    """A config has not just the fields there are."""


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Config:
    """The config of a file's `get_config()`, with overrides {"train.epochs": "1"}, checked.

    Raises: UserError for a missing file, an unknown field or a value out of range.
    """
    file = Path(path)
    if not os.path.isfile(file):  # which, unlike Path.is_file, takes any name
        if str(file.parent) in (".", "configs"):
            file = SHIPPED / (file.stem + ".py")
        if not os.path.isfile(file):
            names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.py") if not p.stem.startswith("_")))
            raise UserError(f"no config file {path}; shipped ones are {names}")
    namesake = SHIPPED / file.name
    if namesake.is_file() and not namesake.samefile(file):
        print(f"taking {file.absolute()}, not the shipped config of that name", file=sys.stderr)
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        with _configs_are_shipped():
            spec.loader.exec_module(module)
            get_config = getattr(module, "get_config", None)
            config = get_config() if get_config else None
    except Exception as error:
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {error}; see configs/default.py") from None
    if not get_config:
        raise UserError(f"{path} has no get_config(); see configs/default.py")
    if not isinstance(config, (ConfigDict, FrozenConfigDict)):
        raise UserError(f"get_config() of {path} returns no ConfigDict; see configs/default.py")
    try:
        return override(config, overrides or {})
    except MalformedError as error:
        raise UserError(f"{path}: {error}") from None


@contextlib.contextmanager
def _configs_are_shipped() -> Iterator[None]:
    """Meanwhile `import configs.default` finds the shipped file, whatever other package is called configs.

    What is not shipped is looked for in folders called configs on the path, as ever.
    """

    def forget() -> dict[str, types.ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "configs"}

    others = forget()
    package = types.ModuleType("configs")
    package.__path__ = [str(SHIPPED), *(os.path.join(folder, "configs") for folder in sys.path)]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        forget()
        sys.modules.update(others)


def override(config: Config, overrides: Mapping[str, str]) -> Config:
    """A checked copy of config with {"train.epochs": "1"} applied, each value of its field's type."""
    changed: Any = ConfigDict(config.to_dict())
    _check_fields(flatten(changed))
    for field, text in overrides.items():
        *parents, leaf = field.split(".")
        section = changed
        for name in parents:
            section = section.get(name) if isinstance(section, ConfigDict) else None
        if not isinstance(section, ConfigDict) or leaf not in section:
            raise UserError(f"no config field {field}{_suggest(field, flatten(changed))}")
        group: Any = section[leaf]
        if isinstance(group, ConfigDict):
            raise UserError(
                f"config.{field} is a group; set a field of it, as --config.{field}.{next(iter(group))}=VALUE"
            )
        section[leaf] = _parse(field, text, section[leaf])
    validate(changed)
    return FrozenConfigDict(changed)


def seeded(config: Config, n: int) -> list[Config]:
    """The config with seeds config.seed, config.seed + 1, ..., n in all."""
    return [override(config, {"seed": str(config.seed + i)}) for i in range(n)]


def from_json(text: str) -> Config:
    """The config that `to_json` wrote, in this version or an earlier one."""
    given = json.loads(text)
    for field, value in YOUNGER.items():
        group, name = field.split(".")
        given[group].setdefault(name, value)
    if isinstance(given["augment"]["flip"], bool):  # a switch once
        given["augment"]["flip"] = "random" if given["augment"]["flip"] else "none"
    config = ConfigDict(given)
    for section in config.values():
        if isinstance(section, ConfigDict):
            for name, value in section.items():
                if isinstance(value, (list, tuple)):
                    section[name] = tuple(value)
    return FrozenConfigDict(config)


def to_json(config: Config) -> str:
    return json.dumps(config.to_dict(), indent=2) + "\n"


def flatten(config: Config) -> dict[str, Any]:
    """{"train.epochs": 300, ...}"""
    flat = {}
    for name, value in config.items():
        if isinstance(value, (ConfigDict, FrozenConfigDict)):
            flat |= {f"{name}.{inner}": v for inner, v in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def validate(config: Config) -> None:
    """Raises: UserError naming the first field whose value cannot work."""
    flat = flatten(config)
    for field, choices in CHOICES.items():
        if field in flat and flat[field] not in choices:
            hint = _suggest(str(flat[field]), choices) or f"; one of {', '.join(choices)}"
            raise UserError(f"config.{field} cannot be {flat[field]!r}{hint}")
    for field, (low, high) in RANGES.items():
        value = flat.get(field, low)  # the landscape fields are only in configs of that command
        values = value if isinstance(value, tuple) else (value,)
        for value in values:
            if type(value) not in (int, float) or not low <= value <= high:
                raise UserError(f"config.{field} must lie in [{low:g}, {high:g}], not {value!r}")
            if field in WHOLE and type(value) is not int:
                raise UserError(f"config.{field} takes whole numbers, not {value!r}")
    _check_model(flat)
    _check_training(flat, micro_batches(config))
    if not flat.get("landscape.surface_points", 1) % 2:
        raise UserError("config.landscape.surface_points must be odd, so that the middle is the network itself")
    if empty := [field for field in ("landscape.step_sizes", "landscape.learning_rates") if flat.get(field) == ()]:
        raise UserError(f"config.{empty[0]} needs at least one number")


def _check_model(flat: Mapping[str, Any]) -> None:
    stages, size = STAGES[flat["model.stages"]], flat["data.image_size"]
    if size % 2 ** len(stages):
        raise UserError(
            f"config.data.image_size={size} cannot be halved by the {len(stages)} pools of stages "
            f"{flat['model.stages']}; take a multiple of {2 ** len(stages)}"
        )
    places = (("stage", "stage", len(stages)), ("head", "dense layer", len(flat["model.hidden"]) + 1))
    for field, field_name, most in places:
        if len(flat[f"model.{field}_dropout"]) not in (0, most):
            raise UserError(
                f"config.model.{field}_dropout takes no rates or {most}, one for each {field_name}; 0 drops nothing"
            )
    if flat["model.residual"] and flat["model.pool"] == "first":
        raise UserError("config.model.pool='first' is not for residual blocks; take last")


def _check_training(flat: Mapping[str, Any], slices: int) -> None:
    if flat["optimizer.name"] == "muon" and not flat["optimizer.learning_rate"]:
        raise UserError("config.optimizer.learning_rate must be above 0 for muon, whose rest it trains")
    batch, micro_batch = flat["train.batch_size"], flat["train.micro_batch"]
    if batch % slices:
        raise UserError(
            f"config.train.batch_size={batch} does not divide into {slices} equal micro-batches of at most "
            f"{micro_batch}; the nearest that does is {max(1, round(batch / slices)) * slices}"
        )


def micro_batches(config: Config) -> int:
    """How many a batch is taken in."""
    t = config.train
    return -(-t.batch_size // t.micro_batch) if t.micro_batch else 1


def _check_fields(flat: Mapping[str, Any]) -> None:
    known = set(CHOICES) | set(RANGES) | OTHERS
    if not any(field.startswith("landscape.") for field in flat):
        known = {field for field in known if not field.startswith("landscape.")}
    if unknown := sorted(set(flat) - known):
        raise MalformedError(f"no config field {unknown[0]}{_suggest(unknown[0], known)}")
    if missing := sorted(known - set(flat)):
        raise MalformedError(f"config field {missing[0]} is missing; see configs/default.py")


def _parse(field: str, text: str, old: Any) -> Any:
    """text as a value of old's type."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(old, tuple) and isinstance(value, (int, float, list)) and not isinstance(value, bool):
        value = tuple(value) if isinstance(value, list) else (value,)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(str(value))  # inf where an int is too large
    allowed = (int,) if field in WHOLE else (int, float)
    numbers = not isinstance(value, tuple) or all(type(v) in allowed for v in value)
    if type(value) is not type(old) or not numbers:
        kind = {
            "bool": "True or False",
            "int": "a whole number",
            "float": "a number",
            "tuple": "whole numbers, as (512, 512)" if field in WHOLE else "numbers, as (0.3, 0.4)",
        }
        raise UserError(f"config.{field} takes {kind[type(old).__name__]}, not {text!r}")
    return value


def _suggest(name: str, known: Any) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, 0.6)
    if not near:  # the right field in the wrong group
        near = [k for k in known if k.split(".")[-1] == name.split(".")[-1]][:1]
    return f"; did you mean {near[0]}?" if near else ""
