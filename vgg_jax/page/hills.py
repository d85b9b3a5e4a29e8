"""Figures of a landscape study, as plotly's JSON: the plain network dashed, the one with BatchNorm in whole lines."""

import functools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vgg_jax.landscape.around import LINE
from vgg_jax.landscape.measures import WHERE
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


def planes(both: Both) -> tuple[dict[str, Figure], dict[str, Figure], bool]:
    """(3-D surfaces, contours, whether points are left out): of each network, by statistics, on the same scale.

    Heights are log10 of the loss; a loss that is not finite leaves a hole.
    """
    heights = {name: _heights(arrays["plane"][..., 0]) for name, arrays in both.items()}
    scale = _scale(heights.values())
    hills, contours = {}, {}
    for name, arrays in both.items():
        axis, kinds = _round(arrays["axis"]), [_round(height.T) for height in heights[name]]
        hills[name] = _hill(axis, kinds, scale)
        contours[name] = _contour(axis, axis, kinds, scale, ("first direction", "second direction")) | {
            "choices": kinds
        }
    return hills, contours, not all(np.isfinite(height).all() for height in heights.values())


def _scale(heights: Iterable[np.ndarray]) -> dict[str, float]:
    known = np.concatenate([height[np.isfinite(height)] for height in heights])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return {"cmin": low, "cmax": max(high, low + 1e-3)}


def paths(both: Both) -> dict[str, Figure]:
    """Contours of the loss in the plane of the path, on the same scale, and the path itself."""
    heights = {name: _heights(arrays["plane"][..., 0]) for name, arrays in both.items()}
    scale, found = _scale(heights.values()), {}
    for name, arrays in both.items():
        x, y = map(_round, arrays["axes"])
        one, two = arrays["share"]
        titles = f"first component, {one:.0%} of the path", f"second component, {two:.0%}"
        drawn = _contour(x, y, [_round(heights[name].T)], scale, titles)
        drawn["data"].append({
            "type": "scatter", "mode": "lines+markers", "x": _round(arrays["walked"][:, 0]),
            "y": _round(arrays["walked"][:, 1]), "line": {"color": "#d55e00", "width": 2}, "marker": {"size": 6},
            "customdata": arrays["steps"].tolist(), "hovertemplate": "step %{customdata}<extra></extra>",
        })  # fmt: skip
        found[LABELS[name]] = drawn
    return found


def _heights(losses: np.ndarray) -> np.ndarray:
    """log10 of the losses, NaN where they are not finite."""
    return np.log10(np.maximum(np.where(np.isfinite(losses), losses, np.nan), 1e-12))


def _round(values: np.ndarray) -> Any:
    """As lists, with five significant digits, since a surface has thousands of points."""
    values = np.where(np.isfinite(values), values, np.nan)
    scale = 10.0 ** (4 - np.floor(np.log10(np.maximum(np.abs(values), 1e-12))))
    return (np.round(values * scale) / scale).tolist()


def _hill(axis: Any, kinds: list[Any], scale: Mapping[str, float]) -> Figure:
    trace = {
        "type": "surface", "x": axis, "y": axis, "z": kinds[0], "colorscale": "Viridis", "showscale": False, **scale,
        "hovertemplate": "(%{x:.2f}, %{y:.2f})<br>log10 loss %{z:.4~g}<extra></extra>",
    }  # fmt: skip
    scene = {
        "xaxis": {"title": {"text": "first direction"}}, "yaxis": {"title": {"text": "second direction"}},
        "zaxis": {"title": {"text": "log10 loss"}, "range": [scale["cmin"], scale["cmax"]]},
        "aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.8},
        "camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.0}},
    }  # fmt: skip
    shape = {"scene": scene, "height": 420, "margin": dict.fromkeys("lrtb", 0), "showlegend": False}
    return {"data": [trace], "layout": shape, "linked": "camera", "choices": kinds}


def _contour(x: Any, y: Any, kinds: list[Any], scale: Mapping[str, float], titles: tuple[str, str]) -> Figure:
    trace = {
        "type": "contour", "x": x, "y": y, "z": kinds[0], "colorscale": "Viridis",
        "zmin": scale["cmin"], "zmax": scale["cmax"], "contours": _levels(scale), "colorbar": {"thickness": 12},
        "hovertemplate": "(%{x:.2f}, %{y:.2f})<br>log10 loss %{z:.4~g}<extra></extra>",
    }  # fmt: skip
    square = {"scaleanchor": "x", "constrain": "domain"}
    return figure([trace], *titles, 400, xaxis={"constrain": "domain"}, yaxis=square)


def _levels(scale: Mapping[str, float]) -> dict[str, float]:
    """About twelve contours at round numbers; plotly loses those that it chooses itself when it draws again."""
    low, high = scale["cmin"], scale["cmax"]
    least = (high - low) / 12
    power = 10.0 ** math.floor(math.log10(least))
    size = next(power * round_one for round_one in (1, 2, 5, 10) if power * round_one >= least)
    return {"start": math.ceil(low / size) * size, "end": high, "size": size}


def lines(both: Both) -> dict[str, Figure]:
    """The mean loss on the random lines at every place, one curve per seed."""
    found = {}
    for place, where in WHERE.items():
        traces = [
            _trace(name, LINE, line, showlegend=seed == 0, legendgroup=name)
            for name, arrays in both.items()
            for seed, line in enumerate(arrays[f"{place}_lines"].mean(1))
        ]
        found[where] = _line(traces, "distance in radii", "loss", yaxis=_LOG)
    return found


def _trace(name: str, x: Any, y: Any, **more: Any) -> dict[str, Any]:
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


def probes(both: Both) -> dict[str, Figure]:
    """The loss and the change of the gradient along the gradient and the update, during training."""
    found = {}
    for prefix, move in (("", "the gradient"), ("update_", "the update")):
        for title, key in (("loss at w + e m", "losses"), ("change of the gradient", "distances")):
            bands = []
            for name, arrays in both.items():
                values = arrays[prefix + key]
                bands += _band(name, arrays["step"], values.min(-1).mean(0), values.max(-1).mean(0))
            found[f"{title}, along {move}"] = _line(bands, "training step", title, yaxis=_LOG)
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


KNOWN = 0.01  # the largest residual of an eigenvalue that is drawn, as a share of it


def sharpness(both: Both) -> Figure:
    """The largest eigenvalues of the filter-normalised Hessian, one line per seed: up to five, while they are known."""
    traces = []
    for name, arrays in both.items():
        spectra = (arrays[f"end_recomputed_{key}"][:, 1, ::-1] for key in ("ritz", "residuals"))
        for seed, (values, residuals) in enumerate(zip(*spectra)):
            known = residuals <= KNOWN * np.abs(values)
            known[0] = True  # its residual stands under the verdict
            top = values[: min(5, int(np.cumprod(known).sum()))]
            marks = {"mode": "lines+markers", "marker": {"symbol": SYMBOLS[name], "color": COLOURS[name], "size": 7}}
            more = marks | {"showlegend": seed == 0, "legendgroup": name}
            traces.append(_trace(name, np.arange(1, len(top) + 1), top, **more))
    return _line(traces, "eigenvalue, from the largest", "filter-normalised Hessian", xaxis={"dtick": 1})


LOOKS = {"yes": ("circle", "#009e73"), "no": ("x", "#d55e00")}  # whether a claim holds; anything else is open and grey


def verdict(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Effects of one kind with their 95 % intervals; the mark's shape says whether the claim holds."""
    ratio = rows[0]["kind"] == "ratio"
    names = [_wrapped(f"{row['measure']}, {row['where']} ({row['claimed'].partition(' ')[0]})") for row in rows]
    numbers = [(row["effect"], *row["interval"]) for row in rows]
    shown = [bool(np.isfinite(three).all()) and (min(three) > 0 or not ratio) for three in numbers]
    seen = [(row["holds"], *numbers[i], names[i]) for i, row in enumerate(rows) if shown[i]]
    traces = []
    for holds in dict.fromkeys(holds for holds, *_ in seen):
        symbol, colour = LOOKS.get(holds, ("diamond-open", GREY))
        middle, low, high, at = zip(*(its for h, *its in seen if h == holds))
        traces.append({
            "type": "scatter", "mode": "markers", "name": label(f"holds: {holds}"), "x": middle, "y": at,
            "marker": {"symbol": symbol, "color": colour, "size": 9},
            "error_x": {"array": np.subtract(high, middle).tolist(), "arrayminus": np.subtract(middle, low).tolist()},
            "customdata": list(zip(low, high)),
            "hovertemplate": "%{y}<br>%{x:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g})<extra></extra>",
        })  # fmt: skip
    side = {"type": "category", "autorange": "reversed", "title": {"text": ""}, "tickfont": {"size": 10}}
    no_effect = {"type": "line", "x0": int(ratio), "x1": int(ratio), "yref": "paper", "y0": 0, "y1": 1}
    return _line(
        traces, "with / without" if ratio else "with - without", "", 120 + 46 * len(rows), hovermode="closest",
        shapes=[no_effect | {"line": {"color": GREY, "width": 1}}],
        xaxis=_numbered([x for _, _, *ends, _ in seen for x in ends]) if ratio else {},
        yaxis=side | {"categoryarray": names},
    )  # fmt: skip


def _numbered(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with whole numbers at its ticks, where plotly writes 5 for 0.5."""
    low, high = (math.floor(math.log10(f(values, default=1.0))) for f in (min, max))
    steps = (1, 2, 5) if high - low < 4 else (1,)
    ticks = [step * 10.0**power for power in range(max(low, -300), min(high, 300) + 2) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _wrapped(text: str) -> str:
    """A label of several lines, so that a narrow page has room beside it."""
    return "<br>".join(label(line) for line in textwrap.wrap(text, 36))
