"""Pictures of a report. Each function writes one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vgg_jax.runs.pictures import COLOURS, subplots, write


def confusion(counts: np.ndarray, names: Sequence[str], file: Path) -> None:
    """[C, C] counts as shares of each true class; numbers inside up to 20 classes."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(5.0, 0.6 * len(names)) if len(names) <= 20 else 12.0
    figure, axis = subplots(figsize=(side + 1, side))
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
    axis.set(xlabel="predicted", ylabel="true")
    if len(names) <= 20:
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        for (i, j), n in np.ndenumerate(counts):
            if n:
                axis.text(
                    j, i, n, ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.5 else "black"
                )
    write(figure, file)


def reliability(bins: Sequence[dict[str, float]], error: float, file: Path) -> None:
    """Accuracy against confidence (calibrated on the diagonal), and the number of images in each bin."""
    figure, (upper, lower) = subplots(2, 1, figsize=(5, 6), height_ratios=(3, 1), sharex=True)
    width = 1 / 15
    low = np.array([b["low"] for b in bins])
    upper.bar(low, [b["accuracy"] for b in bins], width, align="edge", color=COLOURS["train"], edgecolor="white")
    upper.plot([0, 1], [0, 1], "--", color="grey")
    upper.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", color=COLOURS["test"], ms=4)
    upper.set(ylabel="accuracy", title=f"expected calibration error {error:.4f}", xlim=(0, 1), ylim=(0, 1))
    lower.bar(low, [b["count"] for b in bins], width, align="edge", color="grey", edgecolor="white")
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    write(figure, file)
