"""Pictures of a run. Each function writes one PNG."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vgg_jax.datasets.load import Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN = "mean since the point before, with augmentation and dropout"  # what a record has of the training images
COLOURS = {"train": "#0072b2", "validation": "#009e73", "test": "#d55e00"}  # safe for colour-blind readers


def curves(records: Sequence[dict[str, Any]], file: Path) -> None:
    """Loss and accuracy by epoch, train against test, learning-rate drops as dotted lines."""
    figure, axes = subplots(1, 2, figsize=(11, 4))
    epochs = [r["epoch"] for r in records]
    for axis, measure, scale in zip(axes, ("loss", "accuracy"), (1, 100)):
        for split, colour in COLOURS.items():
            values = [scale * r[f"{split}_{measure}"] for r in records if f"{split}_{measure}" in r]
            if values:
                style = "o-" if len(values) == 1 else "-"
                axis.plot(epochs, values, style, color=colour, label=f"{split} {values[-1]:.4g}", lw=1.5)
        for epoch in drops(records):
            axis.axvline(epoch, color="grey", ls=":", lw=0.8)
        axis.set(xlabel="epoch", ylabel="accuracy (%)" if measure == "accuracy" else "loss")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"train: {TRAIN}; dotted: learning-rate drops", fontsize=9)
    write(figure, file)


def drops(records: Sequence[dict[str, Any]]) -> list[int]:
    """Epochs after which the learning rate fell at once, from a plateau."""
    rates = [r["learning_rate"] for r in records]
    steps = range(1, len(rates))
    plateau = [i < 2 or rates[i - 1] == rates[i - 2] for i in steps]
    return [records[i - 1]["epoch"] for i, flat in zip(steps, plateau) if flat and rates[i] <= 0.6 * rates[i - 1]]


def samples(batch: Mapping[str, np.ndarray], dataset: Dataset, file: Path) -> None:
    """A grid of the first images of a batch as the network sees them, with their labels."""
    shown, names = {key: values[:64] for key, values in batch.items()}, dataset.class_names
    titles = [names[i] for i in shown["label"]]
    if "other" in shown:  # mixed images
        others = [names[i] for i in shown["other"]]
        titles = [f"{share:.0%} {a}\n+ {b}" for share, a, b in zip(shown["share"], titles, others)]
    pixels = shown["image"] * np.asarray(dataset.std, np.float32) + np.asarray(dataset.mean, np.float32)
    gallery(np.clip(pixels, 0, 1), titles, file)


def gallery(images: np.ndarray, titles: Sequence[str], file: Path) -> None:
    """A grid of images [N, H, W, 3], uint8 or in [0, 1], with a title each."""
    columns, height = 8, 1.2  # images in a row, height of a cell; an image's sides are 0.95
    rows = max(1, -(-len(images) // columns))
    figure = _figure(figsize=(columns * 1.4, rows * height * 1.4))
    axis = figure.add_axes((0, 0, 1, 1))  # one for all images: sixty take seconds to lay out
    for i, (image, title) in enumerate(zip(images, titles)):
        left, top = i % columns, i // columns * height
        axis.imshow(image, interpolation="nearest", extent=(left, left + 0.95, top + 0.95, top))
        axis.text(left + 0.475, top - 0.03, title, fontsize=7, ha="center", va="bottom")
    axis.set(xlim=(0, columns - 0.05), ylim=(rows * height - 0.25, height - 1.45))
    axis.axis("off")
    write(figure, file)


def _figure(**options: Any) -> "Figure":
    from matplotlib.figure import Figure  # a third of a second, for which `predict` need not wait

    return Figure(**options)


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any) -> tuple["Figure", Any]:
    """`pyplot.subplots` without global state: a notebook's backend and figures stay as they are."""
    figure = _figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def write(figure: "Figure", file: Path) -> None:
    """Write a picture's file in one piece, so that a crash leaves no half-written one."""
    partial = file.with_suffix(f".{os.getpid()}.partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(file)
