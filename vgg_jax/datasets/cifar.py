"""CIFAR-10 and CIFAR-100 through tensorflow-datasets, without TensorFlow.

A prepared directory (array_record) is read directly. If there is none, it is prepared from the
official binary archive, local or downloaded, after a check of its SHA-256. Decoded images are
cached in the user's cache directory.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.console.flags import path
from vgg_jax.console.progress import Progress
from vgg_jax.datasets.archive import SOURCES, download, import_tfds, prepare
from vgg_jax.settings import cache

Arrays = tuple[np.ndarray, np.ndarray]


def load(name: str, data_dir: str, archive: str = "") -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """((train images, labels), (test images, labels), class names). name: a key of `SOURCES`.

    Args:
      data_dir: a tfds directory; "" for $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      archive: the official archive, used when data_dir has no prepared copy.

    Raises: UserError when the data can be neither found nor downloaded, or are damaged.
    """
    root = find_root(data_dir)
    prepared = find_prepared(name, root)
    if prepared is None:
        archive_path = path(archive) if archive else download(name, root)
        prepared = prepare(name, archive_path, root)
    cached = cache.directory() / f"{name}-{_stamp(prepared)}.npz"
    return _read_cache(cached) or _decode(name, prepared, cached)


def find_root(data_dir: str) -> Path:
    """The tfds directory: data_dir, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find_prepared(name: str, root: Path) -> Path | None:
    """The newest version of name prepared as array_record under a tfds directory."""
    versions = sorted((root / name).glob("*/dataset_info.json"), key=lambda info: _version(info.parent.name))
    for info in reversed(versions):
        if any(info.parent.glob("*.array_record*")):
            return info.parent
    if versions:
        raise UserError(
            f"{versions[-1].parent} is prepared in a format that needs TensorFlow; give another "
            "--config.data.data_dir, and it is prepared there as array_record"
        )
    return None


def _version(text: str) -> list[int]:
    """'3.0.10' -> [3, 0, 10]"""
    return [int(part) for part in text.split(".") if part.isdigit()]


def _stamp(prepared: Path) -> str:
    """A hash that changes when a file of the prepared directory does."""
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(prepared.iterdir())]
    return hashlib.sha256(repr((str(prepared.resolve()), facts)).encode()).hexdigest()[:16]


def _decode(name: str, prepared: Path, cached: Path) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    tfds, sizes = import_tfds(), SOURCES[name].sizes
    progress = Progress(sum(sizes), f"decoding {name}", " images")
    splits = []
    try:
        for file in ("features.json", "dataset_info.json"):
            _refuse_foreign_classes(json.loads((prepared / file).read_text()))
        builder: Any = tfds.builder_from_directory(str(prepared))
        names = tuple(builder.info.features["label"].names)
        for split, size in zip(("train", "test"), sizes):
            source = builder.as_data_source(split)
            if len(source) != size:
                raise ValueError(f"{len(source)} {split} images instead of {size}")
            images, labels = np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32)
            for i, example in enumerate(source):
                images[i], labels[i] = example["image"], example["label"]
                if i % 1000 == 999:
                    progress.update(1000)
            splits.append((images, labels))
    except Exception as error:  # the reader raises many classes for damaged files
        if errors.is_of_the_machine(error):
            raise
        raise UserError(
            f"{prepared} is damaged ({type(error).__name__}: {str(error)[:120]}); delete it and it is prepared again"
        ) from None
    finally:
        progress.close()
    (train, test) = splits
    _write_cache(cached, train, test, names)
    return train, test, names


def _refuse_foreign_classes(value: Any, key: str = "") -> None:
    """Check that JSON from a stranger names only classes of tfds, since tfds imports any class named there.

    Raises: ValueError for other classes, also in strings that contain JSON, which tfds parses too.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_foreign_classes(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _refuse_foreign_classes(inner, key)
    elif isinstance(value, str):
        names_class = key in ("type", "pythonClassName", "python_class_name")
        if names_class and "." in value and not value.startswith("tensorflow_datasets."):
            raise ValueError(f"it names the class {value}, which is not part of tensorflow-datasets")
        try:
            inner = json.loads(value)
        except ValueError:
            return
        _refuse_foreign_classes(inner)


def _write_cache(cached: Path, train: Arrays, test: Arrays, names: tuple[str, ...]) -> None:
    """Write the cache if possible; without one, the next start decodes again."""
    partial = cached.with_suffix(f".{os.getpid()}.partial")
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as f:
            np.savez(f, x=train[0], y=train[1], x_test=test[0], y_test=test[1], names=np.array(names))
        partial.replace(cached)
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def _read_cache(cached: Path) -> tuple[Arrays, Arrays, tuple[str, ...]] | None:
    """The cached arrays; None when there is no cache or its checksums (zip's CRC) do not match."""
    try:
        with open(cached, "rb") as file, np.load(file, allow_pickle=False) as f:
            return (f["x"], f["y"]), (f["x_test"], f["y_test"]), tuple(map(str, f["names"]))
    except Exception:  # a damaged file can raise anything; the images are then decoded again
        return None
