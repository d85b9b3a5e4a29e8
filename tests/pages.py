"""Run directories and studies for the tests of the report page, made without training."""

import json
import shutil
from pathlib import Path

import numpy as np

from vgg_jax.landscape import kept, verdict

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


def study(folder: Path, points=7, seeds=2):
    """A landscape study's files, of two bowls of which one is deeper."""
    folder.mkdir()
    axis = np.linspace(-1, 1, points, dtype=np.float32)
    bowl = 0.1 + axis[:, None] ** 2 + 2 * axis[None] ** 2
    rng = np.random.default_rng(0)
    numbers = {}
    for scale, name in enumerate(("plain", "bn"), 1):
        plane = np.stack([np.stack([scale * (bowl + seed), np.clip(1 - bowl / 4, 0, 1)], -1) for seed in range(seeds)])
        size = (seeds, 4, 5)
        stages = {
            "surfaces": {"plane": plane, "line": plane[:, :, points // 2], "axis": axis},
            "probes": {"step": np.arange(4) * 10, "losses": rng.uniform(1, 2, size), "loss": np.ones(size[:2]),
                       "distances": rng.uniform(1, 2, size), "gradient_norm": rng.uniform(1, 2, size[:2]),
                       "activation_std": rng.uniform(1, 2, (seeds, 4, 3))},
            "rates": {"losses": rng.uniform(1, 2, (1, 3, 8))},
            "sharp": {"eigenvalues": rng.uniform(1, 9, (seeds, 6)), "loss": np.ones(seeds),
                      "relative_eigenvalues": rng.uniform(1, 9, (seeds, 6)), "worst_loss": 2 * np.ones(seeds)},
        }  # fmt: skip
        for stage, arrays in stages.items():
            kept.save(folder / f"{stage}_{name}.npz", {}, **arrays)
        numbers[name] = {measure.key: [1.0 * scale, 3.0] for measure in verdict.MEASURES}
    found = {"rows": verdict.judge(numbers), "note": "a note"}
    (folder / "verdict.json").write_text(json.dumps(verdict.plain_json(found)))
    config = {"seed": 0, "landscape": {"step_sizes": [0.01, 0.02, 0.05, 0.1, 0.2], "surface_statistics": "stored"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
