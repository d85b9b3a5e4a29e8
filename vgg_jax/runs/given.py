"""A run directory of weights that were given, not trained: a checkpoint, config.json and run.json, no metrics."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgg_jax.console.errors import UserError
from vgg_jax.runs import directory, entry
from vgg_jax.runs.checkpoint import save_variables
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config


def refuse_if_filled(workdir: Path) -> None:
    """Raises: UserError when there is anything at workdir."""
    if os.path.lexists(workdir) and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise UserError(f"{workdir} is there already; give another --workdir")


def make(
    workdir: Path, config: Config, facts: Mapping[str, Any], step: int, variables: Any, more: Mapping[str, str]
) -> None:
    """Write the directory, whole or not at all; more: further files, by name.

    Raises: UserError when it cannot be written.
    """
    entry.make(workdir)
    try:
        save_variables(workdir, step, variables)
        for name, text in more.items():
            directory.write(workdir / name, text)
        directory.write(workdir / "run.json", json.dumps(facts, indent=2) + "\n")
        directory.write(workdir / "config.json", configs.to_json(config))
    except BaseException:
        shutil.rmtree(workdir, ignore_errors=True)
        raise
