"""The study's pictures, both networks on the same axes. Each function writes one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from vgg_jax.landscape import around, probe
from vgg_jax.runs.pictures import subplots, write

COLOURS = {"plain": "#d55e00", "bn": "#0072b2"}
LABELS = {"plain": "without BatchNorm", "bn": "with BatchNorm"}
Found = Mapping[str, Mapping[str, np.ndarray]]  # network -> arrays of one stage


def probes(found: Found, step_sizes: Sequence[float], update_sizes: Sequence[float], file: Path) -> None:
    """Loss band, change of the gradient and beta-smoothness along the gradient and the update, by training step."""
    figure, grid = subplots(2, 3, figsize=(13, 7), sharex=True)
    rows = (("", "gradient", "gradient_norm", step_sizes), ("update_", "update", "update_length", update_sizes))
    for axes, (prefix, move, length, sizes) in zip(grid, rows):
        for name, arrays in found.items():
            step, style = arrays["step"], {"color": COLOURS[name], "label": LABELS[name]}
            losses, distances = arrays[f"{prefix}losses"], arrays[f"{prefix}distances"]
            for axis, values in zip(axes, (losses, distances)):
                axis.fill_between(step, values.min(-1).mean(0), values.max(-1).mean(0), alpha=0.45, lw=0, **style)
            smoothness = probe.smoothness(distances, arrays[length], sizes)
            axes[2].plot(step, smoothness.mean(0), lw=1.5, **style)
            axes[2].fill_between(step, smoothness.min(0), smoothness.max(0), alpha=0.25, lw=0, color=COLOURS[name])
        for axis, title in zip(axes, ("loss", "change of the gradient", "effective beta-smoothness")):
            axis.set(title=f"{title}, along the {move}, {min(sizes):g} to {max(sizes):g} x", yscale="log")
            axis.title.set_fontsize(9)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    for axis in grid[-1]:
        axis.set(xlabel="training step")
    seeds = len(next(iter(found.values()))["loss"])
    said = f"bands: least to most over step sizes, mean of {seeds} seeds; right: mean, least and most of the seeds"
    figure.suptitle(said, fontsize=9)
    write(figure, file)


def rate_band(found: Found, learning_rates: Sequence[float], file: Path) -> None:
    """The training loss between the best and the worst learning rate at every step, first seed."""
    figure, axis = subplots(figsize=(8, 4.2))
    for name, arrays in found.items():
        losses = arrays["losses"][0]
        steps = np.arange(1, losses.shape[-1] + 1)
        axis.fill_between(steps, losses.min(0), losses.max(0), color=COLOURS[name], alpha=0.5, lw=0, label=LABELS[name])
    rates = ", ".join(f"{rate:g}" for rate in sorted(learning_rates))
    axis.set(xlabel="training step", ylabel="training loss", title=f"learning rates {rates}; one seed")
    axis.grid(alpha=0.3)
    axis.legend()
    write(figure, file)


def sharpness(found: Found, file: Path) -> None:
    """The four measures around the networks, one mark per seed, at every place."""
    figure, axes = subplots(1, 4, figsize=(14, 4.4))
    for column, place in enumerate(around.PLACES):
        for shift, (name, arrays) in enumerate(found.items()):
            values = (
                around.rise(arrays[f"{place}_lines"], 0.5), *arrays[f"{place}_ritz"].max(-1).T,
                arrays[f"{place}_worst_loss"] - arrays[f"{place}_loss"],
            )  # fmt: skip
            for axis, its_values in zip(axes, values):
                label = LABELS[name] if not column else None
                axis.plot(
                    np.full(len(its_values), column + 0.2 * shift - 0.1), its_values, "so"[shift], ms=4,
                    color=COLOURS[name], label=label,
                )  # fmt: skip
    titles = ("rise of the loss half a radius away", "largest Hessian eigenvalue", "the same, filter-normalised",
              "rise to the worst loss nearby")  # fmt: skip
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=9)
        axis.set_yscale("symlog", linthresh=1e-2)
        axis.set_xticks(range(len(around.PLACES)), [place.replace("_", ",\n") for place in around.PLACES], fontsize=7)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("at the end of training and at equal loss, BatchNorm's statistics stored or recomputed", fontsize=9)
    write(figure, file)


def activations(found: Found, file: Path) -> None:
    """Standard deviation and share of non-positive values of each ReLU's input during training (mean of seeds)."""
    figure, axes = subplots(2, 2, figsize=(10, 6), sharex=True, sharey="row")
    for column, (name, arrays) in zip(axes.T, found.items()):
        depth = arrays["activation_std"].shape[-1]
        for axis, key in zip(column, ("activation_std", "activation_off")):
            for layer in range(depth):
                colour = colormaps["viridis"](layer / max(1, depth - 1))
                axis.plot(
                    arrays["step"], arrays[key][..., layer].mean(0), color=colour, lw=1.2, label=f"conv {layer + 1}"
                )
            axis.grid(alpha=0.3)
        column[0].set(title=LABELS[name], yscale="log")
        column[1].set(xlabel="training step")
    axes[0, 0].set(ylabel="standard deviation")
    axes[1, 0].set(ylabel="share not positive")
    axes[0, 1].legend(fontsize=7, ncols=2)
    figure.suptitle("the signal that enters the activation function, by depth", fontsize=9)
    write(figure, file)


def filters(found: Found, file: Path) -> None:
    """The first convolution's kernels, each scaled to its own range."""
    figure, axes = subplots(1, 2, figsize=(9, 4.6))
    for axis, (name, arrays) in zip(axes, found.items()):
        kernels = arrays["filters"]
        size, side = kernels.shape[1], max(1, int(np.ceil(np.sqrt(len(kernels)))))
        sheet = np.ones((side * (size + 1) - 1, side * (size + 1) - 1, 3))
        for i, kernel in enumerate(kernels):
            row, column = (size + 1) * np.array(divmod(i, side))
            sheet[row : row + size, column : column + size] = kernel
        axis.imshow(sheet, interpolation="nearest")
        axis.set(title=LABELS[name])
        axis.axis("off")
    write(figure, file)


def saliency(found: Found, file: Path) -> None:
    """Test images, and below them how much each network's logit of the true class depends on every pixel."""
    images = next(iter(found.values()))["images"]
    rows = [("image", images)] + [(LABELS[name], arrays["saliency"]) for name, arrays in found.items()]
    figure, axes = subplots(len(rows), len(images), figsize=(1.3 * len(images), 4.4))
    for line, (label, pictures) in zip(axes, rows):
        for axis, picture in zip(line, pictures):
            axis.imshow(picture, cmap="inferno", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=8)
    write(figure, file)


def verdict(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """The effect of BatchNorm by every measure: 95 % interval and one mark per seed, coloured by what it says."""
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("ratio", "difference")}
    heights = [max(1, len(some)) for some in kinds.values()]
    figure, axes = subplots(2, 1, figsize=(10, 1.6 + 0.3 * len(rows)), height_ratios=heights)
    for axis, (kind, some) in zip(axes, kinds.items()):
        neutral = float(kind == "ratio")
        for y, row in enumerate(some):
            colour = {"yes": "#009e73", "no": "#d55e00"}.get(row["holds"], "grey")
            known = [x for x in row["effects"] if np.isfinite(x) and (x > 0 or not neutral)]
            axis.plot(known, np.full(len(known), y), "o", color=colour, ms=3, alpha=0.4)
            if np.isfinite(row["interval"]).all():
                axis.plot(row["interval"], (y, y), color=colour, lw=2)
                axis.plot(row["effect"], y, "D", color=colour, ms=5)
            arrow = "\u2192" if row["claimed"].startswith("larger") else "\u2190"
            axis.text(1.01, y, f"{arrow} {row['holds']}", transform=axis.get_yaxis_transform(), va="center", fontsize=7)
        axis.axvline(neutral, color="black", lw=0.8)
        names = [f"{row['measure']}\n{row['where']}" for row in some]
        axis.set_yticks(range(len(some)), names, fontsize=6)
        axis.set(xscale="log" if neutral else "linear", ylim=(len(some) - 0.5, -0.5))
        axis.set_xlabel("with / without BatchNorm" if neutral else "with - without BatchNorm", fontsize=8)
        axis.grid(alpha=0.3, axis="x")
    figure.suptitle("95 % intervals, one pale mark per seed; the arrow is what the claim expects", fontsize=9)
    write(figure, file)
