"""The lock of a run directory, with and without the system's help."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from small import PYTHONPATH

from vgg_jax.console.errors import RunFailed, UserError
from vgg_jax.runs import entry, lock as locks
from vgg_jax.runs.lock import lock

HOLD = """
import sys, time
from pathlib import Path
from vgg_jax.runs.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "PATIENCE", 1.0)


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def left_by(folder, host):
    (folder / ".lock").write_text(json.dumps({"host": host, "process": 7, "since": "2026-01-01T00:00:00+00:00"}))


def test_the_file_says_who_holds_it_shows_life_and_is_emptied(tmp_path):
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
        os.utime(tmp_path / ".lock", (0, 0))
        for _ in range(100):
            if os.stat(tmp_path / ".lock").st_mtime:
                break
            threading.Event().wait(0.05)
        assert os.stat(tmp_path / ".lock").st_mtime > 0
    assert (tmp_path / ".lock").read_text() == ""
    with pytest.raises(ValueError, match="mine"), lock(tmp_path):
        raise ValueError("mine")
    assert (tmp_path / ".lock").read_text() == ""


def test_another_host_that_lives_is_refused(tmp_path):
    left_by(tmp_path, "node7")
    with (
        locks._beating(tmp_path / ".lock"),
        pytest.raises(RunFailed, match=r"process 7 on node7 is training in .* since 2026-01-01"),
        lock(tmp_path),
    ):
        pass


def test_another_host_that_gives_it_back_is_not_refused(tmp_path):
    left_by(tmp_path, "node7")
    back = threading.Timer(0.1, (tmp_path / ".lock").write_text, [""])
    back.start()
    begun = time.monotonic()
    with lock(tmp_path):
        assert time.monotonic() - begun < locks.PATIENCE  # it did not wait to the end
        back.join()


@pytest.mark.parametrize("text", ["node7", '{"host": ', "[]", "\x00"])
def test_another_host_that_is_silent_is_not(text, tmp_path, capsys):
    left_by(tmp_path, text) if text == "node7" else (tmp_path / ".lock").write_text(text)
    with lock(tmp_path):
        assert "watching" in capsys.readouterr().out


def test_a_killed_process_of_this_host_leaves_nothing_to_wait_for(tmp_path, capsys):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": PYTHONPATH}) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunFailed, match="another process"), lock(tmp_path):
            pass
        process.kill()
    assert "host" in (tmp_path / ".lock").read_text()
    with lock(tmp_path):
        assert capsys.readouterr().out == ""


def test_without_locks_of_the_system_the_sign_of_life_counts(no_flock, tmp_path):
    with lock(tmp_path), pytest.raises(RunFailed, match=f"process {os.getpid()} on .* is training"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_windows_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="WSL2"):
        entry.make(tmp_path / "run")
