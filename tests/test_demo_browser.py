"""The demo in a browser without a window; skipped without Gradio or a Chromium that Playwright can start."""

import numpy as np
import pytest
from browsing import served
from PIL import Image
from small import free_port

import vgg_jax

pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own
CLEAR = "[aria-label*=Clear], [title*=Clear], [aria-label*=emove]"
COLOURS = {"sky.png": (120, 170, 230), "grass.jpg": (60, 140, 50), "night.png": (5, 5, 20)}


@pytest.fixture(scope="module")
def address(finished_run, chromium):
    """The demo of one run, twice, side by side."""
    run = vgg_jax.load(finished_run)
    with served([run, run], free_port()) as found:
        yield found


@pytest.fixture
def show(watched, address):
    """show(...): the demo's page, which may ask no other host for anything."""

    def opened(**options):
        page = watched.open(address, **options)
        page.wait_for_selector("#demo-result .demo-said")
        return page

    yield opened
    assert len(watched.requests) > 10
    assert [url for url in watched.requests if not url.startswith((address, "data:", "blob:"))] == []


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
    assert page.evaluate("document.body.classList.contains('dark')")
