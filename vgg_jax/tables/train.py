"""Train a table's rows over several seeds."""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vgg_jax.console import errors
from vgg_jax.console.errors import Busy, RunFailed, UserError
from vgg_jax.datasets import load
from vgg_jax.datasets.load import Dataset
from vgg_jax.model import network
from vgg_jax.runs import directory
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
        jobs[row.config] = [(c, workdir / row.config / f"seed{c.seed}") for c in configs.seeded(base, seeds)]
    return jobs


def count(seeds: int) -> int:
    """Raises: UserError for a number of seeds that cannot be trained."""
    if not 1 <= seeds <= 1000:
        raise UserError(f"--seeds takes 1 to 1000, not {seeds}")
    return seeds


def train_all(
    jobs: Mapping[str, Sequence[Job]], check: Callable[[dict[str, Dataset]], None] | None = None
) -> list[str]:
    """Train every row's first seed, then every row's second: the whole table is there early.

    A run that another process is training is left to it, so that several processes can share a table.

    Args:
      check: what to ask of every row's data before any training.

    Returns: an error line for each run that failed; it does not stop the others.
    """
    loaded = _prepare([job for seeded in jobs.values() for job in seeded], check)
    runs = [(name, job) for place in zip(*jobs.values()) for name, job in zip(jobs, place)]
    failed = []
    for number, (name, (config, workdir)) in enumerate(runs, 1):
        said = f"{name}, seed {config.seed}"
        try:
            if directory.read_summary(workdir) is None:
                print(f"run {number} of {len(runs)}: {said}", flush=True)
                _train(config, workdir, loaded[_source(config)])
        except RunFailed as error:
            failed.append(f"{said}: {error}")
        except UserError as error:  # the disk is full
            raise UserError("; ".join([*failed, f"{said}: {error}"])) from None
    return failed


def _train(config: Config, workdir: Path, splits: dict[str, Dataset]) -> None:
    try:
        directory.open_run(workdir, config, splits)
        print(network.line(config, len(splits["train"].class_names)))
        fit(config, splits, workdir)
    except Busy:
        print(f"{workdir} is left to the process that trains it", flush=True)
    except jax.errors.JaxRuntimeError as error:
        if errors.OUT_OF_MEMORY not in str(error):
            raise
        raise RunFailed(errors.LESS_MEMORY) from None


def _prepare(jobs: Iterable[Job], check: Callable[[dict[str, Dataset]], None] | None) -> dict[str, dict[str, Dataset]]:
    """The jobs' data, by `_source`; the directories are made or checked."""
    loaded: dict[str, dict[str, Dataset]] = {}  # the rows of a table share their images
    for config, workdir in jobs:
        key = _source(config)
        if key not in loaded:
            new = load.load(config)
            same = (old for old in loaded.values() if directory.describe(old) == directory.describe(new))
            loaded[key] = next(same, new)  # in memory once, however many fields differ
        if check:
            check(loaded[key])
        with contextlib.suppress(Busy):
            directory.open_run(workdir, config, loaded[key])
    return loaded


def _source(config: Config) -> str:
    """A key that is equal for configs with the same data; `get_data` may read any field, but the seed is no data."""
    fields: Any = config
    every = fields.to_dict()
    return json.dumps(every | {"seed": 0} if code.of(config, "get_data") else every["data"])


def write(result: dict[str, Any], text: str, results: Path) -> None:
    """Write the table as JSON, Markdown and pictures."""
    name = result["table"]
    (results / f"{name}.json").write_text(json.dumps(result) + "\n")
    (results / f"{name}.md").write_text(text)
    pictures.accuracy(result, table.caption(result), results / f"{name}_accuracy.png")
    pictures.curves(result, results / f"{name}_curves.png")
