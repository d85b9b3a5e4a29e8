"""A run that is killed and started again ends with the same result, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small import ALL, PYTHONPATH, QUICK, ROOT, SMALL, TIMING, flags

from vgg_jax import main
from vgg_jax.console import errors
from vgg_jax.runs import run, seal
from vgg_jax.runs.log import read

# Short chunks and a save after each, so that a kill falls inside an epoch and often inside a save.
# The seal is written late, so that a save that was noticed can still be interrupted.
PROGRAM = f"""{QUICK}
import time
from vgg_jax import main
from vgg_jax.console import errors
from vgg_jax.runs import loop as fit, seal
fit.CHUNK_SECONDS, write = 0.1, seal.write
seal.write = lambda folder: (time.sleep(0.1), write(folder))
errors.run(main.main)
"""
STEPS = {"data.train_size": "480", "train.batch_size": "8", "train.epochs": "2", "train.save_minutes": "0"}
DROPOUT = {"model.head_dropout": "(0.5, 0.5)", "augment.crop": "2"}


def command(run, **more):
    fields = SMALL | STEPS | DROPOUT | {k.replace("__", "."): str(v) for k, v in more.items()}
    config = ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(run)]
    return [sys.executable, "-c", PROGRAM, *config, *flags(fields)]


def start(run, program=(), **more):
    environment = os.environ | {"PYTHONPATH": PYTHONPATH} | ({"XLA_FLAGS": ""} if ALL else {})
    with open(f"{run}.log", "a") as log:
        return subprocess.Popen(program or command(run, **more), env=environment, stdout=log, stderr=log)


def log(run):
    return Path(f"{run}.log").read_text()


def saved_steps(run, kind="latest"):
    folder = run / kind
    return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []


def contents(run, kinds=("latest", "best")):
    """All arrays of the latest and the best checkpoint, by path."""
    found = {}
    for kind, item in (("latest", "variables"), ("latest", "training"), ("best", "variables")):
        if kind not in kinds:
            continue
        step = max(saved_steps(run, kind))
        folder, checkpointer = run.absolute() / kind / str(step) / item, ocp.PyTreeCheckpointer()
        saved = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        tree = checkpointer.restore(folder, restore_args=as_numpy)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[f"{kind}/{item}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def without_timing(run):
    return [{k: v for k, v in record.items() if k not in TIMING} for record in read(run)]


def interrupt(run, number, moment, program=(), **more):
    """Start or resume a run, and signal it; returns whether it was just then writing a checkpoint.

    moment: "saving", when the directory of an unfinished save appears, or seconds after the compilation.
    """
    compiled = log(run).count("compiled in") if Path(f"{run}.log").exists() else 0
    before, process = max(saved_steps(run), default=0), start(run, program, **more)
    deadline = time.monotonic() + 120

    def until(reached):
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline, log(run)
            time.sleep(0.002)

    until(lambda: log(run).count("compiled in") > compiled)
    until(lambda: max(saved_steps(run), default=0) > before)  # so that every session makes progress
    if moment == "saving":
        until(lambda: is_saving(run))
    else:
        time.sleep(moment)
    process.send_signal(number)
    code = process.wait(60)
    was_saving = number == signal.SIGKILL and is_saving(run)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number), log(run)
    return was_saving


def is_saving(run):
    """Whether a save is under way: Orbax's temporary directory, or the newest checkpoint without its seal."""
    for folder in (run / "latest", run / "best"):
        names = os.listdir(folder) if folder.is_dir() else []
        steps = saved_steps(run, folder.name)
        if any("tmp" in name for name in names) or (steps and not (folder / str(max(steps)) / seal.NAME).exists()):
            return True
    return False


def test_interrupted_and_resumed_is_bit_exact(tmp_path):
    """VGG_JAX_INTERRUPTIONS=20 means 20 times kill -9, every other one during a save, then 20 times SIGTERM."""
    many = int(os.environ.get("VGG_JAX_INTERRUPTIONS", "20" if ALL else "1"))
    whole, killed, epochs = tmp_path / "whole", tmp_path / "killed", 2 * many
    if ALL:
        assert start(whole, train__epochs=epochs).wait(1000) == 0, log(whole)
    else:
        main.main(command(whole, train__epochs=epochs)[3:])
    per_epoch, random, during_save = read(whole)[0]["step"], np.random.default_rng(0), 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        for i in range(many):
            moment = "saving" if number == signal.SIGKILL and i % 2 == 0 else float(random.uniform(0, 0.5))
            during_save += interrupt(killed, number, moment, train__epochs=epochs)
    assert during_save > 0
    process = start(killed, train__epochs=epochs)
    assert process.wait(1000) == 0, log(killed)
    print(f"{2 * many} interruptions, {during_save} of them kills during a save")
    expected, got = contents(whole), contents(killed)
    assert expected.keys() == got.keys()
    assert any("opt_state" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name, strict=True)
    assert without_timing(killed) == without_timing(whole)
    steps = [record["step"] for record in read(killed)]
    assert steps == [(epoch + 1) * per_epoch for epoch in range(epochs)]
    assert "has changed" not in log(killed)  # kills interrupt saves and deletions, and damage nothing
    assert not is_saving(killed)  # and what they left half-written is gone
    protocols = [json.loads((run / "summary.json").read_text())["protocols"] for run in (whole, killed)]
    assert protocols[0] == protocols[1]


@pytest.mark.parametrize("fields", [
    {"train.average": "0.9"},
    {"optimizer.name": "muon", "model.whitening": "2", "train.micro_batch": "16", "augment.flip": "alternate",
     "augment.small_size": "16", "augment.small_part": "0.7", "model.global_pool": "True"},
    {"optimizer.sam_radius": "0.1", "train.micro_batch": "16", "augment.policy": "trivial", "augment.cutmix": "1"},
])  # fmt: skip
def test_stopped_and_resumed_with_more_state(fields, tmp_path, monkeypatch, capsys):
    """Averages, the states of Muon, SGD and SAM, whitening, mixed and smaller images: stopped after an epoch."""
    given = ["--config", str(ROOT / "configs" / "quickstart.py"), *flags(SMALL | DROPOUT | fields)]
    main.main([*given, "--workdir", str(tmp_path / "whole")])
    log_point, number = run.Run.log_point, signal.SIGINT if "train.average" in fields else signal.SIGTERM

    def log_then_stop(self, *rest):
        os.kill(os.getpid(), number)
        return log_point(self, *rest)

    with monkeypatch.context() as once, pytest.raises(SystemExit) as ended:
        once.setattr(run.Run, "log_point", log_then_stop)
        errors.run(main.main, [*given, "--workdir", str(tmp_path / "stopped")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"stopped at step 5 of 10 and saved in {tmp_path / 'stopped'}; the same command goes on"
    assert ended.value.code == 128 + number
    (tmp_path / "stopped" / "seconds.txt").write_text("1000")
    main.main([*given, "--workdir", str(tmp_path / "stopped")])
    assert "resumed at step 5 of 10" in capsys.readouterr().out
    assert 1000 < read(tmp_path / "stopped")[-1]["seconds"] < 1200
    expected, got = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)
    assert without_timing(tmp_path / "whole") == without_timing(tmp_path / "stopped")
