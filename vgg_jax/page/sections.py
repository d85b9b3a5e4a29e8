"""The page's sections about runs. Each function returns HTML, or None where there is nothing to say."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from vgg_jax.console.progress import clock
from vgg_jax.evaluation.intervals import Estimate
from vgg_jax.page import figures, groups
from vgg_jax.page.groups import Group
from vgg_jax.page.html import NONE, Html, command, element, join, table
from vgg_jax.page.plots import Plots
from vgg_jax.page.reading import RunFiles
from vgg_jax.runs.pictures import TRAIN, drops
from vgg_jax.settings import again

Origin = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # name, config by field, run.json
GLYPHS: dict[str, str] = dict(zip(figures.SYMBOLS, "●■◆▲✕★✚"))
STROKES = {"solid": "", "dash": "7 4", "dot": "2 3"}
RUNS_OF_THEIR_OWN = 8  # in the legend; more runs are switched by group
FEW = 3  # entries of the legend with which all splits are drawn at first
SAID = {  # a table's heads
    "final": "final",
    "best_test": "best on test",
    "selected": "selected on validation",
}


def accuracies(found: Sequence[Group], plots: Plots) -> Html | None:
    """The three accuracies of each group of seeds, with their intervals."""
    if not any(any(group.estimates.values()) for group in found):
        return None
    reports = any(group.reported for group in found)
    head = ["", *SAID.values(), *(["reported"] if reports else []), "train - test", "seeds"]
    rows = [
        [
            group.name,
            *(_cell(group.estimates[protocol]) for protocol in SAID),
            *([f"{group.reported:.2%}" if group.reported else NONE] if reports else []),
            NONE if group.gap is None else f"{100 * group.gap:.2f} points",
            str(len(group.runs)),
        ]
        for group in found
    ]
    images = " and ".join(sorted({f"{n:,}" for g in found for run in g.runs if (n := run.test_images)})) or "unknown"
    said = (
        "Quote the final one. The best on test was chosen on the test images themselves, so it is optimistic, and its "
        "interval too. The one selected on validation was chosen on held-out images. "
        f"Intervals are at 95 %. Of one run: Wilson's, what other test images would give (there are {images}). Of "
        "several seeds: Student's of the mean, what other seeds would give on the same images; ± is the standard "
        "deviation."
    )
    drawn = plots.add(figures.accuracy(found), "The same with the intervals as bars.") if len(found) > 1 else None
    return join([table(head, rows), element("p", said, class_="said"), drawn])


def _cell(found: Estimate | None) -> Html:
    if found is None:
        return Html(NONE)
    spread = "" if found.deviation is None else f" ± {100 * found.deviation:.2f}"
    ends = found.interval("{:.2f} to {:.2f}")
    count = f", n = {found.n}" if found.n > 1 else ""
    return join([f"{100 * found.mean:.2f}{spread} %", element("small", f"{ends}{count}")])


def differences(found: Sequence[Group]) -> Html | None:
    """The fields in which the configs differ, one line per group of seeds."""
    if len(found) < 2:
        return None
    firsts = [groups.counting(group.runs[0].config) for group in found]
    same, names = groups.differing([{k: v for k, v in config.items() if k != "seed"} for config in firsts])
    seeds = [", ".join(str(run.config.get("seed", NONE)) for run in group.runs) for group in found]
    differ = len(set(seeds)) > 1
    if not names and not differ:
        return element("p", "The configs are the same in every field that a result depends on.")
    listed = [
        {n: config.get(n) for n in names} | ({"seed": seed} if differ else {}) for config, seed in zip(firsts, seeds)
    ]
    said = element("p", f"The other {len(same) + (not differ)} fields are the same.", class_="said")
    return join([_compared([group.name for group in found], listed), said])


def _compared(names: Sequence[str], things: Sequence[Mapping[str, Any]], caption: str | None = None) -> Html:
    """A table of things with the same fields, a line for each of them, or for each field if those are more."""
    fields = list(things[0])
    if len(fields) > len(names):
        rows = [[field, *(_value(thing[field]) for thing in things)] for field in fields]
        return table(["", *names], rows, caption)
    return table(["", *fields], [[n, *(_value(v) for v in t.values())] for n, t in zip(names, things)], caption)


def _value(value: Any) -> Html:
    return Html(NONE) if value is None else element("code", str(value))


def keys(runs: Sequence[RunFiles], found: Sequence[Group]) -> tuple[list[int], list[str]]:
    """(the legend's entry of each run, the entries' names): runs, or groups of seeds where there are many runs."""
    if len(runs) <= RUNS_OF_THEIR_OWN:
        return list(range(len(runs))), [run.name for run in runs]
    place = {run.folder: number for number, group in enumerate(found) for run in group.runs}
    return [place[run.folder] for run in runs], [group.name for group in found]


def curves(runs: Sequence[RunFiles], found: Sequence[Group], plots: Plots) -> Html | None:
    """What the runs logged, with switches for runs and splits."""
    if not any(run.records for run in runs):
        return None
    entries, names = keys(runs, found)
    plots.runs = [figures.columns(run) for run in runs]
    plots.drops = [
        {"run": number, "key": entries[number], "at": plots.runs[number]["epoch"].index(epoch)}
        for number, run in enumerate(runs)
        for epoch in drops([r for r in figures.thin(run.records) if "learning_rate" in r])
    ]
    drawn = [
        plots.add(figure, name.capitalize(), curves=True)
        for name, figure in figures.curves(runs, entries).items()
        if figure["data"]
    ]
    thinned = any(len(run.records) > figures.POINTS for run in runs)
    said = f"Train: {TRAIN}; validation and test in evaluation mode. " + (
        "Grey dotted lines: the learning rate fell. " if plots.drops else ""
    )
    said += f"Of a long run, {figures.POINTS} points at most are drawn. " if thinned else ""
    said += "Drag to zoom, double-click to go back; with fingers, use the buttons."
    return join([_switches(names), element("p", said, class_="said"), element("div", drawn, class_="grid")])


def _switches(names: Sequence[str]) -> Html:
    """Boxes for the runs and the splits; of many runs, only the test curves are drawn at first."""
    few = len(names) <= FEW
    runs = [
        element("label", _box(data_key=key, checked=True),
                element("span", GLYPHS[symbol], style=f"color:{colour}"), name)
        for key, name in enumerate(names)
        for colour, symbol in [figures.style(key)]
    ]  # fmt: skip
    splits = [
        element("label", _box(data_split=split, checked=few or split == "test"), _stroke(dash), split)
        for split, dash in figures.DASHES.items()
    ]
    axes = element("select", [element("option", name) for name in ("epoch", "step", "minutes")], id="x-axis")
    log = element("label", _box(id="log-loss"), "loss on a log scale")
    views = element("div", splits, element("label", "by ", axes), log)
    return element("div", element("div", runs), views, class_="keys")


def _box(**attributes: Any) -> Html:
    return element("input", type="checkbox", **attributes)


def _stroke(dash: str) -> Html:
    line = element("line", x1="0", y1="5", x2="28", y2="5", stroke="currentColor", stroke_width="2",
                   stroke_dasharray=STROKES[dash] or None)  # fmt: skip
    return element("svg", line, width="28", height="10", aria_hidden="true")


def time(runs: Sequence[RunFiles], plots: Plots) -> Html | None:
    """How long each run took, and on what."""
    if not any(run.seconds for run in runs):
        return None
    lasts: list[dict[str, Any]] = [run.records[-1] if run.records else {} for run in runs]
    rows = [
        [
            run.name,
            clock(run.seconds),
            _number(last.get("epoch"), "g"),
            _number(last.get("images_per_second")),
            _number(run.summary.get("compiled_share"), ".0%"),
            _number(run.summary.get("parameters")),
            _number(run.summary.get("multiply_adds")),
        ]
        for run, last in zip(runs, lasts)
    ]
    head = ("", "time", "epochs", "images/s", "in compiled programs", "parameters", "multiply-adds")
    said = "In compiled programs: their share of the last session, without compilation."
    figure = figures.time(runs)
    phases = "The last session by phase; rest: starting, pictures, earlier sessions"
    drawn = plots.add(figure, phases) if figure["data"] else None
    return join([table(head, rows), element("p", said, class_="said"), drawn])


def _number(value: Any, form: str = ",.0f") -> str:
    return format(value, form) if type(value) in (int, float) else NONE


def origin(things: Sequence[Origin]) -> Html:
    """Versions, machine, data and commit, and the command that makes each again."""
    facts = [{"data": _data(config, given)} | _facts(given) for _, config, given in things]
    same, names = groups.differing(facts)
    parts = [table([], [[name, _value(value)] for name, value in same.items()], "The same for all" if names else None)]
    if names:
        rest = [{name: fact.get(name) for name in names} for fact in facts]
        parts.append(_compared([name for name, *_ in things], rest, "What differs"))
    lines = table([], [[thing[0], _again(*thing)] for thing in things])
    title = element("summary", "The command that makes it again")
    return join([*parts, element("details", title, lines, open=len(things) <= FEW)])


def _data(config: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    own = given.get("data_given") or config.get("code.data")
    return "own data" if own else config.get("data.name")


def _facts(given: Mapping[str, Any]) -> dict[str, Any]:
    names = given.get("class_names")
    rest = {k: v for k, v in given.items() if k not in ("class_names", "mean", "std", "sealed") and v != ""}
    if not isinstance(names, list):
        return flatten_dict(rest, sep=".")
    listed = ", ".join(map(str, names[:20])) + (", ..." if len(names) > 20 else "")
    return flatten_dict(rest, sep=".") | {"classes": f"{len(names)}: {listed}"}


def _again(name: str, config: Mapping[str, Any], given: Mapping[str, Any]) -> Html:
    if isinstance(given.get("origin"), dict):
        return element("span", "none: its weights were imported")
    made = re.sub(r"[/\\]+", "_", name).strip("_") + "_again"
    line = again.command(dict(config), made) if config else None
    if line is None:
        why = "config.json is not that of a config of this version" if config else "its config.json cannot be read"
        return element("span", f"unknown: {why}")
    own = " (with the fields that were given then)" if "code.file" in config else ""
    return join([command(line), own])
