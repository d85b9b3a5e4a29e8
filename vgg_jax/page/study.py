"""A landscape study's files, read without trust."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.landscape.study import NETWORKS
from vgg_jax.page.reading import Flat, parse, read_config

# Dimensions of the arrays that the page shows, by stage; S seeds, T times, E step sizes, L layers, P points.
SHAPES = {
    "probes": {"step": 1, "losses": 3, "distances": 3, "gradient_norm": 2, "activation_std": 3},
    "rates": {"losses": 3},
    "surfaces": {"plane": 4, "line": 3, "axis": 1},
    "sharp": {"eigenvalues": 2, "relative_eigenvalues": 2, "loss": 1, "worst_loss": 1},
}
STILL = {  # pictures that serve where a stage's arrays are not there
    "probes": ("gradient_probes.png", "activations.png"),
    "rates": ("learning_rate_band.png",),
    "surfaces": ("surface_hills.png", "surface_plane.png", "surface_line.png"),
    "sharp": ("sharpness.png",),
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
      rows, note: of verdict.json; numbers that are not finite are the texts "inf" and "nan".
      missing: one line for everything that is not there.
    """

    folder: Path
    config: Flat
    stages: dict[str, Both]
    rows: list[dict[str, Any]]
    note: str
    missing: list[str]


def read(folder: Path) -> StudyFiles:
    missing: list[str] = []
    config = read_config(folder, missing)
    stages = {stage: both for stage in SHAPES if (both := _stage(folder, stage, missing))}
    rows, note = _verdict(folder / "verdict.json", missing)
    return StudyFiles(folder, config, stages, rows, note, missing)


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
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
        missing.append(f"{file.name} is damaged: delete it, and the same `landscape` command measures it again")
    return {}


def _verdict(file: Path, missing: list[str]) -> tuple[list[dict[str, Any]], str]:
    try:
        found = parse(file.read_text(errors="replace"))
        rows = [dict(row) for row in found["rows"]]
        for row in rows:
            row["ratio"] = float(row["ratio"])
            for name in ("ratios", "without_bn", "with_bn"):
                row[name] = [float(number) for number in row[name]]
        if not all(row["ratios"] and row["without_bn"] and row["with_bn"] for row in rows):
            raise ValueError
        if any(not isinstance(row.get(name), str) for row in rows for name in ("claim", "measure", "claimed", "holds")):
            raise ValueError
        return rows, str(found.get("note", ""))
    except FileNotFoundError:
        missing.append("verdict.json is not there: the study is not finished; the same `landscape` command goes on")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        missing.append("verdict.json is damaged; the same `landscape` command writes it again")
    return [], ""
