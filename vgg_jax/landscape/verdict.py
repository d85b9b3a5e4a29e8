"""Each claim as measures that can confirm or refute it."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Measure(NamedTuple):
    claim: str  # of project 2, about the network with BatchNorm
    name: str  # what is measured
    key: str
    larger: bool = False  # whether the claim says larger instead of smaller


SMOOTH, CONVEX, FLAT, GENERAL = (
    "smoother landscape", "well-defined, convex-like basin", "fewer sharp minima", "better generalisation",
)  # fmt: skip
MEASURES = (
    Measure(SMOOTH, "loss band along the gradient, max - min over step sizes", "loss_band"),
    Measure(SMOOTH, "gradient predictiveness, largest change of the gradient", "predictiveness"),
    Measure(SMOOTH, "the same in units of the gradient's norm", "relative_predictiveness"),
    Measure(SMOOTH, "effective beta-smoothness", "beta_smoothness"),
    Measure(SMOOTH, "learning-rate band, max - min of the training loss", "rate_band"),
    Measure(CONVEX, "share of the surface with negative curvature", "negative_curvature"),
    Measure(FLAT, "rise of the loss half a radius away, mean over the surface", "surface_rise"),
    Measure(FLAT, "largest Hessian eigenvalue", "eigenvalue"),
    Measure(FLAT, "largest Hessian eigenvalue, filter-normalised", "relative_eigenvalue"),
    Measure(FLAT, "rise to the worst loss in the relative radius", "worst_rise"),
    Measure(GENERAL, "test accuracy, final epoch", "test_accuracy", larger=True),
    Measure(GENERAL, "train less test accuracy, final epoch", "gap"),
)


def judge(values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """A row for each measure. values: {"plain" | "bn": {key: one number per seed}}.

    ratio is the mean without BatchNorm over the mean with it. By a measure, a claim holds ("yes") if the
    two networks of every seed agree with it, "no" if those of every seed contradict it, else "mixed". A
    number that is not finite counts as worse than every finite one.
    """
    rows = []
    for measure in MEASURES:
        without, having = (list(map(float, values[name][measure.key])) for name in ("plain", "bn"))
        sign = 1 if measure.larger else -1
        gains = [_finite(sign * b) - _finite(sign * a) for a, b in zip(without, having)]
        wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        rows.append({
            "claim": measure.claim,
            "measure": measure.name,
            "claimed": "larger with BN" if measure.larger else "smaller with BN",
            "without_bn": without,
            "with_bn": having,
            "ratio": _ratio(statistics.mean(without), statistics.mean(having)),
            "ratios": [_ratio(a, b) for a, b in zip(without, having)],
            "seeds_for": wins,
            "holds": "yes" if wins == len(gains) else "no" if losses == len(gains) else "mixed",
        })  # fmt: skip
    return rows


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1e300


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.inf if a else 1.0


def markdown(rows: Sequence[Mapping[str, Any]], note: str) -> str:
    """The verdict as Markdown, each number mean ± standard deviation over seeds."""
    head = ("claim about BN", "measure", "without BN", "with BN", "without / with (min to max)", "holds")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        ratios = row["ratios"]
        cells = (
            row["claim"],
            f"{row['measure']} ({row['claimed'].split()[0]})",
            spread(row["without_bn"]),
            spread(row["with_bn"]),
            f"{row['ratio']:.3g} ({min(ratios):.3g} to {max(ratios):.3g})",
            row["holds"] if row["holds"] != "mixed" else f"mixed ({row['seeds_for']} of {len(ratios)} seeds)",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", note, ""])


def spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 and np.isfinite(values).all() else ""
    return f"{statistics.mean(values):.3g}{deviation}"


def plain_json(value: Any) -> Any:
    """value with infinities and NaN as strings, since JSON has no such numbers."""
    if isinstance(value, dict):
        return {k: plain_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
