"""A small version of the official binary archive: prepared without TensorFlow, read back pixel for pixel."""

import contextlib
import hashlib
import http.server
import io
import json
import sys
import tarfile
import tempfile
import threading
import types

import numpy as np
import pytest

from vgg_jax.console.errors import UserError
from vgg_jax.datasets import archive as archives, cifar
from vgg_jax.settings import cache


def add_member(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(params=["cifar10", "cifar100"])
def official(request, tmp_path, monkeypatch):
    """(name, archive, train (images, labels), test): a small archive that passes for the official one."""
    name, rng = request.param, np.random.default_rng(0)
    source = cifar.SOURCES[name]._replace(sizes=(20, 6))
    classes = 10 if name == "cifar10" else 100
    arrays = []
    archive = tmp_path / source.archive
    with tarfile.open(archive, "w:gz") as tar:
        for files, size in ((source.train, 20), (source.test, 6)):
            images = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
            labels = rng.integers(0, classes, size).astype(np.uint8)
            coarse = np.zeros((size, source.label_bytes - 1), np.uint8)
            rows = np.concatenate([coarse, labels[:, None], images.transpose(0, 3, 1, 2).reshape(size, -1)], 1)
            for file, part in zip(files, np.split(rows, len(files))):
                add_member(tar, f"{source.folder}/{file}", part.tobytes())
            arrays.append((images, labels))
        add_member(tar, f"{source.folder}/{source.names}", "\n".join(f"name{i}" for i in range(classes)).encode())
        add_member(tar, "../outside.txt", b"must not be written")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar.SOURCES, name, source._replace(sha256=digest))
    return name, archive, *arrays


def by_content(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


def test_prepare_and_read_back(official, tmp_path, monkeypatch):
    name, archive, train, test = official
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    got_train, got_test, names = cifar.load(name, str(tmp_path / "tfds"), str(archive))
    assert by_content(*got_train) == by_content(*train)  # tfds shuffles once
    assert by_content(*got_test) == by_content(*test)
    assert names == tuple(f"name{i}" for i in range(10 if name == "cifar10" else 100))
    assert "tensorflow" not in sys.modules
    assert not (tmp_path / "outside.txt").exists() and not list((tmp_path / "temporary").iterdir())
    archive.unlink()  # from here on only the prepared directory is needed
    again = cifar.load(name, str(tmp_path / "tfds"))
    np.testing.assert_array_equal(again[0][0], got_train[0])


def test_another_process_prepares_it_first(official, tmp_path, monkeypatch):
    """If another process has prepared the data meanwhile, its directory is used."""
    name, archive, train, _ = official
    cifar.load(name, str(tmp_path / "tfds"), str(archive))
    (prepared,) = (tmp_path / "tfds" / name).iterdir()
    aside, make = tmp_path / "aside", archives._make_builder
    prepared.rename(aside)

    def make_slow(*args):
        builder = make(*args)
        split = builder._split_generators
        builder._split_generators = lambda *more: (aside.rename(prepared), split(*more))[1]
        return builder

    monkeypatch.setattr(archives, "_make_builder", make_slow)
    assert cifar.prepare(name, archive, tmp_path / "tfds") == prepared and not aside.exists()
    assert by_content(*cifar.load(name, str(tmp_path / "tfds"))[0]) == by_content(*train)


@pytest.mark.parametrize(
    ("reply", "words"),
    [("whole", ""), ("of no said length", ""), ("cut off", "broke"), ("another page", "is not the archive")],
)
def test_download(reply, words, tmp_path, monkeypatch):
    content = bytes(range(256)) * 1000

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if reply != "of no said length":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write({"cut off": content[:-1], "another page": content[::-1]}.get(reply, content))

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(archives, "_URL", f"http://localhost:{server.server_port}/")
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(cifar.SOURCES, "cifar10", cifar.SOURCES["cifar10"]._replace(sha256=digest))
        with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
            file = archives.download("cifar10", tmp_path)
            assert file.read_bytes() == content
    left = [p.name for p in (tmp_path / "downloads").iterdir()]
    assert left == ([] if words else ["cifar-10-binary.tar.gz"])


def test_a_folder_that_cannot_be_written_to_is_not_blamed_on_the_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(archives, "_open", lambda url: io.BytesIO())
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot download cifar10 to .* \(Permission denied\); give another folder"):
        archives.download("cifar10", tmp_path)


def test_ctrl_c_leaves_no_part_of_a_download(tmp_path, monkeypatch):
    class Reply(io.BytesIO):
        headers = types.MappingProxyType({"Content-Length": "9000000"})

        def read(self, size=-1):
            raise KeyboardInterrupt

    monkeypatch.setattr(archives, "_open", lambda url: Reply())
    with pytest.raises(KeyboardInterrupt):
        archives.download("cifar10", tmp_path)
    assert not list((tmp_path / "downloads").iterdir())


def test_tfds_data_dir_is_honoured(official, tmp_path, monkeypatch):
    name, archive, *_ = official
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "by_environment"))
    cifar.load(name, "", str(archive))
    assert cifar.find_prepared(name, tmp_path / "by_environment")


def test_a_damaged_cache_is_made_anew(official, tmp_path, monkeypatch):
    name, archive, *_ = official
    monkeypatch.setenv("VGG_JAX_CACHE", str(tmp_path / "cache"))
    first = cifar.load(name, str(tmp_path / "tfds"), str(archive))
    (file,) = cache.directory().glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = cifar.load(name, str(tmp_path / "tfds"))
    np.testing.assert_array_equal(again[0][0], first[0][0])
    file.write_bytes(content[:100])
    np.testing.assert_array_equal(cifar.load(name, str(tmp_path / "tfds"))[1][0], first[1][0])


EVIL = {"type": "evil.Feature", "content": {}}


@pytest.mark.parametrize(("file", "change"), [
    ("features.json", lambda _: {"pythonClassName": "evil.Feature"}),
    ("features.json", lambda old: old | {"jsonFeature": {"json": json.dumps({"x": EVIL})}, "featuresDict": None}),
    ("dataset_info.json", lambda old: old | {"features": {"pythonClassName": "evil.Feature"}}),
], ids=("plain", "in_a_string", "in_the_info"))  # fmt: skip
def test_no_class_of_a_stranger_is_imported(file, change, official, tmp_path, monkeypatch):
    name, archive, *_ = official
    cifar.load(name, str(tmp_path / "tfds"), str(archive))
    (prepared,) = (tmp_path / "tfds" / name).iterdir()
    old = json.loads((prepared / file).read_text())
    (prepared / file).write_text(json.dumps({k: v for k, v in change(old).items() if v is not None}))
    (tmp_path / "evil.py").write_text("raise SystemExit('this code was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"names the class evil\.Feature"):
        cifar.load(name, str(tmp_path / "tfds"))
