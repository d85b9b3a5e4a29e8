"""A run's records, config and pictures in an experiment tracker: Weights & Biases (wandb) or trackio.

A tracker is a guest: whatever happens to it, training goes on, and metrics.jsonl has every record.
"""

import contextlib
import contextvars
import importlib
import importlib.util
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgg_jax.console.errors import UserError
from vgg_jax.runs import directory
from vgg_jax.runs.log import Record
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training.processes import is_first

FILE = "tracking.json"  # the run's name at the tracker, and the last step sent, so that a resumed run goes on there
# What one tracker takes besides; both otherwise speak the same language, and finish a run when the next one begins.
OWN: dict[str, dict[str, Any]] = {"wandb": {"reinit": "create_new"}, "trackio": {"embed": False}}


def check(config: Config) -> None:
    """Raises: UserError when the tracker is not installed."""
    name = config.train.tracker
    if name == "none":
        return
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder of that name, where wandb once left its files, is no package
        raise UserError(f"config.train.tracker={name} needs {name}: pip install {name}")


class Tracker:
    """Sends what a run logs. After the tracker's first error, which is told in one line, nothing more is sent."""

    def __init__(self, config: Config, workdir: Path):
        self._name, self._file = config.train.tracker, workdir / FILE
        self._run: Any = None
        if self._name == "none" or not is_first():
            return
        with self._guest():
            self._sent = self._read()
            self._module: Any = importlib.import_module(self._name)
            own = OWN[self._name] | ({"id": self._sent["run"], "dir": workdir} if self._name == "wandb" else {})
            start = contextvars.copy_context().run  # where trackio finds no other run to finish
            self._run = start(
                self._module.init,
                project=os.environ.get(f"{self._name.upper()}_PROJECT", "vgg_jax"),
                name=self._sent["run"],
                config=configs.flatten(config),
                resume="allow",
                **own,
            )

    def write(self, record: Record) -> None:
        """Send a record, unless an earlier session of this run has sent its step."""
        if self._run and record["step"] > self._sent["step"]:
            with self._guest():
                self._run.log({k: v for k, v in record.items() if k != "step"}, step=record["step"])
                self._sent["step"] = record["step"]
                directory.write(self._file, json.dumps(self._sent) + "\n")

    def close(self) -> None:
        """Send the run's pictures, and wait until everything is sent."""
        if self._run:
            with self._guest():
                pictures = [f for f in (self._file.with_name(f"{n}.png") for n in ("samples", "curves")) if f.is_file()]
                if pictures and self._sent["step"]:
                    images = {file.stem: self._module.Image(str(file)) for file in pictures}
                    self._run.log(images, step=self._sent["step"])
                self._run.finish()
                self._run = None

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            sent = json.loads(self._file.read_text())
            if sent["tracker"] == self._name:
                return sent
        where = self._file.parent.absolute()
        run = "-".join((where.parent.name, where.name, secrets.token_hex(3)))
        return {"tracker": self._name, "run": run, "step": 0}

    @contextlib.contextmanager
    def _guest(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            why = (str(error).splitlines() or [""])[0]
            print(f"{self._name} failed ({type(error).__name__}: {why}); the run goes on without it", flush=True)
