"""Generated bad inputs: each ends in a UserError or is used as written, never in a traceback or a hang.

VGG_JAX_CASES=300 runs so many cases; a failing case names its seed.
"""

import contextlib
import dataclasses
import faulthandler
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import traceback
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from small import ALL, ROOT, write_folder

from vgg_jax import describe
from vgg_jax.console.errors import UserError
from vgg_jax.datasets import archive, cifar, folder as folders, load as data
from vgg_jax.model.forward import make_forward
from vgg_jax.model.network import make_model
from vgg_jax.runs import checkpoint, damage, directory as rundir, seal
from vgg_jax.settings import config as configs

CASES = int(os.environ.get("VGG_JAX_CASES", "300" if ALL else "70"))
SHIPPED = sorted((ROOT / "configs").glob("[a-z]*.py"))
JUNK = [
    "", " ", "0", "-1", "1.5", "1e400", "nan", "inf", "None", "True", "()", "(1,", "(1, 'a')", "[]", "{}", "9" * 400,
    "../..", "\0", "ü", "a b", "cifar10", "0x10", "1_000", "'", "[[[[" * 200, "lambda: 0", "__import__('os')", "1,2",
]  # fmt: skip


@dataclasses.dataclass
class Scene:
    """The inputs that the cases start from; each case damages a copy."""

    root: Path
    run: Path
    pictures: Path
    official: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory, finished_run):
    root = tmp_path_factory.mktemp("generated")
    pictures = write_folder(root / "pictures", {"cat": 3, "dog": 3})
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(pictures / "train/cat/photo.jpg")
    official = root / "official"
    official.mkdir()
    source, rng = cifar.SOURCES["cifar10"], np.random.default_rng(0)
    for name in (*source.train, *source.test):
        (official / name).write_bytes(rng.integers(0, 10, (4, 3073), np.uint8).tobytes())
    (official / source.names).write_text("\n".join("abcdefghij"))
    return Scene(root, finished_run, pictures, official)


def mutate(content: bytes, rng) -> bytes:
    """Cut, flip, insert, repeat or replace some of the bytes."""
    at, length = sorted(rng.integers(0, len(content) + 1, 2)) if content else (0, 0)
    noise = rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8).tobytes()
    return [
        content[:at],
        content[:at] + content[length:],
        content[:at] + noise + content[at:],
        content[:at] + noise + content[at + len(noise) :],
        content[:length] + content[at:],
        noise,
        b"",
    ][rng.integers(7)]


def override(scene, rng, there):
    """A shipped config with junk in one field: refused, or the field has the given value."""
    file = SHIPPED[rng.integers(len(SHIPPED))]
    fields = list(configs.flatten(configs.load(str(file))))
    field, text = fields[rng.integers(len(fields))], JUNK[rng.integers(len(JUNK))]
    if rng.random() < 0.2:
        field = mutate(field.encode(), rng).decode(errors="replace")
    config = configs.load(str(file), {field: text})
    value = configs.flatten(config)[field]
    assert str(value).strip("(),") == text.strip("(),[] ") or float(value) == number(text), value


def number(text: str) -> float:
    """What Python reads: 1_000 is 1000, 0x10 is 16."""
    try:
        return int(text, 0)
    except ValueError:
        return float(text)


def config_file(scene, rng, there):
    """A shipped config with lines lost, doubled or overwritten, as by an editing mistake."""
    lines = SHIPPED[rng.integers(len(SHIPPED))].read_text().splitlines()
    for _ in range(rng.integers(1, 4)):
        i, j = rng.integers(0, len(lines), 2)
        lines[i : i + 1] = [[], [lines[i]] * 2, [lines[j]], [lines[i][: len(lines[i]) // 2]]][rng.integers(4)]
    (there / "mine.py").write_text("\n".join(lines))
    with contextlib.redirect_stdout(io.StringIO()):
        describe.main(["--config", str(there / "mine.py")])
    configs.override(configs.load(str(there / "mine.py")), {})


def an_archive(scene, rng, there):
    """A damaged archive, or one with members outside the folder: nothing is unpacked."""
    file, source = there / "given.tar.gz", cifar.SOURCES["cifar10"]
    with tarfile.open(file, "w:gz") as tar:
        tar.add(scene.official, source.folder)
        for name in ("../escaped", "/tmp/vgg_jax_escaped", f"{source.folder}/../../escaped"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo(f"{source.folder}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    content = file.read_bytes()
    trusted = hashlib.sha256(content).hexdigest()
    bad = rng.random() < 0.7
    if bad:
        file.write_bytes(mutate(content, rng))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cifar.SOURCES, "cifar10", source._replace(sha256=trusted, sizes=(20, 4)))
        patch.setattr(archive, "_open", Mock(side_effect=OSError("unreachable")))
        train, _, _ = cifar.load("cifar10", str(there / "data"), str(file))
    assert len(train[0]) == 20 and (not bad or file.read_bytes() == content)
    assert not [p for p in there.rglob("*") if p.is_symlink()] and not Path("/tmp/vgg_jax_escaped").exists()
    assert {p.name for p in there.iterdir()} == {"given.tar.gz", "data"}


def folder(scene, rng, there):
    """A folder of pictures with faults."""
    root = Path(shutil.copytree(scene.pictures, there / "pictures"))
    entries = sorted(root.rglob("*"))
    for _ in range(rng.integers(1, 4)):
        entry = entries[rng.integers(len(entries))]
        if not entry.exists():
            continue
        choice = rng.integers(5)
        if choice == 0:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        elif choice == 1 and entry.is_file():
            entry.write_bytes(mutate(entry.read_bytes(), rng))
        elif choice == 2:
            (entry if entry.is_dir() else entry.parent).joinpath("loop.png").unlink(missing_ok=True)
            (entry if entry.is_dir() else entry.parent).joinpath("loop.png").symlink_to("loop.png")
        elif choice == 3:
            entry.rename(entry.with_name(["x.png", "ü.PNG", ".hidden", "a b", "train"][rng.integers(5)]))
        else:
            Image.new("RGB", (int(rng.integers(1, 64)), 32)).save((entry if entry.is_dir() else entry.parent) / "n.png")
    fields = {"data.name": "folder", "data.data_dir": str(root), "data.resize": str(bool(rng.integers(2)))}
    loaded = data.load(configs.load(str(ROOT / "configs/default.py"), fields))
    assert loaded["train"].images.shape[1:] == (32, 32, 3) and set(loaded["train"].labels) <= {0, 1, 2}
    assert len(loaded["train"]) == sum(len(folders._pictures(root / "train" / c)) for c in loaded["train"].class_names)


def picture(scene, rng, there):
    file = [*scene.pictures.glob("train/cat/*")][rng.integers(4)]
    content = file.read_bytes()
    if file.suffix == ".png" and rng.random() < 0.3:  # a header that promises more than memory holds
        content = content[:16] + rng.integers(0, 256, 8, np.uint8).tobytes() + content[24:]
    else:
        content = mutate(content, rng)
    (there / file.name).write_bytes(content)
    read = folders.read_picture(there / file.name, 32, rng.choice(["area", "bicubic", ""]))
    assert read.shape == (32, 32, 3) and read.dtype == np.uint8


def a_checkpoint(scene, rng, there):
    """Any file of the newest checkpoint damaged: the previous one is used, or none."""
    run = Path(shutil.copytree(scene.run, there / "run"))
    which = ("latest", "best")[rng.integers(2)]
    steps = sorted(damage.saved_steps(run, which))
    newest = run / which / str(steps[-1])
    files = sorted(p for p in newest.rglob("*") if p.is_file())
    damaged = files[rng.integers(len(files))]
    before = damaged.read_bytes()
    damaged.unlink() if rng.random() < 0.2 else damaged.write_bytes(mutate(before, rng))
    same = damaged.exists() and damaged.read_bytes() == before
    config, facts = rundir.read_run(run)
    step, _ = checkpoint.load_model(run, which, config, len(facts["class_names"]))
    assert step == steps[-1 if same else -2]
    assert (seal.fault(newest) is None) == same


def a_run(scene, rng, there):
    """config.json or run.json damaged, as bytes or with a value of another type."""
    run = Path(shutil.copytree(scene.run, there / "run"))
    file = run / ("config.json", "run.json")[rng.integers(2)]
    if rng.random() < 0.5:
        file.write_bytes(mutate(file.read_bytes(), rng))
    else:
        tree = node = json.loads(file.read_text())
        while True:
            key = list(node)[rng.integers(len(node))]
            if not isinstance(node[key], dict):
                break
            node = node[key]
        node[key] = [None, -1, 1.5, "x", [], [None], {}, True, 1e999][rng.integers(9)]
        file.write_text(json.dumps(tree))
    config, facts = rundir.read_run(run)
    _, variables = checkpoint.load_model(run, "latest", config, len(facts["class_names"]))
    model = make_model(config, len(facts["class_names"]))
    make_forward(model, facts["mean"], facts["std"]).eval_shape(variables, np.zeros((1, 32, 32, 3), np.uint8))


KINDS = (override, override, config_file, an_archive, folder, picture, a_checkpoint, a_run)


@pytest.mark.filterwarnings("ignore")  # warnings from Pillow and tfds about damaged files
def test_generated_bad_inputs(scene, tmp_path, capsys):
    """One seed per case."""
    ended, failed = {"refused": 0, "good": 0}, []
    for seed in range(CASES):
        kind, rng, there = KINDS[seed % len(KINDS)], np.random.default_rng(seed), tmp_path / str(seed)
        there.mkdir()
        faulthandler.dump_traceback_later(300, exit=True, file=sys.__stderr__)  # a hang
        try:
            kind(scene, rng, there)
            ended["good"] += 1
        except UserError as error:
            assert len(str(error)) > 10, seed
            ended["refused"] += 1
        except Exception:
            failed.append(f"seed {seed}, {kind.__name__}: {traceback.format_exc(limit=-3)}")
        finally:
            faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(there)
    assert not failed, "\n".join(failed)
    assert ended["refused"] > CASES // 3
    with capsys.disabled():
        print(f"{CASES} generated inputs: {ended}")
