"""Whatever ends a run, what it has earned is on the disk."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import pytest
from small import SMALL, config

from vgg_jax.console import errors
from vgg_jax.console.errors import RunFailed, UserError
from vgg_jax.datasets.load import load
from vgg_jax.evaluation import opening as trained
from vgg_jax.runs import checkpoint, entry, log, loop, run

NEVER = SMALL | {"train.epochs": "4", "train.save_minutes": "1e6"}
SCORES = (0.2, 0.9, 0.4, 0.3)  # on the held-out images; the second epoch is the best
BEST = 2 * 160 // 32


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(of_log, probe); of_log(state) is called after a log point, for another state."""
    evaluate, logged = run.Run._evaluate, loop._Loop._log

    def scored(self, state, split, dataset):
        found = evaluate(self, state, split, dataset)
        epoch = int(state.step) * 32 // 160
        return found | {f"{split}_accuracy": SCORES[epoch - 1]} if split == "validation" else found

    def start(after, probe=None):
        def then(self, state, *rest):
            return after(logged(self, state, *rest))

        c, workdir = config("quickstart", NEVER), tmp_path / "0"
        splits = load(c)
        entry.open_run(workdir, c, splits)
        monkeypatch.setattr(run.Run, "_evaluate", scored)
        monkeypatch.setattr(loop._Loop, "_log", then)
        loop.fit(c, splits, workdir, probe)

    return start


def broken(state, epoch):
    """The state after that epoch with parameters that are NaN."""
    if int(state.step) * 32 // 160 != epoch:
        return state
    return state.replace(params=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.params))


def holds_the_best(workdir):
    found = trained.load(workdir, "best").evaluate("validation")
    record = log.read(workdir)[1]
    return found["step"] == BEST and found["cross_entropy"] == pytest.approx(record["validation_loss"], rel=1e-4)


def test_divergence(train, tmp_path):
    with pytest.raises(
        RunFailed, match=f"not finite at step 16; kept in {tmp_path / '0'}: the best of step {BEST}. Try"
    ):
        train(lambda state: broken(state, 3))
    assert holds_the_best(tmp_path / "0") and (tmp_path / "0" / "curves.png").exists()


@pytest.mark.parametrize("halfway", [False, True])
def test_divergence_and_a_full_disk(halfway, train, tmp_path, monkeypatch):
    """Both are told, the divergence first."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device") if not halfway else ValueError("OS error 28")

    def fill(state):
        if halfway:
            monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", refuse)
        else:
            monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
        return broken(state, 3)

    with pytest.raises(UserError, match=r"^the loss is not finite at step 16\. .*learning_rate.* No space left on dev"):
        train(fill)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ZeroDivisionError])
def test_another_end(error, train, tmp_path):
    """A second signal, a disk with no room for a record, a bug."""

    def end(state):
        if int(state.step) > BEST:
            raise error
        return state

    with pytest.raises(error if isinstance(error, type) else type(error)):
        train(end)
    assert holds_the_best(tmp_path / "0")


def test_best_is_judged_against_what_best_holds(train, tmp_path, capsys):
    """The second epoch's checkpoint is damaged; the third is better than what is left, the fourth is not."""

    def stop(state):
        if int(state.step) == BEST:
            os.kill(os.getpid(), signal.SIGTERM)
        return state

    with pytest.raises(errors.Stopped):
        train(stop)
    workdir = tmp_path / "0"
    trained.load(workdir, "best")
    assert "holds step" not in capsys.readouterr().err
    next((workdir / "best" / str(BEST) / "variables").glob("manifest*")).unlink()
    train(lambda state: state)
    assert "is damaged" in capsys.readouterr().out
    found = trained.load(workdir, "best").evaluate("validation")
    assert found["step"] == 15 and found["chosen_on"] == "validation"
    assert f"holds step 15, not the best epoch on validation images: that of step {BEST} is" in capsys.readouterr().err


def test_a_probe_that_fails(train, tmp_path):
    """The state before it is saved, and the run goes on from there to the end of an undisturbed one."""
    records = []

    def measure(state, *_):
        if int(state.step) == 18 and len(records) == 6:
            raise ZeroDivisionError
        records.append(int(state.step))
        return {"x": 1.0}

    probe = loop.Probe(3, measure)
    with pytest.raises(ZeroDivisionError):
        train(lambda state: state, probe=probe)
    assert holds_the_best(tmp_path / "0")
    records.clear()
    train(lambda state: state, probe=probe)
    assert records == [18]
    assert [r["step"] for r in log.read_lines(tmp_path / "0" / "probes.jsonl")] == list(range(0, 20, 3))
    assert holds_the_best(tmp_path / "0")


@pytest.mark.parametrize("rate", ["0", "0.02"])
def test_a_run_that_stays_at_chance_says_so_once(rate, tmp_path, capsys):
    given = NEVER | {"train.epochs": "5", "optimizer.learning_rate": rate}
    trained.train(config("quickstart", given), tmp_path / "run")
    assert capsys.readouterr().out.count("still at chance (1") == (rate == "0")


def test_it_is_late_after_so_many_minutes():
    kept, late = object.__new__(loop._Loop), []
    kept.config = config(train__save_minutes=1)
    for ago in (50, 70):
        kept.last_save = time.monotonic() - ago
        late.append(kept._agree(1, [])[1])
    assert late == [False, True]
