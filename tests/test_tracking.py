"""Records sent to an experiment tracker: a real trackio, with its database here, and trackers that fail."""

import contextlib
import json
import os
import sqlite3
import sys
import types
from pathlib import Path

import pytest
from small import config

import vgg_jax
from vgg_jax.console.errors import UserError
from vgg_jax.runs import entry, log, tracking
from vgg_jax.runs.tracking import Tracker


@pytest.fixture
def trackio():
    pytest.importorskip("trackio")


def stored(run, table="metrics", column="metrics"):
    """What trackio's database has of a run, oldest first."""
    with contextlib.closing(sqlite3.connect(Path(os.environ["TRACKIO_DIR"]) / "vgg_jax.db")) as database:
        rows = database.execute(f"SELECT {column} FROM {table} WHERE run_name = ? ORDER BY id", [run]).fetchall()
    return [json.loads(content) for (content,) in rows]


def name(workdir):
    return json.loads((workdir / "tracking.json").read_text())["run"]


class Fake(types.ModuleType):
    """A tracker that notes what it is told, and fails at one place."""

    def __init__(self, name, fails=""):
        super().__init__(name)
        self.fails, self.told = fails, []

    def _call(self, place, *told, **more):
        if place == self.fails:
            raise ConnectionError("no route to host\nand a second line")
        self.told.append((place, *told, more))
        return self

    def init(self, **more):
        return self._call("init", **more)

    def log(self, values, step):
        return self._call("log", values, step)

    def finish(self):
        return self._call("finish")

    def Image(self, file):
        return f"image of {Path(file).name}"


@pytest.mark.filterwarnings("ignore")  # trackio's own
def test_trackio_has_the_records_the_config_and_the_pictures(trackio, tmp_path):
    vgg_jax.train(config(train__epochs=2, train__tracker="trackio"), tmp_path / "run")
    run = name(tmp_path / "run")
    assert run.startswith(f"{tmp_path.name}-run-")
    *records, pictures = stored(run)
    assert [r | {"step": 0} for r in records] == [r | {"step": 0} for r in log.read(tmp_path / "run")]
    assert len(records) == 2
    assert set(pictures) == {"samples", "curves"} and pictures["curves"]["_type"] == "trackio.image"
    assert stored(run, "configs", "config")[0]["train.epochs"] == 2


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_goes_on_there_and_sends_no_step_twice(trackio, tmp_path):
    settings = config(train__tracker="trackio")
    first, beside = Tracker(settings, tmp_path / "a"), Tracker(settings, tmp_path / "b")
    for folder in "ab":
        (tmp_path / folder).mkdir()
    for tracker, value in ((first, 1.0), (beside, 7.0), (first, 2.0)):
        tracker.write({"step": int(10 * value), "loss": value})
    first.close()
    resumed = Tracker(settings, tmp_path / "a")
    for value in (2.0, 3.0):
        resumed.write({"step": int(10 * value), "loss": value})
    resumed.close()
    beside.close()
    assert [r["loss"] for r in stored(name(tmp_path / "a"))] == [1, 2, 3]
    assert [r["loss"] for r in stored(name(tmp_path / "b"))] == [7]


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_a_tracker_that_fails_says_so_once_and_stops_nothing(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", fake := Fake("wandb", place))
    monkeypatch.setattr(tracking, "check", lambda config: None)
    run = vgg_jax.train(config(train__epochs=2, train__tracker="wandb"), tmp_path / "run")
    assert run.summary["protocols"]["final"]["epoch"] == 2
    said = [line for line in capsys.readouterr().out.splitlines() if "wandb" in line]
    assert said == ["wandb failed (ConnectionError: no route to host); the run goes on without it"]
    assert [told[0] for told in fake.told] == {"init": [], "log": ["init"], "finish": ["init", *["log"] * 3]}[place]


def test_wandb_resumes_by_the_id_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := Fake("wandb"))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for step in (10, 20):
        tracker = Tracker(config(train__tracker="wandb"), tmp_path)
        tracker.write({"step": step, "loss": 0.5})
        tracker.close()
    begun = [told[-1] for told in fake.told if told[0] == "init"]
    assert begun[0] == begun[1] and begun[0]["id"] == name(tmp_path)
    assert begun[0]["project"] == "mine" and begun[0]["resume"] == "allow" and begun[0]["dir"] == tmp_path
    assert [told[1:3] for told in fake.told if told[0] == "log"] == [({"loss": 0.5}, 10), ({"loss": 0.5}, 20)]


def test_a_tracker_that_is_not_installed_is_said_at_the_start(tmp_path, monkeypatch):
    digits = vgg_jax.data("digits")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    for module in [m for m in sys.modules if m.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, module)
    for tracker in ("wandb", "trackio"):
        (tmp_path / tracker).mkdir()  # as wandb leaves one behind, with its files
        with pytest.raises(UserError, match=f"tracker={tracker} needs {tracker}: pip install {tracker}"):
            tracking.check(config(train__tracker=tracker))
    with pytest.raises(UserError, match="needs trackio"):  # also a table, before it trains anything
        entry.check_fits(config(train__tracker="trackio"), digits)
