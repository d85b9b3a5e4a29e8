"""Progress and duration of long work: a bar on a terminal, plain lines in a log file."""

import contextlib
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 30.0  # between two lines in a log file


class Progress:
    """Count towards a total; until it is closed, print other lines with `say`."""

    def __init__(self, total: int, label: str, unit: str, start: int = 0, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._total, self._label, self._unit = total, label, unit
        self._start = self._done = start
        self._begun = self._spoken = time.monotonic()
        self._bar = None
        if _is_terminal(self._stream):
            self._bar = tqdm(
                total=total, initial=start, desc=label, unit=unit, file=self._stream,
                dynamic_ncols=True, leave=False, ascii=(self._stream.encoding or "").lower() != "utf-8",
            )  # fmt: skip

    def update(self, n: int, note: str = "") -> None:
        """Count n more as done; note is shown beside the count (loss, accuracy)."""
        self._done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._spoken >= LINE_SECONDS and self._done < self._total:
            self._spoken = time.monotonic()
            rate = (self._done - self._start) / (self._spoken - self._begun)
            left = clock((self._total - self._done) / rate) if rate > 0 else "?"
            self.say(f"{self._label}  {self._done}/{self._total}{self._unit}  {note}  {left} left")

    def say(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _is_terminal(stream: TextIO) -> bool:
    """Whether a bar can be drawn: some pseudo-terminals have no size, so that a bar shows nothing."""
    try:
        return stream.isatty() and min(os.get_terminal_size(stream.fileno())) > 0
    except OSError:
        return False


class Lap:
    """The seconds that one phase took; NaN until it is over."""

    seconds = math.nan


class Stopwatch:
    """Seconds by phase of this session, and in total with earlier sessions."""

    def __init__(self, earlier: float):
        self._earlier, self._begun = earlier, time.monotonic()
        self.spent: dict[str, float] = defaultdict(float)
        self.images = 0  # trained on since the last call of speed
        self._spoken = 0.0

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[Lap]:
        lap, begun = Lap(), time.monotonic()
        yield lap
        lap.seconds = max(time.monotonic() - begun, 1e-9)
        self.spent[phase] += lap.seconds

    def speed(self) -> float:
        """Images per second of training since the last call, without evaluation and other phases."""
        seconds, self._spoken = self.spent["train"] - self._spoken, self.spent["train"]
        images, self.images = self.images, 0
        return round(images / seconds, 1)

    def compiled_share(self) -> float:
        """Share of this session's time, less compiling the step and a callback's, that compiled programs took."""
        session = time.monotonic() - self._begun - self.spent["compile"] - self.spent.get("callback", 0.0)
        return round((self.spent["train"] + self.spent["evaluate"]) / session, 3)

    def total(self) -> float:
        return round(self._earlier + time.monotonic() - self._begun, 2)


def clock(seconds: float) -> str:
    """3725 -> '1:02:05', 65 -> '1:05'"""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
