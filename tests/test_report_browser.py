"""The report page in a browser without a window; skipped where there is no Chromium that Playwright can start."""

import json
import math

import pages
import pytest
from pages import EVIL, copy

import vgg_jax
from vgg_jax.runs import log

pytest.importorskip("plotly")
NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def file(finished_run, tmp_path_factory):
    """The report of two runs, of which one was evaluated."""
    root = tmp_path_factory.mktemp("report")
    optimizer = json.loads((finished_run / "config.json").read_text())["optimizer"]
    runs = [copy(finished_run, root / "first"), copy(finished_run, root / "second")]
    pages.change(runs[1] / "config.json", lambda c: c | {"optimizer": optimizer | {"learning_rate": 0.01}})
    pages.evaluate(runs[0], NAMES)
    return vgg_jax.report(runs, root / "report.html")


@pytest.fixture
def show(watched):
    """show(file, ...): an open page, which may ask for nothing but the file."""

    def opened(file, **options):
        page = watched.open(file.as_uri(), **options)
        page.wait_for_selector("html[data-drawn]")
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-plot]')].every(p => !p.begun || p._fullLayout)"
        )
        return page

    yield opened
    asked = [url for url in watched.requests if not url.startswith(("data:", "blob:"))]
    assert len(asked) == len(watched.contexts) and all(url.startswith("file:") for url in asked)


def place(page, title):
    """The plot whose caption is title."""
    return page.locator(f'[data-plot][aria-label="{title}"]').first


def traces(plot):
    return plot.evaluate("p => p.data.map((t, i) => [t.name, t.meta.split, p._fullData[i].visible])")


def test_a_hover_shows_the_value_of_metrics_jsonl(show, file):
    page = show(file)
    plot = place(page, "Accuracy")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 12, box["y"] + box["height"] / 2)  # near the first point
    page.wait_for_selector(".hoverlayer .legendtext, .hoverlayer .hovertext")
    seen = " ".join(page.locator(".hoverlayer text").all_text_contents())
    record = log.read(file.parent / "first")[0]
    assert f"first test {record['test_accuracy']:.2%}" in seen
    assert f"second validation {record['validation_accuracy']:.2%}" in seen
    assert f"epoch {record['epoch']}, step {record['step']}" in seen


def test_the_legend_switches_runs_and_splits(show, file):
    page = show(file)
    plot = place(page, "Loss")
    assert all(visible for *_, visible in traces(plot)) and len(traces(plot)) == 6
    page.get_by_label("second").uncheck()
    assert {name for name, _, visible in traces(plot) if visible} == {"first"}
    page.get_by_label("train", exact=True).uncheck()
    assert {split for _, split, visible in traces(plot) if visible} == {"validation", "test"}
    assert {name for name, _, visible in traces(place(page, "Learning rate")) if visible} == {"first"}
    page.get_by_label("second").check()
    assert {name for name, _, visible in traces(plot) if visible} == {"first", "second"}
    page.select_option("#x-axis", "step")
    steps = [record["step"] for record in log.read(file.parent / "first")]
    assert plot.evaluate("p => p.data[0].x") == steps
    page.get_by_label("loss on a log scale").check()
    assert plot.evaluate("p => p._fullLayout.yaxis.type") == "log"


def test_a_zoom_is_that_of_all_curves(show, file):
    page = show(file)
    place(page, "Loss").evaluate("p => Plotly.relayout(p, {'xaxis.range[0]': 1.2, 'xaxis.range[1]': 1.8})")
    page.wait_for_function("() => document.querySelector('[aria-label=Accuracy]')._fullLayout.xaxis.range[0] === 1.2")


def test_both_surfaces_turn_together(show, tmp_path):
    folder = pages.study(tmp_path / "study")
    for stage in ("probes", "rates", "around", "path"):  # a renderer in software takes its time
        (folder / f"{stage}_bn.npz").unlink()
    page = show(vgg_jax.report(folder, tmp_path / "report.html"), width=400)
    if not page.evaluate("Boolean(document.createElement('canvas').getContext('webgl'))"):
        pytest.skip("this Chromium has no WebGL")
    one, other = (page.locator(f'.scenes [aria-label="{name} BatchNorm"]') for name in ("without", "with"))
    one.scroll_into_view_if_needed()
    eye = "p => p._fullLayout.scene._scene.getCamera().eye"
    before = one.evaluate(eye)
    box = one.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.wait_for_timeout(500)
    page.mouse.move(x, y)
    page.mouse.down()
    for turn in range(1, 5):
        page.mouse.move(x + 40 * turn, y + 10 * turn)
    page.mouse.up()
    page.wait_for_timeout(500)
    after = one.evaluate(eye)
    assert max(abs(after[axis] - before[axis]) for axis in "xyz") > 0.1
    assert other.evaluate(eye) == pytest.approx(after, abs=0.05)
    page.select_option("select.choice", index=1)
    assert one.evaluate("p => p.data[0].z[0][0]") == pytest.approx(math.log10(3.1 + 1), rel=1e-4)


def test_dark_light_and_the_printer(show, file):
    page = show(file, color_scheme="dark")
    background = "p => getComputedStyle(p.querySelector('.main-svg')).backgroundColor"
    plot = place(page, "Loss")
    dark = plot.evaluate(background)
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(300)
    assert dark == "rgb(20, 23, 28)" and plot.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert plot.evaluate(background) == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(page.pdf()) > 50_000
    assert plot.evaluate(background) == dark


def test_a_phone_needs_no_sideways_scrolling(show, file):
    page = show(file, is_mobile=True, has_touch=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("() => document.documentElement.scrollWidth <= 390")
    assert all(
        width <= 390 for width in page.evaluate("[...document.querySelectorAll('.main-svg')].map(s => s.clientWidth)")
    )


def test_markup_in_names_is_shown_and_not_run(show, finished_run, tmp_path):
    run = copy(finished_run, tmp_path / "<b>run")
    names = [*EVIL, "plain"]
    pages.evaluate(run, names)
    page = show(vgg_jax.report(run, tmp_path / "report.html"))
    assert page.evaluate("typeof hacked") == "undefined"
    ticks = place(page, "Confusion matrix: which class is taken for which").locator(".ytick text").all_text_contents()
    assert set(ticks) == set(names)
    plot = place(page, "Accuracy")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .legendtext, .hoverlayer .hovertext")
    assert "<b>run test" in " ".join(page.locator(".hoverlayer text").all_text_contents())
    assert page.locator("img").count() == 0


def test_the_file_is_small_enough(file):
    assert 1e6 < file.stat().st_size < 8e6
