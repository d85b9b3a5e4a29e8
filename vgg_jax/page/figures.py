"""Figures of runs, as plotly's JSON. Names go through `label`, since plotly reads some HTML in them.

Runs differ in colour and in symbol, splits in dash, so that nothing depends on colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vgg_jax.page.groups import Group
from vgg_jax.page.html import label, labels
from vgg_jax.page.reading import RunFiles
from vgg_jax.runs.pictures import drops

Figure = dict[str, Any]
# Okabe and Ito's colours, without yellow and black, which one of the two backgrounds swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
DASHES = {"train": "dot", "validation": "dash", "test": "solid"}
GREY = "#8a8a8a"  # seen on both backgrounds
POINTS = 1500  # of a run in a figure; more are thinned out
PHASES = {"compile": "/", "train": "", "evaluate": "x", "save": ".", "probe": "+"}  # with the pattern of each


def style(key: int) -> tuple[str, str]:
    """(colour, symbol) of a run or a group of runs; no two of the first 42 have the same."""
    return COLOURS[key % len(COLOURS)], SYMBOLS[key % len(SYMBOLS)]


def figure(data: Sequence[dict[str, Any]], x: str, y: str, height: int = 340, **layout: Any) -> Figure:
    """Traces with titles of the axes; the page adds colours for its light or dark background."""
    axes = {
        "xaxis": {"title": {"text": x}, "automargin": True} | layout.pop("xaxis", {}),
        "yaxis": {"title": {"text": y}, "automargin": True} | layout.pop("yaxis", {}),
    }
    base = {"height": height, "margin": {"l": 55, "r": 12, "t": 12, "b": 45}, "showlegend": False}
    return {"data": list(data), "layout": base | axes | {"hovermode": "closest"} | layout}


def thin(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most POINTS records, evenly chosen, the last among them."""
    every = max(1, -(-len(records) // POINTS))
    return list(records[::-1][::every][::-1])


def columns(run: RunFiles) -> dict[str, list[float]]:
    """What a point's place can be measured in: epochs, steps or minutes."""
    records = thin(run.records)
    minutes = [round(record.get("seconds", 0.0) / 60, 3) for record in records]
    return {"epoch": [r["epoch"] for r in records], "step": [r["step"] for r in records], "minutes": minutes}


def curves(runs: Sequence[RunFiles], keys: Sequence[int]) -> dict[str, Figure]:
    """Loss, accuracy, learning rate and speed; the page fills in x from the runs' `columns`."""
    loss, accuracy = ([t for split in DASHES for t in _curve(runs, keys, name, split)] for name in ("loss", "accuracy"))
    rate, speed = (_curve(runs, keys, name, None) for name in ("learning_rate", "images_per_second"))
    hover: dict[str, Any] = {"hovermode": "x unified" if len(loss) <= 12 else "closest"}
    return {
        "loss": figure(loss, "epoch", "loss", **hover),
        "accuracy": figure(accuracy, "epoch", "accuracy", yaxis={"tickformat": ".4~p"}, **hover),
        "learning rate": figure(rate, "epoch", "learning rate", 260, yaxis={"rangemode": "tozero"}, **hover),
        "speed": figure(speed, "epoch", "images per second", 260, yaxis={"rangemode": "tozero"}, **hover),
    }


def _curve(runs: Sequence[RunFiles], keys: Sequence[int], measure: str, split: str | None) -> list[dict[str, Any]]:
    name = f"{split}_{measure}" if split else measure
    shown = "%{y:.2%}" if measure == "accuracy" else "%{y:.5~g}"
    traces = []
    for number, (run, key) in enumerate(zip(runs, keys)):
        values = [record.get(name) for record in thin(run.records)]
        if any(value is not None for value in values):
            colour, symbol = style(key)
            traces.append({
                "type": "scatter", "mode": "lines+markers", "name": label(run.name), "y": values,
                "line": {"color": colour, "dash": DASHES.get(split or "", "solid"), "width": 2} | _shape(run, measure),
                "marker": {"symbol": symbol, "size": 6, "maxdisplayed": 12, "color": colour},
                "hovertemplate": f"%{{fullData.name}} {split or ''} {shown}  (%{{customdata}})<extra></extra>",
                "meta": {"run": number, "key": key, "split": split},
            })  # fmt: skip
    return traces


def _shape(run: RunFiles, measure: str) -> dict[str, str]:
    """A learning rate with drops holds for the epoch before its point."""
    rates = [record for record in run.records if "learning_rate" in record]
    return {"shape": "vh"} if measure == "learning_rate" and drops(rates) else {}


PROTOCOL_MARKS = {"final": "circle", "best_test": "square-open", "selected": "diamond"}


def accuracy(groups: Sequence[Group]) -> Figure:
    """The three accuracies of each group with their intervals, and the reported one."""
    names, traces = labels([group.name for group in groups]), []
    for place, (protocol, mark) in enumerate(PROTOCOL_MARKS.items()):
        found = [(y, e) for y, group in enumerate(groups) if (e := group.estimates[protocol])]
        bars = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 4}
        bars |= {"array": [None if e.high is None else e.high - e.mean for _, e in found]}
        bars |= {"arrayminus": [None if e.low is None else e.mean - e.low for _, e in found]}
        said = protocol.replace("_", " on ")
        traces.append({
            "type": "scatter", "mode": "markers", "name": said, "x": [e.mean for _, e in found], "error_x": bars,
            "y": [y + 0.22 * (place - 1) for y, _ in found], "customdata": [names[y] for y, _ in found],
            "marker": {"symbol": mark, "size": 9, "color": COLOURS[place]},
            "hovertemplate": f"%{{customdata}}<br>{said} %{{x:.2%}}<extra></extra>",
        })  # fmt: skip
    reported = [(group.reported, y) for y, group in enumerate(groups) if group.reported]
    if reported:
        x, y = zip(*reported)
        traces.append({
            "type": "scatter", "mode": "markers", "name": "reported", "x": x, "y": y,
            "marker": {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": GREY}},
        })  # fmt: skip
    side = {"tickvals": list(range(len(names))), "ticktext": names, "autorange": "reversed", "title": {"text": ""}}
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return figure(traces, "test accuracy", "", 130 + 46 * len(names), yaxis=side, xaxis={"tickformat": ".4~p"},
                  showlegend=True, legend=legend, margin={"l": 55, "r": 12, "t": 40, "b": 45})  # fmt: skip


def time(runs: Sequence[RunFiles]) -> Figure:
    """The seconds of each phase in the last session of each run, and the rest of its time."""
    names, spent = labels([run.name for run in runs]), [phases(run) for run in runs]
    traces = []
    for place, (phase, pattern) in enumerate((PHASES | {"rest": "-"}).items()):
        if any(phase in its for its in spent):
            hatch = {"shape": pattern, "size": 7, "fillmode": "overlay", "fgcolor": "#ffffff"}
            traces.append({
                "type": "bar", "orientation": "h", "name": phase, "y": names, "x": [its.get(phase) for its in spent],
                "marker": {"color": COLOURS[place], "pattern": hatch},
                "hovertemplate": f"%{{y}}<br>{phase} %{{x:.1f}} s<extra></extra>",
            })  # fmt: skip
    side = {"type": "category", "autorange": "reversed", "title": {"text": ""}}
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    return figure(traces, "seconds", "", 130 + 34 * len(names), barmode="stack", yaxis=side,
                  showlegend=True, legend=legend, margin={"l": 55, "r": 12, "t": 40, "b": 45})  # fmt: skip


def phases(run: RunFiles) -> Mapping[str, float]:
    """Seconds by phase of a run's last session, and the rest; empty where summary.json has none."""
    given = run.summary.get("last_session_seconds")
    spent = (
        {p: s for p, s in given.items() if p in PHASES and type(s) in (int, float)} if isinstance(given, dict) else {}
    )
    rest = run.seconds - sum(spent.values())
    return spent | ({"rest": rest} if spent and rest > 0.05 else {})
