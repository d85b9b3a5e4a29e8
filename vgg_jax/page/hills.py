"""Figures of a landscape study, as plotly's JSON: the plain network dashed, the one with BatchNorm in whole lines."""

import functools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vgg_jax.landscape import probe
from vgg_jax.landscape.pictures import COLOURS, LABELS
from vgg_jax.page.figures import GREY, Figure, figure
from vgg_jax.page.html import label
from vgg_jax.page.study import Both

DASHES = {"plain": "dash", "bn": "solid"}
SYMBOLS = {"plain": "square", "bn": "circle"}
SEEN = "%{fullData.name} %{y:.4~g}<extra></extra>"
_LOG = {"type": "log", "nticks": 6}
_LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
_line = functools.partial(
    figure, showlegend=True, legend=_LEGEND, margin={"l": 55, "r": 12, "t": 40, "b": 45}, hovermode="x unified"
)


def planes(both: Both) -> tuple[dict[str, Figure], dict[str, Figure], int]:
    """(3-D surfaces, contours, points left out): of each network, with a choice of seeds, on the same scale.

    Heights are log10 of the loss; a loss that is not finite leaves a hole.
    """
    heights = {name: _heights(arrays["plane"][..., 0]) for name, arrays in both.items()}
    known = np.concatenate([height[np.isfinite(height)] for height in heights.values()] or [np.zeros(1)])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    scale = {"cmin": low, "cmax": max(high, low + 1e-3)}
    hills, contours = {}, {}
    for name, arrays in both.items():
        axis, seeds = _round(arrays["axis"]), [_round(height.T) for height in heights[name]]
        hills[name] = _hill(axis, seeds, scale)
        contours[name] = _contour(axis, seeds, scale)
    return hills, contours, sum(int((~np.isfinite(height)).sum()) for height in heights.values())


def _heights(losses: np.ndarray) -> np.ndarray:
    """log10 of the losses, NaN where they are not finite."""
    return np.log10(np.maximum(np.where(np.isfinite(losses), losses, np.nan), 1e-12))


def _round(values: np.ndarray) -> Any:
    """As lists, with five significant digits, since a surface has thousands of points."""
    values = np.where(np.isfinite(values), values, np.nan)
    scale = 10.0 ** (4 - np.floor(np.log10(np.maximum(np.abs(values), 1e-12))))
    return (np.round(values * scale) / scale).tolist()


def _hill(axis: Any, seeds: list[Any], scale: Mapping[str, float]) -> Figure:
    trace = {
        "type": "surface", "x": axis, "y": axis, "z": seeds[0], "colorscale": "Viridis", "showscale": False, **scale,
        "hovertemplate": "(%{x:.2f}, %{y:.2f})<br>log10 loss %{z:.4~g}<extra></extra>",
    }  # fmt: skip
    scene = {
        "xaxis": {"title": {"text": "first direction"}}, "yaxis": {"title": {"text": "second direction"}},
        "zaxis": {"title": {"text": "log10 loss"}, "range": [scale["cmin"], scale["cmax"]]},
        "aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.8},
        "camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.0}},
    }  # fmt: skip
    shape = {"scene": scene, "height": 420, "margin": dict.fromkeys("lrtb", 0), "showlegend": False}
    return {"data": [trace], "layout": shape, "linked": "camera", "choices": seeds}


def _contour(axis: Any, seeds: list[Any], scale: Mapping[str, float]) -> Figure:
    trace = {
        "type": "contour", "x": axis, "y": axis, "z": seeds[0], "colorscale": "Viridis",
        "zmin": scale["cmin"], "zmax": scale["cmax"], "contours": _levels(scale), "colorbar": {"thickness": 12},
        "hovertemplate": "(%{x:.2f}, %{y:.2f})<br>log10 loss %{z:.4~g}<extra></extra>",
    }  # fmt: skip
    square = {"scaleanchor": "x", "constrain": "domain"}
    drawn = figure([trace], "first direction", "second direction", 400, xaxis={"constrain": "domain"}, yaxis=square)
    return drawn | {"choices": seeds}


def _levels(scale: Mapping[str, float]) -> dict[str, float]:
    """About twelve contours at round numbers; plotly loses those that it chooses itself when it draws again."""
    low, high = scale["cmin"], scale["cmax"]
    least = (high - low) / 12
    power = 10.0 ** math.floor(math.log10(least))
    size = next(power * round_one for round_one in (1, 2, 5, 10) if power * round_one >= least)
    return {"start": math.ceil(low / size) * size, "end": high, "size": size}


def lines(both: Both) -> dict[str, Figure]:
    """Loss and accuracy along one direction, one line per seed."""
    found = {}
    for column, what in enumerate(("loss", "accuracy")):
        traces = [
            _trace(name, arrays["axis"], line[:, column], what, showlegend=seed == 0, legendgroup=name)
            for name, arrays in both.items()
            for seed, line in enumerate(arrays["line"])
        ]
        axis = _LOG if what == "loss" else {"tickformat": ".4~p"}
        found[what] = _line(traces, "distance in units of each filter's norm", what, yaxis=axis)
    return found


def _trace(name: str, x: Any, y: Any, unit: str = "", **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": _round(np.asarray(x, float)), "y": _round(np.asarray(y, float)),
        "name": LABELS[name], "line": {"color": COLOURS[name], "dash": DASHES[name], "width": 2},
        "hovertemplate": SEEN,
    } | more  # fmt: skip


def _band(name: str, x: Any, low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    """The space between two curves, both drawn."""
    fill = {"fill": "tonexty", "fillcolor": f"{COLOURS[name]}50", "legendgroup": name}
    lower = {
        "legendgroup": name,
        "showlegend": False,
        "hovertemplate": "%{fullData.name}, least %{y:.4~g}<extra></extra>",
    }
    upper = fill | {"hovertemplate": "%{fullData.name}, most %{y:.4~g}<extra></extra>"}
    return [_trace(name, x, low, **lower), _trace(name, x, high, **upper)]


def probes(both: Both, step_sizes: Sequence[float] | None) -> dict[str, Figure]:
    """Loss band, gradient predictiveness and, with known step sizes, effective beta-smoothness during training."""
    found = {}
    for title, key in (("loss at w - e g", "losses"), ("change of the gradient", "distances")):
        bands = [
            trace
            for name, arrays in both.items()
            for trace in _band(name, arrays["step"], arrays[key].min(-1).mean(0), arrays[key].max(-1).mean(0))
        ]
        found[title] = _line(bands, "training step", title, yaxis=_LOG)
    if step_sizes and all(len(step_sizes) == arrays["distances"].shape[-1] for arrays in both.values()):
        traces = [
            _trace(name, a["step"], probe.smoothness(a["distances"], a["gradient_norm"], step_sizes).mean(0))
            for name, a in both.items()
        ]
        found["effective beta-smoothness"] = _line(traces, "training step", "effective beta-smoothness", yaxis=_LOG)
    return found


def activations(both: Both) -> dict[str, Figure]:
    """Standard deviation of each activation function's input by depth during training, mean of the seeds."""
    found = {}
    for name, arrays in both.items():
        spread = arrays["activation_std"].mean(0).T
        trace = {
            "type": "heatmap", "x": arrays["step"].tolist(), "y": [f"conv {i + 1}" for i in range(len(spread))],
            "z": _round(np.log10(np.maximum(spread, 1e-12))), "customdata": _round(spread), "colorscale": "Viridis",
            "colorbar": {"title": {"text": "log10"}, "thickness": 12},
            "hovertemplate": "step %{x}, %{y}<br>standard deviation %{customdata:.4~g}<extra></extra>",
        }  # fmt: skip
        found[LABELS[name]] = figure([trace], "training step", "", 300, yaxis={"type": "category"})
    return found


def rates(both: Both) -> Figure:
    """The training loss between the best and the worst learning rate at every step, first seed."""
    bands = []
    for name, arrays in both.items():
        losses = arrays["losses"][0]
        bands += _band(name, np.arange(1, losses.shape[-1] + 1), losses.min(0), losses.max(0))
    return _line(bands, "training step", "training loss")


def sharpness(both: Both) -> Figure:
    """The five largest eigenvalues of the filter-normalised Hessian, one line per seed."""
    traces = []
    for name, arrays in both.items():
        for seed, values in enumerate(arrays["relative_eigenvalues"]):
            top = np.sort(values)[::-1][:5]
            marks = {"mode": "lines+markers", "marker": {"symbol": SYMBOLS[name], "color": COLOURS[name], "size": 7}}
            more = marks | {"showlegend": seed == 0, "legendgroup": name}
            traces.append(_trace(name, np.arange(1, len(top) + 1), top, **more))
    return _line(traces, "eigenvalue, from the largest", "filter-normalised Hessian", xaxis={"dtick": 1})


LOOKS = {"yes": ("circle", "#009e73"), "no": ("x", "#d55e00")}  # whether a claim holds; anything else is open and grey


def verdict(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Without over with BatchNorm by every measure, one mark per seed; its shape says whether the claim holds."""
    names, traces = [_wrapped(f"{row['measure']} ({row['claimed'].partition(' ')[0]})") for row in rows], []
    seen = [
        (row["holds"], ratio, name)
        for row, name in zip(rows, names)
        for ratio in row["ratios"]
        if ratio > 0 and np.isfinite(ratio)
    ]
    for holds in dict.fromkeys(holds for holds, *_ in seen):
        symbol, colour = LOOKS.get(holds, ("diamond-open", GREY))
        traces.append({
            "type": "scatter", "mode": "markers", "name": label(f"holds: {holds}"), "marker": {"symbol": symbol},
            "x": [ratio for h, ratio, _ in seen if h == holds], "y": [name for h, _, name in seen if h == holds],
            "hovertemplate": "%{y}<br>%{x:.3~g}<extra></extra>",
        })  # fmt: skip
        traces[-1]["marker"] |= {"color": colour, "size": 9}
    side = {"type": "category", "autorange": "reversed", "title": {"text": ""}, "tickfont": {"size": 11}}
    one = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
    return _line(
        traces, "without / with", "", 120 + 42 * len(rows), hovermode="closest", shapes=[one],
        xaxis=_numbered([ratio for _, ratio, _ in seen]), yaxis=side | {"categoryarray": names},
    )  # fmt: skip


def _numbered(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with whole numbers at its ticks, where plotly writes 5 for 0.5."""
    low, high = (math.floor(math.log10(f(values, default=1.0))) for f in (min, max))
    steps = (1, 2, 5) if high - low < 4 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 2) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _wrapped(text: str) -> str:
    """A label of several lines, so that a narrow page has room beside it."""
    return "<br>".join(label(line) for line in textwrap.wrap(text, 36))
