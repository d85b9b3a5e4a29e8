"""A user's mistake ends in one line that says what is wrong and what to do, and in the right exit code."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from small import ROOT, SMALL, flags, write_folder

from vgg_jax import cli, evaluate, main as train, predict
from vgg_jax.datasets import archive, cifar, folder as folders, load as data
from vgg_jax.runs import loop as fit
from vgg_jax.settings import config as configs

DEFAULT = str(ROOT / "configs" / "default.py")
PLAIN = SMALL | {"data.train_size": "0", "data.validation_size": "0", "model.batch_norm": "none"}
FOLDER = PLAIN | {"data.name": "folder", "train.batch_size": "8", "train.epochs": "1"}
CIFAR = PLAIN | {"data.name": "cifar10"}
MINE = "import configs.default\ndef get_config():\n    c = configs.default.get_config()\n    {}\n    return c\n"
CAT, EPS = "train/cat/0.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n"
# EXIF data that ask for a rotation, with text where Pillow writes back a number (ResolutionUnit).
TURNED = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHHHIII", 8, 2, 0x112, 3, 1, 6, 0, 0x128, 2, 5, 38, 0) + b"Inch\0"
DIVERGING = SMALL | {"model.batch_norm": "none", "optimizer.learning_rate": "1e6"}
Ends = Callable[..., str]


def argv(workdir: Path, fields: dict[str, str], **more: Any) -> list[str]:
    given = fields | {name.replace("__", "."): str(value) for name, value in more.items()}
    return ["--config", DEFAULT, "--workdir", str(workdir), *flags(given)]


@pytest.mark.parametrize("case", [
    ("--config.train.epoch=3", "no config field train.epoch; did you mean train.epochs?"),
    ("--config.train.lr=3", "no config field train.lr; did you mean optimizer.learning_rate?"),
    ("--config.optimizer.wd=3", "did you mean optimizer.weight_decay?"),
    ("--config.model.bn=none", "did you mean model.batch_norm?"),
    ("--config.train.ema=1", "did you mean train.average?"),
    ("--config.train=3", "config.train is a group", "e.g. --config.train."),
    ("--config.model.stages=F", "config.model.stages cannot be 'F'", "one of A, B, D, E, light, speed"),
    ("--config.optimizer.name=sdg", "config.optimizer.name cannot be 'sdg'", "did you mean sgd?"),
    ("--config.train.epochs=1.5", "config.train.epochs takes a whole number, not '1.5'"),
    ("--config.train.epochs=", "config.train.epochs takes a whole number, not ''"),
    ("--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate takes a number, not 'nan'"),
    ("--config.model.hidden=(1.5,)", "config.model.hidden takes", "whole numbers", "1.5"),
    ("--config.train.epochs=0", "config.train.epochs must lie in [1, 1e+06], not 0"),
    ("--config.optimizer.learning_rate=-1", "config.optimizer.learning_rate must lie in [0, 1e+06], not -1"),
    (f"--config.optimizer.learning_rate=1{'0' * 400}", "config.optimizer.learning_rate must lie in [0, 1e+06]"),
    ("--config.data.image_size=36 --config.model.stages=D", "image_size=36", "5 pools", "multiple of 32"),
    ("--config.augment.small_size=16 --config.model.stages=A", "small_size=16", "stages A take no images smaller"),
    ("--config.augment.small_size=18", "small_size=18 does not fit: stages light take a multiple of 4"),
    ("--config.augment.small_size=16", "small_size needs config.model.global_pool=True"),
    ("--config.augment.small_size=32", "small_size must be less than config.data.image_size=32"),
    ("--config.train.micro_batch=12", "batch_size=32 does not divide into 3 equal", "the nearest that does is 33"),
    ("--config.model.residual=True --config.model.pool=first", "config.model.pool='first' is not for residual"),
    ("--config.optimizer.name=muon --config.optimizer.learning_rate=0", "learning_rate must be above 0 for muon"),
    ("--config.augment.flip=True", "config.augment.flip cannot be 'True'", "one of none, random, alternate"),
    ("--config.train.epochs", "--config.train.epochs needs a value: --config.train.epochs=VALUE"),
    ("--config.seed --config.train.epochs=1", "--config.seed needs a value: --config.seed=VALUE"),
    ("--workdir", "--workdir: expected one argument", "--help"),
    ("--epochs=3", "unrecognized arguments: --epochs=3", "--help"),
], ids=lambda case: case[0][:50])  # fmt: skip
def test_flag(case: Sequence[str], ends: Ends, tmp_path: Path) -> None:
    ends(train.main, [*argv(tmp_path / "run", SMALL), *case[0].split()], *case[1:])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", [
    ("def get_config(:\n", "invalid syntax"),
    ("import nosuchmodule\n", "nosuchmodule"),
    ("x = 1\n", "no get_config()", "configs/default.py"),
    ("def get_config():\n    return None\n", "get_config()", "ConfigDict"),
    (MINE.format("c.train.epoch = 3"), "train.epoch;", "did you mean train.epochs?"),
    (MINE.format("del c.train.epochs"), "train.epochs"),
], ids=lambda case: case[1])  # fmt: skip
def test_config_file(case: Sequence[str], ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(case[0])
    where = f"--config.data.data_dir={tmp_path}"
    ends(train.main, ["--config", str(tmp_path / "mine.py"), where], str(tmp_path / "mine.py"), *case[1:])
    for name in ("nosuch.py", "plain.py"):  # the name of a shipped config, but no such file
        missing = str(tmp_path / name)
        ends(train.main, ["--config", missing, where, "--config.seed=-1"], f"no config file {missing}", "quickstart")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of 5 x 4 training and 6 test images that passes for the official one, and no network."""
    source, file = cifar.SOURCES["cifar10"], tmp_path / "small.tar.gz"
    rng, folder = np.random.default_rng(0), tmp_path / source.folder
    folder.mkdir()
    for name in (*source.train, *source.test):
        (folder / name).write_bytes(rng.integers(0, 10, (6 if name in source.test else 4, 3073), np.uint8).tobytes())
    (folder / source.names).write_text("\n".join("abcdefghij"))
    with tarfile.open(file, "w:gz") as tar:
        tar.add(folder, source.folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar.SOURCES, "cifar10", source._replace(sha256=digest, sizes=(20, 6)))
    monkeypatch.setattr("socket.create_connection", Mock(side_effect=OSError("unreachable")))
    return file


def test_no_data_and_no_network(ends: Ends, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(archive, "_URL", "https://192.0.2.1/")  # TEST-NET-1: no host answers
    ways = ("--config.data.data_dir=", "--config.data.archive=", "cifar-10-binary.tar.gz", "configs/quickstart.py")
    assert archive._REPLY_SECONDS < archive._TOTAL_SECONDS < 10
    monkeypatch.setattr(archive, "_REPLY_SECONDS", 0.5)
    monkeypatch.setattr(archive, "_TOTAL_SECONDS", 1)
    given, begun = argv(tmp_path / "run", CIFAR, data__data_dir=tmp_path), time.monotonic()
    ends(train.main, given, f"no cifar10 in {tmp_path}", *ways)
    assert time.monotonic() - begun < 20
    monkeypatch.setattr("socket.create_connection", Mock(side_effect=OSError("unreachable")))
    ends(train.main, given, f"no cifar10 in {tmp_path}", "unreachable", *ways)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", [
    (lambda shard: os.truncate(shard, 100_000), "is damaged", "delete it"),
    (lambda shard: shard.unlink(), "is damaged", "delete it"),
    (lambda shard: [p.rename(str(p).replace("array_", "tf")) for p in shard.parent.iterdir()],
     "TensorFlow", "--config.data.data_dir"),
], ids=("truncated", "missing", "tfrecord"))  # fmt: skip
def test_damaged_data(case: Any, official: Path, ends: Ends, tmp_path: Path) -> None:
    cifar.load("cifar10", str(tmp_path), str(official))  # also caches the images, which must not hide the damage
    shard = next(tmp_path.glob("cifar10/*/*train*array_record*"))
    case[0](shard)
    ends(train.main, argv(tmp_path / "run", CIFAR, data__data_dir=tmp_path), str(shard.parent), *case[1:])


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"other" + b, None])
def test_wrong_archive(damage: Callable[[bytes], bytes] | None, official: Path, ends: Ends, tmp_path: Path) -> None:
    file, words = tmp_path / "given.tar.gz", ["no archive"]
    if damage:
        file.write_bytes(damage(official.read_bytes()))
        words = ["SHA-256", "download it again"]
        (tmp_path / "b/downloads").mkdir(parents=True)  # the next start looks here first
        there = shutil.copy(file, tmp_path / "b/downloads/cifar-10-binary.tar.gz")
        ends(train.main, argv(tmp_path / "run", CIFAR, data__data_dir=tmp_path / "b"), str(there), "delete it", *words)
    given = argv(tmp_path / "run", CIFAR, data__data_dir=tmp_path / "a", data__archive=file)
    ends(train.main, given, str(file), "cifar-10-binary.tar.gz", *words)
    assert not list(tmp_path.glob("*/cifar10*"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", {"cat": 6, "dog": 6})


@pytest.mark.parametrize("case", [
    (lambda root: shutil.rmtree(root / "train"), "no folder", "train/<class>/*.png"),
    (lambda root: [p.unlink() for p in root.glob("train/cat/*")], "no pictures (.png", "train/cat"),
    (lambda root: (root / "train/fox").mkdir(), "'fox' is in only one of", "train"),
    (lambda root: (root / "test/fox").mkdir(), "'fox' is in only one of", "test"),
    (lambda root: (root / CAT).write_bytes(b"junk"), "cannot read picture", CAT),
    (lambda root: os.truncate(root / "test/dog/5.png", 999), "cannot read picture", "test/dog/5.png"),
    (lambda root: (root / CAT).write_bytes(EPS), "neither PNG nor JPEG", CAT),  # and not run it
    (lambda root: Image.new("L", (32, 32)).save(root / CAT, "JPEG", exif=TURNED), "cannot read picture", CAT),
    (lambda root: Image.new("L", (40, 32)).save(root / CAT), CAT + " is 40x32, not 32x32", ".resize=True"),
    (lambda root: Image.new("1", (8200, 8200)).save(root / CAT), CAT + " is 8200x8200", str(folders.MAX_PIXELS)),
    (lambda root: Image.new("1", (10000, 9500)).save(root / CAT), CAT, "pixels"),  # Pillow warns of it
    (lambda root: Image.fromarray(np.full((32, 32), 9999, np.uint16)).save(root / CAT), CAT, "8 bits"),  # or white
])  # fmt: skip
def test_folder(case: Any, pictures: Path, ends: Ends, tmp_path: Path) -> None:
    case[0](pictures)
    ends(train.main, argv(tmp_path / "run", FOLDER, data__data_dir=pictures), str(pictures), *case[1:])
    assert not (tmp_path / "run").exists()


def test_folder_that_works(pictures: Path) -> None:
    """With resize, any size works; hidden files, hidden folders and other files are neither pictures nor classes."""
    Image.new("RGB", (40, 33), "red").save(pictures / CAT)
    for name in ("train/.cache", "train/cat/folder.png"):
        (pictures / name).mkdir()
    for name in ("train/cat/._0.png", "train/cat/notes.txt", "train/stray.png"):
        (pictures / name).write_bytes(b"no picture")
    config = configs.load(DEFAULT, FOLDER | {"data.data_dir": str(pictures), "data.resize": "True"})
    loaded = data.load(config)["train"]
    assert loaded.images.shape == (12, 32, 32, 3) and loaded.class_names == ("cat", "dog")
    assert (loaded.images[0] == (255, 0, 0)).all()


@pytest.mark.parametrize(("batch", "kept", "held_out"), [(13, 0, 0), (8, 13, 0), (8, 7, 6), (8, 0, 12)])
def test_too_few_images(batch: int, kept: int, held_out: int, pictures: Path, ends: Ends, tmp_path: Path) -> None:
    words = [f"batch_size={batch}"] if batch > 12 else [f"validation_size={held_out}", f"train_size={kept}"]
    sizes = {"train__batch_size": batch, "data__train_size": kept, "data__validation_size": held_out}
    ends(train.main, argv(tmp_path / "run", FOLDER, data__data_dir=pictures, **sizes), "12 training images", *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(run directory, pictures) of a run of one epoch; tests that damage it copy it first."""
    root = tmp_path_factory.mktemp("finished")
    folder = write_folder(root / "pictures", {"cat": 6, "dog": 6})
    train.main(argv(root / "run", FOLDER, data__data_dir=folder))
    return root / "run", folder


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_run_of_other_config_or_data(run: Path, pictures: Path, ends: Ends) -> None:
    for split in ("train", "test"):
        Image.new("RGB", (32, 32)).save(pictures / split / "cat/0.png")
    changed = argv(run, FOLDER, data__data_dir=pictures, seed=7, train__epochs=9)
    line = ends(train.main, changed, str(run), "seed (0 there, 7 now), train.epochs (1 there, 9 now);", "--workdir")
    assert "data_dir" not in line and "batch_size" not in line
    ends(train.main, argv(run, FOLDER, data__data_dir=pictures), str(run), "fingerprint", "--workdir")
    given = ["--workdir", str(run), f"--config.data.data_dir={pictures}"]
    ends(evaluate.main, given, "test images", "fingerprint", "--config.data.data_dir=")


def test_a_run_remembers_where_its_images_were(
    pictures: Path, ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on a relative folder, evaluated from elsewhere; then that folder is moved."""
    elsewhere, moved = tmp_path / "elsewhere", tmp_path / "moved"
    elsewhere.mkdir()
    monkeypatch.chdir(pictures.parent)
    train.main(argv(tmp_path / "run", FOLDER, data__data_dir=pictures.name))
    monkeypatch.chdir(elsewhere)
    evaluate.main(["--workdir", str(tmp_path / "run")])
    pictures.rename(moved)
    given = ["--workdir", str(tmp_path / "run")]
    ends(evaluate.main, given, f"were in {pictures}, which is not there any more", "--config.data.data_dir=DIR")
    evaluate.main([*given, "--config.data.data_dir=../moved"])
    (elsewhere / pictures.name).symlink_to(moved)  # run and images copied together: as given, it is right again
    evaluate.main(given)
    assert capsys.readouterr().out.count("12 test images") == 2


@pytest.mark.parametrize("name", ["file", "file/run", "loop", "lr[0.1]", "/proc/nowhere/run", "n" * 300, "locked"])
def test_work_directory(name: str, pictures: Path, ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lr[0.1]: Orbax saves in a folder with such a name, but cannot read it back."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    if name == "locked":
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    ends(train.main, argv(tmp_path / name, FOLDER, data__data_dir=pictures), str(tmp_path / name), "--workdir")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("file", ["config.json", "run.json"])
@pytest.mark.parametrize("text", ["", '{"seed": ', "{}", "[]", '{"seed": 0, "fingerprint": {}}', "\0", "[" * 100_000])
def test_damaged_run(file: str, text: str, run: Path, finished: tuple[Path, Path], ends: Ends) -> None:
    (run / file).write_text(text)
    ends(train.main, argv(run, FOLDER, data__data_dir=finished[1]), str(run), "--workdir")
    ends(evaluate.main, ["--workdir", str(run)], str(run), "damaged", file)


def test_damaged_or_missing_checkpoint(run: Path, ends: Ends) -> None:
    for file in [p for p in run.glob("latest/*/variables/**/*") if p.is_file()]:
        file.write_bytes(b"")
    ends(evaluate.main, ["--workdir", str(run)], str(run / "latest"), "damaged", alone=False)
    for which in ("latest", "best"):
        shutil.rmtree(run / which)
        given = ["--workdir", str(run), "--checkpoint", which]
        ends(evaluate.main, given, f"no checkpoint in {run / which}", "train it first", "--checkpoint")


def test_using_a_run(finished: tuple[Path, Path], ends: Ends, tmp_path: Path) -> None:
    where, picture = ["--workdir", str(finished[0])], str(finished[1] / "test/cat/0.png")
    ends(evaluate.main, [*where, "--split=validation"], "no validation images", "config.data.validation_size")
    ends(evaluate.main, [*where, "--split=trian"], "invalid choice: 'trian'", "validation", "--help")
    ends(evaluate.main, [*where, "--config.train.save_minutes=x"], "config.train.save_minutes takes a number")
    for main, words in ((evaluate.main, []), (predict.main, [picture])):
        ends(main, [*where, *words, "--config.model.stages=A"], "model.stages is part of the run", "data.data_dir")
        for none in (tmp_path, tmp_path / "nosuch"):
            ends(main, ["--workdir", str(none), *words], f"{none} is no run directory", "train one first")
    inside = [tmp_path / "runs" / name / "run.json" for name in ("b", "a")]
    for file in inside:
        file.parent.mkdir(parents=True)
        file.touch()
    ends(evaluate.main, ["--workdir", str(tmp_path / "runs")], f"give {tmp_path / 'runs' / 'a'} or another of a, b")
    ends(predict.main, [*where, str(tmp_path / "nosuch.png")], f"no picture {tmp_path / 'nosuch.png'}")
    ends(predict.main, [*where, str(tmp_path)], f"cannot read picture {tmp_path}")
    ends(cli._dispatch, ["trian", *where], "no verb 'trian'", "one of train, reproduce,")
    ends(cli._dispatch, ["report", *where], "give the directory itself, without --workdir", "--help")
    ends(cli._dispatch, ["demo", *where], "give the directory itself, without --workdir")
    ends(cli._dispatch, ["evaluate", "--calibrat"], "did you mean --calibrate?")
    ends(cli._dispatch, ["doctor", "--config.train.epoch=3"], "doctor takes no --config fields")
    (tmp_path / "file").touch()
    ends(
        cli._dispatch,
        ["sweep", "--config=modern", "--config.data.validation_size=9", "--workdir", str(tmp_path / "file")],
        "is a file; give another --workdir",
    )
    ends(cli._dispatch, ["export", "--to=onnx"], "required: --workdir", "--help")
    for alone in (["evaluate", "--checkpoint=best"], ["predict", "--config=my.py", picture]):
        ends(cli._dispatch, alone, "--checkpoint and --config are for a run of yours; add --workdir RUN")
    ends(cli._dispatch, ["evaluate", "--calibrate"], "the shipped network is calibrated already")


def test_a_reader_that_goes_away_is_told_by_the_exit_code_alone() -> None:
    gone, writing = os.pipe()
    os.close(gone)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vgg_jax", "--help"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_loss_not_finite(ends: Ends, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    line = ends(train.main, argv(tmp_path / "a", DIVERGING), "not finite at step", "--config.optimizer.learning_rate")
    assert "kept" not in line  # nothing was saved yet
    ends(evaluate.main, ["--workdir", str(tmp_path / "a")], f"no checkpoint in {tmp_path / 'a/latest'}", "--workdir")
    monkeypatch.setattr(fit, "CHUNK_SECONDS", 1e9)  # one step, a checkpoint, then the rest of the epoch
    given = argv(tmp_path / "b", DIVERGING, train__save_minutes=0)
    line = ends(train.main, given, "not finite at step", "checkpoint", "kept", "--config.optimizer.learning_rate")
    evaluate.main(["--workdir", str(tmp_path / "b")])
    out = capsys.readouterr().out
    good = int(re.findall(r"latest checkpoint \(step (\d+)\)", out)[0])
    assert 1 <= good < int(re.findall(r"at step (\d+)", line)[0]) and "nan" not in out
