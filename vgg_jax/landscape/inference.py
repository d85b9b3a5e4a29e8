"""What several seeds say of an effect: its mean with a 95 % interval, and a sign test."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binomtest, t

CONFIDENCE = 0.95


class Effect(NamedTuple):
    """Of one number per seed, paired: both networks of a seed begin alike and see the same images in the same order.

    Attributes:
      mean: of the seeds; NaN where a number is not finite.
      low, high: Student's interval of the mean; infinite for one seed, NaN where a number is not finite.
      positive, seeds: how many seeds have a number above 0, and how many there are; ties count in neither.
      sign_p: two-sided p of that many, if above and below 0 were equally likely.
    """

    mean: float
    low: float
    high: float
    positive: int
    seeds: int
    sign_p: float


def effect(values: Sequence[float]) -> Effect:
    """NaN in values means that the number could not be formed, although its sign may be known from an infinity."""
    n, positive = len(values), sum(value > 0 for value in values)
    untied = positive + sum(value < 0 for value in values)
    p = float(binomtest(positive, untied).pvalue) if untied else 1.0
    if not values or not all(map(math.isfinite, values)):
        return Effect(math.nan, math.nan, math.nan, positive, untied, p)
    mean, half = statistics.mean(values), math.inf
    if n > 1:
        half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Effect(mean, mean - half, mean + half, positive, untied, p)


def sign(found: Effect) -> int:
    """1 or -1 where the interval excludes 0 on that side, 0 where it does not.

    Where there is no interval, since a number is not finite, the sign test decides at the same confidence.
    """
    if math.isnan(found.mean):
        return (1 if 2 * found.positive > found.seeds else -1) if found.sign_p < 1 - CONFIDENCE else 0
    return 1 if found.low > 0 else -1 if found.high < 0 else 0
