"""Somebody's weights come in: they compute what they did in PyTorch, and what does not fit is named in one line."""

import hashlib
import json
import pickle
import shlex
from collections import OrderedDict

import numpy as np
import pytest
from flax import traverse_util
from small import ROOT, flags
from test_export import NETWORKS, TINY, make_run

import vgg_jax
from vgg_jax import cli, main
from vgg_jax.console.errors import UserError
from vgg_jax.evaluation import report
from vgg_jax.exchange.incoming import NORMALIZATIONS, import_weights
from vgg_jax.settings import code, config as configs

safetensors = pytest.importorskip("safetensors.numpy")

PLAN = {"A": "1 M 2 M 4 4 M 8 8 M 8 8 M", "B": "1 1 M 2 2 M 4 4 M 8 8 M 8 8 M"}  # in units of 4 channels
FIELDS = TINY | {"model.stages": "A"}
HEADS = {"chenyaofo": ("vgg16_bn", {"model.hidden": "(12, 12)"}), "kuangliu": ("vgg16_bn_kuangliu", {})}
HEADS["timm"] = HEADS["kuangliu"]


def theirs(layout, stages="A"):
    """A network as its authors write it, with random weights, and statistics that no fresh BatchNorm has."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    features, channels = [], 3
    for word in PLAN[stages].split():
        if word == "M":
            features.append(nn.MaxPool2d(2, 2))
        else:
            width = 4 * int(word)
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
            channels = width
    net = nn.Module()
    if layout == "chenyaofo":
        net.features = nn.Sequential(*features)
        hidden = [nn.Linear(32, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, 12), nn.ReLU(True), nn.Dropout()]
        net.classifier = nn.Sequential(*hidden, nn.Linear(12, 10))
        head = net.classifier
    elif layout == "kuangliu":
        net.features = nn.Sequential(*features, nn.AvgPool2d(1, 1))
        head = net.classifier = nn.Linear(32, 10)
    else:
        net.features, net.head = nn.Sequential(*features), nn.Module()
        head = net.head.fc = nn.Linear(32, 10)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim == 1:
                value.uniform_(-0.5, 0.5).add_(0 if name.endswith(("bias", "mean")) else 1)
    net.forward = lambda x: head(net.features(x).flatten(1))
    return net.eval()


def brought(source, workdir, layout="chenyaofo", normalization=None, **more):
    recipe, fields = HEADS[layout]
    overrides = FIELDS | fields | {k.replace("__", "."): v for k, v in more.items()}
    import_weights(source, workdir, recipe, normalization, overrides)
    return vgg_jax.load(workdir)


@pytest.mark.parametrize("stages", ["A", "B"])
@pytest.mark.parametrize("layout", HEADS)
def test_foreign_weights_compute_what_they_did(layout, stages, tmp_path):
    torch = pytest.importorskip("torch")
    net, file = theirs(layout, stages), tmp_path / "weights.pth"
    state = net.state_dict()
    if layout == "kuangliu":  # as its main.py saves a network on a GPU
        state = {"net": OrderedDict((f"module.{name}", value) for name, value in state.items()), "acc": 9.5, "epoch": 3}
    torch.save(state, file)
    mean, std = NORMALIZATIONS["chenyaofo"]
    run = brought(file, tmp_path / "run", layout, (mean, std), model__stages=stages)
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    x = (images / np.float32(255) - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        expected = net(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(run._logits(images), expected, rtol=1e-5, atol=1e-4)
    assert run.step == 0 and run.metrics == [] and run.summary is None


@pytest.mark.parametrize("name", NETWORKS)
def test_export_then_import_gives_every_array_back(name, tmp_path):
    first = vgg_jax.load(make_run(tmp_path / "run", name))
    for to in ["safetensors", "pytorch"]:
        if to == "pytorch":
            pytest.importorskip("torch")
        import_weights(first.export(to), tmp_path / to)
        again = vgg_jax.load(tmp_path / to)
        ours, back = (traverse_util.flatten_dict(run.variables, sep="/") for run in (first, again))
        assert ours.keys() == back.keys()
        for path, array in ours.items():
            assert array.dtype == back[path].dtype and np.asarray(array).tobytes() == np.asarray(back[path]).tobytes()
        assert configs.flatten(again.config) == configs.flatten(first.config)
        assert (again.step, again.class_names) == (7, first.class_names)
        assert again._facts["fingerprint"] == first._facts["fingerprint"]


def test_a_network_of_ones_own_comes_back(tmp_path, ends, monkeypatch, capsys):
    own = str(ROOT / "examples" / "resnet.py")
    first = vgg_jax.load(make_run(tmp_path / "run", "../examples/resnet"), config=own)
    folder = first.export("safetensors")
    monkeypatch.setattr(code, "_known", {})  # as in a new process
    ends(cli._dispatch, ["import", str(folder), "--workdir", str(tmp_path / "no")], "give that file as --config")
    cli._dispatch(["import", str(folder), "--workdir", str(tmp_path / "again"), "--config", own])
    monkeypatch.setattr(code, "_known", {})
    cli._dispatch(shlex.split(capsys.readouterr().out.rpartition("how good it is: ")[2])[1:])
    assert "on 360 test images" in capsys.readouterr().out
    again = vgg_jax.load(tmp_path / "again", config=own)
    ours, back = (traverse_util.flatten_dict(run.variables, sep="/") for run in (first, again))
    assert ours.keys() == back.keys() and all(np.array_equal(ours[path], back[path]) for path in ours)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A whole state dict by torchvision's names, {"features.0.weight": [4, 3, 3, 3], ...}."""
    folder = make_run(tmp_path_factory.mktemp("whole") / "run", "vgg16_bn", **{
        "model__stages": "A", "model__hidden": "(12, 12)",
    })  # fmt: skip
    return safetensors.load_file(vgg_jax.load(folder).export("safetensors") / "model.safetensors")


def saved(file, arrays):
    safetensors.save_file(arrays, file)
    return file


def test_the_commands_work_on_imported_weights(arrays, tmp_path, capsys, ends):
    file, run = saved(tmp_path / "weights.safetensors", arrays), tmp_path / "run"
    fields = flags(FIELDS | HEADS["chenyaofo"][1])
    cli._dispatch(
        ["import", str(file), "--config", "vgg16_bn", "--normalization", "half", "--workdir", str(run), *fields]
    )
    assert "mean 0.5000 0.5000 0.5000" in capsys.readouterr().out
    cli._dispatch(["evaluate", "--workdir", str(run)])
    said = capsys.readouterr().out
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"imported from weights.safetensors (SHA-256 {digest[:12]}" in said and "on 360 test images" in said
    facts = json.loads((run / "run.json").read_text())
    assert facts["origin"] == {"file": "weights.safetensors", "sha256": digest} and "device" not in facts
    again = ["--config", "vgg16_bn", *fields, "--config.train.batch_size=32", "--config.train.epochs=1"]
    again += ["--config.train.devices=1", "--config.data.train_size=64"]
    main.main([*again, f"--config.train.start_from={run}", "--workdir", str(tmp_path / "on")])
    assert f"starting with the weights of {run} at step 0" in capsys.readouterr().out
    ends(main.main, [*again, "--workdir", str(run)], "imported weights", f"--config.train.start_from={run}")
    ends(cli._dispatch, ["import", str(file), "--config", "vgg16_bn", "--workdir", str(run)], "is there already")


def test_other_precisions_are_widened_or_rounded(arrays, tmp_path):
    def classifier(name, turned):
        file = saved(tmp_path / f"{name}.safetensors", turned)
        return np.asarray(brought(file, tmp_path / name).variables["params"]["logits"]["kernel"]).T

    key, float_arrays = "classifier.6.weight", {k: v for k, v in arrays.items() if v.dtype == np.float32}
    half = classifier("half", {k: v.astype(np.float16) for k, v in float_arrays.items()})
    assert (half == arrays[key].astype(np.float16)).all()
    assert (classifier("double", {k: v.astype(np.float64) for k, v in float_arrays.items()}) == arrays[key]).all()
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    brain = {k: torch.tensor(v).bfloat16() for k, v in float_arrays.items()}
    save_file(brain, tmp_path / "brain.safetensors")
    torch.save(brain, tmp_path / "brain.pt")
    for name in ("brain.safetensors", "brain.pt"):
        run = brought(tmp_path / name, tmp_path / name.replace(".", "_"))
        back = np.asarray(run.variables["params"]["logits"]["kernel"]).T
        assert (back == brain[key].float().numpy()).all()


def test_timms_config_says_the_normalisation(arrays, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    saved(folder / "model.safetensors", arrays)
    its = {"architecture": "vgg11_bn", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (folder / "config.json").write_text(json.dumps(its))
    assert brought(folder, tmp_path / "run")._facts["std"] == [0.4, 0.5, 0.6]
    its["pretrained_cfg"]["std"] = [0, 0, 0]  # no deviation: those of the config's data are taken
    (folder / "config.json").write_text(json.dumps(its))
    assert 0 not in brought(folder, tmp_path / "zero")._facts["std"]
    assert brought(folder, tmp_path / "mine", "chenyaofo", NORMALIZATIONS["half"])._facts["std"] == [0.5] * 3


class Runs:
    def __reduce__(self):
        return print, ("a stranger's code runs",)


def changed(arrays, key, value):
    return arrays | {key: value(arrays[key]) if callable(value) else value}


def without(arrays, *parts):
    return {k: v for k, v in arrays.items() if not k.startswith(parts)}


ZEROS = np.zeros((2, 3), np.float32)
# name -> (the file's bytes or arrays, made from whole arrays and their bytes; words of the line)
BROKEN = {
    "empty.safetensors": (lambda a, b: b"", ["is empty"]),
    "empty.pt": (lambda a, b: b"", ["is empty"]),
    "truncated.safetensors": (lambda a, b: b[:-100], ["no whole safetensors file"]),
    "header.safetensors": (lambda a, b: b[:100], ["no whole safetensors file"]),
    "long_header.safetensors": (lambda a, b: b"\xff" * 8 + b[8:], ["no whole safetensors file"]),
    "text.safetensors": (lambda a, b: b"<html>404: Not Found</html>", ["no whole safetensors file"]),
    "text.pt": (lambda a, b: b"<html>404: Not Found</html>", ["PyTorch file|pickle"]),
    "lfs.bin": (lambda a, b: b"version https://git-lfs.github.com/spec/v1\n", ["PyTorch file|pickle"]),
    "code.pt": (lambda a, b: pickle.dumps({"a": Runs()}), ["refused", "can run code", "safetensors"]),
    "weights.npz": (lambda a, b: b, ["must end in .safetensors, .pt"]),
    "no_arrays.safetensors": (lambda a, b: {}, ["holds no arrays"]),
    "counters.safetensors": (lambda a, b: {"module.bn.num_batches_tracked": ZEROS}, ["no arrays but counters"]),
    "shape.safetensors": (lambda a, b: changed(a, "features.4.weight", ZEROS), [
        "features.4.weight has shape [2, 3]", "conv2_1 of the config takes [8, 4, 3, 3]"]),
    "classes.safetensors": (lambda a, b: changed(a, "classifier.6.weight", np.zeros((100, 12), np.float32)), [
        "classifier.6.weight has shape [100, 12]", "takes [10, 12]"]),
    "missing.safetensors": (lambda a, b: without(a, "features.5.running_var"), [
        "it has no features.5.running_var", "bn2_1 of the config takes [8]"]),
    "no_norm.safetensors": (lambda a, b: without(a, "features.1."), [
        "features.4.weight has shape [8, 4, 3, 3]", "bn1_1 of the config takes [4]"]),
    "no_bias.safetensors": (lambda a, b: without(a, "features.0.bias"), ["it has no features.0.bias", "takes [4]"]),
    "no_head.safetensors": (lambda a, b: without(a, "classifier."), ["it has no classifier.0.weight", "[12, 32]"]),
    "extra.safetensors": (lambda a, b: a | {"features.0.mask": ZEROS}, ["features.0.mask of shape [2, 3]", "no place"]),
    "longer.safetensors": (lambda a, b: a | {"classifier.9.weight": ZEROS}, ["classifier.9.weight", "no place"]),
    "resnet.safetensors": (lambda a, b: {"layer1.0.conv1.weight": ZEROS}, ["layer1.0.conv1.weight", "no place"]),
    "nan.safetensors": (lambda a, b: changed(a, "features.0.bias", lambda x: x * np.nan), [
        "features.0.bias has numbers that are not finite"]),
    "overflow.safetensors": (lambda a, b: changed(a, "features.0.bias", lambda x: x.astype(np.float64) + 1e300), [
        "not finite"]),
    "variance.safetensors": (lambda a, b: changed(a, "features.1.running_var", lambda x: -x), ["negative variance"]),
    "square.safetensors": (lambda a, b: without(a, "features.0.bias") | {"features.0².weight": ZEROS}, [
        "features.0².weight of shape|it has no features.0.bias"]),
    "digits.safetensors": (lambda a, b: without(a, "features.0.bias") | {f"features.{'7' * 5000}.weight": ZEROS}, [
        "it has no features.0.bias"]),
    "whole.safetensors": (lambda a, b: changed(a, "features.0.weight", lambda x: x.astype(np.int8)), ["type I8"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_and_nothing_is_written(name, arrays, tmp_path, ends):
    make, words = BROKEN[name]
    if name.endswith((".pt", ".bin")):
        pytest.importorskip("torch")
    whole = saved(tmp_path / "whole.st", arrays).read_bytes()
    made, file = make(arrays, whole), tmp_path / name
    saved(file, made) if isinstance(made, dict) else file.write_bytes(made)
    line = refused(file, tmp_path, ends)
    assert all(any(word in line for word in either.split("|")) for either in words), line


def refused(source, tmp_path, ends, *more):
    recipe, fields = HEADS["chenyaofo"]
    argv = ["import", str(source), "--workdir", str(tmp_path / "deep" / "run"), "--config", recipe]
    line = ends(cli._dispatch, [*argv, *flags(FIELDS | fields), *more], str(source))
    assert not (tmp_path / "deep").exists()
    return line


def test_broken_pytorch_files(arrays, tmp_path, ends):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array) for name, array in arrays.items()}

    def line(held, cut=None):
        torch.save(held, tmp_path / "weights.pt")
        content = (tmp_path / "weights.pt").read_bytes()
        (tmp_path / "weights.pt").write_bytes(content[:cut])
        return refused(tmp_path / "weights.pt", tmp_path, ends)

    assert "no whole PyTorch file" in line(state, -3000)
    assert "is refused" in line(torch.nn.Linear(2, 2))  # a whole module
    assert "no state dict" in line([1, 2]) and "no state dict" in line({"epoch": 3})
    assert "features.4.weight has shape" in line(state | {"features.4.weight": torch.zeros(2, 3)})
    assert "not of floating point" in line(state | {"features.0.bias": torch.zeros(4, dtype=torch.complex64)})
    eighth = torch.zeros(4, dtype=torch.float8_e4m3fn)
    assert "no whole PyTorch file" in line(state | {"features.0.bias": eighth})
    file = tmp_path / "page.pt"
    file.write_bytes(b"<!doctype html>404")
    assert "no whole PyTorch file" in refused(file, tmp_path, ends)


def test_broken_folders(arrays, tmp_path, ends):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "is a folder without model.safetensors" in refused(folder, tmp_path, ends)
    assert "there is no file" in refused(tmp_path / "nonesuch.pt", tmp_path, ends)
    assert "--normalization takes" in ends(
        cli._dispatch, ["import", "a.pt", "--workdir", str(tmp_path / "run"), "--normalization", "0.5", "0.5"]
    )
    saved(folder / "model.safetensors", arrays)
    assert "give --config" in ends(cli._dispatch, ["import", str(folder), "--workdir", str(tmp_path / "run")])
    for text in ('{"vgg_jax": ', "[" * 100_000):
        (folder / "config.json").write_text(text)
        assert "not a JSON object" in refused(folder, tmp_path, ends)
    exported = vgg_jax.load(make_run(tmp_path / "plain", "plain")).export("safetensors")
    its = json.loads((exported / "config.json").read_text())
    for section, value in (
        ("config", {}),
        ("run", {"class_names": 3}),
        ("step", -1),
        ("calibration", "hot"),
        ("calibration", {"temperature": 0}),
        ("calibration", {"temperature": 1.5, "images": "many", "split": "validation"}),
    ):
        (exported / "config.json").write_text(json.dumps(its | {"vgg_jax": its["vgg_jax"] | {section: value}}))
        argv = ["import", str(exported), "--workdir", str(tmp_path / "run")]
        assert "config.json is damaged" in ends(cli._dispatch, argv), section
    assert not (tmp_path / "run").exists()


CALIBRATION = {"step": 8, "temperature": 1.5, "split": "validation", "images": 100}


def test_an_exported_folder_keeps_its_recipe(tmp_path, monkeypatch):
    exported = vgg_jax.load(make_run(tmp_path / "run", "plain")).export("safetensors")
    for more, words in (
        ({"overrides": {"train.epochs": "3"}}, "train.epochs is part of the run"),
        ({"normalization": NORMALIZATIONS["half"]}, "leave out --normalization"),
    ):
        with pytest.raises(UserError, match=words):
            import_weights(exported, tmp_path / "again", **more)
    its = json.loads((exported / "config.json").read_text())
    its["vgg_jax"]["calibration"] = CALIBRATION
    (exported / "config.json").write_text(json.dumps(its))
    monkeypatch.chdir(tmp_path)
    import_weights(exported, tmp_path / "again", overrides={"data.data_dir": "."})
    assert json.loads((tmp_path / "again" / "run.json").read_text())["data_dir"] == str(tmp_path)
    assert json.loads((tmp_path / "again" / "calibration.json").read_text()) == {"latest": CALIBRATION}
    assert "imported from" in report.text(vgg_jax.load(tmp_path / "again").evaluate())
