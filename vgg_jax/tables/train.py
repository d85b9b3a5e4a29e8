"""Train a table's rows over several seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vgg_jax.console import errors
from vgg_jax.console.errors import RunFailed, UserError
from vgg_jax.datasets import load
from vgg_jax.datasets.load import Dataset
from vgg_jax.model import network
from vgg_jax.runs import directory
from vgg_jax.runs.loop import fit_together
from vgg_jax.runs.resuming import Job, in_step
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.tables import pictures, table
from vgg_jax.tables.rows import Row


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


def train(jobs: Sequence[Job], splits: dict[str, Dataset]) -> list[str]:
    """Train a row's seeds; those that share a saved step and fit into memory train in one program.

    Returns: an error line for each failed run.
    """
    unfinished = [job for job in jobs if not _finished(job[1])]
    return [failure for group in in_step(unfinished) for failure in _train_group(group, splits)]


def _finished(workdir: Path) -> bool:
    return directory.read_summary(workdir) is not None


def _train_group(group: Sequence[Job], splits: dict[str, Dataset]) -> list[str]:
    try:
        fit_together([config for config, _ in group], splits, [workdir for _, workdir in group])
        return []
    except RunFailed as error:  # one run of the group failed
        parts = [[job] for job in group]
        why = str(error)
    except jax.errors.JaxRuntimeError as error:
        if errors.OUT_OF_MEMORY not in str(error):
            raise
        half = len(group) // 2
        parts = [group[:half], group[half:]]
        why = f"not enough memory for {len(group)} seeds at once" if half else errors.LESS_MEMORY
    if len(group) == 1:
        return [why]
    print(f"{why}; going on with {len(parts[0])} at once", flush=True)
    return [failure for part in parts for failure in _train_group(part, splits)]


def train_all(
    jobs: Mapping[str, Sequence[Job]], check: Callable[[dict[str, Dataset]], None] | None = None
) -> list[str]:
    """Train row after row; returns the failures, so that one diverging run does not stop the others.

    check: what to ask of every row's data before any training.
    """
    loaded: dict[str, dict[str, Dataset]] = {}  # the rows of a table share their images
    for config, workdir in [job for seeded in jobs.values() for job in seeded]:
        key = _source(config)
        if key not in loaded:
            new = load.load(config)
            same = (old for old in loaded.values() if directory.describe(old) == directory.describe(new))
            loaded[key] = next(same, new)  # in memory once, however many fields differ
        if check:
            check(loaded[key])
        directory.open_run(workdir, config, loaded[key])
    failed = []
    for number, (name, seeded) in enumerate(jobs.items(), 1):
        config = seeded[0][0]
        splits = loaded[_source(config)]
        print(f"row {number} of {len(jobs)}, {name}: {network.line(config, len(splits['train'].class_names))}")
        try:
            failed += [f"{name}: {failure}" for failure in train(seeded, splits)]
        except UserError as error:  # the disk is full
            raise UserError("; ".join([*failed, f"{name}: {error}"])) from None
    return failed


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
