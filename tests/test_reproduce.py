"""Tables: several seeds, shared work, skipping finished runs, resuming, printing."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from small import OWN_NETWORK, PYTHONPATH, QUICK, ROOT, SMALL, flags
from test_resume import contents, without_timing

import vgg_jax
from vgg_jax import main, reproduce
from vgg_jax.console.errors import RunFailed, Stopped, UserError
from vgg_jax.runs import directory, loop as fit
from vgg_jax.runs.damage import saved_steps
from vgg_jax.runs.directory import read_summary
from vgg_jax.runs.lock import lock
from vgg_jax.runs.log import read
from vgg_jax.runs.run import Run
from vgg_jax.settings import code, config as configs
from vgg_jax.tables import rows as rows_of, table as tables, train
from vgg_jax.tables.rows import TABLES

PICTURES = True
SHORT = SMALL | {"train.save_minutes": "0", "model.head_dropout": "(0.5, 0.5)"}


def arguments(root, rows="vgg_light", seeds=2, fields=SHORT, more=()):
    where = ["--workdir", str(root / "runs"), "--results", str(root / "results")]
    return ["project2", "--seeds", str(seeds), "--rows", rows, *where, *more, *flags(fields)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A row with two seeds."""
    root = tmp_path_factory.mktemp("table")
    reproduce.main(arguments(root))
    return root


def assert_same_run(run, other):
    assert without_timing(run) == without_timing(other)
    ours, theirs = contents(run), contents(other)
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


def test_a_run_of_a_table_is_an_ordinary_run(done, tmp_path):
    fields = flags(SHORT | {"seed": "1"})
    main.main(["--config", "configs/vgg_light.py", "--workdir", str(tmp_path / "alone"), *fields])
    assert len(read(tmp_path / "alone")) == 2
    assert_same_run(done / "runs/vgg_light/seed1", tmp_path / "alone")


def test_a_finished_row_is_not_trained_again(done, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    reproduce.main(arguments(done))
    assert "VGG_Light (`vgg_light.py`)" in capsys.readouterr().out


def test_a_table_that_is_cut_off_ends_as_it_would_have(done, tmp_path, monkeypatch, capsys):
    """While the second seed trains."""
    save = Run.save

    def failing(self, *given):
        if self.config.seed == 1 and saved_steps(self.workdir):
            raise KeyboardInterrupt
        save(self, *given)

    monkeypatch.setattr(fit, "CHUNK_SECONDS", 1e-6)
    monkeypatch.setattr(Run, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        reproduce.main(arguments(tmp_path))
    assert read_summary(tmp_path / "runs/vgg_light/seed0") and not read_summary(tmp_path / "runs/vgg_light/seed1")
    monkeypatch.setattr(Run, "save", save)
    capsys.readouterr()
    reproduce.main(arguments(tmp_path))
    out = capsys.readouterr().out
    assert "run 2 of 2, vgg_light, seed 1: VGG light" in out and "run 1" not in out and "resumed at step" in out
    for seed in (0, 1):
        assert_same_run(tmp_path / f"runs/vgg_light/seed{seed}", done / f"runs/vgg_light/seed{seed}")


def test_a_run_in_another_process_is_left_to_it(tmp_path, capsys, ends):
    """It is no error, and the other runs are trained; but a process with another config is told at once."""
    held, other = (tmp_path / f"runs/vgg_light/seed{seed}" for seed in (0, 1))
    held.mkdir(parents=True)
    with lock(held):
        reproduce.main(arguments(tmp_path))
        assert "\nother processes are training vgg_light, seed 0\n" in capsys.readouterr().out
        assert read_summary(held) is None and read_summary(other)
    reproduce.main(arguments(tmp_path))
    assert read_summary(held)
    with lock(held):
        ends(reproduce.main, arguments(tmp_path, fields=SHORT | {"loss.label_smoothing": "0.1"}), "label_smoothing")


def test_what_another_process_has_left_is_trained_after_the_others(tmp_path, monkeypatch):
    """As when it was stopped in the meantime."""
    held = tmp_path / "runs/vgg_light/seed0"
    held.mkdir(parents=True)
    trained, holding = [], contextlib.ExitStack()
    holding.enter_context(lock(held))

    def fit(config, splits, workdir):
        holding.close()
        trained.append((workdir.parent.name, config.seed))
        directory.write_summary(workdir, {})

    monkeypatch.setattr(train, "fit", fit)
    reproduce.main(arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd"))
    assert trained == [("vgg_a_bn_sgd", 0), ("vgg_light", 1), ("vgg_a_bn_sgd", 1), ("vgg_light", 0)]


SHARING = """
import sys, time
from pathlib import Path
from vgg_jax import reproduce
from vgg_jax.console import errors
mine, other = map(Path, sys.argv[1:3])
mine.touch()
while not other.exists():
    time.sleep(0.01)
errors.run(reproduce.main, sys.argv[3:])
"""


def test_two_processes_share_a_table(tmp_path):
    """Started at the same moment, each trains some of the runs, no run is trained twice, and the table is whole."""
    argv, pipe = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd"), subprocess.PIPE
    started = [str(tmp_path / name) for name in "ab"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", QUICK + SHARING, *places, *argv],
            env=os.environ | {"PYTHONPATH": PYTHONPATH}, stdout=pipe, stderr=pipe, text=True,
        )
        for places in (started, started[::-1])
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    begun = [out.count("started at step 0") for out, _ in said]
    assert sum(begun) == 4 and min(begun) > 0, said
    rows = json.loads((tmp_path / "results/project2.json").read_text())["rows"]
    assert [len(row["runs"]) for row in rows if row["runs"]] == [2, 2]


def test_processes_that_end_at_once_write_one_table(done, tmp_path):
    """None finds its half-written files gone."""
    result = tables.collect("project2", TABLES["project2"], done / "runs")
    fork = multiprocessing.get_context("spawn")
    writers = [fork.Process(target=train.write, args=(result, "| x |", tmp_path)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "project2.json", "project2.md", "project2_accuracy.png", "project2_curves.png",
    ]  # fmt: skip


def test_the_json_says_what_the_runs_say(done):
    result = json.loads((done / "results" / "project2.json").read_text())
    rows = {row["config"]: row for row in result["rows"]}
    assert list(rows) == [row.config for row in TABLES["project2"]]
    assert [run["seed"] for run in rows["vgg_light"]["runs"]] == [0, 1]
    assert rows["vgg_a"]["runs"] == []
    for run in rows["vgg_light"]["runs"]:
        records = without_timing(done / f"runs/vgg_light/seed{run['seed']}")
        assert run["test_accuracy"]["final"] == records[-1]["test_accuracy"]
        assert run["test_accuracy"]["best_test"] == max(r["test_accuracy"] for r in records)
        assert run["curve"] == [[r["epoch"], r["train_accuracy"], r["test_accuracy"]] for r in records]
        assert 0 <= run["train_accuracy"] <= 1
    assert rows["vgg_light"]["parameters"] > 0 and rows["vgg_light"]["multiply_adds"] > 0
    for picture in ("accuracy", "curves"):
        assert (done / "results" / f"project2_{picture}.png").stat().st_size > 5000


def test_a_run_under_way_counts_only_where_none_is_finished(done, tmp_path):
    for seed in (0, 1, 2):
        shutil.copytree(done / "runs/vgg_light/seed0", tmp_path / f"vgg_light/seed{seed}")
    (tmp_path / "vgg_light/seed2/summary.json").unlink()
    metrics = tmp_path / "vgg_light/seed2/metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(True)[0])

    def row():
        result = tables.collect("project2", TABLES["project2"], tmp_path)
        (found,) = (r for r in result["rows"] if r["runs"])
        return found, next(line for line in tables.markdown(result).splitlines() if line.startswith("| VGG_Light"))

    found, line = row()
    assert [run["counts"] for run in found["runs"]] == [True, True, False]
    assert "| 2 |" in line and "(2)" in line and "(3)" not in line and len(tables.gaps(found)) == 2
    for seed in (0, 1):
        shutil.rmtree(tmp_path / f"vgg_light/seed{seed}")
    found, line = row()
    assert "| 1 of 2 |" in line and "(1)" in line and tables.gaps(found) == []


def test_only_printing(done, tmp_path, capsys):
    reproduce.main(arguments(done, more=["--table"]))
    said = capsys.readouterr().out
    assert "| VGG_Light (`vgg_light.py`) |" in said and "On cpu" in said
    reproduce.main(["project1", "--table", "--workdir", str(tmp_path)])
    assert "Nothing has been run yet." in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_mean_and_deviation():
    assert tables.spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00 (3)"
    assert tables.spread([88.0]) == "88.00 (1)"
    assert tables.spread([]) == ""


@pytest.mark.parametrize(("said", "line", "remedy"), [
    ("RESOURCE_EXHAUSTED: out of memory", "the device has not enough memory", "micro_batch"),
    ("FAILED_PRECONDITION: DNN library initialization failed. Look", "cuDNN does not start", "PREALLOCATE=false"),
])  # fmt: skip
def test_an_error_of_the_device_in_one_run_costs_no_other(said, line, remedy, tmp_path, monkeypatch, ends):
    fit = Mock(side_effect=jax.errors.JaxRuntimeError(said))
    monkeypatch.setattr(train, "fit", fit)
    argv = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd", seeds=1)
    ends(reproduce.main, argv, f"vgg_light, seed 0: {line}", "vgg_a_bn_sgd, seed 0", remedy)
    assert fit.call_count == 2
    assert not list(tmp_path.rglob("config.json"))  # so the remedy is not refused as another config


def test_a_table_is_written_beside_its_runs_unless_told_otherwise(done, monkeypatch, tmp_path):
    """The table is not written over the project's own results."""
    shutil.copytree(done / "runs", tmp_path / "checkpoints" / "project2")
    monkeypatch.chdir(tmp_path)
    reproduce.main(["project2", "--seeds", "2", "--rows", "vgg_light", *flags(SHORT)])
    assert not (tmp_path / "results").exists()
    written = tmp_path / "checkpoints" / "project2" / "project2.md"
    assert written.read_text() == (done / "results/project2.md").read_text()


def test_a_run_that_trains_again_is_not_finished(done, tmp_path, monkeypatch):
    """As after damage to its last checkpoint: the run must not count as finished by its old summary."""
    run = tmp_path / "runs" / "vgg_light" / "seed0"
    shutil.copytree(done / "runs" / "vgg_light" / "seed0", run)
    shutil.rmtree(run / "latest" / "10")
    monkeypatch.setattr(Run, "check_finite", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        main.main(["--config", "configs/vgg_light.py", "--workdir", str(run), *flags(SHORT)])
    assert not (run / "summary.json").exists()
    (run / "summary.json").write_text('{"train_accuracy": 0.5}')  # left by an earlier version
    assert "| VGG_Light" in tables.markdown(tables.collect("project2", TABLES["project2"], tmp_path / "runs"))


def test_a_run_that_diverges_costs_no_other_run(tmp_path, monkeypatch, ends):
    """And the first seeds of all rows come before the second ones."""
    trained = []

    def fit(config, splits, workdir):
        if config.model.batch_norm == "none" and config.seed == 1:
            raise RunFailed("the loss is not finite at step 3")
        trained.append(str(workdir.relative_to(tmp_path / "runs")))

    monkeypatch.setattr(train, "fit", fit)
    argv = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd", seeds=3)
    ends(reproduce.main, argv, "error: vgg_light, seed 1: the loss is not finite at step 3")
    assert trained == [
        "vgg_light/seed0", "vgg_a_bn_sgd/seed0", "vgg_a_bn_sgd/seed1", "vgg_light/seed2", "vgg_a_bn_sgd/seed2",
    ]  # fmt: skip


def test_a_full_disk_ends_the_table_at_once(tmp_path, monkeypatch, ends):
    fit = Mock(side_effect=UserError("cannot save: No space left on device"))
    monkeypatch.setattr(train, "fit", fit)
    argv = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd")
    ends(reproduce.main, argv, "error: vgg_light, seed 0: cannot save: No space left")
    assert fit.call_count == 1


def test_a_table_trains_the_shipped_recipes(tmp_path, monkeypatch):
    """Rows use the shipped configs, even if files with their names are in the current directory."""
    (tmp_path / "vgg_a.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    (job,) = train.plan(TABLES["project2"][:1], 1, tmp_path, {})["vgg_a"]
    assert job[0].model.stages == "A"


def test_a_table_of_ones_own(tmp_path, capsys):
    """A network of one's own beside a shipped recipe."""
    mine = tmp_path / "mine.py"
    mine.write_text(OWN_NETWORK.replace("landscape_quick", "bn"))
    rows = f"{mine},vgg_light"
    where = ["--workdir", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    fields = flags(SMALL | {"train.epochs": "1"})
    reproduce.main(["own", "--rows", rows, "--seeds", "1", *where, *fields])
    printed = capsys.readouterr().out
    assert "| `mine.py` | A small network of my own" in printed and "| `vgg_light.py` |" in printed
    result = json.loads((tmp_path / "results" / "own.json").read_text())
    assert [len(row["runs"]) for row in result["rows"]] == [1, 1]
    assert result["rows"][0]["parameters"] != result["rows"][1]["parameters"]
    code._known.clear()  # as in another process
    reproduce.main(["own", "--rows", rows, *where, "--table"])
    assert "| `mine.py` |" in capsys.readouterr().out


def test_a_row_is_described_wherever_its_file_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("'My network.'")
    assert rows_of.row_of("~/mine.py").what == "My network"
    assert rows_of.row_of("configs/vgg_a.py").what.startswith("Project 2's VGG_A: the baseline")
    assert rows_of.row_of("nosuch.py").what == ""


def test_rows_with_data_of_their_own_get_them(tmp_path, monkeypatch):
    """Where get_data reads another field, or the next row has none; the seeds of a row share their images."""
    digits, given = vgg_jax.data("digits"), []
    for n in (64, 96):
        some = {f"{s}_images": digits["train"].images[:n] for s in ("train", "test")}
        np.savez(
            tmp_path / f"{n}.npz", **some, **{f"{s}_labels": digits["train"].labels[:n] for s in ("train", "test")}
        )
    rows = [(ROOT / "examples" / "npz.py", f"{tmp_path}/{n}.npz") for n in (64, 96)] + [("quickstart", None)]
    jobs = {}
    for number, (file, arrays) in enumerate([*rows, rows[0]]):
        changes = {"own.file": arrays} if arrays else {}
        changes |= {"train.epochs": "1"} if number == 3 else {}
        one = configs.load(str(file), SMALL | {"data.validation_size": "0"} | changes)
        jobs[str(number)] = [(c, tmp_path / str(number) / str(c.seed)) for c in configs.seeded(one, 2)]
    monkeypatch.setattr(train, "fit", lambda config, splits, workdir: given.append((config.seed, splits)))
    loaded = Mock(side_effect=train.load.load)
    monkeypatch.setattr(train.load, "load", loaded)
    train.train_all(jobs)
    assert [(seed, len(splits["train"])) for seed, splits in given] == [
        (seed, n) for seed in (0, 1) for n in (64, 96, 160, 64)
    ]
    assert loaded.call_count == 7  # get_data may read the seed, a source does not
    assert given[3][1] is given[0][1] is given[4][1]  # not twice in memory


OWN_SEED = """

def get_data(config):
    import numpy as np
    images = np.random.default_rng(config.seed).integers(0, 256, (64, 32, 32, 3), np.uint8)
    return {"train": (images, np.arange(64) % 10), "test": (images, np.arange(64) % 10)}
"""


def test_every_seed_gets_the_data_that_get_data_draws_for_it(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from configs.quickstart import get_config\n" + OWN_SEED)
    one, given = configs.load(str(tmp_path / "mine.py"), SMALL | {"data.validation_size": "0"}), []
    monkeypatch.setattr(train, "fit", lambda config, splits, workdir: given.append(splits["train"].images))
    train.train_all({"mine": [(c, tmp_path / str(c.seed)) for c in configs.seeded(one, 2)]})
    assert len(given) == 2
    for seed, images in enumerate(given):
        np.testing.assert_array_equal(images, np.random.default_rng(seed).integers(0, 256, images.shape, np.uint8))


@pytest.mark.parametrize("case", [
    (["project3"], "invalid choice: 'project3'"),
    (["project2", "--rows", "vgg_b"], "no row vgg_b in project2", "vgg_a_bn_sgd"),
    (["own"], "a table of your own needs --rows"),
    (["own", "--rows", "my.py"], "no config file my.py"),
    (["own", "--rows", "vgg_a,a/vgg_a.py"], "two rows are called vgg_a"),
    (["project2", "--results", __file__], "is a file; give another --results"),
    (["project2", "--seeds", "0"], "--seeds takes 1 to 1000, not 0"),
    (["project2", "--config.train.epoch=1"], "did you mean train.epochs?"),
])  # fmt: skip
def test_mistakes(case, ends, tmp_path):
    argv, *words = case
    ends(reproduce.main, [*argv, "--workdir", str(tmp_path)], *words)


def test_the_numbers_of_a_row():
    """Three seeds: means, standard deviations and Student's intervals of the right protocols, the gap, the median."""
    runs = [
        {"counts": True, "test_accuracy": {"final": 0.5 + i / 10, "best_test": 0.6 + i / 10, "selected": None},
         "train_accuracy": 0.9, "curve": [[1, 0.1, 0.1], [2, 0.2, 0.2]], "epochs": 2, "seconds": (10, 20, 60)[i],
         "test_images": 360, "train_images": 160, "batch_size": 32, "device": "cpu"}
        for i in range(3)
    ]  # fmt: skip
    row = {"config": "vgg_a", "name": "VGG_A", "what": "baseline", "reported": 75.77, "parameters": 12345,
           "multiply_adds": 6_700_000, "runs": runs}  # fmt: skip
    assert tables.markdown({"table": "t", "rows": [row]}).splitlines()[2] == (
        "| VGG_A (`vgg_a.py`) | baseline | 75.77 | 60.00 ± 10.00 [35.16, 84.84] (3) "
        "| 70.00 ± 10.00 [45.16, 94.84] (3) |  | 30.00 ± 10.00 (3) | 2 | 12,345 | 6.7 M | 30 |"
    )
    assert "| 50.00 [44.86, 55.14] (1) |" in tables.markdown({"table": "t", "rows": [row | {"runs": runs[:1]}]})
