"""A config file's own optimizer, schedule, loss and augmentation."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ROOT, SMALL, dataset, flags
from test_resume import contents, without_timing

import vgg_jax
from vgg_jax import evaluate, main
from vgg_jax.console import errors
from vgg_jax.datasets.batches import make_get_batch
from vgg_jax.landscape import __main__ as landscape
from vgg_jax.runs import run as runs
from vgg_jax.settings import config as configs
from vgg_jax.training.step import make_recipe

EXAMPLE = ROOT / "examples" / "training.py"
GIVEN = ["--config", str(EXAMPLE), *flags(SMALL)]
QUICKSTART = "from configs.quickstart import get_config\nimport jax.numpy as jnp\nimport optax\n\n\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own") / "run"
    main.main([*GIVEN, "--workdir", str(workdir)])
    return workdir


def test_all_four_take_part():
    c, data = configs.load(EXAMPLE, SMALL), dataset(64)
    recipe = make_recipe(c, 4, 64)
    rates = [float(recipe.schedule(step)) for step in (0, 2, 4)]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 0], atol=1e-9)  # linear over 2 epochs of 2 steps
    params = {"w": jnp.array([3.0, -4.0])}
    update = recipe.optimizer.update({"w": jnp.array([30.0, -40.0])}, recipe.optimizer.init(params), params)[0]
    np.testing.assert_allclose(update["w"], [-1e-3, 1e-3], rtol=1e-2)  # lion takes the sign
    even = recipe.loss(jnp.zeros((3, 4)), jnp.arange(3))
    np.testing.assert_allclose(even, [0.75**2 * np.log(4)] * 3, rtol=1e-5)
    on_device = {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}
    ours, plain = (
        make_get_batch(one, data)(jax.random.key(0), jnp.int32(0), on_device, jnp.arange(64))["image"]
        for one in (c, configs.load("quickstart", SMALL))
    )
    noise = np.asarray(ours - plain)
    assert noise.std() == pytest.approx(0.05, rel=0.05) and abs(noise.mean()) < 0.002


SCHEDULE_FREE = """
def get_optimizer(config, schedule):
    return optax.contrib.schedule_free(optax.sgd(0.0), 0.1, b1=0.5)
"""


def test_an_optimizer_that_keeps_the_parameters_begins_with_those_of_start_from(trained, tmp_path):
    """At a learning rate of 0 they stay; this one steps toward the parameters that its state began with."""
    (tmp_path / "mine.py").write_text(f"import optax.contrib\n{QUICKSTART}{SCHEDULE_FREE}")
    fields = SMALL | {"train.start_from": str(trained), "train.epochs": "1", "model.batch_norm": "before"}
    config = vgg_jax.config(tmp_path / "mine.py", fields)
    run = vgg_jax.train(config, tmp_path / "run")
    source = vgg_jax.load(trained).variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), run.variables["params"], source)


def test_a_run_records_them_goes_on_with_them_and_not_without(trained, tmp_path, monkeypatch, ends):
    record = json.loads((trained / "config.json").read_text())["code"]
    assert {name for name, its in record.items() if its is True} == {"schedule", "optimizer", "loss", "augment"}
    evaluate.main(["--workdir", str(trained)])  # the network and the data are ours: no file is needed
    (tmp_path / "more.py").write_text(EXAMPLE.read_text() + "\n\nget_metrics = get_loss\n")
    record_of = vgg_jax.load(trained, config=tmp_path / "more.py").config.code.to_dict()
    assert record_of["file"] == "more.py" and record_of.keys() == record.keys()
    log_point = runs.Run.log_point

    def log_then_stop(self, *rest):
        os.kill(os.getpid(), signal.SIGINT)
        return log_point(self, *rest)

    stopped = ["--workdir", str(tmp_path / "run")]
    with monkeypatch.context() as once, pytest.raises(errors.Stopped):
        once.setattr(runs.Run, "log_point", log_then_stop)
        main.main([*GIVEN, *stopped])
    ends(main.main, ["--config", "quickstart", *flags(SMALL), *stopped], "code.loss (True there, None now)")
    with pytest.raises(vgg_jax.UserError, match="whose learning rate or image size may depend on their number"):
        main.main([*GIVEN, *stopped, "--config.train.epochs=3"])
    main.main([*GIVEN, *stopped])
    expected, got = contents(trained), contents(tmp_path / "run")
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)
    assert without_timing(trained) == without_timing(tmp_path / "run")


@pytest.mark.parametrize(("text", "words"), [
    ("def get_loss(config):\n    return lambda logits, labels: logits.mean()\n", "it must give (2,), the loss of each"),
    ("def get_optimizer(config, schedule):\n    return optax.lionn()\n", "get_optimizer of mine.py fails: line 7"),
    ("def get_augment(config):\n    return lambda key, images: images.nosuch\n", "training of mine.py fails: line 7"),
    ("def get_schedule(config):\n    return 0.1\n", "get_schedule of mine.py fails: TypeError"),
    ("def get_schedule(config, steps):\n    return 0.1\n", "training of mine.py fails: TypeError"),
    ("def get_optimizer(config, schedule):\n    return schedule\n", "training of mine.py fails: "),
    ("def get_augment(config):\n    return lambda key, images: images[:1]\n", "it must give the same shape"),
    *((f"def {name}({given}):\n    pass\n", f"{name} of mine.py returns nothing") for name, given in (
        ("get_schedule", "config, steps"), ("get_optimizer", "config, schedule"), ("get_loss", "config"),
        ("get_augment", "config"))),
])  # fmt: skip
def test_what_cannot_work_is_named_before_training(text, words, tmp_path, ends):
    (tmp_path / "mine.py").write_text(QUICKSTART + text)
    ends(main.main, ["--config", str(tmp_path / "mine.py"), *flags(SMALL), "--workdir", str(tmp_path / "run")], words)
    assert not (tmp_path / "run").exists()


def test_a_misspelt_name_is_hinted_at(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(QUICKSTART + "def get_optimiser(config, schedule):\n    pass\n")
    assert "code" not in configs.load(tmp_path / "mine.py")
    (tmp_path / "none.py").write_text(QUICKSTART + "get_model = None\n")
    assert "code" not in configs.load(tmp_path / "none.py")
    assert capsys.readouterr().err == "mine.py: nothing calls get_optimiser; did you mean get_optimizer?\n"


def test_the_study_refuses_them(tmp_path, ends):
    (tmp_path / "mine.py").write_text(
        QUICKSTART.replace("quickstart", "landscape_quick") + "def get_loss(config):\n    pass\n"
    )
    ends(landscape.main, ["--config", str(tmp_path / "mine.py")], "the study takes a network and data of one's own")
