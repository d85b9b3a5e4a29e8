"""A look at a picture as HTML, with every picture inside it. All text is escaped."""

import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from vgg_jax.demo_page.looking import DRAWS, SMALLEST, Look, Stage
from vgg_jax.evaluation.trained import SURE
from vgg_jax.page.html import Html, element, join, png_address

BARS = 10  # classes with a bar
HEAT = colormaps["inferno"]  # dark to light, also in grey and for the colour-blind

STAGES = "Of each stage, the maps with the strongest response, each scaled to its own brightest point. "
NORMS = (
    "The curves are the values before and after the stage's last BatchNorm. It brings each channel to mean 0 and "
    "spread 1 by what it saw in training, then scales and shifts it as it learned; spreads below are in this picture."
)


def problem(line: str) -> Html:
    """An error line, as a command would print it."""
    return element("p", line, class_="demo-problem", role="alert")


def waiting() -> Html:
    """What stands there before there is a picture."""
    return element("p", "Choose a picture, and what the network sees in it appears here.", class_="demo-said")


def ranking(look: Look) -> np.ndarray:
    """The places of the likeliest classes, at most BARS."""
    return np.argsort(-look.probabilities, kind="stable")[:BARS]


def column(name: str, classes: tuple[str, ...], look: Look, truth: str = "", order: np.ndarray | None = None) -> Html:
    """Everything about one picture and one run; order: the classes with a bar, so that runs can be read across."""
    normalised = any(stage.values and stage.values[1] is not None for stage in look.stages)
    return element("section", [
        element("h2", name),
        _verdict(classes, look, truth),
        _bars(classes, look, ranking(look) if order is None else order),
        element("p", _dropout(classes, look), class_="demo-said"),
        element("h3", "Where it looked"),
        _where(classes[int(look.probabilities.argmax())], look),
        element("h3", "What each stage made of it"),
        element("p", STAGES + (NORMS if normalised else ""), class_="demo-said"),
        [_stage(stage) for stage in look.stages] or element("p", "This network has no maps to show."),
    ], class_="demo-run", aria_label=name)  # fmt: skip


def _verdict(classes: tuple[str, ...], look: Look, truth: str) -> Html:
    best = int(look.probabilities.argmax())
    said = [element("strong", classes[best]), f", {look.probabilities[best]:.1%}"]
    label = f" (its label: {truth})" if truth else ""
    unsure = " It is not sure." if look.probabilities[best] < SURE else ""
    return element("p", said, label + "." + unsure, class_="demo-verdict")


def _bars(classes: tuple[str, ...], look: Look, order: np.ndarray) -> Html:
    """Classes as bars, with the range of the draws with dropout as a line over each."""
    rows = []
    for place in order:
        share = float(look.probabilities[place])
        line = None
        if look.draws is not None:
            low, high = (float(np.quantile(look.draws[:, place], q)) for q in (0.1, 0.9))
            line = element("i", style=f"left:{low:.2%};width:{max(high - low, 0.004):.2%}")
        bar = element("span", element("b", style=f"width:{share:.2%}"), line, class_="demo-bar")
        rows.append([element("span", classes[place]), bar, element("span", f"{share:.1%}")])
    return element("div", rows, class_="demo-bars")


def _dropout(classes: tuple[str, ...], look: Look) -> str:
    if look.draws is None:
        return "Dropout: this network has none."
    best = int(look.probabilities.argmax())
    same = int((look.draws.argmax(1) == best).sum())
    rates = ", ".join(f"{rate:.0%}" for rate in sorted({round(rate, 3) for rate in look.rates.values()}))
    return (
        f"Dropout drops {rates} of the values that enter a layer, in training only. Here it was on for {DRAWS} "
        f"passes: {same} of them name {classes[best]}. The thin line over a bar spans the middle 80 % of the passes."
    )


def _where(best: str, look: Look) -> Html:
    size = look.pixels.shape[:2]
    figures = [
        _figure(look.pixels, f"What the network is shown: {size[1]}x{size[0]} pixels"),
        _figure(heat(look.saliency), f"Saliency: the pixels on which the logit of {best} depends most"),
    ]
    if look.evidence is not None:
        h, w = look.evidence.shape
        coarse = f"; fewer than {SMALLEST} cells a side say little about the place" if min(h, w) < SMALLEST else ""
        nothing = "" if look.evidence.max() > 0 else "; it found none here"
        said = f"Evidence for {best} (Grad-CAM), in the {h}x{w} cells of {look.evidence_stage}{coarse}{nothing}"
        figures.append(_figure(over(look.pixels, look.evidence), said))
    return element("div", figures, class_="demo-figures")


def _stage(stage: Stage) -> Html:
    h, w, c = stage.shape
    maps = [_image(heat(each), f"map {number} of {stage.name}") for number, each in enumerate(stage.strongest, 1)]
    title = f"{stage.name.capitalize()}: {c} maps of {h}x{w}; {stage.off:.0%} of all values are zero or below"
    if stage.values is None:
        below: Html = element("p", "BatchNorm: none in this stage.", class_="demo-said")
    else:
        before, after = stage.values
        below = element("figure", _histogram(before, after), element("figcaption", _spread(before, after)))
    return element("div", element("h4", title), element("div", maps, class_="demo-maps"), below, class_="demo-stage")


def _spread(before: np.ndarray, after: np.ndarray | None) -> str:
    if after is None:
        return f"BatchNorm: none in this stage. Spread of a channel {_between(before)} after the convolution (grey)"
    return f"BatchNorm: spread of a channel {_between(before)} before (grey), {_between(after)} after (orange)"


def _between(values: np.ndarray) -> str:
    """The middle 80 % of the channels' standard deviations over this picture."""
    low, high = np.quantile(values.reshape(-1, values.shape[-1]).std(0), (0.1, 0.9))
    return f"{low:.2g} to {high:.2g}"


def _histogram(before: np.ndarray, after: np.ndarray | None) -> Html:
    """Both distributions over one axis, as two outlines; one where there is no BatchNorm."""
    given = [(before, "before")] + ([] if after is None else [(after, "after")])
    everything = np.concatenate([values.ravel() for values, _ in given])
    low, high = (float(q) for q in np.quantile(everything, (0.002, 0.998)))
    edges = np.linspace(low, max(high, low + 1e-6), 61)
    lines = []
    for values, kind in given:
        counts = np.histogram(np.clip(values.ravel(), edges[0], edges[-1]), edges)[0]
        heights = 58 - 54 * counts / max(counts.max(), 1)
        points = " ".join(f"{300 * i / 59:.1f},{y:.1f}" for i, y in enumerate(heights))
        lines.append(element("polyline", points=points, class_=f"demo-{kind}"))
    ticks = [
        element("text", f"{low:.2g}", x="0", y="72"),
        element("text", f"{high:.2g}", x="300", y="72", text_anchor="end"),
    ]
    if low < 0 < high:
        zero = 300 * -low / (high - low)
        ticks += [element("line", x1=f"{zero:.1f}", x2=f"{zero:.1f}", y1="0", y2="60"),
                  element("text", "0", x=f"{zero:.1f}", y="72", text_anchor="middle")]  # fmt: skip
    said = "values after the convolution" if after is None else "values before and after BatchNorm"
    return element("svg", ticks, lines, viewBox="0 0 300 76", role="img", aria_label=said)


def _figure(pixels: np.ndarray, said: str) -> Html:
    return element("figure", _image(pixels, said), element("figcaption", said))


def _image(pixels: np.ndarray, said: str) -> Html:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return element("img", src=png_address(file.getvalue()), alt=said)


def heat(values: np.ndarray) -> np.ndarray:
    """[H, W] -> uint8 [H, W, 3]: zero and below is black, the highest value is the lightest."""
    return HEAT(_share(values), bytes=True)[..., :3]


def over(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] that is lit only where a coarse map [h, w] is high."""
    grey = Image.fromarray((255 * _share(values)).astype(np.uint8)).resize(
        pixels.shape[1::-1], Image.Resampling.BILINEAR
    )
    light = 0.1 + 0.9 * np.asarray(grey, np.float32)[..., None] / 255
    return (pixels * light).astype(np.uint8)


def _share(values: np.ndarray) -> np.ndarray:
    """Of the highest value, in [0, 1]."""
    return np.clip(values / max(float(values.max()), 1e-12), 0, 1)


def row(columns: list[Html]) -> Html:
    """Runs side by side, or one below the other where the window is narrow."""
    return element("div", join(columns), class_="demo-runs")
