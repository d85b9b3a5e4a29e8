"""Pictures of a table. Each function writes one PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.evaluation.intervals import estimate
from vgg_jax.runs.pictures import COLOURS, TRAIN, subplots, write


def accuracy(result: dict[str, Any], caption: str, file: Path) -> None:
    """A table's rows: our accuracy at the final and the best epoch, over seeds, beside the reported one."""
    rows = result["rows"]
    figure, axis = subplots(figsize=(9, 1.6 + 0.42 * len(rows)))
    marks = (
        ("final", "final epoch", "o", COLOURS["train"], -0.12),
        ("best_test", "best epoch on test", "s", COLOURS["test"], 0.12),
    )
    for protocol, label, mark, colour, shift in marks:
        for y, row in enumerate(rows):
            accuracies = [run["test_accuracy"][protocol] for run in row["runs"] if run["counts"]]
            values = [100 * accuracy for accuracy in accuracies if accuracy is not None]
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else None
                axis.errorbar(np.mean(values), y + shift, xerr=spread, fmt=mark, color=colour, capsize=3, ms=5)
        axis.plot([], [], mark, color=colour, label=label)
    reported = [(row["reported"], y) for y, row in enumerate(rows) if row["reported"]]
    if reported:
        axis.plot(*zip(*reported), "x", color="black", ms=7, label="reported")
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.set(xlabel="test accuracy (%)", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.supxlabel(textwrap.fill(caption, 120), x=0.01, ha="left", fontsize=7)
    write(figure, file)


def held_out(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A sweep's variations, the best on top: held-out accuracy of every seed, and their mean with its 95 % interval."""
    figure, axis = subplots(figsize=(9, 1.4 + 0.42 * len(rows)))
    for y, row in enumerate(rows):
        values = row["held_out_accuracy"]
        found = estimate(values, row["held_out_images"])
        if not found:
            continue
        axis.plot([100 * value for value in values], [y] * len(values), "o", color=COLOURS["train"], alpha=0.5, ms=4)
        if found.low is not None and found.high is not None:
            axis.plot([100 * found.low, 100 * found.high], [y, y], color=COLOURS["train"], lw=1.5)
        axis.plot(100 * found.mean, y, "D", color=COLOURS["train"], ms=6)
    axis.set_yticks(range(len(rows)), [textwrap.fill(row["name"], 50) for row in rows], fontsize=8)
    axis.set(xlabel="held-out accuracy (%), one pale mark per seed, 95 % intervals", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    write(figure, file)


def curves(result: dict[str, Any], file: Path) -> None:
    """Train and test accuracy by epoch of every row, one thin line per seed."""
    rows = [row for row in result["rows"] if row["runs"]]
    columns = min(4, len(rows))
    figure, axes = subplots(
        -(-len(rows) // columns), columns, figsize=(3.1 * columns, 0.5 + 2.3 * -(-len(rows) // columns)),
        squeeze=False, sharey=True,
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
    figure.supxlabel(f"epoch (train: {TRAIN})", fontsize=9)
    figure.supylabel("accuracy (%)", fontsize=9)
    write(figure, file)
