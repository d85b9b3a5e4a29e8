"""Confidence intervals of accuracies, all at 95 %."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit

_NORMAL = 1.959963984540054  # the normal distribution's 97.5 % point


class Estimate(NamedTuple):
    """An accuracy in [0, 1] from n runs, with its interval from low to high; None where it has none."""

    mean: float
    deviation: float | None  # over the runs; None for one run
    low: float | None
    high: float | None
    n: int

    def interval(self, form: str) -> str:
        """form, filled in with low and high in percent; "" where there is none."""
        return "" if self.low is None or self.high is None else form.format(100 * self.low, 100 * self.high)


def wilson(share: float, images: int) -> tuple[float, float]:
    """Wilson's interval of a share of so many images: what other images of the same kind would give."""
    z = _NORMAL**2 / images
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(share * (1 - share) * z + z**2 / 4) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of two or more numbers, one a seed, by Student's t: what the mean of other seeds would be."""
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.mean(values)
    return middle, middle - half, middle + half


def student(values: Sequence[float]) -> tuple[float, float]:
    """The interval of two or more accuracies: what other seeds would give on the same images."""
    _, low, high = mean_of(values)
    return max(0.0, low), min(1.0, high)


def estimate(accuracies: Sequence[float], images: int | None) -> Estimate | None:
    """Student's interval for several runs; Wilson's for one on so many images; None without any.

    Runs that are all alike have no interval: equal numbers of right images are chance.
    """
    if not accuracies:
        return None
    mean = statistics.mean(accuracies)
    if len(accuracies) > 1:
        ends = student(accuracies) if len(set(accuracies)) > 1 else (None, None)
        return Estimate(mean, statistics.stdev(accuracies), *ends, len(accuracies))
    low, high = wilson(mean, images) if images and 0 <= mean <= 1 else (None, None)
    return Estimate(mean, None, low, high, 1)
