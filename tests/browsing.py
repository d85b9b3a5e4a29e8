"""What the browser tests share: a Chromium without a window, and pages whose errors and requests are counted."""

import asyncio
import contextlib
import shutil
from unittest import mock

import pytest

from vgg_jax.demo_page import serving

# Without a GPU, WebGL needs a renderer in software.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def chromium():
    """Skips where there is no Chromium that Playwright can start."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class Watched:
    """Opens pages. problems: what their consoles said; requests: the addresses that they asked for."""

    def __init__(self, browser):
        self._browser, self.problems, self.requests, self.contexts = browser, [], [], []

    def open(self, address, width=1280, **options):
        context = self._browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        return page


@pytest.fixture
def watched(chromium):
    """Afterwards its pages must have had no errors."""
    found = Watched(chromium)
    yield found
    for context in found.contexts:
        context.close()
    assert found.problems == []


@contextlib.contextmanager
def served(runs, port):
    """The demo; event loops that Gradio makes for this thread and leaves open are closed."""
    made, new = [], asyncio.new_event_loop

    def note():
        made.append(new())
        return made[-1]

    with mock.patch.object(asyncio, "new_event_loop", note), serving.serving(runs, serving.LOOPBACK, port) as address:
        yield address
    for loop in made:
        loop.close()
    if made:
        asyncio.set_event_loop(None)
