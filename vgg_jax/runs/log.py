"""The log of a run: `metrics.jsonl`, TensorBoard, the three protocols."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from vgg_jax.console.errors import UserError
from vgg_jax.runs import directory
from vgg_jax.training.processes import is_first

Record = dict[str, Any]
PROTOCOLS = ("final", "best_test", "selected")


class Lines:
    """Records in a file of JSON lines, cut back to the step that a run resumes from."""

    def __init__(self, file: Path, step: int):
        self._file = file
        self.records = [r for r in read_lines(file) if r["step"] <= step]
        if file.exists() and is_first():
            directory.write(file, "".join(json.dumps(r) + "\n" for r in self.records))

    def write(self, record: Record) -> None:
        self.records.append(record)
        if is_first():
            with open(self._file, "a") as f:
                f.write(json.dumps(record) + "\n")


class Log(Lines):
    """metrics.jsonl of a run, and the same numbers as TensorBoard events, each on the disk when `write` returns.

    tensorboardX's own SummaryWriter writes in a thread; when a full disk has ended that thread, later
    calls wait for it forever.
    """

    def __init__(self, workdir: Path, step: int):
        super().__init__(workdir / "metrics.jsonl", step)
        self._events = None
        if is_first():
            (workdir / "tensorboard").mkdir(exist_ok=True)
            self._events = EventsWriter(str(workdir / "tensorboard" / "events"))
        start = SessionLog(status=SessionLog.START)  # hides what a killed session wrote later
        self._send(Event(step=step + 1, wall_time=time.time(), session_log=start))

    def write(self, record: Record) -> None:
        super().write(record)
        scalars = [scalar(name, value) for name, value in record.items() if name != "step"]
        self._send(*(Event(step=record["step"], wall_time=time.time(), summary=one) for one in scalars))

    def _send(self, *events: Event) -> None:
        if self._events:
            for event in events:
                self._events.write_event(event)
            self._events.flush()  # so that closing has nothing left to write, which a full disk could refuse

    def close(self) -> None:
        if self._events:
            self._events.close()


def read(workdir: Path) -> list[Record]:
    """The records of a run's metrics.jsonl."""
    return read_lines(workdir / "metrics.jsonl")


def read_lines(file: Path) -> list[Record]:
    """The records of a file of JSON lines; a last line cut short by a crash is left out."""
    records = []
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["step"] += 0
        except (ValueError, TypeError, KeyError, RecursionError):
            if number == len(lines):
                break
            raise UserError(f"{file} is damaged at line {number}; delete that line to go on") from None
        records.append(record)
    return records


def protocols(records: Sequence[Record]) -> dict[str, Record | None]:
    """The three test accuracies that must never be mixed.

    final: after the last epoch, no selection. best_test: the maximum over epochs, selected on the
    test set itself; to compare with papers that report it. selected: at the epoch with the best
    held-out validation accuracy; None without a validation split.
    """

    def pick(record: Record) -> Record:
        return {k: record[k] for k in ("step", "epoch", "test_accuracy", "test_loss")}

    if not records:
        return dict.fromkeys(PROTOCOLS)
    validated = [r for r in records if "validation_accuracy" in r]
    return {
        "final": pick(records[-1]),
        "best_test": pick(max(records, key=lambda r: r["test_accuracy"])),
        "selected": pick(max(validated, key=lambda r: r["validation_accuracy"])) if validated else None,
    }


def at_chance(records: Sequence[Record], chance: float, images: int) -> bool:
    """Whether training accuracy, in three epochs and at least the last three records, stayed at chance.

    That is within three standard deviations above it, for the images of one record.
    """
    tail = [r for r in records if r["epoch"] > records[-1]["epoch"] - 3] + list(records[-3:])
    most = chance + 3 * math.sqrt(chance * (1 - chance) / images)
    return records[-1]["epoch"] >= 3 and all(r["train_accuracy"] <= most for r in tail)
