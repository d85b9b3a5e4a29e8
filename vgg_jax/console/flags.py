"""Command-line flags: a command's own, and --config.FIELD=VALUE overrides."""

import argparse
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vgg_jax.console.errors import UserError, suggest

OF_A_RUN: dict[str, dict[str, Any]] = {
    "--checkpoint": {"choices": ("best", "latest"), "default": "latest", "help": "default latest"},
    "--config": {"help": "the config file that made the run, if it defines its own network or data"},
}


def path(text: str) -> Path:
    """The path that a user typed, with ~ as the home directory, or the temporary one for a user without a home."""
    expanded = os.path.expanduser(text)
    return Path(tempfile.gettempdir() + expanded[1:] if re.match("~(/|$)", expanded) else expanded)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{self._hint(message)}; see --help")

    def _hint(self, message: str) -> str:
        """What was meant by an unknown flag, if that can be told."""
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if not unknown:
            return ""
        if unknown[1] == "--workdir" and self._get_positional_actions():
            return "; give the directory itself, without --workdir"
        return suggest(unknown[1], self._option_string_actions)


def parse(
    argv: Sequence[str], description: str | None, flags: Mapping[str, Mapping[str, Any]]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The named flags (name -> settings of `add_argument`) and the overrides {"train.epochs": "1"}.

    Raises: UserError for anything else.
    """
    command = re.search(r"python -m \S+", description or "")
    parser = _Parser(
        command and command[0],
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, settings in flags.items():
        parser.add_argument(name, **settings)
    mine, overrides, rest = [], {}, list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            mine.append(word)
            continue
        flag, equals, value = word.partition("=")
        if not equals and (not rest or rest[0].startswith("--")):
            raise UserError(f"{flag} needs a value: {flag}=VALUE")
        overrides[flag.removeprefix("--config.")] = value if equals else rest.pop(0)
    return parser.parse_args(mine), overrides
