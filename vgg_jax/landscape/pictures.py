"""The study's pictures, both networks on the same axes. Each function writes one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from vgg_jax.landscape import probe
from vgg_jax.runs.pictures import subplots, write

COLOURS = {"plain": "#d55e00", "bn": "#0072b2"}
LABELS = {"plain": "without BatchNorm", "bn": "with BatchNorm"}
Found = Mapping[str, Mapping[str, np.ndarray]]  # network -> arrays of one stage


def probes(found: Found, step_sizes: Sequence[float], file: Path) -> None:
    """Loss band, gradient predictiveness and effective beta-smoothness against the training step."""
    figure, axes = subplots(1, 3, figsize=(13, 3.8))
    for name, arrays in found.items():
        step, style = arrays["step"], {"color": COLOURS[name], "label": LABELS[name]}
        for axis, key in zip(axes, ("losses", "distances")):
            low, high = arrays[key].min(-1).mean(0), arrays[key].max(-1).mean(0)
            axis.fill_between(step, low, high, alpha=0.45, lw=0, **style)
        smoothness = probe.smoothness(arrays["distances"], arrays["gradient_norm"], step_sizes)
        axes[2].plot(step, smoothness.mean(0), lw=1.5, **style)
        axes[2].fill_between(step, smoothness.min(0), smoothness.max(0), alpha=0.25, lw=0, color=COLOURS[name])
    titles = ("loss band", "gradient predictiveness", "effective beta-smoothness")
    labels = ("loss at w - e g", "||g - gradient at w - e g||", "max of it / ||e g||")
    for axis, title, label in zip(axes, titles, labels):
        axis.set(title=title, xlabel="training step", ylabel=label, yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    seeds = len(next(iter(found.values()))["loss"])
    figure.suptitle(
        f"bands: least to most over step sizes {min(step_sizes):g} to {max(step_sizes):g}, mean of {seeds} seeds; "
        "right: mean, least and most of the seeds", fontsize=9,
    )  # fmt: skip
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


def surface_line(found: Found, statistics: str, file: Path) -> None:
    """Loss and accuracy along one filter-normalised direction, one line per seed."""
    figure, axes = subplots(1, 2, figsize=(10, 3.8))
    for name, arrays in found.items():
        for line in arrays["line"]:
            for axis, values in zip(axes, (line[:, 0], 100 * line[:, 1])):
                axis.plot(arrays["axis"], values, color=COLOURS[name], lw=1.2)
        for axis in axes:
            axis.plot([], [], color=COLOURS[name], label=LABELS[name])
    axes[0].set(ylabel="loss", yscale="log")
    axes[1].set(ylabel="accuracy (%)")
    for axis in axes:
        axis.set(xlabel="distance in units of each filter's norm")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(f"training loss on a line through the network, one line per seed; {statistics}", fontsize=9)
    write(figure, file)


def surface_plane(found: Found, statistics: str, file: Path) -> None:
    """Contours of the first seed's loss on a plane, at the same levels for both networks."""
    figure, axes = subplots(1, 2, figsize=(10, 4.6), sharey=True)
    levels = _levels(found)
    for axis, (name, arrays) in zip(axes, found.items()):
        loss = np.clip(arrays["plane"][0, :, :, 0], levels[0], levels[-1])
        lines = axis.contour(arrays["axis"], arrays["axis"], loss.T, levels, cmap="viridis", norm="log")
        axis.clabel(lines, fontsize=7, fmt="%.2g")
        axis.plot(0, 0, "+", color="black")
        axis.set(title=LABELS[name], xlabel="first direction", aspect="equal")
    axes[0].set(ylabel="second direction")
    figure.suptitle(f"training loss, filter-normalised directions; {statistics}", fontsize=9)
    write(figure, file)


def surface_hills(found: Found, statistics: str, file: Path) -> None:
    """The same planes as surfaces in 3D, on the same vertical scale."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    levels = np.log10(_levels(found))
    for i, (name, arrays) in enumerate(found.items(), 1):
        ticks = arrays["axis"][[0, len(arrays["axis"]) // 2, -1]]
        axis: Any = figure.add_subplot(1, 2, i, projection="3d")
        x, y = np.meshgrid(arrays["axis"], arrays["axis"], indexing="ij")
        height = np.clip(np.log10(np.maximum(arrays["plane"][0, :, :, 0], 1e-12)), levels[0], levels[-1])
        axis.plot_surface(x, y, height, cmap="viridis", vmin=levels[0], vmax=levels[-1], lw=0, rstride=1, cstride=1)
        axis.set(title=LABELS[name], zlim=(levels[0], levels[-1]), zlabel="log10 loss")
        axis.set(xticks=ticks, yticks=ticks)
    figure.suptitle(f"training loss, filter-normalised directions; {statistics}", fontsize=9)
    write(figure, file)


def _levels(found: Found) -> np.ndarray:
    losses = np.concatenate([arrays["plane"][0, :, :, 0].ravel() for arrays in found.values()])
    losses = losses[np.isfinite(losses)]
    low = max(losses.min(), 1e-6)
    return np.geomspace(low, max(losses.max(), 1.01 * low), 16)


def sharpness(found: Found, statistics: str, file: Path) -> None:
    """Ritz values of the Hessian and the rise to the worst loss, one mark per seed."""
    figure, axes = subplots(1, 3, figsize=(12, 3.8))
    for x, (name, arrays) in enumerate(found.items()):
        for axis, key in zip(axes, ("eigenvalues", "relative_eigenvalues")):
            for values in arrays[key]:
                top = np.sort(values)[::-1][:5]
                axis.plot(np.arange(1, len(top) + 1), top, "o-", color=COLOURS[name], lw=0.8, ms=4)
            axis.plot([], [], "o-", color=COLOURS[name], label=LABELS[name])
        rises = arrays["worst_loss"] - arrays["loss"]
        axes[2].plot(np.full(len(rises), x), rises, "o", color=COLOURS[name], label=LABELS[name])
    axes[0].set(title="Hessian", xlabel="eigenvalue, from the largest", yscale="symlog")
    axes[1].set(title="Hessian, filter-normalised", xlabel="eigenvalue, from the largest", yscale="symlog")
    axes[2].set(title="rise to the worst loss in the radius", xlim=(-0.5, 1.5), yscale="log")
    axes[2].set_xticks(range(len(found)), [LABELS[name] for name in found])
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(f"at the end of training, one mark per seed; {statistics}", fontsize=9)
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
    """Ratio without / with BatchNorm for every measure, one mark per seed; green where the claim holds."""
    figure, axis = subplots(figsize=(10, 0.8 + 0.42 * len(rows)))
    for y, row in enumerate(rows):
        ratios = np.clip([r for r in row["ratios"] if r > 0 and np.isfinite(r)], 1e-3, 1e3)
        colour = {"yes": "#009e73", "no": "#d55e00", "mixed": "grey"}[row["holds"]]
        axis.plot(ratios, np.full(len(ratios), y), "o", color=colour, ms=6)
        side = (1e-3, 1) if row["claimed"].startswith("larger") else (1, 1e3)
        axis.fill_betweenx((y - 0.45, y + 0.45), *side, color="#009e73", alpha=0.08, lw=0)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_yticks(range(len(rows)), [row["measure"] for row in rows], fontsize=8)
    reach = max([2.0, *(max(r, 1 / r) for row in rows for r in row["ratios"] if r > 0 and np.isfinite(r))])
    axis.set(xscale="log", xlim=(1 / (1.3 * reach), 1.3 * reach), ylim=(len(rows) - 0.5, -0.5))
    axis.set(xlabel="without / with BatchNorm, one mark per seed where positive; shaded: where the claim holds")
    write(figure, file)
