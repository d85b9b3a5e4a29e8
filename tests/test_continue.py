"""A run that goes on past its end, and one that starts with the weights of another."""

import dataclasses
import functools
import json
import shutil
import types

import jax
import numpy as np
import pytest
from small import ROOT, SMALL, flags
from test_resume import contents, without_timing

import vgg_jax
from vgg_jax import main
from vgg_jax.datasets.load import load
from vgg_jax.runs import directory, entry, run as runs, weights
from vgg_jax.training.optim import goes_on, make_schedule
from vgg_jax.training.sharding import ONE_DEVICE
from vgg_jax.training.step import init_state, make_recipe


def train(workdir, name="quickstart", **more):
    return vgg_jax.train(vgg_jax.config(name, SMALL | {k.replace("__", "."): v for k, v in more.items()}), workdir)


def assert_same(one, other):
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


STEP = {"schedule__name": "step", "schedule__decay_epochs": 1.0, "train__average": 0.9}


def test_a_finished_run_goes_on_as_if_it_had_been_longer(tmp_path, capsys):
    longer, extended = tmp_path / "longer", tmp_path / "extended"
    train(longer, train__epochs=4, **STEP)
    train(extended, train__epochs=2, **STEP)
    assert directory.read_summary(extended)["protocols"]["final"]["epoch"] == 2
    capsys.readouterr()
    run = train(extended, train__epochs=4, **STEP)
    assert f"the run in {extended} goes on from 2 to 4 epochs" in capsys.readouterr().out
    assert_same(contents(longer), contents(extended))
    assert without_timing(longer) == without_timing(extended)
    assert run.summary["protocols"]["final"]["epoch"] == 4 and vgg_jax.load(extended).config.train.epochs == 4
    assert run.evaluate()["cross_entropy"] == pytest.approx(run.metrics[-1]["test_loss"], rel=1e-4)
    best = vgg_jax.load(extended, "best")  # of the average, too
    record = next(r for r in run.metrics if r["step"] == best.step)
    assert best.evaluate()["cross_entropy"] == pytest.approx(record["test_loss"], rel=1e-4)


def test_a_run_does_not_go_on_with_images_normalised_otherwise(finished_run):
    config, _ = directory.read_run(finished_run)
    data = load(config)
    entry.check_same(finished_run, config, data)
    half = {split: dataclasses.replace(part, mean=(0.5,) * 3, std=(0.5,) * 3) for split, part in data.items()}
    more = {k: dataclasses.replace(part, class_names=(*part.class_names, "ten")) for k, part in data.items()}
    with pytest.raises(vgg_jax.UserError, match="holds a run of 10 classes, these data have 11"):
        entry.check_same(finished_run, config, more)
    with pytest.raises(vgg_jax.UserError, match="normalised by another mean and std"):
        entry.check_same(finished_run, config, half)


def test_a_state_that_cannot_be_read_costs_no_best_epoch():
    def restore(*_):
        raise vgg_jax.UserError("cannot restore")

    checkpoints = types.SimpleNamespace(restore=restore, drop_best_after=lambda _: pytest.fail("dropped"))
    with pytest.raises(vgg_jax.UserError, match="cannot restore"):
        runs.Run.restore(types.SimpleNamespace(checkpoints=checkpoints), None, 3)


def test_a_start_that_failed_does_not_hold_its_directory(tmp_path):
    run = tmp_path / "run"
    for source in ("nosuch", "pretrained"):
        with pytest.raises(vgg_jax.UserError, match="is no run directory"):
            main.main(["--config", "quickstart", "--workdir", str(run), *flags(SMALL | {"train.start_from": source})])
    main.main(["--config", "quickstart", "--workdir", str(run), *flags(SMALL)])
    with pytest.raises(vgg_jax.UserError, match="holds a run of another config: seed"):
        main.main(["--config", "quickstart", "--workdir", str(run), *flags(SMALL), "--config.seed=1"])


def test_a_run_that_begins_with_smaller_images_cannot_be_longer():
    """Its images grow at a share of the run."""
    fields = {"schedule.name": "constant", "model.global_pool": True, "model.stages": "light"}
    for size, part in ((0, 0.5), (16, 1.0), (16, 0.5)):
        short, longer = (
            vgg_jax.config("bn", fields | {"augment.small_size": size, "augment.small_part": part, "train.epochs": n})
            for n in (3, 5)
        )
        assert goes_on(short, longer) == (not size or part == 1)


def test_only_a_schedule_that_does_not_know_the_end_can_be_longer(finished_run, tmp_path, ends):
    """quickstart's learning rate is a cosine over the run."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    given = ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(run)]
    fields = [f"--config.{field}={value}" for field, value in (SMALL | {"train.save_minutes": "0"}).items()]
    ends(main.main, [*given, *fields, "--config.train.epochs=3"], "holds a run of 2 epochs", "cannot go on to 3")
    ends(main.main, [*given, *fields, "--config.train.epochs=1"], "train.epochs (2 there, 1 now)")
    ends(main.main, [*given, *fields, "--config.train.epochs=3", "--config.seed=1"], "seed (0 there, 1 now)")
    assert directory.read_summary(run) and json.loads((run / "config.json").read_text())["train"]["epochs"] == 2


@pytest.mark.parametrize("name", ["constant", "step", "milestones", "cosine", "one_cycle", "triangular"])
@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.96, 3.0])
def test_goes_on_means_the_same_learning_rates(name, warmup):
    fields = {"schedule.name": name, "schedule.warmup_epochs": warmup, "schedule.decay_epochs": 1.5}
    fields |= {"schedule.milestones": (1.0, 2.5)}
    short, longer = (vgg_jax.config("bn", fields | {"train.epochs": n}) for n in (3, 5))
    steps = np.arange(30)
    rates = [np.array([float(make_schedule(one, 10)(step)) for step in steps]) for one in (short, longer)]
    assert goes_on(short, longer) == np.array_equal(*rates)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return train(tmp_path_factory.mktemp("source") / "run", train__epochs=1, train__save_minutes=0)


def test_a_run_starts_with_the_latest_weights(source, tmp_path):
    run = shutil.copytree(source.workdir, tmp_path / "run")
    shutil.rmtree(run / "best")
    c = vgg_jax.config("quickstart", SMALL | {"train.start_from": run})
    shutil.copy(run / "run.json", tmp_path)
    started = weights.start_from(c, tmp_path, init_state(make_recipe(c, 10, 160), 0), ONE_DEVICE)
    jax.tree.map(np.testing.assert_array_equal, started.params, source.variables["params"])


def test_training_starts_with_the_weights_of_another_run(source, tmp_path, capsys):
    """With a learning rate of 0 they are still there at the end; their average too."""
    still = {"optimizer__learning_rate": 0, "train__epochs": 1, "train__start_from": source.workdir}
    run = train(tmp_path / "run", train__average=0.9, **still)
    said = capsys.readouterr()
    assert f"starting with the weights of {source.workdir} at step {source.step}" in said.out
    assert "normalise" not in said.err
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5)  # averaging rounds
    jax.tree.map(near, run.variables["params"], source.variables["params"])
    start = json.loads((run.workdir / "start.json").read_text())
    assert (start["run"], start["step"], len(start["sums"])) == (str(source.workdir), source.step, 64)


def test_a_head_for_other_classes_starts_anew(source, tmp_path, capsys):
    """Twelve classes in place of ten: all but the last layer is taken."""
    labels = np.arange(64) % 12
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    splits = vgg_jax.data(train=(images, labels), test=(images, labels))
    fields = {"optimizer.learning_rate": 0, "train.epochs": 1, "train.start_from": source.workdir}
    run = vgg_jax.train(vgg_jax.config("quickstart", SMALL | fields), tmp_path / "run", splits)
    said = capsys.readouterr()
    assert "but for params/logits/bias, params/logits/kernel" in said.out
    assert f"{source.workdir} was trained on images normalised by mean 0.3" in said.err
    assert "this run normalises by 0." in said.err
    taken, there = (dict(one.variables["params"]) for one in (run, source))
    assert taken.pop("logits")["kernel"].shape == (16, 12) and there.pop("logits")["kernel"].shape == (16, 10)
    jax.tree.map(np.testing.assert_array_equal, taken, there)


def test_a_start_that_does_not_fit(source, tmp_path, ends):
    def fails(words, workdir, **more):
        with pytest.raises(vgg_jax.UserError, match=words):
            train(workdir, train__epochs=1, **more)

    fails("is no run directory", tmp_path / "a", train__start_from=tmp_path / "nosuch")
    wide = {"train__start_from": source.workdir, "model__width": 1.0}
    fails(r"of another network: batch_stats/bn1_1/mean is \(8,\) there and \(16,\) here", tmp_path / "b", **wide)
    plain = {"train__start_from": source.workdir, "model__batch_norm": "none"}
    fails(r"batch_stats/bn1_1/mean is \(8,\) there and not there here", tmp_path / "c", **plain)


def test_weights_that_changed_before_the_first_save_are_noticed(source, tmp_path):
    given = {"train__start_from": source.workdir}
    run = train(tmp_path / "run", **given)
    shutil.rmtree(run.workdir / "latest")  # as if killed before the first save
    changed = json.loads((run.workdir / "start.json").read_text()) | {"sums": "0"}
    (run.workdir / "start.json").write_text(json.dumps(changed))
    with pytest.raises(vgg_jax.UserError, match="has changed since the run in"):
        train(run.workdir, **given)


def test_a_field_that_does_nothing_makes_no_other_run(tmp_path):
    """So runs from before a field was there go on, whatever its value was then."""
    adam = {"optimizer__name": "adam", "train__epochs": 1}
    first = train(tmp_path / "run", optimizer__momentum=0.5, **adam)
    assert train(tmp_path / "run", **adam).metrics == first.metrics
    with pytest.raises(vgg_jax.UserError, match=r"holds a run of another config: optimizer\.learning_rate"):
        train(tmp_path / "run", optimizer__learning_rate=0.5, **adam)
