"""Figures of what `evaluate` found, as plotly's JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgg_jax.evaluation.intervals import wilson
from vgg_jax.page.figures import COLOURS, GREY, Figure, figure
from vgg_jax.page.html import labels

Report = Mapping[str, Any]


class Mistaken(NamedTuple):
    """So many images of one class were taken for another."""

    true: str
    taken: str
    images: int
    share: float  # of the true class


def is_wide(report: Report) -> bool:
    """Whether the classes are so many that their figures need the page's whole width."""
    return len(report["per_class_accuracy"]) > 20


def confusion(report: Report) -> Figure:
    """[C, C] shares of each true class; the counts too where there is room."""
    counts, names = report["confusion"], labels(list(report["per_class_accuracy"]))
    share = [[round(n / max(1, sum(row)), 5) for n in row] for row in counts]
    trace: dict[str, Any] = {
        "type": "heatmap", "x": names, "y": names, "z": share, "customdata": counts, "zmin": 0, "zmax": 1,
        "colorscale": "Cividis", "colorbar": {"title": {"text": "share"}, "thickness": 12, "tickformat": ".4~p"},
        "hovertemplate": "true %{y}<br>taken for %{x}<br>%{customdata} images, %{z:.1%}<extra></extra>",
    }  # fmt: skip
    if not is_wide(report):
        trace |= {"text": [[n or "" for n in row] for row in counts], "texttemplate": "%{text}", "xgap": 1, "ygap": 1}
    axis = {"type": "category"}
    side = axis | {"autorange": "reversed"}
    return figure([trace], "taken for", "true class", 760 if is_wide(report) else 460, xaxis=axis, yaxis=side)


def mistaken(report: Report) -> list[Mistaken]:
    """The ten pairs of classes that are taken for each other most often."""
    names, counts = list(report["per_class_accuracy"]), report["confusion"]
    pairs = [
        Mistaken(names[i], names[j], n, n / sum(row))
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(pairs, key=lambda pair: -pair.images)[:10]


def by_class(report: Report, least: float) -> Figure:
    """Accuracy of every class, on a scale from least to 1, with Wilson's intervals; upright where there are many."""
    names, images = labels(list(report["per_class_accuracy"])), [sum(row) for row in report["confusion"]]
    right = [row[i] for i, row in enumerate(report["confusion"])]
    found = sorted((r / n, n, name) for r, n, name in zip(right, images, names) if n)
    ends = [wilson(accuracy, n) for accuracy, n, _ in found]
    bars = {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
        "array": [high - a for (a, *_), (_, high) in zip(found, ends)],
        "arrayminus": [a - low for (a, *_), (low, _) in zip(found, ends)],
    }  # fmt: skip
    across, along = ("y", "x") if is_wide(report) else ("x", "y")
    trace = {
        "type": "scatter", "mode": "markers", across: [a for a, _, _ in found], along: [name for *_, name in found],
        "customdata": [[n, *end] for (_, n, _), end in zip(found, ends)], f"error_{across}": bars,
        "marker": {"color": COLOURS[0], "size": 8},
        "hovertemplate": f"%{{{along}}}<br>%{{{across}:.2%}} of %{{customdata[0]}} images<br>"
        "95 %: %{customdata[1]:.2%} to %{customdata[2]:.2%}<extra></extra>",
    }  # fmt: skip
    accuracy = {"tickformat": ".4~p", "range": [least, 1 + (1 - least) / 40]}
    classes = {"type": "category", "range": [-0.7, len(found) - 0.3], "title": {"text": ""}}
    if is_wide(report):
        small = {"tickfont": {"size": 9}, "tickangle": 90}
        return figure([trace], "", "accuracy", 420, xaxis=classes | small, yaxis=accuracy)
    down = classes | {"range": classes["range"][::-1]}
    return figure([trace], "accuracy", "", 460, xaxis=accuracy, yaxis=down)


def least_accuracy(reports: Sequence[Report]) -> float:
    """Where a scale for the classes of all reports begins: below the worst class's interval."""
    ends = [
        wilson(row[i] / sum(row), sum(row))[0]
        for report in reports
        for i, row in enumerate(report["confusion"])
        if sum(row)
    ]
    return max(0.0, min(ends, default=0.0) - 0.02)


def reliability(report: Report) -> Figure:
    """Accuracy against confidence, on the diagonal where calibrated; the area of a mark shows how many images."""
    bins: Sequence[Mapping[str, float]] = report["reliability"]
    largest = max((b["count"] for b in bins), default=1)
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"}
    diagonal |= {"line": {"dash": "dash", "color": GREY, "width": 1.5}}
    marks = {
        "type": "scatter", "mode": "lines+markers", "x": [b["confidence"] for b in bins],
        "y": [b["accuracy"] for b in bins], "customdata": [b["count"] for b in bins], "cliponaxis": False,
        "line": {"color": COLOURS[1], "width": 1.5},
        "marker": {"color": COLOURS[1], "size": [6 + 20 * (b["count"] / largest) ** 0.5 for b in bins], "opacity": 0.8},
        "hovertemplate": "confidence %{x:.2%}<br>accuracy %{y:.2%}<br>%{customdata} images<extra></extra>",
    }  # fmt: skip
    axis = {"range": [-0.03, 1.03], "tickformat": ".4~p"}
    return figure([diagonal, marks], "confidence", "accuracy", 400, xaxis=axis, yaxis=axis)
