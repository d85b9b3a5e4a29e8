"""CIFAR-10 and CIFAR-100 through tensorflow-datasets, without TensorFlow.

A prepared directory (array_record) is read as it is. Where there is none, it is prepared from the
official binary archive, local or downloaded; its SHA-256 is checked first. Decoded images are
cached in the user's cache directory.
"""

import contextlib
import hashlib
import http.client
import io
import os
import queue
import shutil
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vgg_jax import cache
from vgg_jax.errors import UserError
from vgg_jax.progress import Progress

Arrays = tuple[np.ndarray, np.ndarray]
_PIXELS = 32 * 32 * 3
_HOST = "www.cs.toronto.edu"


class Source(NamedTuple):
    """An official binary archive. SHA-256 as tensorflow-datasets lists it."""

    archive: str
    sha256: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int  # of each record; the class is the last of them
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


def load(name: str, data_dir: str, archive: str = "") -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """((train images, labels), (test images, labels), class names) of a key of `SOURCES`.

    Args:
      data_dir: a tfds directory; "" for $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      archive: the official archive, used when data_dir has no prepared copy.

    Raises: UserError when there is no way to the data, or it is damaged.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    prepared = find_prepared(name, root)
    if prepared is None:
        archive_path = Path(archive).expanduser() if archive else _download(name, root)
        prepared = prepare(name, archive_path, root)
    cached = cache.directory() / f"{name}-{_stamp(prepared)}.npz"
    return _read_cache(cached) or _decode(name, prepared, cached)


def find_prepared(name: str, root: Path) -> Path | None:
    """The newest version of name prepared as array_record under a tfds directory."""
    versions = sorted((root / name).glob("*/dataset_info.json"))
    for info in reversed(versions):
        if any(info.parent.glob("*.array_record*")):
            return info.parent
    if versions:
        raise UserError(
            f"{versions[-1].parent} is prepared in a format that needs TensorFlow; give another "
            "--config.data.data_dir and it is prepared there as array_record"
        )
    return None


def _stamp(prepared: Path) -> str:
    """Changes when a file of the prepared directory does."""
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(prepared.iterdir())]
    return hashlib.sha256(repr((str(prepared.resolve()), facts)).encode()).hexdigest()[:16]


def _decode(name: str, prepared: Path, cached: Path) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    import tensorflow_datasets as tfds

    sizes = SOURCES[name].sizes
    progress = Progress(sum(sizes), f"decoding {name}", " images")
    splits = []
    try:
        builder: Any = tfds.builder_from_directory(str(prepared))
        names = tuple(builder.info.features["label"].names)
        for split, size in zip(("train", "test"), sizes):
            source = builder.as_data_source(split)
            if len(source) != size:
                raise ValueError(f"{len(source)} {split} images where {size} belong")
            images, labels = np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32)
            for i, example in enumerate(source):
                images[i], labels[i] = example["image"], example["label"]
                if i % 1000 == 999:
                    progress.update(1000)
            splits.append((images, labels))
    except Exception as error:  # whatever the reader says of a damaged file
        raise UserError(
            f"{prepared} is damaged ({type(error).__name__}: {str(error)[:120]}); delete it and it is prepared again"
        ) from None
    finally:
        progress.close()
    (train, test) = splits
    _write_cache(cached, train, test, names)
    return train, test, names


def _write_cache(cached: Path, train: Arrays, test: Arrays, names: tuple[str, ...]) -> None:
    """Best effort: without a writable cache the next start decodes again."""
    partial = cached.with_suffix(f".{os.getpid()}.partial")
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as f:
            np.savez(f, x=train[0], y=train[1], x_test=test[0], y_test=test[1], names=np.array(names))
        partial.replace(cached)
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def _read_cache(cached: Path) -> tuple[Arrays, Arrays, tuple[str, ...]] | None:
    """The cached arrays; None when there is no cache or its checksums (zip's CRC) do not hold."""
    try:
        with open(cached, "rb") as file, np.load(file, allow_pickle=False) as f:
            return (f["x"], f["y"]), (f["x_test"], f["y_test"]), tuple(map(str, f["names"]))
    except Exception:  # a damaged file can fail in any reader; it is decoded anew
        return None


def _download(name: str, root: Path) -> Path:
    """Fetch the official archive to root/downloads; says within 10 s when there is no network."""
    source = SOURCES[name]
    target = root / "downloads" / source.archive
    if target.exists():
        return target
    url = f"https://{_HOST}/~kriz/{source.archive}"
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        with _open(url) as reply:
            target.parent.mkdir(parents=True, exist_ok=True)
            progress = Progress(int(reply.headers["Content-Length"]) >> 20, f"downloading {name}", " MiB")
            with open(partial, "wb") as f:
                while block := reply.read(1 << 20):
                    f.write(block)
                    progress.update(1)
            progress.close()
            if partial.stat().st_size != int(reply.headers["Content-Length"]):
                raise OSError("the connection broke")
    except (OSError, http.client.HTTPException) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"no {name} in {root} and no way to download it ({error}). Give a prepared tfds directory "
            f"(--config.data.data_dir=DIR), the archive {source.archive} (--config.data.archive=FILE), "
            "or try --config configs/quickstart.py, which needs neither"
        ) from None
    partial.replace(target)
    return target


def _open(url: str) -> Any:
    """The reply to a request, or an OSError within 9 s: looking up a name has no time limit of its own."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=8))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=9)
    except queue.Empty:
        raise TimeoutError("no answer within 9 s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def prepare(name: str, archive: Path, root: Path) -> Path:
    """Write the official archive as a tfds directory under root; returns root/name/version.

    Raises: UserError when the archive is missing or its SHA-256 is another.
    """
    source = SOURCES[name]
    if not archive.is_file():
        raise UserError(f"no archive {archive}; config.data.archive must name {source.archive}")
    with open(archive, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != source.sha256:
        raise UserError(
            f"{archive} is not the official {source.archive}: SHA-256 {digest[:12]}... where {source.sha256[:12]}... "
            "belongs; delete it and download it again"
        )
    members = _read_archive(archive, source)
    builder = _make_builder(name, source, members, root)
    try:
        builder.download_and_prepare(file_format="array_record")
    except BaseException:
        shutil.rmtree(builder.data_dir, ignore_errors=True)
        raise
    return Path(builder.data_dir)


def _read_archive(archive: Path, source: Source) -> dict[str, bytes]:
    """The files we need, by their exact names, in memory: nothing is unpacked to the disk."""
    wanted = {f"{source.folder}/{file}": file for file in (*source.train, *source.test, source.names)}
    with tarfile.open(archive) as tar:
        members = {wanted[m.name]: m for m in tar if m.name in wanted and m.isfile()}
        return {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]


def _make_builder(name: str, source: Source, members: dict[str, bytes], root: Path) -> Any:
    """The tfds builder of the same name, fed from memory and encoding PNG with Pillow."""
    import tensorflow_datasets as tfds
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

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                names = members[source.names].decode().split()
                self.info.features["label"].names = names
                return {"train": examples(source.train, "train"), "test": examples(source.test, "test")}

    return Prepared(data_dir=str(root), file_format="array_record")
