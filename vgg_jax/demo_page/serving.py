"""The demo in a browser, by Gradio: inputs, outputs and the server. What is shown is made elsewhere in this room."""

import contextlib
import errno
import importlib.util
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vgg_jax.console.errors import UserError
from vgg_jax.demo_page import drawing
from vgg_jax.demo_page.examples import Example, examples
from vgg_jax.demo_page.looking import Looker
from vgg_jax.evaluation.trained import TrainedRun
from vgg_jax.exchange import incoming

LOOPBACK = "127.0.0.1"
MOST = 32 * 2**20  # pixels of a picture; less than for files of one's own, since a page can be sent many at once
RUNS = 4  # side by side
FONTS = ("system-ui", "sans-serif")  # of the system: others would be fetched
TITLE = "What the network sees"
INTRODUCTION = (
    "Upload a picture, take one with the camera, or choose an example. It is cropped to a square and scaled to what "
    "the network was trained on. The network always names one of its classes, also for a picture without them."
)


def check(runs: Sequence[Any], host: str, port: int) -> None:
    """Raises: UserError when the demo could not start: no gradio, too many runs, no such address, a port in use."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the demo needs gradio: pip install 'gradio>=6.0', or pip install -e '.[demo]' in the checkout of vgg_jax"
        )
    if len(runs) > RUNS:
        raise UserError(f"the demo shows at most {RUNS} runs side by side, not {len(runs)}")
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} is no port; give one from 1024 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use, perhaps by another demo; give another: --port {port + 1}"
            ) from None
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port}: {why}") from None


@contextlib.contextmanager
def serving(runs: Sequence[TrainedRun], host: str, port: int) -> Iterator[str]:
    """Within it the demo of these runs is served; yields its address. Uploaded pictures are deleted at the end.

    Every run's program is compiled before. Nothing is sent to any other machine.
    """
    with tempfile.TemporaryDirectory(prefix="vgg_jax_demo_") as folder, _settings(folder):
        lookers = {name: Looker(run) for name, run in zip(names(runs), runs)}
        for looker in lookers.values():
            looker.compile()
        page = _page(lookers, Path(folder))
        from gradio.themes import Default

        theme = Default(font=FONTS, font_mono=("ui-monospace", "monospace"))
        css = (Path(__file__).parent / "demo.css").read_text(encoding="utf-8")
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, inbrowser=False,
                footer_links=[], ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                max_file_size="64mb", theme=theme, css=css,
            )  # fmt: skip
            yield address
        finally:
            page.close(verbose=False)


def wait() -> None:
    """Until Ctrl-C or SIGTERM, so that a kill, too, leaves no uploads behind."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with contextlib.suppress(KeyboardInterrupt):
        stopped.wait()


def names(runs: Sequence[TrainedRun]) -> list[str]:
    """A name for each: its folder's, the whole path where two are the same, and a number where these are, too."""
    short = ["the shipped network" if run.workdir == incoming.SHIPPED else run.workdir.resolve().name for run in runs]
    whole = [name if short.count(name) == 1 else str(run.workdir) for name, run in zip(short, runs)]
    return [name if whole.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(whole, 1)]


@contextlib.contextmanager
def _settings(folder: str) -> Iterator[None]:
    """Gradio asks and tells nobody anything, and keeps uploads in folder."""
    mine = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "GRADIO_RUN_HISTORY": "False"}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def show(lookers: Mapping[str, Looker], file: str | os.PathLike[str], called: str = "", truth: str = "") -> str:
    """What every run saw in a picture, or the one line that `predict` has for it, as HTML.

    called: the file's name, which stands in that line for its path on the server.
    """
    columns, orders = [], {}
    try:
        for name, looker in lookers.items():
            look = looker.look(looker.run.pixels([file], MOST)[0])
            names = looker.run.class_names
            order = orders.setdefault(names, drawing.ranking(look))  # runs of the same classes have one order
            columns.append(drawing.column(name, names, look, truth, order))
    except UserError as error:
        return drawing.problem(str(error).replace(str(file), called or str(file)))
    return drawing.row(columns)


def _page(lookers: Mapping[str, Looker], folder: Path) -> Any:
    """The Gradio page; example pictures are written to folder."""
    import gradio as gr

    found, said = examples(next(iter(lookers.values())).run)
    files = _write(found, folder)

    def uploaded(given: tuple[str, str] | None) -> str:
        return show(lookers, *given) if given else drawing.waiting()

    def chosen(event: gr.SelectData) -> str:
        return show(lookers, files[event.index], truth=found[event.index].label)

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                picture = gr.Image(
                    label="Picture", type="filepath", sources=["upload", "webcam"], height=260, elem_id="demo-picture"
                )
                picture.preprocess = _path_and_name  # type: ignore[method-assign]
                gr.Markdown(said)
                gallery = gr.Gallery(
                    [str(file) for file in files], columns=4, allow_preview=False, show_label=False, height="auto",
                    elem_id="demo-examples", visible=bool(files), interactive=False, buttons=[],
                )  # fmt: skip
            with gr.Column(scale=4, min_width=320):
                result = gr.HTML(drawing.waiting(), elem_id="demo-result")
        quiet: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private", "trigger_mode": "always_last"}
        picture.change(uploaded, picture, result, **quiet)
        gallery.select(chosen, None, result, **quiet)
    return page


def _path_and_name(payload: Any) -> tuple[str, str] | None:
    """An upload as it came, (path, name): Gradio would decode it first, with no limit and errors of its own."""
    if payload is None or not payload.path:
        return None
    return payload.path, payload.orig_name or Path(payload.path).name


def _write(found: Sequence[Example], folder: Path) -> list[Path]:
    files = [folder / f"example{number}.png" for number in range(len(found))]
    for file, example in zip(files, found):
        Image.fromarray(example.pixels).save(file)
    return files
