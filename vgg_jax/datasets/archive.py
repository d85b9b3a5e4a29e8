"""The official binary archives of CIFAR-10 and CIFAR-100: download, check, prepare without TensorFlow."""

import contextlib
import errno
import hashlib
import http.client
import importlib
import io
import os
import queue
import ssl
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import numpy as np
from PIL import Image

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.console.progress import Progress

_PIXELS = 32 * 32 * 3
_URL = "https://www.cs.toronto.edu/~kriz/"
_REPLY_SECONDS, _TOTAL_SECONDS = 8, 9  # longest wait for the server's reply, and with its name lookup
_CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class Source(NamedTuple):
    """An official binary archive; sha256 is the one that tensorflow-datasets lists."""

    archive: str
    sha256: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int  # label bytes at the start of each record; the last one is the class
    names: str
    sizes: tuple[int, int]


SOURCES = {
    "cifar10": Source(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
        1,
        "batches.meta.txt",
        (50_000, 10_000),
    ),
    "cifar100": Source(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        "cifar-100-binary",
        ("train.bin",),
        ("test.bin",),
        2,
        "fine_label_names.txt",
        (50_000, 10_000),
    ),
}


def download(name: str, root: Path) -> Path:
    """Fetch the official archive to root/downloads; without network, raises UserError within 10 s."""
    source = SOURCES[name]
    target = root / "downloads" / source.archive
    if target.exists():
        return target
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        with _open(_URL + source.archive) as reply:
            target.parent.mkdir(parents=True, exist_ok=True)
            size = int(reply.headers["Content-Length"] or 0)  # 0: unknown
            progress = Progress(size >> 20, f"downloading {name}", " MiB")
            with contextlib.closing(progress), open(partial, "wb") as f:
                while block := reply.read(1 << 20):
                    f.write(block)
                    progress.update(1)
            if size and partial.stat().st_size != size:
                raise OSError("the connection broke")
            if _sha256(partial) != source.sha256:
                raise OSError(f"what {_URL} sends is not the archive")
            partial.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno in _CANNOT_WRITE:
            raise UserError(
                f"cannot download {name} to {root} ({error.strerror}); give another folder: --config.data.data_dir=DIR"
            ) from None
        raise UserError(
            f"no {name} in {root} and no way to download it ({error}). Give a prepared tfds directory "
            f"(--config.data.data_dir=DIR), the archive {source.archive} (--config.data.archive=FILE), "
            "or try --config configs/quickstart.py, which needs neither"
        ) from None
    finally:  # also after Ctrl-C
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def _open(url: str) -> Any:
    """The reply to a request, or an OSError within 9 s: the lookup of the server's name has no time limit itself."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            trusted = ssl.create_default_context()
            trusted.load_verify_locations(certifi.where())  # a Python from python.org has none on macOS
            answers.put(urllib.request.urlopen(url, timeout=_REPLY_SECONDS, context=trusted))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_TOTAL_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_TOTAL_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def prepare(name: str, archive: Path, root: Path) -> Path:
    """Write the official archive as a tfds directory under root; returns root/name/version.

    Raises: UserError when the archive is missing or has another SHA-256.
    """
    source = SOURCES[name]
    if not archive.is_file():
        raise UserError(f"no archive {archive}; config.data.archive must name {source.archive}")
    digest = _sha256(archive)
    if digest != source.sha256:
        raise UserError(
            f"{archive} is not the official {source.archive}: its SHA-256 is {digest[:12]}..., not "
            f"{source.sha256[:12]}...; delete it and download it again"
        )
    members = _read_archive(archive, source)
    builder = _make_builder(name, source, members, root)
    prepared = Path(builder.data_dir)
    try:
        builder.download_and_prepare(file_format="array_record")
    except OSError:
        if not (prepared / "dataset_info.json").exists():  # else another process has prepared it meanwhile
            raise
    return prepared


def _sha256(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _read_archive(archive: Path, source: Source) -> dict[str, bytes]:
    """The needed files, by their exact names, read into memory: nothing is unpacked to the disk."""
    wanted = {f"{source.folder}/{file}": file for file in (*source.train, *source.test, source.names)}
    with tarfile.open(archive) as tar:
        members = {wanted[m.name]: m for m in tar if m.name in wanted and m.isfile()}
        return {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]


def import_tfds() -> Any:
    """tensorflow_datasets. It imports lazily, so its failing imports would show only later, without this check.

    Raises: UserError naming the missing package.
    """
    try:
        for module in ("tensorflow_datasets.core.read_only_builder", "array_record.python.array_record_data_source"):
            importlib.import_module(module)
    except ImportError as error:
        raise UserError(errors.broken_installation(error, "tensorflow-datasets array_record")) from None
    return importlib.import_module("tensorflow_datasets")


def _make_builder(name: str, source: Source, members: dict[str, bytes], root: Path) -> Any:
    """The tfds builder of the same name, fed from memory and encoding PNG with Pillow."""
    tfds = import_tfds()
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.image_classification import cifar as official

    tfds.disable_progress_bar()
    base: Any = {"cifar10": official.Cifar10, "cifar100": official.Cifar100}[name]

    def examples(files: tuple[str, ...], prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        index = 0
        for file in files:
            rows = np.frombuffer(members[file], np.uint8).reshape(-1, source.label_bytes + _PIXELS)
            for row in rows:
                image = row[source.label_bytes :].reshape(3, 32, 32).transpose(1, 2, 0)
                png = io.BytesIO()
                Image.fromarray(image).save(png, "PNG")
                png.seek(0)
                labels = {"label": int(row[source.label_bytes - 1])}
                if source.label_bytes == 2:
                    labels["coarse_label"] = int(row[0])
                yield index, {"id": f"{prefix}_{index:05d}", "image": png, **labels}
                index += 1

    with registered.skip_registration():

        class Prepared(base):  # type: ignore[misc, valid-type]
            name = base.name

            def _info(self) -> Any:
                info = super()._info()
                info.initialize_from_bucket = lambda: None  # it would leave an empty temporary folder
                return info

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                names = members[source.names].decode().split()
                self.info.features["label"].names = names
                return {"train": examples(source.train, "train"), "test": examples(source.test, "test")}

    return Prepared(data_dir=str(root), file_format="array_record")
