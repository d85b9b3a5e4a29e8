"""Own networks and data: the functions `get_model` and `get_data` that a config file may define.

A config stays plain data: its group `code` names the file and its SHA-256, under which the functions are kept here.
A run directory therefore never runs code by itself; to use such a run, give the config file again.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vgg_jax.console.errors import UserError


class Code(NamedTuple):
    """The functions that a config file defines besides `get_config`."""

    get_model: Callable[[Any, int], Any] | None  # (config, number of classes) -> Linen module
    get_data: Callable[[Any], Any] | None  # (config) -> {"train", "validation", "test"}


_known: dict[str, Code] = {}


def register(module: ModuleType, file: Path, sha256: str) -> dict[str, Any]:
    """Keep a config file's functions; returns its group `code`, empty if there are none."""
    code = Code(getattr(module, "get_model", None), getattr(module, "get_data", None))
    if not any(code):
        return {}
    _known[sha256] = code
    return {"file": file.name, "sha256": sha256, "model": bool(code.get_model), "data": bool(code.get_data)}


def of(config: Any) -> Code:
    """The functions of a config.

    Raises: UserError when its file has not been given in this process.
    """
    group = config.get("code")
    if not group:
        return Code(None, None)
    if group.sha256 not in _known:
        raise UserError(f"the network or the data of this run come from {group.file}: give that file as --config")
    return _known[group.sha256]


@contextlib.contextmanager
def blamed(config: Any, what: str) -> Iterator[None]:
    """Whatever the config's own file raises ends in one line that names the file.

    Raises: UserError.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever the file does
        raise UserError(f"{what} of {config.code.file} fails: {blame(error, config.code.file)}") from None


def blame(error: Exception, file: str) -> str:
    """An error in a config file in one line, with the line of the file where it arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == Path(file).name]
    what = str(error).strip().partition("\n")[0]
    return (f"line {lines[-1]}: " if lines else "") + f"{type(error).__name__}: {what}"
