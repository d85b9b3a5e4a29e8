"""Train a table's rows over several seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vgg_jax.console import errors
from vgg_jax.console.errors import Busy, RunFailed, UserError
from vgg_jax.datasets import load
from vgg_jax.datasets.load import Dataset
from vgg_jax.model import network
from vgg_jax.runs import directory, entry, tracking
from vgg_jax.runs.loop import fit
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.tables import pictures, table
from vgg_jax.tables.rows import Job, Row


def plan(rows: Sequence[Row], seeds: int, workdir: Path, overrides: Mapping[str, str]) -> dict[str, list[Job]]:
    """The jobs to train, by row; every config is checked before any training."""
    jobs = {}
    for row in rows:
        base = configs.load(row.file, overrides)
        configs.check_trains(base)
        tracking.check(base)
        jobs[row.config] = [(c, workdir / row.config / f"seed{c.seed}") for c in configs.seeded(base, seeds)]
    return jobs


def check_seeds(count: int) -> None:
    """Raises: UserError for a number of seeds that cannot be trained."""
    if not 1 <= count <= 1000:
        raise UserError(f"--seeds takes 1 to 1000, not {count}")


class _Run(NamedTuple):
    place: str  # as "3 of 9"
    name: str
    config: Config
    workdir: Path
    splits: dict[str, Dataset]


def train_all(
    jobs: Mapping[str, Sequence[Job]], check: Callable[[dict[str, Dataset]], None] | None = None
) -> list[str]:
    """Train every row's first seed, then every row's second: the whole table is there early.

    A run that another process is training is left to it, and looked at again after the others. So several processes can
    share a table.

    Args:
      check: what to ask of every row's data before any training.

    Returns: an error line for each run that failed; it does not stop the others.
    """
    left, failed = _prepare(jobs, check), []
    while left:
        busy = []
        for run in left:
            try:
                _train(run)
            except Busy:
                busy.append(run)
            except RunFailed as error:
                failed.append(f"{run.name}: {error}")
            except UserError as error:  # the disk is full
                raise UserError("; ".join([*failed, f"{run.name}: {error}"])) from None
        if len(busy) == len(left):
            print(f"other processes are training {'; '.join(run.name for run in busy)}", flush=True)
            break
        left = busy
    return failed


def _train(run: _Run) -> None:
    new = entry.enter(run.workdir, run.config, run.splits)
    if directory.read_summary(run.workdir) is not None:
        return
    line = network.line(run.config, len(run.splits["train"].class_names))
    print(f"run {run.place}, {run.name}: {line}", flush=True)
    try:
        with entry.taken_back(run.workdir, new):
            fit(run.config, run.splits, run.workdir)
    except jax.errors.JaxRuntimeError as error:
        if not (line := errors.of_the_device(error)):
            raise
        raise RunFailed(line) from None


def _prepare(jobs: Mapping[str, Sequence[Job]], check: Callable[[dict[str, Dataset]], None] | None) -> list[_Run]:
    """The runs in their order, with their data; all are checked before any training."""
    ordered = [(name, job) for place in zip(*jobs.values()) for name, job in zip(jobs, place)]
    loaded: dict[str, dict[str, Dataset]] = {}  # the rows of a table share their images
    runs = []
    for number, (name, (config, workdir)) in enumerate(ordered, 1):
        key = _source(config)
        if key not in loaded:
            new = load.load(config)
            same = (old for old in loaded.values() if directory.describe(old) == directory.describe(new))
            loaded[key] = next(same, new)  # in memory once, however many fields differ
        if check:
            check(loaded[key])
        if number <= len(jobs):  # the first seed of a row: a second does not fit differently
            entry.check_fits(config, loaded[key])
        if entry.is_there(workdir):
            entry.check_same(workdir, config, loaded[key])
        runs.append(_Run(f"{number} of {len(ordered)}", f"{name}, seed {config.seed}", config, workdir, loaded[key]))
    return runs


def _source(config: Config) -> str:
    """A key that is equal for configs with the same data; `get_data` may read any field."""
    fields: Any = config
    every = fields.to_dict()
    return json.dumps(every if code.of(config, "get_data") else every["data"])


def write(result: dict[str, Any], text: str, results: Path) -> None:
    """Write the table as JSON, Markdown and pictures."""
    name = result["table"]
    directory.write(results / f"{name}.json", json.dumps(result) + "\n")
    directory.write(results / f"{name}.md", text)
    pictures.accuracy(result, table.caption(result), results / f"{name}_accuracy.png")
    pictures.curves(result, results / f"{name}_curves.png")
