"""The demo in a browser without a window; skipped without Gradio or a Chromium that Playwright can start."""

import shutil
import socket

import numpy as np
import pytest
from PIL import Image

import vgg_jax
from vgg_jax.demo_page import serving

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own
CLEAR = "[aria-label*=Clear], [title*=Clear], [aria-label*=emove]"
COLOURS = {"sky.png": (120, 170, 230), "grass.jpg": (60, 140, 50), "night.png": (5, 5, 20)}


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(finished_run, chromium):
    """The demo of one run, twice, side by side."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = vgg_jax.load(finished_run)
    with serving.serving([run, run], port=port) as found:
        yield found


@pytest.fixture
def show(chromium, address):
    """show(...): the demo's page; afterwards it must have had no errors, and asked no other host for anything."""
    problems, requests, contexts = [], [], []

    def opened(width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.wait_for_selector("#demo-result .demo-said")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == [] and len(requests) > 10
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []


def upload(page, file):
    if page.locator("#demo-picture img").count():
        page.locator("#demo-picture button").and_(page.locator(CLEAR)).first.click()
        page.wait_for_selector("#demo-result p:has-text('Choose a picture')")
    page.set_input_files("#demo-picture input[type=file]", str(file))


def test_three_pictures_are_classified_as_predict_does(show, finished_run, tmp_path):
    """The pictures are drawn here: no picture of a data set lies in the repository."""
    page, run = show(), vgg_jax.load(finished_run)
    for seed, (name, colour) in enumerate(COLOURS.items()):
        noise = np.random.default_rng(seed).normal(0, 40, (30, 40, 3)) + colour
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((400, 300)).save(tmp_path / name)
        probabilities = run.predict(tmp_path / name)[0]
        upload(page, tmp_path / name)
        said = f"{run.class_names[probabilities.argmax()]}, {probabilities.max():.1%}"
        page.wait_for_selector(f".demo-verdict:has-text('{said}')")
        assert page.locator(".demo-run").count() == 2
        assert page.locator(".demo-run").first.locator(".demo-bar").count() == 10


def test_broken_and_huge_pictures_get_one_line(show, tmp_path):
    page = show()
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (8000, 5000)).save(tmp_path / "huge.png")
    for name, words in (("text.png", "cannot read picture text.png: it is neither PNG nor JPEG, or is damaged"),
                        ("huge.png", "huge.png is 8000x5000, over the limit of 33554432 pixels")):  # fmt: skip
        upload(page, tmp_path / name)
        page.wait_for_selector(f".demo-problem:has-text('{name}')")
        assert page.locator("#demo-result").text_content().strip() == words


def test_an_example_on_a_dark_phone(show):
    page = show(width=390, color_scheme="dark", is_mobile=True, has_touch=True)
    page.locator("#demo-examples button img").nth(3).click()
    page.wait_for_selector(".demo-verdict:has-text('its label')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        page.evaluate("getComputedStyle(document.body).colorScheme.includes('dark') || document.body.className") != ""
    )
