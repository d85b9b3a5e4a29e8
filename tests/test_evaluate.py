"""A run directory suffices to evaluate, to predict and to tell what was trained."""

import json
import re
import shlex
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small import ROOT, SMALL, dataset, flags

import vgg_jax
from vgg_jax import cli, describe, evaluate, main, predict
from vgg_jax.datasets import load as data
from vgg_jax.datasets.folder import read_picture
from vgg_jax.evaluation import report as reports
from vgg_jax.evaluation.opening import load
from vgg_jax.model import forward
from vgg_jax.runs import directory as rundir, pictures
from vgg_jax.runs.log import read
from vgg_jax.settings import config as configs

PICTURES = True


FIELDS = flags(SMALL | {"train.epochs": "4", "data.train_size": "800", "train.tta": "flip_shift"})
GIVEN = ["--config", str(ROOT / "configs" / "quickstart.py"), *FIELDS]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    main.main([*GIVEN, "--workdir", str(workdir)])
    return workdir


def test_the_directory_describes_itself(run):
    config, facts = rundir.read_run(run)
    assert config.model.stages == "light"
    assert facts["class_names"] == list("0123456789")
    assert facts["sizes"] == {"train": 800, "validation": 40, "test": 360}
    assert {"jax", "flax", "optax"} <= facts["packages"].keys()
    for name in ("metrics.jsonl", "curves.png", "samples.png", "summary.json", "latest", "best", "tensorboard"):
        assert (run / name).exists(), name


def test_latest_is_the_final_record_and_best_the_selected_one(run):
    latest = load(run).evaluate("test", "flip_shift")
    best = load(run, "best").evaluate()
    protocols = json.loads((run / "summary.json").read_text())["protocols"]
    assert latest["accuracy"] == pytest.approx(protocols["final"]["test_accuracy"])
    assert best["step"] == protocols["selected"]["step"]
    assert best["accuracy"] == pytest.approx(protocols["selected"]["test_accuracy"])
    assert latest["cross_entropy"] == pytest.approx(read(run)[-1]["test_loss"], rel=1e-4)
    assert latest["accuracy"] > 0.5
    assert "tta" in latest and "tta" not in best
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tta"] == {"views": "flip_shift", "test_accuracy": pytest.approx(latest["tta"]["accuracy"])}
    assert summary["train_accuracy"] == pytest.approx(load(run).evaluate("train")["accuracy"])


def test_the_last_epochs_logits_are_not_computed_again(tmp_path, monkeypatch):
    counted = Mock(side_effect=forward.predict)
    monkeypatch.setattr("vgg_jax.runs.run.predict", counted)
    one = {"data.train_size": "160", "train.tta": "flip", "data.validation_size": "0", "train.average": "0.9"}
    trained = vgg_jax.train(vgg_jax.config("quickstart", SMALL | one), tmp_path / "run")
    given = [call.args[5] for call in counted.call_args_list if len(call.args) > 5]
    tested = [len(call.args[2]) == len(trained.data("test")) for call in counted.call_args_list]
    assert len(given) == 1 and given[0] is not None and sum(tested) == 3  # two epochs, and the views
    assert trained.summary["tta"]["test_accuracy"] == trained.evaluate(tta="flip")["tta"]["accuracy"]


def test_the_report_adds_up(run):
    report = load(run).evaluate("validation", out=run / "evaluation")
    counts = np.array(report["confusion"])
    assert counts.sum() == report["images"] == 40
    assert np.trace(counts) / 40 == pytest.approx(report["accuracy"])
    assert sum(b["count"] for b in report["reliability"]) == 40
    for picture in ("confusion", "reliability", "mistakes"):
        assert (run / "evaluation" / f"latest_validation_{picture}.png").stat().st_size > 1000


def test_the_command_prints_the_report(run, capsys):
    evaluate.main(["--workdir", str(run), "--tta", "flip"])
    text = capsys.readouterr().out
    assert "on 360 test images" in text and "top-5" in text and "calibration error" in text
    assert "test-time augmentation (flip)" in text


def test_a_run_that_cannot_be_written_to_is_scored_all_the_same(run, tmp_path, monkeypatch, capsys):
    """As a mounted one; the system's answer is a patch here, since root may write everywhere."""
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    monkeypatch.setattr("os.access", lambda *_: False)
    evaluate.main(["--workdir", str(run)])
    out, err = capsys.readouterr()
    assert "on 360 test images" in out and "pictures" not in out and "--out=DIR" in err
    evaluate.main(["--workdir", str(run), "--out", str(tmp_path / "there")])
    assert (tmp_path / "there" / "latest_test.json").exists()
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_a_temperature_is_fitted_on_held_out_images_and_kept_with_the_run(run, tmp_path, capsys):
    workdir = shutil.copytree(run, tmp_path / "run")
    images = data.load(rundir.read_run(run)[0])["test"].images
    before = load(workdir)
    evaluate.main(["--workdir", str(workdir), "--calibrate"])
    text = capsys.readouterr().out
    assert re.search(r"with temperature \d\.\d+, fitted on 40 validation images: cross-entropy", text)
    after = load(workdir)
    report, found = after.evaluate("validation"), after.temperature
    assert before.evaluate("validation")["accuracy"] == report["accuracy"] and found != 1
    assert report["calibrated"]["cross_entropy"] < report["cross_entropy"]
    powers = load(run).predict(images) ** (1 / found)
    np.testing.assert_allclose(after.predict(images), powers / powers.sum(1, keepdims=True), rtol=1e-3, atol=1e-6)
    assert load(workdir, "best").temperature == 1  # of the other checkpoint, nothing is known
    whole = {"step": 1, "temperature": 9.0, "split": "test", "images": 5}  # of an earlier step
    (workdir / "calibration.json").write_text(json.dumps({"latest": whole}))
    assert load(workdir).temperature == 1
    for damaged in ("[", '{"latest": {"step": 20}}', '{"latest": {"step": 20, "temperature": "9"}}', "[[1, 2]]"):
        (workdir / "calibration.json").write_text(damaged)
        assert load(workdir).temperature == 1


def test_the_training_curve_is_what_its_picture_says(run, tmp_path, monkeypatch):
    """Evaluated every other epoch, a point is the mean of both: that of the same run evaluated after each."""
    drawn = []
    monkeypatch.setattr(pictures, "write", lambda figure, _: drawn.append(figure.get_suptitle()))
    workdir = tmp_path / "run"
    main.main([*GIVEN, "--workdir", str(workdir), "--config.train.eval_epochs=2"])
    every, other = read(run), read(workdir)
    assert [r["epoch"] for r in other] == [2, 4] and "train: mean since the point before" in drawn[-1]
    for i, record in enumerate(other):
        for measure in ("train_loss", "train_accuracy"):
            mean = np.mean([r[measure] for r in every[2 * i : 2 * i + 2]])
            assert record[measure] == pytest.approx(mean, rel=1e-4), measure


def test_a_directory_that_the_data_do_not_need_may_be_gone(run, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    c = configs.override(rundir.read_run(workdir)[0], {"data.data_dir": "/nosuch"})
    rundir.write(workdir / "config.json", configs.to_json(c))
    assert len(vgg_jax.load(workdir).data("test")) == len(vgg_jax.load(run).data("test"))


def test_the_last_line_of_a_run_can_be_pasted_into_a_shell(run, tmp_path, capsys):
    workdir = shutil.copytree(run, tmp_path / "run é 'x' $HOME")
    main.main([*GIVEN, "--workdir", str(workdir)])
    words = shlex.split(capsys.readouterr().out.rpartition("next: ")[2])
    assert words == ["vgg-jax", "evaluate", "--workdir", str(workdir)]


def test_predict_names_the_class_of_a_picture(run, tmp_path, capsys, monkeypatch):
    test = data.load(rundir.read_run(run)[0])["test"]
    for i in range(20):
        Image.fromarray(test.images[i]).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(forward, "EVAL_BATCH", 8)
    predict.main(["--workdir", str(run), *(str(tmp_path / f"{i}.png") for i in range(20))])
    lines = capsys.readouterr().out.splitlines()
    right = sum(line.split(": ")[1].startswith(str(label)) for line, label in zip(lines, test.labels))
    assert len(lines) == 20 and right > 10
    predict.main(["--workdir", str(run), "--tta", "flip_shift", *(str(tmp_path / f"{i}.png") for i in range(20))])
    averaged = vgg_jax.load(run).predict([tmp_path / f"{i}.png" for i in range(20)], "flip_shift").max(1)
    views = capsys.readouterr().out.splitlines()
    assert all(f"{sure:.1%}" in line for sure, line in zip(averaged, views)) and views != lines


def test_vgg_jax_reaches_every_verb(capsys):
    cli._dispatch([])
    text = capsys.readouterr().out
    for verb, (module, _) in cli.VERBS.items():
        assert verb in text
        with pytest.raises(SystemExit) as end:
            cli._dispatch([verb, "--help"])
        assert end.value.code == 0
        assert f"python -m {module.removesuffix('.__main__')}" in capsys.readouterr().out


def test_describe_prints_the_counts(capsys):
    describe.main(["--config", str(ROOT / "configs" / "bn_dropout.py")])
    text = capsys.readouterr().out
    assert "conv5_3" in text and "14,990,922 parameters, 313.5 M multiply-adds" in text


def test_recall_the_surest_mistakes_and_an_honest_line(monkeypatch, tmp_path):
    images, logits = dataset(200, 6), np.random.default_rng(0).normal(0, 2, (200, 6))
    found, shown = reports.score(logits, images), []
    right = [(logits.argmax(-1) == k)[images.labels == k].mean() for k in range(6)]
    assert list(found["per_class_accuracy"].values()) == pytest.approx(right)
    monkeypatch.setattr(reports, "gallery", lambda pictures, *_: shown.append(pictures))
    reports.draw(logits, images, found, tmp_path, "x")
    sure = np.exp(logits).max(-1) / np.exp(logits).sum(-1)
    wrong = np.flatnonzero(logits.argmax(-1) != images.labels)
    np.testing.assert_array_equal(shown[0], images.images[wrong[np.argsort(-sure[wrong])][:32]])
    said = {"checkpoint": "best", "step": 1, "images": 200, "split": "validation"} | found
    for chosen_on in ("validation", "test", None):
        assert ("optimistic" in reports.text(said | {"chosen_on": chosen_on})) == (chosen_on == "validation")


def test_a_picture_is_shrunk_as_the_run_shrank_its_own(run, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)).save(tmp_path / "a.png")
    loaded = load(run)
    for name, resize, how in (("digits", False, "area"), ("folder", True, "bicubic")):
        loaded.config = ConfigDict(loaded.config.to_dict())
        loaded.config.data.update(name=name, resize=resize, shrink="bicubic")
        np.testing.assert_array_equal(loaded.pixels(tmp_path / "a.png")[0], read_picture(tmp_path / "a.png", 32, how))
