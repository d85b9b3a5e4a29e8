"""A landscape study's files, read without trust."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.landscape.around import PLACES
from vgg_jax.landscape.kept import UNREADABLE
from vgg_jax.landscape.networks import NETWORKS
from vgg_jax.page.reading import Flat, parse, read_config

# Dimensions of the arrays that the page shows, by stage; S seeds, T times, E step sizes, L layers, P points.
SHAPES = {
    "probes": {"step": 1, "losses": 3, "distances": 3, "update_losses": 3, "update_distances": 3, "activation_std": 3},
    "rates": {"losses": 3},
    "planes": {"plane": 4, "axis": 1},
    "path": {"plane": 3, "axes": 2, "walked": 2, "steps": 1, "share": 1},
    "around": {f"{place}_lines": 3 for place in PLACES} | {"end_recomputed_ritz": 3, "end_recomputed_residuals": 3},
}
STILL = {  # pictures that serve where a stage's arrays are not there
    "probes": {
        "gradient_probes.png": "The loss along the gradient and along the optimizer's update, during training",
        "activations.png": "What enters each activation function, by depth, during training",
    },
    "rates": {"learning_rate_band.png": "Training loss between the best and the worst of several learning rates"},
    "planes": {
        "surface_hills.png": "Training loss around the end of training",
        "surface_plane.png": "The same from above",
    },
    "path": {"path.png": "The path that training took, on the training loss"},
    "around": {
        "lines.png": "Training loss on random lines through the networks",
        "sharpness.png": "Sharpness at the end of training and at equal loss",
    },
}
ALWAYS = {  # pictures that the page has no figure for
    "saliency.png": "test images, and how much each network's logit of the true class depends on every pixel",
    "filters.png": "the first convolution's kernels",
}
Both = Mapping[str, Mapping[str, np.ndarray]]  # network -> arrays of one stage


class StudyFiles(NamedTuple):
    """What a study's folder holds.

    Attributes:
      stages: by stage, the arrays of both networks; only stages of which both are there.
      rows, summary, note: of verdict.json.
      missing: one line for everything that is not there.
    """

    folder: Path
    config: Flat
    stages: dict[str, Both]
    rows: list[dict[str, Any]]
    summary: str
    note: str
    missing: list[str]


def read(folder: Path) -> StudyFiles:
    missing: list[str] = []
    rows, summary, note = _verdict(folder / "verdict.json", missing)
    arrays = any(folder.glob("*.npz"))
    if not arrays:  # as the study in results/, of which no more was committed
        missing.append("the study's arrays (npz files) are not here, so its pictures are still ones")
    config = read_config(folder, missing) if arrays or (folder / "config.json").is_file() else {}
    stages = {stage: both for stage in SHAPES if arrays and (both := _stage(folder, stage, missing))}
    return StudyFiles(folder, config, stages, rows, summary, note, missing)


def _stage(folder: Path, stage: str, missing: list[str]) -> Both:
    both = {name: _arrays(folder / f"{stage}_{name}.npz", stage, missing) for name in NETWORKS}
    return both if all(both.values()) else {}


def _arrays(file: Path, stage: str, missing: list[str]) -> dict[str, np.ndarray]:
    """A stage's arrays of one network; {} and a line in missing where they cannot be shown."""
    try:
        with np.load(file) as found:
            arrays = {name: found[name].astype(np.float64) for name in SHAPES[stage]}
        if any(array.ndim != SHAPES[stage][name] or not array.size for name, array in arrays.items()):
            raise ValueError
        return arrays
    except FileNotFoundError:
        missing.append(f"{file.name} is not there: the same `landscape` command measures it")
    except (*UNREADABLE, OSError, TypeError, MemoryError):
        missing.append(f"{file.name} is damaged: delete it, and the same `landscape` command measures it again")
    return {}


_TEXTS = ("claim", "measure", "where", "source", "claimed", "kind", "holds")


def _verdict(file: Path, missing: list[str]) -> tuple[list[dict[str, Any]], str, str]:
    """(rows, summary, note); numbers that are not finite stand there as texts."""
    try:
        found = parse(file.read_text(errors="replace"))
        rows = [dict(row) for row in found["rows"]]
        if rows and all("ratio" in row for row in rows):
            missing.append("verdict.json is of an earlier version; the same `landscape` command measures anew")
            return [], "", ""
        for row in rows:
            row["effect"] = float(row["effect"])
            for name in ("effects", "interval", "without_bn", "with_bn"):
                row[name] = [float(number) for number in row[name]]
            if len(row["interval"]) != 2 or not (row["without_bn"] and row["with_bn"]):
                raise ValueError
        if any(not isinstance(row.get(name), str) for row in rows for name in _TEXTS):
            raise ValueError
        return rows, str(found.get("summary", "")), str(found.get("note", ""))
    except FileNotFoundError:
        missing.append("verdict.json is not there: the study is not finished; the same `landscape` command goes on")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        missing.append("verdict.json is damaged; the same `landscape` command writes it again")
    return [], "", ""
