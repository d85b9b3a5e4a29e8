"""The benchmarks run, treat all contenders alike, and their figures hang together."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from small import PYTHONPATH, ROOT, SMALL, config, flags

from benchmarks import contenders, rounding, train_step
from benchmarks.worker import Worker
from vgg_jax.console.errors import UserError
from vgg_jax.training.step import init_state, make_recipe, make_train_step

FIELDS = train_step.SAME_FOR_ALL | {"train.batch_size": "8", "model.width": "0.5", "model.hidden": "(16,)"}
STEPS = contenders.STEPS


def run(module, file, *given):
    """(figures, what was printed) of a benchmark's command."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", str(file), *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return json.loads(file.read_text()), done.stdout


def test_train_step(tmp_path):
    """PyTorch's side does not know this loss: it is left out where it is installed, too."""
    given = [
        "--config",
        "configs/vgg_a_mse.py",
        "--config.model.stages=light",
        "--rounds",
        "1",
        "--all",
        *flags(FIELDS),
    ]
    figures, printed = run("train_step", tmp_path / "figures.json", *given)
    rows = figures["rows"]
    assert rows.keys() == {"vgg_jax", "stock Flax", "vgg_jax, bfloat16", "stock Flax, bfloat16"}
    assert [line.split("  ")[0] for line in printed.splitlines()[2:]] == list(rows)
    speeds = [row["images_per_second"] for row in rows.values()]
    assert speeds == sorted(speeds, reverse=True)
    ours = rows["vgg_jax"]
    assert abs(ours["images_per_second"] - figures["steps_a_round"] * 8 / ours["seconds"][0]) < 0.1
    for name, row in rows.items():
        assert row["vgg_jax_is_times_faster"] == round(row["seconds"][0] / ours["seconds"][0], 2)
        assert len(row["losses"]) == 2 * STEPS and sum(row["losses"][STEPS:]) < sum(row["losses"][:STEPS])
        difference = row["largest_relative_loss_difference_in_10_steps"]
        assert 1e-5 < difference < 0.1 if "bfloat16" in name else difference < 1e-3


def test_rows_are_sorted_by_speed_and_compared_with_us_round_by_round():
    seconds = {"stock Flax": [6.0, 8.0, 30.0], "vgg_jax": [3.0, 1.0, 2.0], "PyTorch NCHW, bfloat16": [1.0, 1.0, 1.0]}
    turns = [{n: {"seconds": s[i], "peak_memory": 2**20 * s[i]} for n, s in seconds.items()} for i in range(3)]
    peaks = [{"float32": 100.0, "bfloat16": 400.0}] * 3
    rows = train_step.rows("vgg_jax", 60, 200, turns, peaks, {name: [2.0, 1.0] for name in seconds})
    assert list(rows) == ["PyTorch NCHW, bfloat16", "vgg_jax", "stock Flax"]
    assert [row["images_per_second"] for row in rows.values()] == [60, 30, 7.5]
    assert [row["vgg_jax_is_times_faster"] for row in rows.values()] == [0.5, 1, 8]
    assert [row["share_of_matmul_peak"] for row in rows.values()] == [0.5, 1, 0.25]
    assert [row["peak_memory_mib"] for row in rows.values()] == [1, 3, 30]


def test_who_takes_part():
    def names(dtype, all_dtypes, gpu=False, without=()):
        return contenders.names(config("bn", model__dtype=dtype), all_dtypes, gpu, without)

    plain = names("float32", False)
    assert plain == [
        "vgg_jax", "stock Flax", "PyTorch NCHW", "PyTorch NCHW, compiled",
        "PyTorch channels-last", "PyTorch channels-last, compiled",
    ]  # fmt: skip
    assert names("float32", False, without=["compiled"]) == plain[:3] + plain[4:5]
    assert names("float32", False, without=["Flax", "NCHW"]) == plain[:1] + plain[4:]
    assert names("float32", True, without=["P"]) == [
        "vgg_jax",
        "stock Flax",
        "vgg_jax, bfloat16",
        "stock Flax, bfloat16",
    ]
    half = [f"{name}, bfloat16" for name in plain]
    assert names("bfloat16", False) == half
    assert names("float32", True) == names("bfloat16", True) == plain + half
    graphs = set(names("float32", False, gpu=True)) - set(plain)
    assert graphs == {"PyTorch NCHW, compiled, CUDA graphs", "PyTorch channels-last, compiled, CUDA graphs"}


@pytest.mark.parametrize(
    "name, fields, why",
    [
        ("bn", {}, ""),
        ("speedrun", {}, ""),
        ("vgg_light", {}, ""),
        ("bn", {"data__image_size": 64}, ""),
        ("vgg_a_dropout_bn_res", {}, ""),
        ("vgg_a_mse", {}, "cross-entropy"),
        ("../examples/resnet", {}, "only with a VGG"),
        ("../examples/training", {}, "only with our optimizers and losses"),
    ],
)
def test_why_pytorch_is_left_out(name, fields, why, monkeypatch):
    c = config(name, {}, **fields)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    lacks = contenders.pytorch_lacks(c)
    assert bool(lacks) == bool(why) and why in lacks
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in contenders.pytorch_lacks(c)


def test_every_step_of_a_turn_has_its_own_batch():
    images, labels = contenders.batches(config("bn", FIELDS, data__image_size=64))
    assert images.shape == (STEPS, 8, 64, 64, 3) and labels.shape == (STEPS, 8)
    for i in range(STEPS):
        for j in range(i):
            assert np.mean(images[i] == images[j]) < 1e-3 and (labels[i] != labels[j]).any()


def one_after_the_other(c):
    """The losses of two turns, each step a call of its own on the batch that is its turn."""
    images, labels = contenders.batches(c)
    recipe = make_recipe(c, 10, 50_000)
    state, step, losses = init_state(recipe, 0, images[0]), jax.jit(make_train_step(recipe)), []
    for image, label in [*zip(images, labels)] * 2:
        state, metrics = step(state, {"image": image, "label": label})
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.parametrize("way", ["ours", "stock_flax"])
def test_a_contender_takes_the_batches_in_their_order(way):
    """With one batch repeated, or another order, the losses would be others."""
    c = config("vgg_light", FIELDS)
    turn, expected = getattr(contenders, way)(c), one_after_the_other(c)
    np.testing.assert_allclose(turn(1) + turn(1), expected, rtol=1e-4)
    np.testing.assert_allclose(getattr(contenders, way)(c)(2), expected[STEPS:], rtol=1e-4)
    assert np.abs(np.diff(expected)).min() > 1e-3


def test_stock_flax_has_every_kind_of_dropout():
    narrow = {"model__width": 1 / 16, "train__batch_size": 16}
    assert np.isfinite(contenders.stock_flax(config("bn_dropout", FIELDS, **narrow))(1)).all()


NETWORKS = {
    "plain": ("vgg_light", {"model__global_pool": True}),
    "map": ("vgg_light", {"model__batch_norm": "before"}),
    "residual": ("vgg_light", {"model__residual": True, "model__batch_norm": "before", "model__activation": "gelu"}),
    "after": ("vgg_light", {"model__global_pool": True, "model__batch_norm": "after", "model__batch_norm_head": True,
                            "model__activation": "leaky_relu"}),
    "speed": ("speedrun", {"model__width": 1 / 16}),
    "A": ("vgg_a_bn", {"model__width": 1 / 16, "model__activation": "silu"}),
}  # fmt: skip


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_pytorch_takes_the_same_steps(network, channels_last, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    name, fields = NETWORKS[network]
    c = config(name, FIELDS | {"train.batch_size": "32"}, **fields)
    assert not contenders.pytorch_lacks(c)
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "weights.npz"))
    monkeypatch.setenv("TORCH_DEVICE", "cpu")
    contenders.write_weights(c, os.environ["WEIGHTS"])
    turn = contenders.pytorch(c, channels_last)
    np.testing.assert_allclose(turn(1) + turn(1), one_after_the_other(c), rtol=1e-3)


def test_what_cannot_be_compiled_is_left_out_in_a_line(tmp_path):
    pytest.importorskip("torch")
    c = config("vgg_light", FIELDS, model__global_pool=True)
    contenders.write_weights(c, str(tmp_path / "weights.npz"))
    given = ["--config", str(ROOT / "configs/vgg_light.py"), *flags(FIELDS | {"model.global_pool": "True"})]
    machine = {"WEIGHTS": str(tmp_path / "weights.npz"), "TORCH_DEVICE": "cpu", "PYTHONPATH": PYTHONPATH}
    machine |= {"CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    with pytest.raises(UserError, match=r"^torch.compile: .*C\+\+ compiler.*$"):
        Worker("PyTorch NCHW, compiled", given, machine)


def test_a_worker_that_dies_is_said_to():
    with pytest.raises(UserError, match="ended early"):
        Worker("vgg_jax", ["--config", "nonesuch.py"], {"PYTHONPATH": PYTHONPATH})


SERVED = """
import os, sys, jax
from benchmarks import contenders, worker
from vgg_jax.console.errors import UserError
from vgg_jax.settings import config

def make(c):
    print("a library's greeting")
    os.system("echo a compiler greets")
    if sys.argv[1:]:
        raise UserError("why")
    return lambda count: print("a library's advice") or [1.0, float(count)]

contenders.CONTENDERS["it"] = contenders.Contender(make, "bfloat16")
worker.serve("it", config.load("configs/bn.py"))
"""


def test_what_libraries_print_is_no_answer():
    def served(*argv):
        command = [sys.executable, "-c", SERVED, *argv]
        done = subprocess.run(command, input="1\n2\n", cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode and "library's greeting" in done.stderr and "compiler greets" in done.stderr, (
            done.stderr
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    ready, one, two = served()
    assert ready == {} and one["losses"] == [1, 1] and two["losses"] == [1, 2]
    assert one["peak_memory"] > 2**20 and one["seconds"] > 0
    assert served("fail") == [{"left_out": "why"}]


def test_end_to_end(tmp_path):
    given = ["--config", "configs/quickstart.py", *flags(SMALL)]
    figures, printed = run("end_to_end", tmp_path / "figures.json", *given)
    for caches in ("empty caches", "filled caches"):
        seconds = figures[caches]["seconds"]
        assert seconds.keys() > {"imports", "compile", "train", "other"} and caches in printed
        assert min(seconds.values()) >= 0 and figures[caches]["images_per_second"] > 0


def test_rounding(tmp_path, monkeypatch):
    fields = ["--config.model.width=0.1", "--config.model.stages=A", "--images", "1"]
    found, printed = run("rounding", tmp_path / "rounding.json", "--config", "configs/bn.py", *fields)
    sizes = [(row["side"], row["inputs"], row["outputs"]) for row in found["rows"]]
    assert sizes == [(32, 3, 6), (16, 6, 13), (8, 13, 26), (8, 26, 26), (4, 26, 51), (4, 51, 51), (2, 51, 51)]
    assert printed.count("\n") == 2 + len(sizes)
    for row in found["rows"]:
        assert all(1e-8 < error < 1e-5 for error in row["float32"]), row
        assert all(1e-3 < error < 1e-2 for error in row["bfloat16"]), row
    with pytest.raises(UserError, match="this is for a VGG"):
        rounding.main(["--config", "examples/resnet.py"])
    with jax.enable_x64(True):  # a convolution that is wrong is seen
        monkeypatch.setattr(
            rounding.layers, "conv_general_dilated", lambda x, kernel, *_, **__: 1.01 * x @ kernel[1, 1]
        )
        assert min(rounding.measure(rounding.Shape(4, 3, 5), 1)["float32"]) > 0.1
