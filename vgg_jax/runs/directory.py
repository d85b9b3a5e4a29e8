"""A run's directory: the files that describe the run, read and written."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vgg_jax.console.errors import UserError
from vgg_jax.console.flags import path
from vgg_jax.datasets.load import Dataset
from vgg_jax.settings import config as configs
from vgg_jax.settings.check import MalformedError, does_something
from vgg_jax.settings.fields import FIELDS, Config
from vgg_jax.training import processes

# Fields that may differ when a run resumes: they change no result, but for own code, of which `say_if_changed` tells.
CHANGEABLE = {
    "data.data_dir", "data.archive", "train.devices", "train.save_minutes", "train.tracker", "code.file", "code.sha256",
}  # fmt: skip


def fields(config: Config) -> dict[str, Any]:
    """The fields of a config that a result depends on, by name."""
    flat = configs.flatten(config)
    return {name: value for name, value in flat.items() if name not in CHANGEABLE and does_something(name, flat)}


def differing(old: Config, new: Config) -> list[str]:
    """The names of the fields by which two configs are of different runs."""
    there, here = configs.flatten(old), configs.flatten(new)
    return [name for name in sorted(fields(old) | fields(new)) if there.get(name) != here.get(name)]


def say_if_changed(workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Say that a config's own file is another than the run began with; old and new are flat configs."""
    if old.get("code.sha256") != new.get("code.sha256"):
        print(f"{new['code.file']} has changed since the run in {workdir} began with it", file=sys.stderr)


def read_run(
    workdir: Path, overrides: Mapping[str, Any] = MappingProxyType({}), own: str | Path | None = None
) -> tuple[Config, dict[str, Any]]:
    """(config, facts) of a run directory.

    Args:
      overrides: values by field, e.g. where the data are now.
      own: the config file that made the run, if it defines its own network or data.

    Raises: UserError when workdir is not a run directory, or overrides or own would change the run.
    """
    refuse_changes(workdir, overrides)
    try:
        config = configs.from_json((workdir / "config.json").read_text())
        config = configs.override(with_code(workdir, config, own) if own else config, overrides)
        return config, read_facts(workdir)
    except (FileNotFoundError, NotADirectoryError):
        inside = sorted(file.parent.name for file in workdir.glob("*/run.json"))[:5]
        advice = f"it holds runs: give {workdir / inside[0]}" if inside else "train one first"
        if len(inside) > 1:
            advice += f" or another of {', '.join(inside)}"
        raise UserError(f"{workdir} is no run directory (no config.json and run.json); {advice}") from None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, MalformedError) as error:
        raise UserError(f"{workdir} has a damaged config.json or run.json ({error}); give another --workdir") from None


def data_dir(config: Config) -> str:
    """The absolute path of config.data.data_dir; "" if the config names none."""
    return str(path(config.data.data_dir).absolute()) if config.data.data_dir else ""


def refuse_changes(workdir: Path, overrides: Mapping[str, Any]) -> None:
    """Raises: UserError for an override that would change a result of the run."""
    for field in overrides:
        if field not in CHANGEABLE:
            listed = ", ".join(sorted(CHANGEABLE & FIELDS.keys()))
            raise UserError(f"config.{field} is part of the run in {workdir}; only {listed} can change")


def read_facts(workdir: Path) -> dict[str, Any]:
    """run.json of a run directory: its classes, data, versions and machine."""
    facts = json.loads((workdir / "run.json").read_text())
    check_facts(facts)
    return facts


def with_code(workdir: Path, config: Config, own: str | Path) -> Config:
    """The run's config with the code of the file `own`."""
    given = configs.load(own)
    old, new = configs.flatten(config), configs.flatten(given)
    for part in ("model", "data"):
        if old.get(f"code.{part}", False) != new.get(f"code.{part}", False):
            raise UserError(f"{own} is not the config of the run in {workdir}: get_{part} is in only one of them")
    if "code.sha256" not in new:
        return config
    say_if_changed(workdir, old, new)
    return configs.with_code(config, given)


def check_facts(facts: Any) -> None:
    """Raises: ValueError or another error that a damaged run.json leads to."""
    colours = [facts["mean"], facts["std"]]
    names = isinstance(facts["class_names"], list) and all(isinstance(name, str) for name in facts["class_names"])
    names = names and isinstance(facts.get("data_dir", ""), str)
    numbers = all(len(colour) == 3 and all(type(x) in (int, float) for x in colour) for colour in colours)
    settings = isinstance(facts.get("jax_settings", {}), dict)
    if not names or not numbers or not settings or set(facts["fingerprint"]) != {"train", "validation", "test"}:
        raise ValueError("fields are missing or of the wrong type")


def describe(data: dict[str, Dataset]) -> dict[str, Any]:
    """The facts about the data that run.json keeps."""
    train = data["train"]
    return {
        "class_names": train.class_names,
        "mean": train.mean,
        "std": train.std,
        "sizes": {split: len(dataset) for split, dataset in data.items()},
        "fingerprint": {split: dataset.fingerprint for split, dataset in data.items()},
    }


def read_seconds(workdir: Path) -> float:
    """Seconds that a run had taken at its last save; 0.0 if not recorded."""
    try:
        return float((workdir / "seconds.txt").read_text())
    except (OSError, ValueError):
        return 0.0


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """summary.json of a finished run; None before it finishes."""
    try:
        return json.loads((workdir / "summary.json").read_text())
    except (FileNotFoundError, ValueError):  # it can be made again
        return None


def drop_summary(workdir: Path) -> None:
    """Delete summary.json before a run resumes, since it is no longer finished."""
    if processes.is_first():
        (workdir / "summary.json").unlink(missing_ok=True)


def write_summary(workdir: Path, summary: dict[str, Any]) -> None:
    write(workdir / "summary.json", json.dumps(summary, indent=2) + "\n")


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")  # processes that share a table write it at once
    partial.write_text(text)
    partial.replace(file)
