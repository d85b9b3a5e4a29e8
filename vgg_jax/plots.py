"""Pictures of runs and tables. Each function writes one PNG."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")


import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from vgg_jax.data import Dataset

COLOURS = {"train": "#0072b2", "validation": "#009e73", "test": "#d55e00"}  # told apart by the colour-blind


def curves(records: Sequence[dict[str, Any]], file: Path) -> None:
    """Loss and accuracy by epoch, train against test, learning-rate drops as dotted lines."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = [r["epoch"] for r in records]
    for axis, measure, scale in zip(axes, ("loss", "accuracy"), (1, 100)):
        for split, colour in COLOURS.items():
            values = [scale * r[f"{split}_{measure}"] for r in records if f"{split}_{measure}" in r]
            if values:
                style = "o-" if len(values) == 1 else "-"
                axis.plot(epochs, values, style, color=colour, label=f"{split} {values[-1]:.4g}", lw=1.5)
        for epoch in _drops(records):
            axis.axvline(epoch, color="grey", ls=":", lw=0.8)
        axis.set(xlabel="epoch", ylabel="accuracy (%)" if measure == "accuracy" else "loss")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(
        "train: running mean over the epoch, with augmentation and dropout; dotted: learning-rate drops", fontsize=9
    )
    write(figure, file)


def _drops(records: Sequence[dict[str, Any]]) -> list[int]:
    """Epochs after which the learning rate fell at once, from a plateau."""
    rates = [r["learning_rate"] for r in records]
    steps = range(1, len(rates))
    plateau = [i < 2 or rates[i - 1] == rates[i - 2] for i in steps]
    return [records[i - 1]["epoch"] for i, flat in zip(steps, plateau) if flat and rates[i] <= 0.6 * rates[i - 1]]


def samples(images: Any, titles: Sequence[str], dataset: Dataset, file: Path) -> None:
    """A grid of normalised images [N, H, W, 3] as the network sees them, with their labels."""
    pixels = np.asarray(images) * np.asarray(dataset.std, np.float32) + np.asarray(dataset.mean, np.float32)
    gallery(np.clip(pixels, 0, 1), titles, file)


def gallery(images: np.ndarray, titles: Sequence[str], file: Path) -> None:
    """A grid of images [N, H, W, 3], uint8 or in [0, 1], with a title each."""
    columns, height = 8, 1.2  # of a cell; an image is 0.95 a side
    rows = max(1, -(-len(images) // columns))
    figure = plt.figure(figsize=(columns * 1.4, rows * height * 1.4))
    axis = figure.add_axes((0, 0, 1, 1))  # one for all: sixty take seconds to lay out
    for i, (image, title) in enumerate(zip(images, titles)):
        left, top = i % columns, i // columns * height
        axis.imshow(image, interpolation="nearest", extent=(left, left + 0.95, top + 0.95, top))
        axis.text(left + 0.475, top - 0.03, title, fontsize=7, ha="center", va="bottom")
    axis.set(xlim=(0, columns - 0.05), ylim=(rows * height - 0.25, height - 1.45))
    axis.axis("off")
    write(figure, file)


def confusion(counts: np.ndarray, names: Sequence[str], file: Path) -> None:
    """[C, C] counts as shares of each true class; numbers inside up to 20 classes."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(5.0, 0.6 * len(names)) if len(names) <= 20 else 12.0
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
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
    """Accuracy against confidence (on the diagonal: calibrated), and how many images lie where."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(5, 6), height_ratios=(3, 1), sharex=True, layout="constrained")
    width = 1 / 15
    low = np.array([b["low"] for b in bins])
    upper.bar(low, [b["accuracy"] for b in bins], width, align="edge", color=COLOURS["train"], edgecolor="white")
    upper.plot([0, 1], [0, 1], "--", color="grey")
    upper.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", color=COLOURS["test"], ms=4)
    upper.set(ylabel="accuracy", title=f"expected calibration error {error:.4f}", xlim=(0, 1), ylim=(0, 1))
    lower.bar(low, [b["count"] for b in bins], width, align="edge", color="grey", edgecolor="white")
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    write(figure, file)


def table_accuracy(result: dict[str, Any], caption: str, file: Path) -> None:
    """A table's rows: ours at the final epoch and at the best, over seeds, beside the reported numbers."""
    rows = result["rows"]
    figure, axis = plt.subplots(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    marks = (("final", "o", COLOURS["train"], -0.12), ("best_test", "s", COLOURS["test"], 0.12))
    for protocol, mark, colour, shift in marks:
        for y, row in enumerate(rows):
            accuracies = [run["test_accuracy"][protocol] for run in row["runs"] if run["counts"]]
            values = [100 * accuracy for accuracy in accuracies if accuracy is not None]
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else None
                axis.errorbar(np.mean(values), y + shift, xerr=spread, fmt=mark, color=colour, capsize=3, ms=5)
        axis.plot(
            [], [], mark, color=colour, label={"final": "final epoch", "best_test": "best epoch on test"}[protocol]
        )
    reported = [(row["reported"], y) for y, row in enumerate(rows) if row["reported"]]
    axis.plot(*zip(*reported), "x", color="black", ms=7, label="reported (best on test)")
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.set(xlabel="test accuracy (%)", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.text(0.01, -0.01, textwrap.fill(caption, 120), fontsize=7, va="top")
    write(figure, file)


def table_curves(result: dict[str, Any], file: Path) -> None:
    """Train and test accuracy by epoch of every row, a thin line a seed."""
    rows = [row for row in result["rows"] if row["runs"]]
    columns = min(4, len(rows))
    figure, axes = plt.subplots(
        -(-len(rows) // columns), columns, figsize=(3.1 * columns, 0.5 + 2.3 * -(-len(rows) // columns)),
        layout="constrained", squeeze=False, sharey=True,
    )  # fmt: skip
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, rows):
        for run in row["runs"]:
            epochs, train, test = np.array(run["curve"]).T
            for split, values in (("train", train), ("test", test)):
                axis.plot(epochs, 100 * values, "o-" if len(epochs) == 1 else "-", color=COLOURS[split], lw=1, ms=3)
        axis.set_title(f"{row['name']}, n = {len(row['runs'])}", fontsize=8)
        axis.grid(alpha=0.3)
    for split in ("train", "test"):
        axes[0, 0].plot([], [], color=COLOURS[split], label=split)
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("accuracy (%)", fontsize=9)
    write(figure, file)


def write(figure: Figure, file: Path) -> None:
    """Whole or not at all: a picture is never left half written."""
    partial = file.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    plt.close(figure)
    partial.replace(file)
