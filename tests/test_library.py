"""The package used from Python, and the user's own networks and data."""

import json
import re
import runpy
import shlex
import subprocess
import sys
import threading
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small import PYTHONPATH, QUICK, ROOT, SMALL, flags, write_folder
from test_resume import contents, interrupt, saved_steps, without_timing

import vgg_jax
from vgg_jax import cli, describe, evaluate, main, predict
from vgg_jax.console.errors import RunFailed
from vgg_jax.datasets import load
from vgg_jax.evaluation import trained
from vgg_jax.model import network
from vgg_jax.model.forward import make_forward, predict as forward_all
from vgg_jax.model.scores import scores
from vgg_jax.runs import pictures, run as runs
from vgg_jax.settings import code, config as configs


def small(name="quickstart", **more):
    return vgg_jax.config(name, SMALL | {k.replace("__", "."): v for k, v in more.items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vgg_jax.train(small(train__epochs=3), tmp_path_factory.mktemp("library") / "run")


def test_a_config_from_a_name_a_file_or_a_config_dict():
    by_name = vgg_jax.config(
        "bn_dropout", {"train.epochs": 2, "model.head_dropout": (0, 0.5), "optimizer.learning_rate": 1}
    )
    assert (by_name.train.epochs, by_name.model.head_dropout, by_name.optimizer.learning_rate) == (2, (0, 0.5), 1.0)
    assert vgg_jax.config(ROOT / "configs" / "bn_dropout.py", {"train.epochs": "2"}).train.epochs == 2
    own = ConfigDict(by_name.to_dict())
    own.train.epochs = 7
    assert vgg_jax.config(own).train.epochs == 7
    with pytest.raises(vgg_jax.UserError, match=r"did you mean train\.epochs"):
        vgg_jax.config("bn_dropout", {"train.epoch": 2})
    own.train.epochs = 0
    with pytest.raises(vgg_jax.UserError, match=r"config\.train\.epochs must lie in"):
        vgg_jax.config(own)


def test_a_run_knows_itself(run):
    assert [record["epoch"] for record in run.metrics] == [1, 2, 3] and run.step == 15
    assert run.class_names == tuple("0123456789") and run.config.model.stages == "light"
    logits = run.model.apply(run.variables, np.zeros((2, 32, 32, 3), np.float32), train=False)
    assert logits.shape == (2, 10)
    assert run.summary["protocols"]["final"]["step"] == 15
    trained_for = sum(160 / record["images_per_second"] for record in run.metrics)
    assert trained_for == pytest.approx(run.summary["last_session_seconds"]["train"], rel=0.1, abs=0.02)
    again = vgg_jax.train(run.config, run.workdir)  # is finished
    assert again.metrics == run.metrics


def test_numpys_numbers_and_json_in_a_config():
    """They become Python's; a value of another type is named."""
    own = small()
    given = own.to_dict() | {"own": {"names": ("a", "b"), "noise": np.float32(0.5)}}
    given["optimizer"]["learning_rate"], given["train"]["epochs"] = 0.1 * np.sqrt(2), np.int64(3)
    made = vgg_jax.config(ConfigDict(given), {"own.names": "('c', 'd', 'e')", "optimizer.learning_rate": "0.2"})
    assert (made.own.names, made.optimizer.learning_rate, made.train.epochs) == (("c", "d", "e"), 0.2, 3)
    assert type(made.train.epochs) is int and type(made.own.noise) is float
    assert vgg_jax.config(ConfigDict(json.loads(configs.to_json(own)))).model.hidden == (16,)
    with pytest.raises(vgg_jax.UserError, match="cannot be kept"):
        vgg_jax.config(ConfigDict(own.to_dict() | {"own": {"layers": [{"a": 1}]}}))
    for field, value, words in (
        ("train.epochs", 2.5, "takes a whole number"), ("model.bias", "no", "takes True or False"),
        ("data.data_dir", 3, "takes text"), ("model.hidden", 16, "takes whole numbers, as"),
    ):  # fmt: skip
        wrong, (group, name) = own.to_dict(), field.split(".")
        wrong[group][name] = value
        with pytest.raises(vgg_jax.UserError, match=rf"config\.{field} {words}"):
            vgg_jax.config(ConfigDict(wrong))


@pytest.mark.parametrize("name", ["bn.dropout", "vgg_a.2", "modern.yaml"])
def test_a_name_that_only_begins_as_a_recipe_is_none(name):
    with pytest.raises(vgg_jax.UserError, match="no config file"):
        vgg_jax.config(name)


def test_the_example_of_a_loop_trains_as_the_recipe_does(tmp_path, monkeypatch, capsys):
    """To the last bit, and as well on the test images."""
    config = small(model__head_dropout=(0.3, 0.3), augment__crop=2)
    monkeypatch.setattr(vgg_jax, "config", lambda _: config)
    found = runpy.run_path(str(ROOT / "examples" / "loop.py"))
    lines = capsys.readouterr().out.splitlines()
    run = vgg_jax.train(config, tmp_path / "run", data=found["splits"])
    jax.tree.map(np.testing.assert_array_equal, found["state"].variables, run.variables)
    assert lines == [
        f"epoch {r['epoch']}: test accuracy {r['test_accuracy']:.2%}, loss {r['test_loss']:.4f}" for r in run.metrics
    ]


@pytest.mark.parametrize("size", [0, 16])
def test_samples_are_what_the_network_sees_first(size, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "samples", lambda batch, *_: shown.append(batch["image"].shape))
    vgg_jax.train(small(augment__small_size=size, model__global_pool=True, train__epochs=1), tmp_path / "run")
    assert shown == [(32, size or 32, size or 32, 3)]


def test_predictions_are_probabilities_of_arrays_and_files_alike(run, tmp_path):
    images = vgg_jax.data("digits")["test"].images[:9]
    probabilities = run.predict(images)
    assert probabilities.shape == (9, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    files = [tmp_path / f"{i}.png" for i in range(9)]
    for file, image in zip(files, images):
        Image.fromarray(image).save(file)
    np.testing.assert_allclose(run.predict(files), probabilities, atol=1e-6)
    for wrong in (images / 255, images[:, :16], images[0], images[:0]):
        with pytest.raises(vgg_jax.UserError, match="takes one or more uint8 images"):
            run.predict(wrong)


def test_logits_and_features_are_what_the_network_computes(run):
    images = vgg_jax.data("digits")["test"].images[:9]
    logits, features = run.logits(images), run.features(images)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), run.predict(images), rtol=1e-4)
    last = run.variables["params"]["logits"]
    assert features.shape == (9, len(last["kernel"])) and features.dtype == np.float32
    np.testing.assert_allclose(features @ np.asarray(last["kernel"]) + np.asarray(last["bias"]), logits, atol=1e-5)
    with pytest.raises(vgg_jax.UserError, match="takes one or more uint8 images"):
        run.features(images / 255)


def test_a_callback_adds_to_the_records_and_sees_what_was_evaluated(tmp_path):
    splits, seen = vgg_jax.data("digits", validation_size=10, train_size=80), []

    def norm(record, variables):
        seen.append(record["epoch"])
        forward = make_forward(network.make_model(config, 10), splits["test"].mean, splits["test"].std)
        logits = forward_all(forward, variables, splits["test"].images)
        return {"again": scores(logits, splits["test"].labels)["accuracy"]} if record["epoch"] > 1 else None

    config = small(train__epochs=3, data__train_size=80, data__validation_size=10)
    run = vgg_jax.train(config, tmp_path / "run", callback=norm)
    assert seen == [1, 2, 3] and "again" not in run.metrics[0]
    assert [r["again"] for r in run.metrics[1:]] == [r["test_accuracy"] for r in run.metrics[1:]]
    vgg_jax.train(run.config, run.workdir, callback=norm)
    assert seen == [1, 2, 3]  # none of a finished run
    with pytest.raises(vgg_jax.UserError, match="must be a function"):
        vgg_jax.train(config, tmp_path / "list", callback=[norm])


@pytest.mark.parametrize(
    "wrong", [{"validation_accuracy": 1.0}, {"x": float("nan")}, {"x": "a"}, {"x": np.zeros(3)}, {1: 2.0}, 3.0]
)
def test_what_a_callback_may_not_return(wrong):
    with pytest.raises(RunFailed, match="the callback"):
        runs._more(wrong)
    assert runs._more(None) == {} and runs._more({"x": np.float32(1)}) == {"x": 1.0}


def test_a_report_writes_only_where_it_is_told_to(run, tmp_path):
    before = sorted(run.workdir.rglob("*"))
    report = run.evaluate("test", tta="flip")
    assert report["images"] == 360 and report["accuracy"] == run.metrics[-1]["test_accuracy"]
    assert report["tta"]["views"] == "flip" and sorted(run.workdir.rglob("*")) == before
    run.evaluate("validation", out=tmp_path / "there")
    assert (tmp_path / "there" / "latest_validation.json").exists()
    given = run.evaluate(vgg_jax.data("digits")["test"])
    assert given["accuracy"] == report["accuracy"] and given["split"] == "given"
    test = vgg_jax.data("digits")["test"]
    assert run.evaluate((test.images, test.labels))["confusion"] == report["confusion"]
    with pytest.raises(vgg_jax.UserError, match="labels must lie in 0 to 9"):
        run.evaluate((test.images, test.labels + 1))
    with pytest.raises(vgg_jax.UserError, match="the data to evaluate must be two arrays"):
        run.evaluate(test.images)


def test_no_run_directory(run):
    with pytest.raises(vgg_jax.UserError, match="is no run directory"):
        vgg_jax.load(run.workdir / "nosuch")


def test_a_misspelt_split_or_view_is_refused(run):
    with pytest.raises(vgg_jax.UserError, match="no split 'val'; take train, validation or test"):
        run.evaluate("val")
    for score in (
        lambda: run.evaluate("test", tta="flipshift"),
        lambda: run.predict(np.zeros((1, 32, 32, 3), np.uint8), "x"),
    ):
        with pytest.raises(vgg_jax.UserError, match=r"config.train.tta cannot be"):
            score()


def test_what_ends_a_run_before_it_has_saved_anything_frees_its_directory(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(network, "line", Mock(side_effect=KeyboardInterrupt))
        vgg_jax.train(small(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_thread_can_train_and_nothing_of_the_interpreter_changes(tmp_path):
    backend, trained = matplotlib.get_backend(), []
    thread = threading.Thread(target=lambda: trained.append(vgg_jax.train(small(train__epochs=1), tmp_path / "run")))
    thread.start()
    thread.join()
    assert trained[0].step == 5 and matplotlib.get_backend() == backend


def test_arrays_as_data(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 3
    splits = vgg_jax.data(train=(images, labels), test=(images[:9], labels[:9]), class_names=["a", "b", "c"])
    assert len(splits["validation"]) == 0 and splits["train"].labels.dtype == np.int32
    run = vgg_jax.train(small(train__batch_size=8, train__epochs=1), tmp_path / "run", data=splits)
    assert run.class_names == ("a", "b", "c") and run.predict(images[:2]).shape == (2, 3)
    assert run.evaluate("test")["images"] == 9
    loaded = vgg_jax.load(tmp_path / "run")  # the directory does not keep them
    with pytest.raises(vgg_jax.UserError, match="they were given from Python"):
        loaded.evaluate("test")
    with monkeypatch.context() as patch:
        patch.setattr(trained, "load_data", Mock(side_effect=vgg_jax.UserError("no cifar10")))
        with pytest.raises(vgg_jax.UserError, match=r"^no cifar10; they were given from Python, and evaluate takes"):
            loaded.data("test")
    assert loaded.evaluate(splits["test"])["images"] == 9
    np.testing.assert_array_equal(loaded.predict(jnp.asarray(images[:2])), loaded.predict(images[:2]))
    with pytest.raises(vgg_jax.UserError, match="data takes a source"):
        vgg_jax.data(train=(images, labels))
    for wrong, words in [
        ({"train": (images / 255, labels)}, "train images must be uint8"),
        ({"train": (images[..., :1], labels)}, "train images must be uint8"),
        ({"test": (images[:, :16], labels)}, "test images are of another size"),
        ({"test": (images, labels[:5])}, "test labels must be 40 whole numbers"),
        ({"test": (images, labels - 1)}, "labels must lie in 0 to 2"),
        ({"class_names": ["a"]}, "labels must lie in 0 to 0"),
        ({"class_names": np.array(["a", "b"])}, "labels must lie in 0 to 1"),
        ({"train": (images, labels.astype(str))}, "train labels must be 40 whole numbers"),
        ({"train": images}, "train must be two arrays"),
        ({"validation": images}, "validation must be two arrays"),
        ({"normalization": "chanel"}, "did you mean channel"),
        ({"validation_size": 40}, "validation_size=40 is too many of the 40 training images given"),
        ({"validation_size": 9, "validation": (images, labels)}, "not both"),
        ({"validation_size": -5}, "config.data.validation_size must lie in"),
        ({"validation_size": 0.1}, "config.data.validation_size takes a whole number"),
        ({"class_names": ["a", "b", "a"]}, "two classes have the same name: a, b, a"),
        ({"seed": -1}, "config.data.seed must lie in"),
        ({"data_dir": "nowhere"}, "data takes no data_dir with arrays"),
        ({"valid": (images, labels)}, "data takes no valid with arrays; did you mean validation"),
    ]:
        with pytest.raises(vgg_jax.UserError, match=words):
            vgg_jax.data(**({"train": (images, labels), "test": (images, labels)} | wrong))


def test_given_data_are_held_out_when_asked_and_else_it_is_said(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 32, 32, 3), np.uint8), np.arange(48) % 3
    pairs = {"train": (images, labels), "test": (images[:9], labels[:9])}
    splits = vgg_jax.data(**pairs, validation_size=8, seed=1)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [40, 8, 9]
    whole = sorted(image.tobytes() for split in ("train", "validation") for image in splits[split].images)
    assert whole == sorted(image.tobytes() for image in images)
    where = [next(i for i in range(48) if (images[i] == image).all()) for image in splits["validation"].images]
    assert (splits["validation"].labels == labels[where]).all()
    assert splits["train"].mean == load.statistics(splits["train"].images)[0]
    config = small(train__batch_size=8, train__epochs=1, data__validation_size=8)
    run = vgg_jax.train(config, tmp_path / "without", pairs)
    assert "best/ is chosen on the test images" in capsys.readouterr().err
    assert run.summary["protocols"]["selected"] is None
    assert "the data were given in Python" in (run.export("safetensors") / "README.md").read_text()
    run = vgg_jax.train(config, tmp_path / "with", splits)
    assert "best/" not in capsys.readouterr().err and run.summary["protocols"]["selected"]


def test_given_data_that_do_not_fit_the_config_are_refused_before_training(tmp_path):
    images, labels = np.zeros((40, 16, 16, 3), np.uint8), np.arange(40) % 3
    config, none = small(train__batch_size=8, train__epochs=1), (images[:0], labels[:0])
    for splits, size, words in (
        (vgg_jax.data(train=(images, labels), test=(images, labels)), 32, "16x16 pixels; set config.data.image_size"),
        (vgg_jax.data(train=(images[:, :8], labels), test=(images[:, :8], labels)), 16, "must be square, not 16x8"),
        (vgg_jax.data(train=(images, labels), test=none), 16, "there are no test images"),
    ):
        with pytest.raises(vgg_jax.UserError, match=words):
            vgg_jax.train(vgg_jax.config(config, {"data.image_size": size}), tmp_path / "run", data=splits)
    for splits in ({"train": (images, labels)}, [1], {"train": 1, "test": 2}):
        with pytest.raises(vgg_jax.UserError, match="must be"):
            vgg_jax.train(config, tmp_path / "run", data=splits)
    assert not (tmp_path / "run").exists()


def test_a_file_with_future_annotations(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n" + NETWORK.replace("Net(nn.Module):", "Net(nn.Module):\n    n: int = 3")
    )
    assert vgg_jax.config(str(file)).code.model


def test_a_folder_as_data(tmp_path):
    splits = vgg_jax.data("folder", write_folder(tmp_path / "p", {"cat": 2, "dog": 2}, 16), image_size=16)
    assert splits["test"].images.shape == (4, 16, 16, 3) and splits["test"].class_names == ("cat", "dog")


RESNET = str(ROOT / "examples" / "resnet.py")
SHORT = {"data.train_size": 96, "train.batch_size": 16, "train.epochs": 2, "train.devices": 1, "train.save_minutes": 0}
SHORT |= {"own.widths": (4, 8)}


def test_a_network_of_ones_own_with_smaller_images(tmp_path):
    """It has no stages that must halve them; one whose head fits a single size is refused before anything is made."""
    fields = {"augment.small_size": 12}
    network.check(vgg_jax.config(RESNET, fields), 10)
    flat = tmp_path / "flat.py"
    flat.write_text(
        "from flax import linen as nn\nfrom configs.quickstart import get_config\n\n"
        "class Flat(nn.Module):\n    @nn.compact\n    def __call__(self, x, train):\n"
        "        return nn.Dense(10)(x.reshape(len(x), -1))\n\n"
        "def get_model(config, num_classes):\n    return Flat()\n"
    )
    network.check(vgg_jax.config(str(flat)), 10)
    with pytest.raises(vgg_jax.UserError, match=r"the network of .*flat\.py fails"):
        network.check(vgg_jax.config(str(flat), fields), 10)


def test_a_network_of_ones_own_is_killed_goes_on_and_is_used(tmp_path, capsys, ends):
    """The example, uninterrupted and killed and resumed: the same bits; a run directory never runs its file."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = ["--config", RESNET, *flags({k: str(v) for k, v in SHORT.items()})]
    main.main([*given, "--workdir", str(whole)])
    assert "own network" in capsys.readouterr().out
    program = [sys.executable, "-c", QUICK + "from vgg_jax import main, evaluate; from vgg_jax.console import errors\n"
               "from vgg_jax.runs import loop; loop.CHUNK_SECONDS = 0.05; errors.run(main.main)"]  # fmt: skip
    interrupt(killed, 9, 0.0, program=[*program, *given, "--workdir", str(killed)])
    assert max(saved_steps(killed)) < 12
    main.main([*given, "--workdir", str(killed)])
    expected, got = contents(whole), contents(killed)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)
    assert without_timing(whole) == without_timing(killed)
    run = vgg_jax.load(whole, config=RESNET)
    assert run.evaluate()["accuracy"] == run.metrics[-1]["test_accuracy"]
    assert type(run.model).__name__ == "ResNet"
    code._known.clear()  # as in another process
    ends(evaluate.main, ["--workdir", str(whole)], "come from resnet.py", "--config")
    evaluate.main(["--workdir", str(whole), "--config", RESNET])
    assert "on 360 test images" in capsys.readouterr().out
    plain = str(ROOT / "configs" / "quickstart.py")
    ends(evaluate.main, ["--workdir", str(whole), "--config", plain], "get_model is in only one of them")
    ends(main.main, ["--config", plain, "--workdir", str(whole)], "holds a run of another config")


def test_a_changed_file_is_said(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text((ROOT / "examples" / "resnet.py").read_text())
    vgg_jax.train(vgg_jax.config(mine, SHORT | {"train.epochs": 1}), tmp_path / "run")
    mine.write_text(mine.read_text() + "\n# a word more\n")
    vgg_jax.load(tmp_path / "run", config=mine)
    assert f"mine.py has changed since the run in {tmp_path / 'run'} began with it" in capsys.readouterr().err


def test_data_of_ones_own(tmp_path, ends, capsys):
    digits, file = vgg_jax.data("digits"), tmp_path / "my.npz"
    arrays = {f"{s}_{kind}": getattr(digits[s], kind)[:200] for s in ("train", "test") for kind in ("images", "labels")}
    np.savez(file, **arrays)
    npz, run = str(ROOT / "examples" / "npz.py"), tmp_path / "run"
    fields = SMALL | {"own.file": str(file), "data.validation_size": "40", "data.normalization": "half"}
    main.main(["--config", npz, "--workdir", str(run), *flags(fields)])
    told = capsys.readouterr().out
    assert "160 train, 40 validation, 200 test" in told
    code._known.clear()
    cli._dispatch(shlex.split(told.rpartition("next: ")[2])[1:])  # what a run says in the end, with its file
    assert "on 200 test images" in capsys.readouterr().out
    best = vgg_jax.load(run, "best", config=npz)
    assert best.evaluate()["chosen_on"] == "validation" and best.mean == (0.5, 0.5, 0.5)
    assert "on own data" in (best.export("safetensors") / "README.md").read_text()
    with pytest.raises(vgg_jax.UserError, match="takes one or more uint8 images"):
        best.evaluate(vgg_jax.data("digits")["validation"])
    images = arrays["test_images"]
    with pytest.raises(vgg_jax.UserError, match="the images are of 3 classes, the run of 10"):
        best.evaluate(vgg_jax.data(train=(images[:3], [0, 1, 2]), test=(images[:3], [0, 1, 2]))["test"])
    other_order = [str(digit) for digit in reversed(range(10))]
    with pytest.raises(vgg_jax.UserError, match="the run's classes in another order: 9, 8"):
        best.evaluate(vgg_jax.data(**{s: (images, arrays["test_labels"]) for s in ("train", "test")},
                                   class_names=other_order)["test"])  # fmt: skip
    code._known.clear()
    Image.fromarray(arrays["test_images"][0]).save(tmp_path / "digit.png")
    predict.main(["--workdir", str(run), "--config", npz, str(tmp_path / "digit.png")])
    assert "digit.png: " in capsys.readouterr().out
    ends(main.main, ["--config", npz, "--workdir", str(tmp_path / "b"), *flags(fields | {"data.image_size": "16"})],
         "the images have 32x32 pixels; set config.data.image_size")  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [
    ("def get_model(config, n):\n    return 3\n", "get_model returns int, not a flax.linen.Module"),
    ("def get_data(config):\n    return {'train': ([1], [1])}\n", "get_data"),
])  # fmt: skip
def test_what_is_not_a_network_and_not_data(text, words, tmp_path, ends):
    (tmp_path / "mine.py").write_text(f"from configs.quickstart import get_config\n{text}")
    ends(main.main, ["--config", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")], words)


def test_the_example_of_the_docs_is_trained_and_used(tmp_path, monkeypatch):
    """As it stands in docs/library.md, in a folder with its my.npz."""
    (text,) = re.findall(r"```python\n(# small.py\n.*?)```", (ROOT / "docs" / "library.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(text)
    digits = vgg_jax.data("digits")
    arrays = {f"{s}_{kind}": getattr(digits[s], kind)[:64] for s in ("train", "test") for kind in ("images", "labels")}
    np.savez("my.npz", **arrays)
    fields = {"data.validation_size": 0, "train.batch_size": 32, "train.epochs": 1, "train.devices": 1}
    run = vgg_jax.train(vgg_jax.config("small.py", fields | {"own.channels": 4}), "run")
    assert run.predict(digits["test"].images[:3]).shape == (3, 10)


NETWORK = """
from flax import linen as nn
from configs.quickstart import get_config


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(10)(x.mean((1, 2)))


def get_model(config, num_classes):
    return Net()
"""


@pytest.mark.parametrize(("old", "new", "words"), [
    ("Dense(10)", "Dense(7)", r"gives \(2, 7\) for 2 images and 10 classes, not logits \(2, 10\)"),
    ("x, train", "x", "mine.py fails: TypeError: .*argument 'train'"),
    ("config, num_classes", "config", "mine.py fails: TypeError: get_model.*takes 1 positional argument"),
    ("return Net", "return Nett", "mine.py fails: line 13: NameError: name 'Nett'"),
    ("from configs", "\nNone + 1\nfrom configs", "mine.py cannot be run: line 4: TypeError: unsupported operand"),
])  # fmt: skip
def test_a_network_that_cannot_work_is_named_before_training(old, new, words, tmp_path):
    (tmp_path / "mine.py").write_text(NETWORK.replace(old, new))
    with pytest.raises(vgg_jax.UserError, match=words):
        vgg_jax.train(vgg_jax.config(tmp_path / "mine.py", SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(vgg_jax.UserError, match=words):
        describe.main(["--config", str(tmp_path / "mine.py")])


@pytest.mark.parametrize(("returned", "words"), [
    ("{}['train']", r"get_data of mine.py fails: line 6: KeyError: 'train'"),
    ("{'train': 1, 'test': 2}", "train must be two arrays"),
    ("{'train': data('digits')['train'], 'test': (1, 2)}", "test images must be uint8"),
])  # fmt: skip
def test_data_that_cannot_be_are_named_before_training(returned, words, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs.quickstart import get_config\nfrom vgg_jax import data\n\n\n"
        f"def get_data(config):\n    return {returned}\n"
    )
    with pytest.raises(vgg_jax.UserError, match=words):
        vgg_jax.train(vgg_jax.config(tmp_path / "mine.py", SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predict_takes_one_file_and_nothing_else(run, tmp_path):
    Image.fromarray(vgg_jax.data("digits")["test"].images[0]).save(tmp_path / "digit.png")
    assert run.predict(tmp_path / "digit.png").shape == run.predict(str(tmp_path / "digit.png")).shape == (1, 10)
    for wrong in ([], 3 * [None], [Image.new("RGB", (32, 32))]):
        with pytest.raises(vgg_jax.UserError, match="the names of picture files"):
            run.predict(wrong)


def test_a_recipe_is_read_without_jax():
    """Checking a config and showing help do not import JAX."""
    program = "import sys, vgg_jax; vgg_jax.config('bn'); assert 'jax' not in sys.modules and 'flax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": PYTHONPATH}, cwd="/")


def test_a_run_in_bfloat16_on_larger_images_of_two_classes(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = (rng.integers(0, 100, (200, 64, 64, 3)) + 100 * (labels % 2)[:, None, None, None]).astype(np.uint8)
    splits = vgg_jax.data(train=(images, labels), test=(images, labels))
    run = vgg_jax.train(small(data__image_size=64, model__dtype="bfloat16", train__epochs=3), tmp_path / "run", splits)
    found = run.evaluate(splits["test"])
    assert found["accuracy"] > 0.75 and len(found["confusion"]) == 2
    assert run.predict(images[:3]).shape == (3, 2)
    assert all(leaf.dtype == np.float32 for layer in run.variables["params"].values() for leaf in layer.values())
