"""Runs that are seeds of one config, and in what configs differ."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgg_jax.evaluation.intervals import Estimate, estimate
from vgg_jax.page.finding import Row
from vgg_jax.page.reading import Flat, RunFiles
from vgg_jax.runs import directory, log
from vgg_jax.settings.check import does_something


class Group(NamedTuple):
    """Runs of the same config and data, but for their seeds.

    name: the row's, or the run's where there is one. estimates: by protocol, None where no run has it.
    gap: mean of train minus final test accuracy, both in evaluation mode; None before a run is finished.
    """

    name: str
    runs: list[RunFiles]
    reported: float | None
    estimates: dict[str, Estimate | None]
    gap: float | None


def group(runs: Sequence[RunFiles], rows: Mapping[Path, Row]) -> list[Group]:
    """The runs as groups, in the order of their first runs."""
    found: dict[str, list[RunFiles]] = {}
    times: Counter[str] = Counter()  # how often a seed has come: a run made again is no other seed
    for run in runs:
        same = f"{_key(run)} {run.config.get('seed')}"
        found.setdefault(f"{_key(run)} {times[same]}", []).append(run)
        times[same] += 1
    return [_group(seeds, rows) for seeds in found.values()]


def _key(run: RunFiles) -> str:
    """Equal for runs that differ only in their seed."""
    what = {name: value for name, value in counting(run.config).items() if name != "seed"}
    prints = run.facts.get("fingerprint")
    return repr((sorted(what.items()), prints)) if what and prints else str(run.folder)


def counting(config: Flat) -> Flat:
    """The fields that a result depends on, and the sum of own code."""
    kept = {name: v for name, v in config.items() if name not in directory.CHANGEABLE or name == "code.sha256"}
    return {name: value for name, value in kept.items() if does_something(name, config)}


def _group(runs: list[RunFiles], rows: Mapping[Path, Row]) -> Group:
    first = runs[0]
    row = _row(first, rows)
    name = row.name if row.name and len({run.row for run in runs}) == 1 else first.name
    if len(runs) > 1 and name == first.name:
        name = f"{name} and {len(runs) - 1} more seed{'s' if len(runs) > 2 else ''}"
    count = [run for run in runs if run.finished] or runs  # as in `reproduce`
    found = [accuracies(run) for run in count]
    estimates = {p: estimate([a[p] for a in found if a[p] is not None], first.test_images) for p in log.PROTOCOLS}
    gaps = [gap for run in count if (gap := _gap(run)) is not None]
    return Group(name, runs, row.reported, estimates, statistics.mean(gaps) if gaps else None)


def _row(run: RunFiles, rows: Mapping[Path, Row]) -> Row:
    """What its table says of a run's row; a table written elsewhere is known by its row's name, if no other has it."""
    if (folder := run.folder.resolve().parent) in rows and run.row:
        return rows[folder]
    same = {row for folder, row in rows.items() if folder.name == run.row}
    return same.pop() if len(same) == 1 else Row(run.row, None)


def accuracies(run: RunFiles) -> dict[str, Any]:
    """A run's test accuracy by each of the three protocols, None where it has none."""
    scored = [record for record in run.records if {"test_accuracy", "test_loss"} <= set(record)]
    found = {name: record and record["test_accuracy"] for name, record in log.protocols(scored).items()}
    return found if run.finished else found | {"final": None}


def _gap(run: RunFiles) -> float | None:
    train, final = run.summary.get("train_accuracy"), accuracies(run)["final"]
    return train - final if isinstance(train, float) and final is not None else None


def differing(things: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """(what all have the same, the names of what differs), in the order in which the names first appear."""
    names = list(dict.fromkeys(name for thing in things for name in thing))
    different = [name for name in names if len({repr(thing.get(name)) for thing in things}) > 1]
    return {name: things[0].get(name) for name in names if name not in different}, different
