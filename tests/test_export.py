"""What leaves JAX computes the same there: PyTorch, ONNX Runtime, StableHLO without this package; and the card."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict
from small import ROOT, SMALL, config

import vgg_jax
from vgg_jax import cli
from vgg_jax.console.flags import parse
from vgg_jax.exchange import outgoing
from vgg_jax.exchange.outgoing import Outgoing, portable, state
from vgg_jax.model import scores
from vgg_jax.model.network import make_model, shapes
from vgg_jax.runs import directory, given, origin
from vgg_jax.settings import again, config as configs

pytest.importorskip("safetensors")

TINY = {"data.name": "digits", "model.width": "0.0625"}
# name -> (recipe, fields): every switch that a network has is on in one of them, and off in another.
NETWORKS = {
    "bn_dropout": ("bn_dropout", {"model.hidden": "(16,)"}),
    "plain": ("vgg_a", {"model.hidden": "(16, 24)"}),
    "tied": ("plain_tied", {"model.hidden": "(16,)"}),
    "residual": ("vgg_a_dropout_bn_res_leaky", {"model.hidden": "(16,)", "model.head_dropout": "()"}),
    "speed": ("speedrun", {}),
    "map": ("vgg_light", {"model.width": "0.5", "model.hidden": "(16,)", "model.activation": "silu",
                          "model.batch_norm": "after", "model.batch_norm_head": "True"}),
    "odd": ("speedrun", {"model.stages": "light", "model.whitening": "3", "model.residual": "True",
                         "model.bias": "True", "model.pool": "last", "model.global_pool": "False",
                         "model.batch_norm_epsilon": "1e-5"}),
}  # fmt: skip


def make_run(folder, name, **more):
    """A run directory with random weights, and statistics that no fresh BatchNorm has."""
    recipe, fields = NETWORKS.get(name, (name, {}))
    c, rng = config(recipe, TINY | fields, **more), np.random.default_rng(0)

    def drawn(path, shape):
        if len(shape) > 1:
            return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        return rng.uniform(-0.4, 0.4, shape) + (not path.endswith(("bias", "mean")))

    flat = traverse_util.flatten_dict(shapes(make_model(c, 10), 32), sep="/")
    arrays = {path: np.float32(drawn(path, leaf.shape)) for path, leaf in flat.items()}
    variables = {"batch_stats": {}} | traverse_util.unflatten_dict(arrays, sep="/")
    facts = directory.describe(vgg_jax.data("digits")) | origin.describe()
    given.make(folder, c, facts, 7, variables, {})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = vgg_jax.load(make_run(root / name, name))
        return made[name]

    return run


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)


def log(probabilities):
    return np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-30))


@pytest.mark.parametrize(
    ("name", "to"), [*((name, "safetensors") for name in NETWORKS), (next(iter(NETWORKS)), "pytorch")]
)
def test_pytorch_computes_our_logits(runs, images, name, to, tmp_path):
    torch = pytest.importorskip("torch")
    from vgg_jax.torch.network import load

    run = runs(name)
    model = load(run.export(to, tmp_path / "out"))
    with torch.no_grad():
        theirs = model(model.normalise(images)).numpy()
    np.testing.assert_allclose(theirs, run._logits(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_our_probabilities(runs, images, name, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    run = runs(name)
    file = run.export("onnx", tmp_path / "out") / "model.onnx"
    session = runtime.InferenceSession(str(file))
    theirs = [session.run(None, {"images": images[i:j]})[0] for i, j in ((0, 1), (1, 9))]
    ours = log(scores.softmax(run._logits(images)))
    np.testing.assert_allclose(log(np.concatenate(theirs)), ours, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_stablehlo_computes_our_probabilities(runs, images, name, tmp_path):
    from jax import export

    run = runs(name)
    program = export.deserialize(bytearray((run.export("stablehlo", tmp_path) / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    ours = log(scores.softmax(run._logits(images)))
    np.testing.assert_allclose(log(program.call(images)), ours, rtol=1e-5, atol=1e-4)
    kernels = [path for path in traverse_util.flatten_dict(run.variables, sep="/") if path.endswith("/kernel")]
    dense = [path for path in kernels if "/fc" in path or "/logits" in path]
    text = (
        program.mlir_module()
    )  # each operation as often as there are platforms, and no products in place of XLA's own
    each, convolutions = text.count("stablehlo.dot_general") // len(dense), len(kernels) - len(dense)
    convolutions += 5 * (name == "tied")  # 256 twice, 512 five times, by one kernel each
    assert text.count("stablehlo.dot_general") == each * len(dense) and each in (1, 3)
    assert text.count("stablehlo.convolution") == each * convolutions and "stablehlo.while" not in text


LOADS = """
import sys, numpy as np, jax
from jax import export
sys.modules["vgg_jax"] = None  # it cannot be imported
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
for n in (1, 3):
    print(*np.asarray(program.call(np.arange(n * 3072, dtype=np.uint8).reshape(n, 32, 32, 3))).sum(-1).round(3))
"""


def test_stablehlo_is_loaded_without_this_package(runs, tmp_path):
    file = runs("plain").export("stablehlo", tmp_path) / "model.stablehlo"
    done = subprocess.run([sys.executable, "-c", LOADS, str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "1.0\n1.0 1.0 1.0\n", done.stderr


def test_a_temperature_divides_the_logits(runs, images):
    from jax import export

    from vgg_jax.exchange import stablehlo

    run = runs("plain")
    out = Outgoing(run.config, run.variables, run._facts, "latest", run.step, calibration={"temperature": 2.0})
    expected = scores.softmax(run._logits(images) / 2)
    np.testing.assert_allclose(export.deserialize(bytearray(stablehlo.program(out))).call(images), expected, atol=1e-5)
    runtime = pytest.importorskip("onnxruntime")
    from vgg_jax.exchange import onnx_graph

    session = runtime.InferenceSession(onnx_graph.graph(out))
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)


def test_a_plain_network_has_torchvisions_names(runs, tmp_path):
    from safetensors.numpy import load_file

    folder = runs("plain").export("safetensors", tmp_path / "plain")
    convolutions = [0, 3, 6, 8, 11, 13, 16, 18]  # of torchvision's vgg11
    names = [f"features.{i}.{leaf}" for i in convolutions for leaf in ("weight", "bias")]
    names += [f"classifier.{i}.{leaf}" for i in (0, 3, 6) for leaf in ("weight", "bias")]
    arrays = load_file(folder / "model.safetensors")
    assert sorted(arrays) == sorted(names) and arrays["features.3.weight"].shape == (8, 4, 3, 3)
    described = json.loads((folder / "config.json").read_text())
    assert described["architecture"] == "vgg11" and described["num_classes"] == 10
    first = described["pretrained_cfg"]
    assert (first["first_conv"], first["classifier"], first["input_size"]) == (
        "features.0",
        "classifier.6",
        [3, 32, 32],
    )
    speed = runs("speed").export("safetensors", tmp_path / "speed")
    assert {"whiten.weight", "bn1_1.running_var", "logits.weight"} <= load_file(speed / "model.safetensors").keys()


def test_the_card_passes_the_hubs_checks(finished_run, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    run = vgg_jax.load(finished_run, "best")
    folder = run.export("safetensors", tmp_path)
    card = hub.ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    record = next(record for record in run.metrics if record["step"] == run.step)
    assert (result.metric_type, result.metric_value) == ("accuracy", record["test_accuracy"])
    assert "360 test images, epoch chosen on validation images" in result.metric_name
    assert (card.data.library_name, card.data.pipeline_tag) == ("vgg_jax", "image-classification")
    assert result.dataset_name == "digits" and f"{100 * record['test_accuracy']:.2f}" in card.text
    assert str(finished_run) not in (folder / "config.json").read_text() + str(card)


def test_a_card_without_the_temperature_that_a_report_was_made_with(finished_run, tmp_path):
    run = vgg_jax.load(copytree(finished_run, tmp_path / "run"))
    run.calibrate()
    run.evaluate(tta="flip", out=run.workdir / "evaluation")
    brought = "It brings the expected calibration error"
    assert brought in (run.export("safetensors") / "README.md").read_text()
    (run.workdir / "calibration.json").unlink()
    assert brought not in (run.export("safetensors") / "README.md").read_text()


def test_a_card_does_not_take_given_data_for_those_of_the_config(tmp_path):
    digits, fields = vgg_jax.data("digits"), SMALL | {"data.name": "cifar10", "data.validation_size": 0}
    some = (digits["train"].images[:64], digits["train"].labels[:64])
    run = vgg_jax.train(vgg_jax.config("bn", fields), tmp_path / "run", vgg_jax.data(train=some, test=some))
    card = (run.export("safetensors") / "README.md").read_text()
    assert "on own data" in card and "cifar10" not in card.partition("---\n\n# ")[0] and "CIFAR" not in card


def test_the_cards_command_trains_the_same_config(finished_run):
    c = vgg_jax.load(finished_run).config
    words = shlex.split(again.command(configs.flatten(c)))
    assert words[:5] == ["vgg-jax", "train", "--config", "quickstart", words[4]]
    _, overrides = parse(words[4:], "", {})
    assert configs.flatten(configs.load("quickstart", overrides)) == configs.flatten(c)
    elsewhere = ConfigDict(c.to_dict())
    elsewhere.data.data_dir, elsewhere.train.start_from = "/secret/pictures", "/secret/run"
    text = again.command(configs.flatten(portable(elsewhere)))
    assert "secret" not in text and "start_from=run" in text


def test_a_network_of_ones_own_leaves_as_jax_has_it(tmp_path, ends, images):
    from jax import export

    own = str(ROOT / "examples" / "resnet.py")
    make_run(tmp_path / "run", "../examples/resnet")
    run = vgg_jax.load(tmp_path / "run", config=own)
    program = export.deserialize(bytearray((run.export("stablehlo") / "model.stablehlo").read_bytes()))
    np.testing.assert_allclose(log(program.call(images)), log(scores.softmax(run._logits(images))), atol=1e-4)
    assert {p.name for p in run.export("safetensors").iterdir()} == {"model.safetensors", "README.md", "config.json"}
    card = (run.workdir / "export" / "safetensors" / "README.md").read_text()
    assert "\nA network that" in card and "In PyTorch" not in card
    assert all(
        f"{verb} --config resnet.py" in card for verb in ("import FOLDER --workdir run", "predict --workdir run")
    )
    argv = ["export", "--workdir", str(tmp_path / "run"), "--config", own, "--to"]
    for to in ("onnx", "pytorch"):
        pytest.importorskip({"onnx": "onnx", "pytorch": "torch"}[to])
        ends(cli._dispatch, [*argv, to], "one's own", "--to safetensors or stablehlo", alone=False)
    assert not (tmp_path / "run" / "export" / "onnx").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_pytorch_refuses_files_that_are_no_weights(name, finished_run, tmp_path):
    pytest.importorskip("torch")
    from vgg_jax.torch import network

    folder = vgg_jax.load(finished_run).export("safetensors", tmp_path / "out")
    (folder / "model.safetensors").unlink()
    for content in (b"version https://git-lfs.github.com/spec/v1\n", b"", b"\x80\x04broken"):
        (folder / name).write_bytes(content)
        with pytest.raises(vgg_jax.UserError, match="holds no network that vgg-jax has exported"):
            network.load(folder)
    described = json.loads((folder / "config.json").read_text())
    del described["vgg_jax"]["config"]["model"]["width"]
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(vgg_jax.UserError, match="holds no network that vgg-jax has exported"):
        network.load(folder)


def test_the_command_and_its_mistakes(finished_run, tmp_path, capsys, ends, monkeypatch):
    argv = ["export", "--workdir", str(finished_run), "--checkpoint", "best", "--to"]
    cli._dispatch([*argv, "safetensors", "--out", str(tmp_path / "out")])
    assert "README.md, config.json, model.safetensors" in capsys.readouterr().out
    ends(cli._dispatch, [*argv, "tflite"], "tflite")
    ends(cli._dispatch, [*argv, "stablehlo", "--out", str(tmp_path / "out" / "README.md")], "is a file", "--out")
    ends(cli._dispatch, [*argv, "stablehlo", "--out", str(tmp_path / "out")], "holds something else (README.md)")
    (tmp_path / "out" / ".gitattributes").touch()  # as in a clone of a Hub repository
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Path, "replace", Mock(side_effect=OSError("full")))
        vgg_jax.load(finished_run).export("safetensors", tmp_path / "out")
    cli._dispatch([*argv, "safetensors", "--out", str(tmp_path / "out")])  # the same again
    for to in ("onnx", "stablehlo"):
        ends(cli._dispatch, [*argv, to, "--half"], f"--half is for safetensors and pytorch, not for {to}")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)  # what Python then raises has the name of the module
        ends(cli._dispatch, [*argv, "onnx", "--out", str(tmp_path / "onnx")], "pip install 'vgg_jax[onnx]'")
        assert not (tmp_path / "onnx").exists()
    with pytest.raises(vgg_jax.UserError, match="no format 'tflite'"):
        vgg_jax.load(finished_run).export("tflite")


@pytest.mark.parametrize(("module", "install"), [("torch", "'vgg_jax[torch]'"), ("safetensors.numpy", "safetensors")])
@pytest.mark.parametrize(("error", "words"), [
    (ModuleNotFoundError("no", name="PACKAGE"), "this needs PACKAGE, which is not installed; pip install "),
    (ModuleNotFoundError("no", name="other"), "the installation is broken (no); pip install --upgrade "),
    (OSError("libcu.so cannot be loaded"), "the installation is broken (libcu.so cannot be loaded); pip install --upg"),
])  # fmt: skip
def test_a_package_that_is_missing_or_broken(error, words, module, install, monkeypatch):
    package = module.partition(".")[0]
    if getattr(error, "name", "") == "PACKAGE":
        error = ModuleNotFoundError("no", name=package)
    monkeypatch.setattr(outgoing, "importlib", Mock(import_module=Mock(side_effect=error)))
    with pytest.raises(vgg_jax.UserError) as refused:
        outgoing.need(module)
    assert str(refused.value).startswith(words.replace("PACKAGE", package)) and str(refused.value).endswith(install)


def test_half_precision(tmp_path):
    from safetensors.numpy import load_file

    run = vgg_jax.load(make_run(tmp_path / "run", "bn_dropout"))
    folders = [run.export("safetensors", tmp_path / str(half), half=half) for half in (False, True)]
    whole, halved = (load_file(folder / "model.safetensors") for folder in folders)
    assert whole.keys() == halved.keys() and "in float16" in (folders[1] / "README.md").read_text()
    for name, array in whole.items():
        counter = name.endswith("num_batches_tracked")
        assert array.dtype == (np.int64 if counter else np.float32)
        np.testing.assert_array_equal(halved[name], array if counter else array.astype(np.float16), strict=True)
    huge = jax.tree.map(lambda x: x * 1e6, run.variables)
    with pytest.raises(vgg_jax.UserError, match="too large for float16"):
        state(Outgoing(run.config, huge, run._facts, "latest", 7, half=True))
