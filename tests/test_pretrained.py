"""The network that comes with the package."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from small import config

import vgg_jax
from vgg_jax import evaluate, predict
from vgg_jax.exchange import incoming
from vgg_jax.exchange.incoming import SHIPPED
from vgg_jax.runs.directory import read_run
from vgg_jax.runs.weights import start_from
from vgg_jax.training.sharding import ONE_DEVICE
from vgg_jax.training.step import init_state, make_recipe

OUR_CONVOLUTION = True
CIFAR = os.environ.get("CIFAR10_DIR", "")


@pytest.fixture(scope="module")
def run():
    return vgg_jax.load_pretrained()


def test_it_is_a_run_like_any_other(run):
    assert run.class_names[3] == "cat" and run.step == 1176 and len(run.metrics) == 1
    assert sum(leaf.size for leaf in run.variables["params"].values() for leaf in leaf.values()) == 1_971_328
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(run.predict(images).sum(1), 1, rtol=1e-5)


def test_the_command_takes_it_where_no_run_is_named(tmp_path, capsys):
    Image.new("RGB", (48, 32), "green").save(tmp_path / "green.png")
    predict.main([str(tmp_path / "green.png")])
    assert re.match(r".*green\.png: \w+ \d+\.\d%, ", capsys.readouterr().out)


def test_nothing_is_written_into_the_package(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(SHIPPED.iterdir())
    assert run.export("safetensors").samefile(tmp_path / "export" / "safetensors")
    with pytest.raises(vgg_jax.UserError, match="calibrated already"):
        run.calibrate()
    assert sorted(SHIPPED.iterdir()) == before


def test_its_card_says_what_its_files_say(run):
    card, record = (SHIPPED / "README.md").read_text(), run.metrics[0]
    assert f"| test | 10,000 | {100 * record['test_accuracy']:.2f} |" in card
    assert f"{100 * run.summary['tta']['test_accuracy']:.2f} %." in card
    assert f"softmax(logits / {run.temperature:.4f})" in card
    assert "vgg-jax train --config speedrun --config.data.validation_size=1000\n" in card
    assert (SHIPPED / "model.safetensors").stat().st_size < 4_000_000


def test_training_can_start_from_it(run, tmp_path, capsys):
    """Imported into a run directory, for two classes: all but the last layer is taken."""
    incoming.import_weights(SHIPPED, tmp_path / "shipped")
    assert read_run(tmp_path / "shipped")[1]["origin"]["file"] == "pretrained/model.safetensors"
    c = config("speedrun", {}, train__start_from=tmp_path / "shipped", train__batch_size=125, train__micro_batch=0)
    shutil.copy(tmp_path / "shipped" / "run.json", tmp_path)
    state = start_from(c, tmp_path, init_state(make_recipe(c, 2, 500), 0), ONE_DEVICE)
    assert "but for params/logits/kernel" in capsys.readouterr().out
    taken, shipped = (tree["conv2_2"]["kernel"] for tree in (state.params, run.variables["params"]))
    np.testing.assert_array_equal(taken, shipped)


@pytest.mark.skipif(not os.path.isdir(f"{CIFAR}/cifar10"), reason="CIFAR10_DIR names no tfds directory with cifar10")
def test_its_accuracy_on_the_real_test_images(capsys):
    evaluate.main([f"--config.data.data_dir={CIFAR}"])
    text = capsys.readouterr().out
    accuracy = float(re.search(r"accuracy (\d+\.\d+)%", text)[1])
    before, after = map(float, re.findall(r"calibration error (\d\.\d+)", text))
    assert accuracy >= 93.3 and before > 0.1 and after <= 0.02
