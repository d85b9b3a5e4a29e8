"""Pictures of the loss over a plane and along lines, both networks on one scale. Each function writes one PNG."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vgg_jax.landscape import around
from vgg_jax.landscape.pictures import COLOURS, LABELS, Found
from vgg_jax.landscape.score import STATISTICS
from vgg_jax.runs.pictures import subplots, write

LEVELS = 16
AROUND_THE_END = "training loss around the end of training, random filter-normalised directions, first seed"


def lines(found: Found, file: Path) -> None:
    """The loss on random lines through the networks at every place, mean of the lines, one curve per seed."""
    figure, axes = subplots(1, len(around.PLACES), figsize=(14, 3.6), sharey=True)
    for axis, place in zip(axes, around.PLACES):
        for name, arrays in found.items():
            for i, one in enumerate(arrays[f"{place}_lines"].mean(1)):
                axis.plot(around.LINE, one, color=COLOURS[name], lw=1.2, label=LABELS[name] if not i else None)
        axis.set(xlabel="distance in radii", yscale="log")
        axis.set_title(place.replace("_", ", ") + " statistics", fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="training loss")
    axes[0].legend(fontsize=8)
    write(figure, file)


def contours(found: Found, file: Path) -> None:
    """The first seed's random plane from above, at the same levels for all."""
    shown = _shown(found)
    levels = _levels([plane for *_, plane in shown])
    figure, axes = subplots(1, len(shown), figsize=(5 * len(shown), 4.8), sharey=True)
    for axis, (title, places, plane) in zip(axes, shown):
        _contour(axis, places, places, plane, levels)
        axis.plot(0, 0, "+", color="black")
        axis.set(title=title, xlabel="first direction", aspect="equal")
    axes[0].set(ylabel="second direction")
    figure.suptitle(AROUND_THE_END, fontsize=9)
    write(figure, file)


def hills(found: Found, file: Path) -> None:
    """The same planes as surfaces in 3-D, on one vertical scale."""
    shown = _shown(found)
    levels = np.log10(_levels([plane for *_, plane in shown]))
    figure = Figure(figsize=(5 * len(shown), 4.8), layout="constrained")
    for i, (title, places, plane) in enumerate(shown, 1):
        axis: Any = figure.add_subplot(1, len(shown), i, projection="3d")
        x, y = np.meshgrid(places, places, indexing="ij")
        height = np.clip(np.log10(np.maximum(plane, 1e-12)), levels[0], levels[-1])
        axis.plot_surface(x, y, height, cmap="viridis", vmin=levels[0], vmax=levels[-1], lw=0, rstride=1, cstride=1)
        ticks = places[[0, len(places) // 2, -1]]
        axis.set(title=title, zlim=(levels[0], levels[-1]), zlabel="log10 loss", xticks=ticks, yticks=ticks)
    figure.suptitle(AROUND_THE_END, fontsize=9)
    write(figure, file)


def path(found: Found, file: Path) -> None:
    """The way that training took, on the loss in the plane of its two main directions."""
    figure, axes = subplots(1, len(found), figsize=(6 * len(found), 5))
    levels = _levels([arrays["plane"][..., 0] for arrays in found.values()])
    for axis, (name, arrays) in zip(axes, found.items()):
        x, y = arrays["axes"]
        _contour(axis, x, y, arrays["plane"][..., 0], levels)
        walked = arrays["walked"]
        axis.plot(*walked.T, ".-", color="black", lw=1, ms=5)
        for place, step in zip(walked[:: max(1, len(walked) // 5)], arrays["steps"][:: max(1, len(walked) // 5)]):
            axis.annotate(str(step), place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.plot(0, 0, "*", color="#d55e00", ms=11)
        one, two = arrays["share"]
        axis.set(title=f"{LABELS[name]}: {one + two:.0%} of the path lies in this plane")
        axis.set(xlabel=f"first component, {one:.0%}", ylabel=f"second component, {two:.0%}")
    figure.suptitle(
        "training loss, statistics recomputed, and the path walked (numbers: training steps), first seed", fontsize=9
    )
    write(figure, file)


def _shown(found: Found) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(title, axis, losses): of the network without BatchNorm once, of the other with both kinds of statistics."""
    shown = []
    for name, arrays in found.items():
        for statistics, plane in zip(STATISTICS, arrays["plane"]):
            if name != "plain" or statistics == STATISTICS[0]:
                what = LABELS[name] if name == "plain" else f"{LABELS[name]}, {statistics} statistics"
                shown.append((what, arrays["axis"], plane[..., 0]))
    return shown


def _levels(planes: list[np.ndarray]) -> np.ndarray:
    losses = np.concatenate([plane.ravel() for plane in planes])
    losses = losses[np.isfinite(losses)]
    low = max(losses.min(initial=np.inf), 1e-6) if losses.size else 1.0
    return np.geomspace(low, max(losses.max(initial=0.0), 1.01 * low), LEVELS)


def _contour(axis: Any, x: np.ndarray, y: np.ndarray, plane: np.ndarray, levels: np.ndarray) -> None:
    lines = axis.contour(x, y, np.clip(plane, levels[0], levels[-1]).T, levels, cmap="viridis", norm="log")
    axis.clabel(lines, fontsize=7, fmt="%.2g")
