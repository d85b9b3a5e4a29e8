"""The page's section about what `evaluate` found."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vgg_jax.page import scored
from vgg_jax.page.html import Html, command, element, join, table
from vgg_jax.page.plots import Plots, picture
from vgg_jax.page.reading import RunFiles

RELIABLE = (
    "Reliability: on the dashed line where confidence is right; under it, too sure. The size of a mark: how many images"
)


def evaluations(runs: Sequence[RunFiles], plots: Plots) -> Html:
    """What `evaluate` found of each run; all reports but the first two are folded."""
    reports = [(run, name, report) for run in runs for name, report in run.evaluations.items()]
    parts: list[Html] = []
    least = scored.least_accuracy([report for *_, report in reports])
    for number, (run, name, report) in enumerate(reports):
        title = f"{run.name}: {name.replace('_', ' checkpoint, ')} images, accuracy {report['accuracy']:.2%}"
        inside = _evaluation(run, name, report, plots, least)
        parts.append(element("details", element("summary", title), inside, open=number < 2))
    without = [run for run in runs if not run.evaluations]
    if without:
        listed = ", ".join(run.name for run in without[:12]) + (", ..." if len(without) > 12 else "")
        likewise = f" (and likewise for the other {len(without) - 1})" if len(without) > 1 else ""
        line = command(evaluate_command(without[0]))
        parts.append(element("p", f"Not evaluated: {listed}. This command does it: ", line, likewise, class_="said"))
    return join(parts)


def evaluate_command(run: RunFiles) -> str:
    """The command that scores a run."""
    needed = run.config.get("code.model") or run.config.get("code.data")
    own = ["--config", str(run.config.get("code.file"))] if needed else []
    return shlex.join(["vgg-jax", "evaluate", "--workdir", str(run.folder), *own])


def _evaluation(run: RunFiles, name: str, report: Mapping[str, Any], plots: Plots, least: float) -> Html:
    parts = [
        plots.add(scored.confusion(report), "Confusion matrix: which class is taken for which"),
        plots.add(
            scored.by_class(report, least), "Accuracy by class, the worst first, with Wilson's intervals at 95 %"
        ),
        plots.add(scored.reliability(report), RELIABLE),
        _pairs(report),
    ]
    whole = parts[:2] if scored.is_wide(report) else []
    return join([
        element("p", _scores(run, report)),
        whole,
        element("div", parts[len(whole) :], class_="grid"),
        _mistakes(run.folder / "evaluation" / f"{name}_mistakes.png"),
    ])  # fmt: skip


def _scores(run: RunFiles, report: Mapping[str, Any]) -> str:
    top5 = f"top-5 {report['top5_accuracy']:.2%}, " if len(report["per_class_accuracy"]) > 5 else ""
    line = (
        f"{report['images']:,} images at step {report['step']:,}: accuracy {report['accuracy']:.2%}, {top5}"
        f"cross-entropy {report['cross_entropy']:.4f}, expected calibration error {report['calibration_error']:.4f}."
    )
    fitted = report.get("calibrated")
    if isinstance(fitted, dict) and isinstance(fitted.get("calibration_error"), float):
        line += f" With the temperature that was fitted, the calibration error is {fitted['calibration_error']:.4f}."
    tta = report.get("tta")
    if isinstance(tta, dict) and isinstance(tta.get("accuracy"), float):
        line += f" With test-time augmentation ({tta.get('views')}): accuracy {tta['accuracy']:.2%}."
    if report.get("chosen_on") == report.get("split"):
        line += " The checkpoint was chosen on these same images, so its accuracy on them is optimistic."
    if report.get("checkpoint") == "latest" and run.records and run.records[-1]["step"] > report["step"]:
        line += f" The run has gone on since, to step {run.records[-1]['step']:,}: evaluate it again."
    return line


def _pairs(report: Mapping[str, Any]) -> Html:
    pairs = scored.mistaken(report)
    if not pairs:
        return element("p", "No mistakes.")
    rows = [[pair.true, pair.taken, f"{pair.images:,}", f"{pair.share:.1%}"] for pair in pairs]
    return table(["true", "taken for", "images", "of the class"], rows, "Most frequent mistakes")


def _mistakes(file: Path) -> Html:
    said = "The mistakes that the network was surest of"
    return picture(file, said) or element("p", f"{said}: {file.name} is not there, or is no PNG.", class_="said")
