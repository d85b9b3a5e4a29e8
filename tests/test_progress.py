"""Progress in a log file and on a terminal."""

import functools
import io
import os
import pty

from vgg_jax.console import progress


def test_a_log_file_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    stream = io.StringIO()
    bar = progress.Progress(3, "decoding", " images", stream=stream)
    bar.update(1, "loss 2.3")
    bar.say("a line")
    bar.update(2)
    bar.close()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("decoding  1/3 images  loss 2.3") and first.endswith("left")
    assert second == "a line"


def test_a_log_file_is_not_flooded():
    stream = io.StringIO()
    bar = progress.Progress(1000, "decoding", " images", stream=stream)
    for _ in range(1000):
        bar.update(1)
    assert stream.getvalue() == ""


def on_terminal(columns):
    """The text sent to a pseudo-terminal of that width."""
    leader, follower = pty.openpty()
    if columns:
        import termios

        termios.tcsetwinsize(follower, (24, columns))
    with open(follower, "w", encoding="utf-8", closefd=False) as stream:
        bar = progress.Progress(10, "training", " steps", stream=stream)
        bar.update(5, "loss 2.3")
        bar.say("a line")
        bar.close()
    os.write(follower, b"\0")  # one read may return only a part of the text
    text = b""
    while not text.endswith(b"\0"):
        text += os.read(leader, 65536)
    os.close(follower)
    os.close(leader)
    return text[:-1].decode()


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(progress, "tqdm", functools.partial(progress.tqdm, mininterval=0))
    text = on_terminal(100)
    assert "training" in text and "5/10" in text and "loss 2.3" in text and "\r" in text and "a line" in text


def test_a_terminal_without_a_size_gets_lines():
    assert on_terminal(0).splitlines() == ["a line"]


def test_clock():
    assert [progress.clock(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]


def test_speed_is_of_the_images_since_the_last_call():
    watch = progress.Stopwatch(0.0)
    for images, seconds, speed in ((100, 2.0, 50.0), (30, 1.0, 30.0)):
        watch.images += images
        watch.spent["train"] += seconds
        assert watch.speed() == speed
