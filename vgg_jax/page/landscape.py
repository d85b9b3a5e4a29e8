"""The page's section about a landscape study."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vgg_jax.landscape.pictures import LABELS
from vgg_jax.landscape.score import STATISTICS
from vgg_jax.landscape.verdict import effect, spread
from vgg_jax.page import hills
from vgg_jax.page.html import Html, element, join, table
from vgg_jax.page.plots import Plots, picture
from vgg_jax.page.study import ALWAYS, STILL, StudyFiles


def section(study: StudyFiles, plots: Plots) -> Html:
    """Verdict, surfaces, path, probes, learning rates, sharpness; still pictures of what has no arrays."""
    parts = [_verdict(study, plots)]
    shown = {"planes": _planes, "path": _path, "around": _around, "probes": _probes, "rates": _rates}
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
    found = [shown for name, said in STILL[stage].items() if (shown := picture(study.folder / name, said))]
    return element("div", found, class_="grid") if found else None


def _verdict(study: StudyFiles, plots: Plots) -> Html | None:
    if not study.rows:
        return None
    head = ["", "holds", "effect (95 %)", "without BN", "with BN", "seeds for (p)", "p, Holm", "source"]
    tables = [
        table(head, [_row(row) for row in study.rows if row["claim"] == claim], f"BatchNorm and {claim}")
        for claim in dict.fromkeys(row["claim"] for row in study.rows)
    ]
    said = "95 % intervals of the effect of BatchNorm, by measures that compare"
    return join([
        element("h3", "Verdict"),
        *(element("p", line.removeprefix("- "), class_="said") for line in study.summary.splitlines()),
        tables,
        element("p", study.note, class_="said"),
        *(plots.add(hills.verdict(some), f"{said} {kind}s") for kind, some in _kinds(study.rows).items()),
    ])  # fmt: skip


def _row(row: Mapping[str, Any]) -> list[Any]:
    return [
        join([row["measure"], element("small", f"{row['where']}; claimed: {row['claimed']}")]),
        element("b", row["holds"]),
        effect(row),
        spread(row["without_bn"]),
        spread(row["with_bn"]),
        f"{row.get('seeds_for')} of {row.get('seeds')} ({_p(row.get('sign_p'))})",
        _p(row.get("p_holm")),
        row["source"],
    ]


def _p(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("ratio", "difference")}
    return {kind: some for kind, some in kinds.items() if some}


def _planes(study: StudyFiles, plots: Plots) -> Html:
    both = study.stages["planes"]
    three, flat, holes = hills.planes(both)
    choice = element("select", [element("option", s, value=n) for n, s in enumerate(STATISTICS)], class_="choice")
    said = (
        "Training loss around the end of training, in two random filter-normalised directions, first seed. Both have "
        "the same scale, and turn together. "
    )
    said += "Where there are holes, the loss is not finite. " if holes else ""
    return join([
        element("h3", "Loss surfaces"),
        element("p", said, element("label", "BatchNorm statistics ", choice), class_="said"),
        element("div", [plots.add(three[name], LABELS[name]) for name in both], class_="grid scenes"),
        element("div", [plots.add(flat[name], f"From above, {LABELS[name]}") for name in both], class_="grid"),
    ])  # fmt: skip


def _path(study: StudyFiles, plots: Plots) -> Html:
    drawn = hills.paths(study.stages["path"])
    said = "Training loss and the path that training took, in the plane of its two main directions, first seed."
    figures = [plots.add(figure, f"Path, {name}") for name, figure in drawn.items()]
    return join(
        [element("h3", "The path walked"), element("p", said, class_="said"), element("div", figures, class_="grid")]
    )


def _around(study: StudyFiles, plots: Plots) -> Html:
    both = study.stages["around"]
    figures = [plots.add(figure, f"Mean loss on random lines, {where}") for where, figure in hills.lines(both).items()]
    said = (
        "Largest eigenvalues at the end of training, recomputed statistics, one line per seed; "
        f"those that are known to {hills.KNOWN:.0%}"
    )
    return join([
        element("h3", "Sharpness"),
        element("div", figures, plots.add(hills.sharpness(both), said), class_="grid"),
    ])  # fmt: skip


def _probes(study: StudyFiles, plots: Plots) -> Html:
    both = study.stages["probes"]
    drawn = hills.probes(both)
    said = (
        "By step sizes e along a move m, the gradient or the optimizer's update: "
        "the least and the most, mean of the seeds."
    )
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
