"""A run directory suffices to evaluate, to predict and to tell what was trained."""

import json

import numpy as np
import pytest
from PIL import Image
from small import ROOT, SMALL, flags

from vgg_jax import cli, describe, evaluate, main, predict
from vgg_jax.datasets import load as data
from vgg_jax.evaluation import trained
from vgg_jax.evaluation.trained import load
from vgg_jax.runs import directory as rundir
from vgg_jax.runs.log import read

PICTURES = True


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    fields = SMALL | {"train.epochs": "4", "data.train_size": "800", "train.tta": "flip_shift"}
    main.main(["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(workdir), *flags(fields)])
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


def test_predict_names_the_class_of_a_picture(run, tmp_path, capsys, monkeypatch):
    test = data.load(rundir.read_run(run)[0])["test"]
    for i in range(20):
        Image.fromarray(test.images[i]).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(trained, "EVAL_BATCH", 8)
    predict.main(["--workdir", str(run), *(str(tmp_path / f"{i}.png") for i in range(20))])
    lines = capsys.readouterr().out.splitlines()
    right = sum(line.split(": ")[1].startswith(str(label)) for line, label in zip(lines, test.labels))
    assert len(lines) == 20 and right > 10


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
    assert "conv5_3" in text and "14,991,946 parameters, 313.5 M multiply-adds" in text
