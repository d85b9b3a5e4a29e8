"""Run directories and studies for the tests of the report page, made without training."""

import json
import shutil
from pathlib import Path

import numpy as np

from vgg_jax.landscape import around, kept, verdict
from vgg_jax.landscape.measures import MEASURES

EVIL = ("</script><script>hacked=1</script>", "<img src=x onerror=hacked=1>", "<b>bold</b> &amp; %{x} $x$")


def copy(run, to, **fields):
    """A copy of a run's directory without its checkpoints, with fields of its config changed: seed=1."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("latest", "best", "tensorboard"))
    change(to / "config.json", lambda config: config | fields)
    return to


def change(file, how):
    file.write_text(json.dumps(how(json.loads(file.read_text()))))


def evaluation(names, seed=0):
    """A report as `evaluate` writes it, on ten images of every class."""
    rng, n = np.random.default_rng(seed), len(names)
    counts = 7 * np.eye(n, dtype=int)
    for row in counts:
        row += np.bincount(rng.integers(0, n, 3), minlength=n)
    right = np.diag(counts) / 10
    bins = [{"low": i / 15, "count": 10 + i, "confidence": i / 15 + 0.03, "accuracy": i / 16} for i in range(3, 15)]
    return {
        "checkpoint": "latest", "chosen_on": None, "step": 10, "split": "test", "images": 10 * n,
        "cross_entropy": 0.5, "accuracy": float(right.mean()), "top5_accuracy": 1.0, "calibration_error": 0.02,
        "per_class_accuracy": dict(zip(names, map(float, right))), "confusion": counts.tolist(), "reliability": bins,
    }  # fmt: skip


def evaluate(run, names, **more):
    (run / "evaluation").mkdir(exist_ok=True)
    file = run / "evaluation" / "latest_test.json"
    file.write_text(json.dumps(evaluation(names) | more))
    return file


def study(folder: Path, points=7, seeds=3):
    """A landscape study's files, of two bowls of which one is deeper."""
    folder.mkdir()
    axis = np.linspace(-1, 1, points, dtype=np.float32)
    bowl = 0.1 + axis[:, None] ** 2 + 2 * axis[None] ** 2
    rng = np.random.default_rng(0)
    numbers = {}
    for scale, name in enumerate(("plain", "bn"), 1):
        plane = np.stack([np.stack([scale * (bowl + kind), np.clip(1 - bowl / 4, 0, 1)], -1) for kind in range(2)])
        size = (seeds, 4, 5)
        bands = {key: rng.uniform(1, 2, size) for key in ("losses", "distances", "update_losses", "update_distances")}
        lengths = {key: rng.uniform(1, 2, size[:2]) for key in ("loss", "gradient_norm", "update_length")}
        stages = {
            "planes": {"plane": plane, "axis": axis},
            "path": {"plane": plane[0], "axes": np.stack([axis, axis]), "walked": rng.uniform(-1, 1, (5, 2)),
                     "steps": np.arange(5) * 10, "share": np.array([0.6, 0.3])},
            "probes": bands | lengths | {"step": np.arange(4) * 10, "activation_std": rng.uniform(1, 2, (seeds, 4, 3))},
            "rates": {"losses": rng.uniform(1, 2, (1, 3, 8))},
            "around": {f"{place}_{key}": rng.uniform(1, 9, (seeds, *shape)) for place in around.PLACES
                       for key, shape in (("ritz", (2, 6)), ("residuals", (2, 6)), ("lines", (4, 5)),
                                          ("loss", ()), ("worst_loss", ()))},
        }  # fmt: skip
        for stage, arrays in stages.items():
            kept.save(folder / f"{stage}_{name}.npz", {}, **arrays)
        numbers[name] = {measure.key: [1.0 * scale, 3.0, 4.0] for measure in MEASURES}
    rows = verdict.judge(numbers)
    found = {"rows": rows, "summary": verdict.summary(rows), "note": "a note"}
    (folder / "verdict.json").write_text(json.dumps(verdict.plain_json(found)))
    (folder / "config.json").write_text(json.dumps({"seed": 0, "landscape": {"step_sizes": [0.01, 0.02]}}))
    return folder
