"""A run that is killed and started again ends where it would have ended, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from small import ROOT, SMALL, flags

from vgg_jax import main
from vgg_jax.metrics import TIMING, read

# Short chunks and a save after each, so that a kill falls inside an epoch and often inside a save.
PROGRAM = "from vgg_jax import errors, fit, main; fit.CHUNK_SECONDS = 0.15; errors.run(main.main)"
STEPS = {"data.train_size": "0", "train.batch_size": "8", "train.epochs": "2", "train.save_minutes": "0"}
DROPOUT = {"model.head_dropout": "(0.5, 0.5)", "augment.crop": "2"}


def command(run, **more):
    fields = SMALL | STEPS | DROPOUT | {k.replace("__", "."): str(v) for k, v in more.items()}
    config = ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(run)]
    return [sys.executable, "-c", PROGRAM, *config, *flags(fields)]


def start(run, **more):
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    with open(f"{run}.log", "a") as log:
        return subprocess.Popen(command(run, **more), env=environment, stdout=log, stderr=log)


def log(run):
    return Path(f"{run}.log").read_text()


def saved_steps(run, kind="latest"):
    folder = run / kind
    return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []


def contents(run):
    """Every array of the last checkpoint and of the best one, by path."""
    found = {}
    for kind, item in (("latest", "variables"), ("latest", "training"), ("best", "variables")):
        step = max(saved_steps(run, kind))
        with warnings.catch_warnings(action="ignore"):  # of restoring without saying onto which devices
            tree = ocp.PyTreeCheckpointer().restore(run.absolute() / kind / str(step) / item)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[f"{kind}/{item}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def without_timing(run):
    return [{k: v for k, v in record.items() if k not in TIMING} for record in read(run)]


def test_kill_and_resume_is_bit_exact(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    assert process.wait(120) == 0, log(whole)
    per_epoch = read(whole)[0]["step"]
    for target in (per_epoch // 2, per_epoch + per_epoch // 2):  # in the middle of two epochs
        process = start(killed)
        deadline = time.monotonic() + 120
        while max(saved_steps(killed), default=0) < target and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL  # it had not ended by itself
    process = start(killed)
    assert process.wait(120) == 0, log(killed)
    expected, got = contents(whole), contents(killed)
    assert expected.keys() == got.keys()
    assert any("opt_state" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name, strict=True)
    assert without_timing(killed) == without_timing(whole)
    steps = [record["step"] for record in read(killed)]
    assert steps == sorted(set(steps)) == [per_epoch, 2 * per_epoch]
    protocols = [json.loads((run / "summary.json").read_text())["protocols"] for run in (whole, killed)]
    assert protocols[0] == protocols[1]


def test_a_finished_run_says_so_and_changes_nothing(tmp_path, capsys):
    arguments = ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(tmp_path / "run"), *flags(SMALL)]
    main.main(arguments)
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("*.json*")}
    capsys.readouterr()
    main.main(arguments)
    assert "already finished" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in (tmp_path / "run").glob("*.json*")} == before
