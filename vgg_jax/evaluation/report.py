"""The report on logits, as a dict, as text and as pictures; and on which images a checkpoint was chosen."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.datasets.load import Dataset
from vgg_jax.evaluation import pictures
from vgg_jax.model import scores
from vgg_jax.runs import log
from vgg_jax.runs.pictures import gallery


def score(logits: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """The report's scores of logits [N, C]."""
    counts = scores.confusion(logits, dataset.labels)
    error, bins = scores.calibration(logits, dataset.labels)
    per_class = np.diag(counts) / np.maximum(counts.sum(1), 1)
    return {
        **scores.scores(logits, dataset.labels),
        "calibration_error": error,
        "per_class_accuracy": dict(zip(dataset.class_names, map(float, per_class))),
        "confusion": counts.tolist(),
        "reliability": bins,
    }


def calibrated(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores that a temperature changes, of logits [N, C] divided by it."""
    cross_entropy = scores.scores(logits, labels)["cross_entropy"]
    return {"cross_entropy": cross_entropy, "calibration_error": scores.calibration(logits, labels)[0]}


def chosen_on(workdir: Path, step: int, held_out: int | None) -> str:
    """The split that chose best/, which is of step; a word where metrics.jsonl knows a better epoch.

    held_out: validation images of the run, if it recorded their number.
    """
    found = log.protocols(log.read(workdir))
    split = "validation" if found["selected"] or held_out else "test"
    best = found["selected"] or found["best_test"]
    if best and best["step"] != step:
        print(
            f"{workdir / 'best'} holds step {step}, not the best epoch on {split} images: that of step "
            f"{best['step']} is not saved yet, or was damaged",
            file=sys.stderr,
        )
    return split


def read(file: Path, step: int) -> dict[str, Any] | None:
    """The report that `evaluate` wrote, if it is of this step."""
    try:
        found = json.loads(file.read_text())
        return found if found["step"] == step else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # it can be made again
        return None


def draw(logits: np.ndarray, dataset: Dataset, report: dict[str, Any], folder: Path, name: str) -> None:
    """Draw confusion matrix, reliability diagram and the most confident mistakes, as folder/<name>_*.png."""
    pictures.confusion(np.array(report["confusion"]), dataset.class_names, folder / f"{name}_confusion.png")
    pictures.reliability(report["reliability"], report["calibration_error"], folder / f"{name}_reliability.png")
    probability = scores.softmax(logits)
    taken = logits.argmax(-1)
    wrong = np.flatnonzero(taken != dataset.labels)
    worst = wrong[np.argsort(-probability[wrong, taken[wrong]])][:32]
    names = dataset.class_names
    titles = [f"{names[taken[i]]} {probability[i, taken[i]]:.0%}\nis {names[dataset.labels[i]]}" for i in worst]
    gallery(dataset.images[worst], titles, folder / f"{name}_mistakes.png")


def text(report: dict[str, Any]) -> str:
    """The report as text: scores, accuracy by class, confusion matrix (rows are the true classes)."""
    names = list(report["per_class_accuracy"])
    lines = [
        f"{report['checkpoint']} checkpoint (step {report['step']}) on {report['images']:,} {report['split']} images",
        f"cross-entropy {report['cross_entropy']:.4f}  accuracy {report['accuracy']:.2%}  "
        + (f"top-5 {report['top5_accuracy']:.2%}  " if len(names) > 5 else "")
        + f"calibration error {report['calibration_error']:.4f}",
    ]
    if fitted := report.get("calibrated"):
        lines.append(
            f"with temperature {fitted['temperature']:.3f}, fitted on {fitted['images']:,} {fitted['split']} images: "
            f"cross-entropy {fitted['cross_entropy']:.4f}  calibration error {fitted['calibration_error']:.4f}"
        )
    if origin := report.get("origin"):
        lines.append(
            f"imported from {origin['file']} (SHA-256 {origin['sha256'][:12]}...), not trained in this directory"
        )
    if report["chosen_on"] == report["split"]:
        lines.append(
            f"this checkpoint was chosen on these same {report['split']} images, so its accuracy on them is optimistic"
        )
    if tta := report.get("tta"):
        lines.append(
            f"test-time augmentation ({tta['views']}): cross-entropy {tta['cross_entropy']:.4f}  "
            f"accuracy {tta['accuracy']:.2%}"
        )
    width = max(map(len, names))
    wide = len(names) <= 20
    cell = max(5, len(str(max(map(max, report["confusion"]))))) + 1
    lines.append(" " * (width + 10) + ("".join(f"{n[: cell - 1]:>{cell}}" for n in names) if wide else ""))
    for (name, accuracy), row in zip(report["per_class_accuracy"].items(), report["confusion"]):
        share = f"{accuracy:7.2%}" if sum(row) else "      -"  # no image of the class
        lines.append(f"{name:>{width}}  {share} " + ("".join(f"{n:>{cell}}" for n in row) if wide else ""))
    return "\n".join(lines)
