"""Score a run's checkpoint, from its directory and the data set that its config names.

python -m vgg_jax.evaluate --workdir RUN [--checkpoint best|latest] [--split test] [--tta flip]
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from vgg_jax import data, errors, flags, metrics, plots, rundir
from vgg_jax.checkpoint import load_model
from vgg_jax.data import Dataset
from vgg_jax.errors import UserError
from vgg_jax.forward import EVAL_BATCH, TTA, make_forward, predict


def evaluate(
    workdir: Path, checkpoint: str, split: str, tta: str, overrides: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Score a run's checkpoint on a split; writes JSON and pictures to workdir/evaluation/.

    Returns: the report, as it is in <checkpoint>_<split>.json.
    """
    config, facts = rundir.read_run(workdir, overrides)
    dataset = data.load(config.data)[split]
    if not len(dataset):
        raise UserError(f"{workdir} has no {split} images (config.data.validation_size was 0)")
    if dataset.fingerprint != facts["fingerprint"][split]:
        raise UserError(
            f"the {split} images are not those of the run (the fingerprint differs); "
            "--config.data.data_dir=DIR says where the right ones are"
        )
    step, model, variables = load_model(workdir, checkpoint, config, len(dataset.class_names))
    forward, variables = make_forward(model, facts["mean"], facts["std"]), jax.device_put(variables)
    logits = predict(forward, variables, dataset.images, min(EVAL_BATCH, len(dataset)))
    if not np.isfinite(logits).all():
        raise UserError(f"step {step} of {workdir} had diverged: its outputs are not finite; try --checkpoint best")
    chosen_on = None if checkpoint == "latest" else "validation" if config.data.validation_size else "test"
    report = {
        "checkpoint": checkpoint,
        "chosen_on": chosen_on,
        "step": step,
        "split": split,
        "images": len(dataset),
        **score(logits, dataset),
    }
    if tta != "none":
        averaged = predict(forward, variables, dataset.images, min(EVAL_BATCH, len(dataset)), tta)
        report["tta"] = {"views": tta, **metrics.scores(averaged, dataset.labels)}
    folder = workdir / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / f"{checkpoint}_{split}.json").write_text(json.dumps(report, indent=2) + "\n")
    _draw(logits, dataset, report, folder, f"{checkpoint}_{split}")
    return report


def score(logits: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """Everything the report says of logits [N, C]."""
    counts = metrics.confusion(logits, dataset.labels)
    error, bins = metrics.calibration(logits, dataset.labels)
    per_class = np.diag(counts) / np.maximum(counts.sum(1), 1)
    return {
        **metrics.scores(logits, dataset.labels),
        "calibration_error": error,
        "per_class_accuracy": dict(zip(dataset.class_names, map(float, per_class))),
        "confusion": counts.tolist(),
        "reliability": bins,
    }


def _draw(logits: np.ndarray, dataset: Dataset, report: dict[str, Any], folder: Path, name: str) -> None:
    plots.confusion(np.array(report["confusion"]), dataset.class_names, folder / f"{name}_confusion.png")
    plots.reliability(report["reliability"], report["calibration_error"], folder / f"{name}_reliability.png")
    probability = metrics.softmax(logits)
    taken = logits.argmax(-1)
    wrong = np.flatnonzero(taken != dataset.labels)
    worst = wrong[np.argsort(-probability[wrong, taken[wrong]])][:32]
    names = dataset.class_names
    titles = [f"{names[taken[i]]} {probability[i, taken[i]]:.0%}\nis {names[dataset.labels[i]]}" for i in worst]
    plots.gallery(dataset.images[worst], titles, folder / f"{name}_mistakes.png")


def text(report: dict[str, Any]) -> str:
    """The report for a person: scores, accuracy by class, confusion matrix (rows are the truth)."""
    names = list(report["per_class_accuracy"])
    lines = [
        f"{report['checkpoint']} checkpoint (step {report['step']}) on {report['images']:,} {report['split']} images",
        f"cross-entropy {report['cross_entropy']:.4f}  accuracy {report['accuracy']:.2%}  "
        f"top-5 {report['top5_accuracy']:.2%}  calibration error {report['calibration_error']:.4f}",
    ]
    if report["chosen_on"] == report["split"]:
        lines.append(
            f"this checkpoint was chosen on these same {report['split']} images: only to compare with such figures"
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
        lines.append(f"{name:>{width}}  {accuracy:7.2%} " + ("".join(f"{n:>{cell}}" for n in row) if wide else ""))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "--workdir": {"type": flags.path, "required": True, "help": "a run directory"},
        "--checkpoint": {"choices": ("best", "latest"), "default": "latest"},
        "--split": {"choices": ("train", "validation", "test"), "default": "test"},
        "--tta": {"choices": TTA, "default": "none", "help": "also averaged over mirrored (and shifted) images"},
    })  # fmt: skip
    workdir = given.workdir
    report = evaluate(workdir, given.checkpoint, given.split, given.tta, overrides)
    print(text(report))
    print(f"pictures and {given.checkpoint}_{given.split}.json in {workdir / 'evaluation'}")


if __name__ == "__main__":
    errors.run(main)
