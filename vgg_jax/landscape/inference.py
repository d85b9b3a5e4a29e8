"""What several seeds say of an effect: its mean with a 95 % interval, and a sign test."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import bdtr, stdtr, stdtrit

CONFIDENCE = 0.95


class Effect(NamedTuple):
    """Of one number per seed, paired: both networks of a seed begin alike and see the same images in the same order.

    Attributes:
      mean: of the seeds; NaN where a number is not finite, or for no seed.
      low, high: Student's interval of the mean; infinite for one seed, NaN where a number is not finite.
      p: of Student's paired test, two-sided; that of the sign test where a number is not finite or all seeds are
        alike; 1 for one seed.
      positive, seeds: how many seeds have a number above 0, and how many there are; ties count in neither.
      sign_p: two-sided p of that many, if above and below 0 were equally likely.
    """

    mean: float
    low: float
    high: float
    p: float
    positive: int
    seeds: int
    sign_p: float


def effect(values: Sequence[float]) -> Effect:
    """The effect in values, one per seed; an infinite one has a sign, but no size."""
    n, positive = len(values), sum(value > 0 for value in values)
    untied = positive + sum(value < 0 for value in values)
    p = min(1.0, 2 * float(bdtr(min(positive, untied - positive), untied, 0.5)))
    if not values or not all(map(math.isfinite, values)):
        return Effect(math.nan, math.nan, math.nan, p, positive, untied, p)
    mean = statistics.mean(values)
    if n == 1:
        return Effect(mean, -math.inf, math.inf, 1.0, positive, untied, p)
    error = statistics.stdev(values) / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    student = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error else p
    return Effect(mean, mean - half, mean + half, student, positive, untied, p)


def holm(ps: Sequence[float]) -> list[float]:
    """p of each of several tests with Holm's correction (1979), which bounds the chance of even one accident."""
    found, largest = [1.0] * len(ps), 0.0
    for place, (p, i) in enumerate(sorted((p, i) for i, p in enumerate(ps))):
        largest = max(largest, min(1.0, p * (len(ps) - place)))
        found[i] = largest
    return found


def sign(found: Effect) -> int:
    """1 or -1 where the interval excludes 0 on that side, 0 where it does not.

    Where there is no interval, since a number is not finite or all seeds are alike, the sign test decides at the same
    confidence.
    """
    if not found.low < found.high:
        return (1 if 2 * found.positive > found.seeds else -1) if found.sign_p < 1 - CONFIDENCE else 0
    return 1 if found.low > 0 else -1 if found.high < 0 else 0
