"""Own code: the functions besides `get_config` that a config file may define.

A config stays plain data: its group `code` names the file and its SHA-256, under which the functions are kept here.
A run directory therefore never runs code by itself; to use such a run, give the config file again.
"""

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vgg_jax.console.errors import UserError, suggest

NAMES = (
    "get_model",  # (config, number of classes) -> Linen module
    "get_data",  # (config) -> {"train", "validation", "test"}
    "get_schedule",  # (config, steps per epoch) -> optax.Schedule
    "get_optimizer",  # (config, schedule) -> optax.GradientTransformation
    "get_loss",  # (config) -> (logits [N, C], labels [N]) -> [N]
    "get_augment",  # (config) -> (key, normalised images [N, H, W, 3]) -> the same, after config.augment's own
)
TRAINING = NAMES[2:]
_known: dict[str, ModuleType] = {}


def register(module: ModuleType, file: Path, sha256: str) -> dict[str, Any]:
    """Keep a config file's functions; returns its group `code`, empty if there are none."""
    for name in vars(module):
        if name.startswith("get_") and name not in ("get_config", *NAMES) and (meant := suggest(name, NAMES, 0.9)):
            print(f"{file.name}: nothing calls {name}{meant}", file=sys.stderr)
    has = {name.removeprefix("get_"): True for name in NAMES if callable(getattr(module, name, None))}
    if not has:
        return {}
    _known[sha256] = module
    return {"file": file.name, "sha256": sha256, "model": False, "data": False} | has


def of(config: Any, name: str) -> Callable[..., Any] | None:
    """A config's own function of that name, if it has one.

    Raises: UserError when its file has not been given in this process.
    """
    group: Any = config.get("code")
    if not group or not group.get(name.removeprefix("get_")):
        return None
    own = getattr(_known.get(group.sha256), name, None)
    if own is None:
        raise UserError(f"{name} of this run has to come from {group.file}: give that file as --config")
    return own


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


def is_needed(config: Any) -> bool:
    """Whether a finished run can be used only with the config's file."""
    return bool(of(config, "get_model") or of(config, "get_data"))


def make(config: Any, name: str, ours: Callable[..., Any], *given: Any) -> Any:
    """What the config's own function of that name makes of (config, *given), else what ours does.

    Raises: UserError when the own one fails.
    """
    if not (own := of(config, name)):
        return ours(config, *given)
    with blamed(config, name):
        made = own(config, *given)
    if made is None:
        raise UserError(f"{name} of {config.code.file} returns nothing")
    return made


def blame(error: Exception, file: str) -> str:
    """An error in a config file in one line, with the line of the file where it arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == Path(file).name]
    what = str(error).strip().partition("\n")[0]
    return (f"line {lines[-1]}: " if lines else "") + f"{type(error).__name__}: {what}"
