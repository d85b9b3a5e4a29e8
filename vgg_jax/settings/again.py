"""The command that makes a run or a study again: the nearest shipped config, and the fields that differ from it."""

import functools
import shlex
from collections.abc import Mapping
from typing import Any

from vgg_jax.settings import config as configs, files
from vgg_jax.settings.check import does_something

Flat = Mapping[str, Any]  # a config's fields, by name


@functools.cache
def shipped() -> Mapping[str, Flat]:
    """The fields of every shipped config, by its name."""
    return {name: configs.flatten(configs.load(files.SHIPPED / f"{name}.py")) for name in files.names()}


def command(config: Flat, workdir: str = "") -> str | None:
    """The command for a config's fields; None where they are not known to this version.

    A config with code of its own must be given as its own file, with whatever overrides made it.
    """
    if "code.file" in config:
        return _line("train", str(config["code.file"]), {}, workdir)
    study = any(name.startswith("landscape.") for name in config)
    like = {name: fields for name, fields in shipped().items() if fields.keys() == config.keys()}
    if not like:
        return None
    base = min(like, key=lambda name: len(_changed(like[name], config)))
    return _line("landscape" if study else "train", base, _changed(like[base], config), workdir)


def _changed(base: Flat, config: Flat) -> dict[str, Any]:
    return {name: value for name, value in config.items() if base[name] != value and does_something(name, config)}


def _line(verb: str, config: str, overrides: Mapping[str, Any], workdir: str) -> str:
    """The words of a command, quoted for a shell, as values may come from a stranger."""
    fields = [f"--config.{name}={value}" for name, value in overrides.items()]
    return shlex.join(["vgg-jax", verb, "--config", config, *fields, *(["--workdir", workdir] if workdir else [])])
