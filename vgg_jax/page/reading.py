"""A run's files as they are, read without trust: what is damaged or not there is said in a line and left out."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from vgg_jax.runs import directory, log
from vgg_jax.runs.damage import saved_steps
from vgg_jax.settings import config as configs

Flat = dict[str, Any]


class RunFiles(NamedTuple):
    """What a run's directory holds.

    Attributes:
      name: what the page calls it, unique on the page.
      folder: the run directory.
      row: the row of a table or the network of a study that it is a seed of; "" if none.
      config: the config's fields by name ("train.epochs"); empty where it cannot be read.
      facts: run.json.
      records: the log points, each with finite numbers only, among them step and epoch.
      summary: summary.json, empty for a run that is not finished.
      seconds: how long it had taken when it was saved last.
      evaluations: what `evaluate` wrote, by the file's name without .json: "latest_test".
      missing: one line for everything that is not there.
    """

    name: str
    folder: Path
    row: str
    config: Flat
    facts: dict[str, Any]
    records: list[log.Record]
    summary: dict[str, Any]
    seconds: float
    evaluations: dict[str, dict[str, Any]]
    missing: list[str]

    @property
    def epochs(self) -> int | None:
        """The epochs that the config asks for."""
        asked = self.config.get("train.epochs")
        return asked if isinstance(asked, int) else None

    @property
    def finished(self) -> bool:
        return bool(self.records) and self.records[-1]["epoch"] == self.epochs

    @property
    def test_images(self) -> int | None:
        sizes = self.facts.get("sizes")
        found = sizes.get("test") if isinstance(sizes, dict) else None
        return found if isinstance(found, int) and found > 0 else None


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "run.json", "metrics.jsonl"))


def read(folder: Path, name: str, row: str = "") -> RunFiles:
    """A run's files; whatever is wrong with them becomes a line of `missing`."""
    missing: list[str] = []
    config = read_config(folder, missing)
    facts = read_object(folder / "run.json", missing, "so classes, versions and fingerprint are unknown")
    records = _records(folder / "metrics.jsonl", missing)
    summary = read_object(folder / "summary.json", missing) if (folder / "summary.json").is_file() else {}
    evaluations = _evaluations(folder, missing)
    seconds = directory.read_seconds(folder) or (records[-1].get("seconds", 0.0) if records else 0.0)
    seconds = seconds if 0 <= seconds < 1e12 else 0.0
    run = RunFiles(name, folder, row, config, facts, records, summary, seconds, evaluations, missing)
    missing[:0] = _ending(run)
    if (folder / "damaged").is_dir():
        aside = ", ".join(sorted(file.name for file in (folder / "damaged").iterdir()))
        missing.append(f"damaged parts were put aside in damaged/: {aside}")
    return run


def read_config(folder: Path, missing: list[str]) -> Flat:
    """The config's fields by name; those of an unknown version as they stand in the file."""
    given = read_object(folder / "config.json", missing, "so its fields are unknown")
    try:
        return configs.flatten(configs.from_json(json.dumps(given))) if given else {}
    except Exception:  # whatever a stranger's fields lead to
        return flatten_dict(given, sep=".")


def read_object(file: Path, missing: list[str], without: str = "") -> dict[str, Any]:
    """The object in a JSON file; {} and a line in missing where there is none."""
    try:
        found = parse(file.read_text(errors="replace"))
        if isinstance(found, dict):
            flatten_dict(found, sep=".")  # a RecursionError where it is nested too deeply to show
            return found
        what = "is damaged"
    except FileNotFoundError:
        what = "is not there"
    except (OSError, ValueError, RecursionError):
        what = "is damaged"
    missing.append(f"{file.name} {what}{f', {without}' if without else ''}")
    return {}


def _records(file: Path, missing: list[str]) -> list[log.Record]:
    """The log points of metrics.jsonl, without damaged lines; a last line cut short by a crash is not worth a word."""
    if not file.is_file():
        return []
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        missing.append("metrics.jsonl cannot be read")
        return []
    read = [_record(line) for line in lines]
    damaged = [number for number, record in enumerate(read, 1) if record is None and number < len(lines)]
    if damaged:
        first = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        missing.append(f"metrics.jsonl is damaged, so its lines {first} of {len(lines)} are left out")
    return sorted((record for record in read if record), key=lambda record: record["step"])


def parse(text: str) -> Any:
    """A JSON document; its integers are exact as floats, and larger ones are floats, perhaps infinite.

    Raises: ValueError or RecursionError.
    """
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 16 else float(digits))


def _record(line: str) -> log.Record | None:
    try:
        given = parse(line)
        record = {name: value for name, value in given.items() if _is_number(value)}
        return record if {"step", "epoch"} <= set(record) else None
    except (ValueError, AttributeError, RecursionError):
        return None


def _ending(run: RunFiles) -> list[str]:
    """A line that says how far a run has come, if it is not finished."""
    if isinstance(made := run.facts.get("origin"), dict):
        return [f"its weights were imported from {made.get('file')}; no epochs were logged here"]
    of = f" of {run.epochs}" if run.epochs else ""
    if run.finished and not run.summary:
        return ["summary.json is not there, so the run had not quite ended: where the time went is unknown"]
    if run.finished:
        return []
    if not run.records:
        return [
            f"no epoch{of} was logged: the run has just begun, was stopped in the first, or its loss was no longer "
            "finite there"
        ]
    line = f"{run.records[-1]['epoch']:g}{of} epochs were logged: the run "
    if _was_rescued(run.folder):
        return [line + "ended in an error, most likely since its loss was no longer finite" + _rise(run.records)]
    return [line + "is still training, was stopped, or its loss was no longer finite" + _rise(run.records)]


def _was_rescued(folder: Path) -> bool:
    """Whether the best epoch was saved after the last state, as only a run does that ends in an error."""
    if (folder / "damaged").exists():
        return False
    return max(saved_steps(folder, "best"), default=0) > max(saved_steps(folder), default=0)


def _rise(records: list[log.Record]) -> str:
    losses = [record["train_loss"] for record in records if "train_loss" in record]
    if not losses or losses[-1] <= max(losses[0], 2 * min(losses)):
        return ""
    return f"; its training loss had risen from {min(losses):.4g} to {losses[-1]:.4g}"


def _evaluations(folder: Path, missing: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted((folder / "evaluation").glob("*.json")):
        report = read_object(file, [])
        if fault := fault_of(report):
            missing.append(f"evaluation/{file.name} is damaged ({fault}); `evaluate` writes it again")
        else:
            found[file.stem] = report
    return found


def fault_of(report: Mapping[str, Any]) -> str:
    """What is wrong with the report that `evaluate` wrote; "" if nothing."""
    accuracies, counts, bins = (report.get(k) for k in ("per_class_accuracy", "confusion", "reliability"))
    if not isinstance(accuracies, dict) or not accuracies or not all(map(_is_number, accuracies.values())):
        return "no accuracy by class"
    rows = counts if isinstance(counts, list) else []
    if len(rows) != len(accuracies) or not all(isinstance(row, list) and len(row) == len(rows) for row in rows):
        return "no square confusion matrix"
    if not all(type(n) is int and 0 <= n < 2**53 for row in rows for n in row):
        return "counts that are no whole numbers"
    if not isinstance(bins, list) or not all(isinstance(b, dict) and all(map(_is_number, b.values())) for b in bins):
        return "no reliability"
    if not all({"low", "count", "confidence", "accuracy"} <= set(b) and b["count"] > 0 for b in bins):
        return "no reliability"
    numbers = ("accuracy", "top5_accuracy", "cross_entropy", "calibration_error", "images", "step")
    return next((f"no {name}" for name in numbers if not _is_number(report.get(name))), "")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
