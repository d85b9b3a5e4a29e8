"""The page's section about a landscape study."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vgg_jax.landscape.pictures import LABELS
from vgg_jax.landscape.verdict import spread
from vgg_jax.page import hills
from vgg_jax.page.html import NONE, Html, element, join, table
from vgg_jax.page.plots import Plots, picture
from vgg_jax.page.study import ALWAYS, STILL, StudyFiles

SHOWN = {"claim", "measure", "claimed", "without_bn", "with_bn", "ratio", "ratios", "seeds_for", "holds"}


def section(study: StudyFiles, plots: Plots) -> Html:
    """Verdict, surfaces, probes, learning rates, sharpness; still pictures of what has no arrays."""
    parts = [_verdict(study, plots)]
    shown = {"surfaces": _surfaces, "probes": _probes, "rates": _rates, "sharp": _sharp}
    for stage, show in shown.items():
        parts.append(_shown(study, plots, stage, show) if stage in study.stages else _still(study, stage))
    for name, said in ALWAYS.items():
        parts.append(picture(study.folder / name, said.capitalize()))
    return join(parts)


def _shown(study: StudyFiles, plots: Plots, stage: str, show: Callable[[StudyFiles, Plots], Html]) -> Html:
    try:
        return show(study, plots)
    except (ValueError, IndexError, TypeError):  # arrays of a stranger, each of them whole
        return element("p", f"The arrays of {stage} do not fit together, so they are not shown.", class_="said")


def _still(study: StudyFiles, stage: str) -> Html | None:
    found = [shown for name in STILL[stage] if (shown := picture(study.folder / name, f"{name} (a still picture)"))]
    return element("div", found, class_="grid") if found else None


def _verdict(study: StudyFiles, plots: Plots) -> Html | None:
    if not study.rows:
        return None
    extra = list(dict.fromkeys(name for row in study.rows for name in row if name not in SHOWN))
    head = [
        "measure",
        "without BN",
        "with BN",
        "without / with (seeds)",
        *(n.replace("_", " ") for n in extra),
        "holds",
    ]
    rows = [
        [
            join([row["measure"], element("small", f"{row['claim']}: {row['claimed']}")]),
            spread(row["without_bn"]),
            spread(row["with_bn"]),
            _ratios(row),
            *(_plain(row.get(name)) for name in extra),
            element("b", _holds(row)),
        ]
        for row in study.rows
    ]
    said = "One mark per seed. In brackets, what the claim says of BatchNorm: smaller is right of 1, larger left of it."
    return join([
        element("h3", "Verdict"),
        table(head, rows),
        element("p", study.note, class_="said"),
        plots.add(hills.verdict(study.rows), said),
    ])  # fmt: skip


def _ratios(row: Mapping[str, Any]) -> str:
    ratios: Sequence[float] = row["ratios"]
    return f"{row['ratio']:.3g} ({min(ratios):.3g} to {max(ratios):.3g})"


def _holds(row: Mapping[str, Any]) -> str:
    return row["holds"] if row["holds"] != "mixed" else f"mixed ({row.get('seeds_for')} of {len(row['ratios'])} seeds)"


def _plain(value: Any) -> str:
    """A field of a verdict that this version does not know, such as an interval."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list) and len(value) == 2:
        return f"{_plain(value[0])} to {_plain(value[1])}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return NONE if value is None else ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _surfaces(study: StudyFiles, plots: Plots) -> Html:
    both = study.stages["surfaces"]
    three, flat, lost = hills.planes(both)
    seeds = len(next(iter(both.values()))["plane"])
    choice = element("select", [element("option", str(n + 1), value=n) for n in range(seeds)], class_="choice")
    statistics = study.config.get("landscape.surface_statistics", "unknown")
    said = (
        f"Training loss around the trained networks, in two random filter-normalised directions; BatchNorm statistics: "
        f"{statistics}. Both have the same scale, and turn together. "
    )
    said += f"{lost} points are holes: the loss there is not finite. " if lost else ""
    return join([
        element("h3", "Loss surfaces"),
        element("p", said, element("label", "seed ", choice), class_="said"),
        element("div", [plots.add(three[name], LABELS[name]) for name in both], class_="grid scenes"),
        element("div", [plots.add(flat[name], f"From above, {LABELS[name]}") for name in both], class_="grid"),
        element("div", [plots.add(f, f"{w} on a line, by seed") for w, f in hills.lines(both).items()], class_="grid"),
    ])  # fmt: skip


def _probes(study: StudyFiles, plots: Plots) -> Html:
    both, sizes = study.stages["probes"], study.config.get("landscape.step_sizes")
    drawn = hills.probes(both, sizes if isinstance(sizes, (list, tuple)) else None)
    said = "Along the gradient g, by step sizes e: the least and the most, mean of the seeds."
    figures = [plots.add(figure, name.capitalize()) for name, figure in drawn.items()]
    inside = [
        plots.add(figure, f"Standard deviation of what enters each activation function, {name}")
        for name, figure in hills.activations(both).items()
    ]
    return join([
        element("h3", "Probes over training"),
        element("p", said, class_="said"),
        element("div", figures, inside, class_="grid"),
    ])  # fmt: skip


def _rates(study: StudyFiles, plots: Plots) -> Html:
    said = "Training loss at several learning rates, the least and the most, first seed"
    return join([element("h3", "Learning rates"), plots.add(hills.rates(study.stages["rates"]), said)])


def _sharp(study: StudyFiles, plots: Plots) -> Html:
    said = "Largest eigenvalues at the end of training, one line per seed"
    return join([element("h3", "Sharpness"), plots.add(hills.sharpness(study.stages["sharp"]), said)])
