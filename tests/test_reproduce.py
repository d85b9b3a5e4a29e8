"""Tables: several seeds at once, skipping finished runs, resuming, printing."""

import json
import os
import shutil
import signal
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from small import OWN_NETWORK, ROOT, SMALL, flags
from test_bad_input import ends  # noqa: F401, a fixture
from test_resume import contents, without_timing

import vgg_jax
from vgg_jax import main, reproduce
from vgg_jax.console.errors import RunFailed, Stopped, UserError
from vgg_jax.runs import loop as fit
from vgg_jax.runs.damage import saved_steps
from vgg_jax.runs.log import read
from vgg_jax.runs.run import Run
from vgg_jax.settings import code, config as configs
from vgg_jax.tables import table as tables, train
from vgg_jax.tables.rows import TABLES

PICTURES = True
SHORT = SMALL | {"train.save_minutes": "0", "model.head_dropout": "(0.5, 0.5)"}


def arguments(root, rows="vgg_light", seeds=2, fields=SHORT, more=()):
    where = ["--workdir", str(root / "runs"), "--results", str(root / "results")]
    return ["project2", "--seeds", str(seeds), "--rows", rows, *where, *more, *flags(fields)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A row with two seeds, trained together."""
    root = tmp_path_factory.mktemp("table")
    reproduce.main(arguments(root))
    return root


def test_seeds_trained_together_are_those_trained_alone(done, tmp_path):
    """Equal except for rounding: two programs fuse different multiplications and additions."""
    for seed in (0, 1):
        alone, run = tmp_path / f"seed{seed}", done / "runs" / "vgg_light" / f"seed{seed}"
        fields = SHORT | {"seed": str(seed)}
        main.main(["--config", "configs/vgg_light.py", "--workdir", str(alone), *flags(fields)])
        together, apart = without_timing(run), without_timing(alone)
        assert len(together) == len(apart) == 2
        for ours, theirs in zip(together, apart):
            assert ours == pytest.approx(theirs, rel=1e-5)
        ours, theirs = contents(run), contents(alone)
        assert ours.keys() == theirs.keys()
        for path in ours:
            np.testing.assert_allclose(ours[path], theirs[path], atol=1e-5, err_msg=path)
    assert [record["trained_together"] for record in read(done / "runs/vgg_light/seed1")] == [2, 2]


def test_a_finished_row_is_not_trained_again(done, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit_together", lambda *_: pytest.fail("trained again"))
    reproduce.main(arguments(done))
    assert "VGG_Light (`vgg_light.py`)" in capsys.readouterr().out


def test_seeds_cut_off_at_different_steps_end_where_they_would_have(done, tmp_path, monkeypatch):
    """A kill between the saves of two seeds: both resume from the step that they have in common."""
    saves, save = [], Run.save

    def failing(self, *given):
        saves.append(self.config.seed)
        if len(saves) == 4:  # the second save of the second seed
            raise KeyboardInterrupt
        save(self, *given)

    monkeypatch.setattr(fit, "CHUNK_SECONDS", 1e-6)
    monkeypatch.setattr(Run, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        reproduce.main(arguments(tmp_path))
    steps = [max(saved_steps(tmp_path / f"runs/vgg_light/seed{s}")) for s in (0, 1)]
    assert steps[0] > steps[1] > 0
    monkeypatch.setattr(Run, "save", save)
    reproduce.main(arguments(tmp_path))
    for seed in (0, 1):
        run, whole = (root / f"runs/vgg_light/seed{seed}" for root in (tmp_path, done))
        assert without_timing(run) == without_timing(whole)
        ours, theirs = contents(run), contents(whole)
        for path in theirs:
            np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


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


def test_seconds_are_shared_by_those_trained_together():
    records = [{"seconds": 60.0, "trained_together": 3}, {"seconds": 90.0, "trained_together": 2}, {"seconds": 91.0}]
    assert tables.seconds(records) == 20 + 15 + 1
    assert tables.seconds([]) == 0


def test_fewer_seeds_at_once_when_memory_is_short(monkeypatch, capsys):
    trained = []

    def fit_together(configs, splits, workdirs):
        if len(configs) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        trained.extend(configs)

    monkeypatch.setattr(train, "fit_together", fit_together)
    train._train_group([(i, None) for i in range(3)], {})
    assert trained == [0, 1, 2]
    assert "not enough memory for 3 seeds at once; going on with 1 at once" in capsys.readouterr().out


def test_one_seed_too_large_for_the_memory_costs_no_other_row(tmp_path, monkeypatch, ends):  # noqa: F811
    tried = []

    def fit_together(configs, splits, workdirs):
        tried.append(len(configs))
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(train, "fit_together", fit_together)
    argv = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd", seeds=1)
    ends(reproduce.main, argv, "vgg_light: the device has not enough memory", "vgg_a_bn_sgd: the device", "micro_batch")
    assert tried == [1, 1]


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


def test_a_run_that_diverges_costs_no_other_run(tmp_path, monkeypatch, ends):  # noqa: F811
    trained = []

    def fit_together(configs, splits, workdirs):
        if any(config.model.batch_norm == "none" and config.seed == 1 for config in configs):
            raise RunFailed("the loss is not finite at step 3")
        trained.append([str(workdir.relative_to(tmp_path / "runs")) for workdir in workdirs])

    monkeypatch.setattr(train, "fit_together", fit_together)
    argv = arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd", seeds=3)
    ends(reproduce.main, argv, "error: vgg_light: the loss is not finite at step 3")
    assert trained == [
        ["vgg_light/seed0"],
        ["vgg_light/seed2"],
        ["vgg_a_bn_sgd/seed0", "vgg_a_bn_sgd/seed1", "vgg_a_bn_sgd/seed2"],
    ]


def test_a_full_disk_ends_the_table_at_once(tmp_path, monkeypatch, ends):  # noqa: F811
    tried = []

    def fit_together(configs, splits, workdirs):
        tried.append(len(configs))
        raise UserError("cannot save: No space left on device")

    monkeypatch.setattr(train, "fit_together", fit_together)
    ends(
        reproduce.main,
        arguments(tmp_path, rows="vgg_light,vgg_a_bn_sgd"),
        "error: vgg_light: cannot save: No space left",
    )
    assert tried == [2]


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
        one = configs.load(str(file), SMALL | changes)
        jobs[str(number)] = [(c, tmp_path / str(number) / str(c.seed)) for c in configs.seeded(one, 2)]
    monkeypatch.setattr(train, "train", lambda jobs, splits: given.append(splits) or [])
    loaded = Mock(side_effect=train.load.load)
    monkeypatch.setattr(train.load, "load", loaded)
    train.train_all(jobs)
    assert [len(splits["train"]) for splits in given] == [64, 96, 160, 64] and loaded.call_count == 4
    assert given[3] is given[0]  # not twice in memory


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
def test_mistakes(case, ends, tmp_path):  # noqa: F811
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
