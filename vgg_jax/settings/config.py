"""Configs: load a file, apply overrides, check values. What is declared in `fields` is the schema."""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ml_collections import ConfigDict, FrozenConfigDict

from vgg_jax.console.errors import UserError
from vgg_jax.settings import code
from vgg_jax.settings.fields import FIELDS, STAGES, Config, Field

# Inside the package when it was installed from a wheel, beside it in a checkout.
_PACKAGE = Path(__file__).parent.parent
SHIPPED = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())
_FREE = ("own.", "code.")  # groups without declared fields: for a `get_model` of one's own, and where that is


class MalformedError(UserError):
    """A config has not just the fields there are."""


def default() -> ConfigDict:
    """Every field at its default, but for those of the landscape study."""
    config = ConfigDict({"seed": FIELDS["seed"].default})
    for name in dict.fromkeys(name.split(".")[0] for name in FIELDS if "." in name):
        if name != "landscape":
            config[name] = group(name)
    return config


def group(name: str) -> ConfigDict:
    """One group of fields at its defaults, as "landscape"."""
    return ConfigDict({f.split(".")[1]: field.default for f, field in FIELDS.items() if f.startswith(f"{name}.")})


def listing() -> str:
    """Every field with its default, meaning and choices, a line each."""
    return "\n".join(f"  --config.{name}={_text(field.default)}  {_explained(field)}" for name, field in FIELDS.items())


def markdown() -> str:
    """The same as docs/fields.md."""
    rows = [f"| `{name}` | `{_text(field.default)}` | {_explained(field)} |" for name, field in FIELDS.items()]
    head = [
        "# Every field of a config",
        "",
        "Written by `python -m vgg_jax.settings.config`. An overlay changes a few of them, the command line any, as",
        '`--config.train.epochs=30`. An empty tuple, "" or 0 means none or off unless a line says otherwise. The',
        "fields of `landscape` are only in the configs of `python -m vgg_jax.landscape`. A group `own` may hold what a",
        "network or data of your own need.",
        "",
        "| field | default | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _text(value: Any) -> str:
    return str(value) if value != "" else '""'


def _explained(field: Field) -> str:
    if field.choices:
        return f"{field.meaning} ({', '.join(field.choices)})"
    if field.low == -float("inf"):
        return field.meaning
    return f"{field.meaning} [{field.low:.4g} to {field.high:.4g}]"


def load(source: str | Path | ConfigDict | FrozenConfigDict, overrides: Mapping[str, Any] | None = None) -> Config:
    """A checked config.

    Args:
      source: a shipped name ("bn_dropout"), a file with `get_config()`, or a ConfigDict.
      overrides: {"train.epochs": 2}, each value typed or as the command line has it ("2").

    Raises: UserError for a missing file, an unknown field or a value out of range.
    """
    if isinstance(source, (ConfigDict, FrozenConfigDict)):
        return override(_typed(source), overrides or {})
    try:
        return override(_typed(_run(source)), overrides or {})
    except MalformedError as error:
        raise UserError(f"{source}: {error}") from None


def _run(path: str | Path) -> ConfigDict:
    """What a file's `get_config()` returns, with its own code, if it has any, in the group `code`."""
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
    if own := code.register(module, file, hashlib.sha256(file.read_bytes()).hexdigest()):
        config = ConfigDict(config.to_dict() | {"code": own})
    return config


def _typed(config: ConfigDict | FrozenConfigDict) -> Config:
    """The same object, as the type checker is to see it."""
    return cast(Config, config)


def _untyped(config: Config) -> Any:
    return config


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


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A checked copy of config with {"train.epochs": "1"} applied, each text as a value of its field's type."""
    changed = ConfigDict(_untyped(config).to_dict())
    _check_fields(flatten(_typed(changed)))
    for field, given in overrides.items():
        *parents, leaf = field.split(".")
        section: Any = changed
        for name in parents:
            section = section.get(name) if isinstance(section, ConfigDict) else None
        if not isinstance(section, ConfigDict) or leaf not in section:
            raise UserError(f"no config field {field}{_suggest(field, flatten(_typed(changed)))}")
        old: Any = section[leaf]
        if isinstance(old, ConfigDict):
            raise UserError(
                f"config.{field} is a group; set a field of it, as --config.{field}.{next(iter(old))}=VALUE"
            )
        text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else repr(given)
        section[leaf] = _parse(field, text, old)
    validate(_typed(changed))
    return _typed(FrozenConfigDict(changed))


def with_code(config: Config, other: Config) -> Config:
    """config with the functions of another one's file."""
    return _typed(FrozenConfigDict(_untyped(config).to_dict() | {"code": _untyped(other).code.to_dict()}))


def without(config: Config, name: str) -> Config:
    """config without that group."""
    return _typed(ConfigDict({key: value for key, value in _untyped(config).to_dict().items() if key != name}))


def seeded(config: Config, n: int) -> list[Config]:
    """The config with seeds config.seed, config.seed + 1, ..., n in all."""
    return [override(config, {"seed": str(config.seed + i)}) for i in range(n)]


def from_json(text: str) -> Config:
    """The config that `to_json` wrote, in this version or an earlier one."""
    given = json.loads(text)
    for name, field in FIELDS.items():
        if field.before is not None:
            section, _, leaf = name.partition(".")
            given[section].setdefault(leaf, field.before)
    if isinstance(given["augment"]["flip"], bool):  # a switch once
        given["augment"]["flip"] = "random" if given["augment"]["flip"] else "none"
    config = ConfigDict(given)
    for section in config.values():
        if isinstance(section, ConfigDict):
            for name, value in section.items():
                if isinstance(value, (list, tuple)):
                    section[name] = tuple(value)
    return _typed(FrozenConfigDict(config))


def to_json(config: Config) -> str:
    return json.dumps(_untyped(config).to_dict(), indent=2) + "\n"


def flatten(config: Config) -> dict[str, Any]:
    """{"train.epochs": 300, ...}"""
    flat = {}
    for name, value in _untyped(config).items():
        if isinstance(value, (ConfigDict, FrozenConfigDict)):
            flat |= {f"{name}.{inner}": v for inner, v in flatten(_typed(value)).items()}
        else:
            flat[name] = value
    return flat


def validate(config: Config) -> None:
    """Raises: UserError naming the first field whose value cannot work."""
    flat = flatten(config)
    for name, field in FIELDS.items():
        if name in flat:  # those of the landscape study are only in its configs
            _check_value(name, field, flat[name])
    _check_model(flat)
    _check_training(flat, micro_batches(config))
    if not flat.get("landscape.surface_points", 1) % 2:
        raise UserError("config.landscape.surface_points must be odd, so that the middle is the network itself")
    if empty := [field for field in ("landscape.step_sizes", "landscape.learning_rates") if flat.get(field) == ()]:
        raise UserError(f"config.{empty[0]} needs at least one number")


def _check_value(name: str, field: Field, value: Any) -> None:
    if field.choices and value not in field.choices:
        hint = _suggest(str(value), field.choices) or f"; one of {', '.join(field.choices)}"
        raise UserError(f"config.{name} cannot be {value!r}{hint}")
    if field.low == -float("inf"):
        return
    for number in value if isinstance(value, tuple) else (value,):
        if type(number) not in (int, float) or not field.low <= number <= field.high:
            raise UserError(f"config.{name} must lie in [{field.low:g}, {field.high:g}], not {number!r}")
        if _is_whole(field) and type(number) is not int:
            raise UserError(f"config.{name} takes whole numbers, not {number!r}")


def _is_whole(field: Field) -> bool:
    """Whether it is a tuple of whole numbers."""
    return isinstance(field.default, tuple) and {type(x) for x in field.default} == {int}


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
    """Parts that a batch is cut into, each of at most config.train.micro_batch images; 1 without micro-batches."""
    t = config.train
    return -(-t.batch_size // t.micro_batch) if t.micro_batch else 1


def _check_fields(flat: Mapping[str, Any]) -> None:
    known, given = set(FIELDS), {field for field in flat if not field.startswith(_FREE)}
    if not any(field.startswith("landscape.") for field in flat):
        known = {field for field in known if not field.startswith("landscape.")}
    if unknown := sorted(given - known):
        raise MalformedError(f"no config field {unknown[0]}{_suggest(unknown[0], known)}")
    if missing := sorted(known - given):
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
    whole = field in FIELDS and _is_whole(FIELDS[field])
    allowed = (int,) if whole else (int, float)
    numbers = not isinstance(value, tuple) or all(type(v) in allowed for v in value)
    if type(value) is not type(old) or not numbers:
        kind = {
            "bool": "True or False",
            "int": "a whole number",
            "float": "a number",
            "tuple": "whole numbers, as (512, 512)" if whole else "numbers, as (0.3, 0.4)",
        }
        raise UserError(f"config.{field} takes {kind[type(old).__name__]}, not {text!r}")
    return value


def _suggest(name: str, known: Any) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, 0.6)
    if not near:  # the right field in the wrong group
        near = [k for k in known if k.split(".")[-1] == name.split(".")[-1]][:1]
    return f"; did you mean {near[0]}?" if near else ""


if __name__ == "__main__":
    (_PACKAGE.parent / "docs" / "fields.md").write_text(markdown())
