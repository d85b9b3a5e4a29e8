"""What the measures say of each claim, with what chance may have done."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vgg_jax.landscape import inference
from vgg_jax.landscape.measures import MEASURES, Measure


def judge(values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """A row for each measure. values: {"plain" | "bn": {key: one number per seed}}.

    The effect of BatchNorm is with / without, or with - without for a share; over the seeds, the geometric or the
    arithmetic mean. A claim holds by a measure ("yes") if the 95 % interval of the effect lies on the claim's side of
    no effect, "no" if it lies on the other side, else it is "open". Infinite is more than every finite number. Seeds
    with a NaN, such as those that never came under the equal loss, are left out.
    """
    rows = [_row(measure, values["plain"][measure.key], values["bn"][measure.key]) for measure in MEASURES]
    corrected = iter(inference.holm([row["p"] for row in rows if row["effects"]]))
    return [row | {"p_holm": next(corrected) if row["effects"] else 1.0} for row in rows]


def _row(measure: Measure, without: Sequence[float], having: Sequence[float]) -> dict[str, Any]:
    pairs = [(float(a), float(b)) for a, b in zip(without, having) if not (math.isnan(a) or math.isnan(b))]
    changes = [_change(measure, a, b) for a, b in pairs]
    found = inference.effect(changes)
    back = float if measure.share else _exp
    claimed = 1 if measure.larger else -1
    agrees = claimed * inference.sign(found)
    return {
        "claim": measure.claim,
        "measure": measure.name,
        "where": measure.where,
        "source": measure.source,
        "claimed": "larger with BN" if measure.larger else "smaller with BN",
        "kind": "difference" if measure.share else "ratio",
        "without_bn": list(map(float, without)),
        "with_bn": list(map(float, having)),
        "effects": [back(change) for change in changes],
        "effect": back(found.mean),
        "interval": [back(found.low), back(found.high)],
        "seeds_for": found.positive if measure.larger else found.seeds - found.positive,
        "seeds": found.seeds,
        "sign_p": found.sign_p,
        "p": found.p,
        "holds": {1: "yes", -1: "no", 0: "open"}[agrees],
    }


def _change(measure: Measure, a: float, b: float) -> float:
    """From a without to b with BatchNorm: b - a of shares, else log(b / a).

    Infinite where a ratio has no number but b is more or less than a, NaN where it is neither (both infinite).
    """
    if measure.share:
        return round(b - a, 12) if a != b else 0.0  # rounded: seeds that differ alike are alike
    if 0 < a < math.inf and 0 < b < math.inf:
        return math.log(b / a)
    return math.copysign(math.inf, b - a) if a != b else math.nan


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else x if math.isnan(x) else math.inf


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many measures speak for and against each claim, and how many would do so by chance.

    Those with stored statistics are counted apart, since by their making they speak against BatchNorm.
    """
    lines = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        mine = [row for row in rows if row["claim"] == claim]
        stored = [row for row in mine if "stored" in row["where"]]
        apart = f"; with stored statistics {_count(stored)}" if stored else ""
        lines.append(f"- BatchNorm and {claim}: {_count([row for row in mine if row not in stored])}{apart}.")
    corrected = sum(row["p_holm"] < 1 - inference.CONFIDENCE for row in rows)
    taken = sum(len(row["effects"]) > 1 and any(row["effects"]) for row in rows)  # others are open whatever comes
    chance = (1 - inference.CONFIDENCE) * taken
    lines.append(
        f"- Without any effect, about {chance:.1f} of these {taken} measures would come out for or against by "
        f"chance; {corrected} of them stand with Holm's correction. They are not independent of each other."
    )
    return "\n".join(lines)


def _count(rows: Sequence[Mapping[str, Any]]) -> str:
    said = [row["holds"] for row in rows]
    return f"{said.count('yes')} for it, {said.count('no')} against, {said.count('open')} open"


def markdown(rows: Sequence[Mapping[str, Any]], note: str) -> str:
    """The verdict as Markdown, each number mean ± standard deviation over seeds."""
    head = ("claim about BN", "measure", "where", "without BN", "with BN", "effect (95 %)", "seeds for (p)", "p, Holm",
            "holds")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row["claim"],
            f"{row['measure']} ({row['claimed'].split()[0]})",
            row["where"],
            spread(row["without_bn"]),
            spread(row["with_bn"]),
            effect(row),
            f"{row['seeds_for']} of {row['seeds']} ({row['sign_p']:.2g})",
            f"{row['p_holm']:.2g}",
            row["holds"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", summary(rows), "", note, ""])


def effect(row: Mapping[str, Any]) -> str:
    """ "x 0.21 (0.15 to 0.3)", or "+0.1 (...)" for a share."""
    low, high = row["interval"]
    if math.isnan(row["effect"]):
        return "no number"
    if row["kind"] == "ratio":
        return f"x {row['effect']:.3g} ({low:.3g} to {high:.3g})"
    return f"{row['effect']:+.3g} ({low:+.3g} to {high:+.3g})"


def spread(values: Sequence[float]) -> str:
    """'0.35 ± 0.02', mean and standard deviation of the values that are no NaN; 'none' without any."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "none"
    deviation = f" ± {_digits(statistics.stdev(known), 2)}" if len(known) > 1 and np.isfinite(known).all() else ""
    return f"{_digits(statistics.mean(known), 3)}{deviation}"


def _digits(number: float, digits: int) -> str:
    """So many significant digits, without an exponent up to a million."""
    return f"{float(f'{number:.{digits}g}'):g}"


def plain_json(value: Any) -> Any:
    """value with infinities and NaN as strings, since JSON has no such numbers."""
    if isinstance(value, dict):
        return {k: plain_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
