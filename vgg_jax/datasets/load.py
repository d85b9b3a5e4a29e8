"""Data sets in memory: uint8 images, int32 labels, class names, normalisation."""

import dataclasses
import functools
import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgg_jax.console.errors import UserError, suggest
from vgg_jax.console.flags import path
from vgg_jax.datasets import cifar
from vgg_jax.datasets.folder import Arrays, folder
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.check import check_value
from vgg_jax.settings.fields import FIELDS, Config, Data

_DIGITS = "sklearn/datasets/data/digits.csv.gz"  # in scikit-learn


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images of one split.

    Attributes:
      images: [N, H, W, 3] uint8.
      labels: [N] int32, indices into class_names.
      class_names: one name per class.
      mean, std: per channel, for normalisation, in units of [0, 1].
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, n: int) -> "Dataset":
        """n images in random order, the same at every call; all images if there are fewer."""
        chosen = np.random.default_rng(0).permutation(len(self))[:n]
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, images and labels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def data(name: str = "", data_dir: str | os.PathLike[str] = "", **more: Any) -> dict[str, Dataset]:
    """{"train", "validation", "test"} of a source, or from NumPy arrays.

    data("cifar10"), data("digits", validation_size=40), data("folder", "my_pictures", resize=True): further arguments
    are fields of config.data. data(train=(images, labels), test=(images, labels), class_names=["a", "b"]): see
    `from_arrays`.

    Raises: UserError when the source is missing, damaged or too small, an array has another dtype or shape, or an
      argument is unknown.
    """
    if not name:
        if not {"train", "test"} <= set(more):
            raise UserError('data takes a source, as data("cifar10"), or arrays: data(train=..., test=...)')
        known, given = inspect.signature(from_arrays).parameters, set(more) | ({"data_dir"} if data_dir else set())
        if unknown := sorted(given - set(known)):
            raise UserError(f"data takes no {unknown[0]} with arrays{suggest(unknown[0], known)}")
        return from_arrays(**more)
    return _of_a_source(configs.data_fields({"name": name, "data_dir": data_dir, **more}))


def from_arrays(
    train: Arrays,
    test: Arrays,
    validation: Arrays | None = None,
    class_names: Sequence[str] | None = None,
    normalization: str = "channel",
    validation_size: int = 0,
    seed: int = 0,
) -> dict[str, Dataset]:
    """Splits from (images [N, H, W, 3] uint8, labels [N] whole numbers from 0).

    class_names: one per label, in order; default the labels themselves. normalization: as config.data.normalization.
    validation_size: so many training images are held out as the validation split, drawn with seed.

    Raises: UserError naming the array with another dtype or shape, or labels without a name.
    """
    for field, value in (("normalization", normalization), ("validation_size", validation_size), ("seed", seed)):
        check_value(f"data.{field}", FIELDS[f"data.{field}"], value)
    given = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    parts = {split: _as_arrays(split, pair) for split, pair in given.items()}
    images, labels = parts["train"]
    if validation_size:
        if validation is not None:
            raise UserError("data takes validation images or a validation_size, not both")
        if validation_size >= len(labels):
            raise UserError(f"validation_size={validation_size} is too many of the {len(labels)} training images given")
        held_out, kept = _draw(len(labels), validation_size, 0, seed)
        parts |= {"train": (images[kept], labels[kept]), "validation": (images[held_out], labels[held_out])}
    parts = {"train": parts["train"], "validation": (images[:0], labels[:0])} | parts
    for split, (images, _) in parts.items():
        if images.shape[1:] != parts["train"][0].shape[1:]:
            raise UserError(f"{split} images are of another size than the training images")
    every = np.concatenate([labels for _, labels in parts.values()])
    names = tuple(map(str, range(int(every.max(initial=0)) + 1) if class_names is None else class_names))
    _check_labels(every, names)
    mean, std = statistics(parts["train"][0]) if normalization == "channel" else ((0.5,) * 3,) * 2
    return {split: Dataset(x, y.astype(np.int32), names, mean, std) for split, (x, y) in parts.items()}


def labelled(name: str, pair: Any, class_names: Sequence[str]) -> Dataset:
    """One split of known classes, to evaluate; its mean and std are not those of any training images.

    Raises: UserError naming what is no such pair, or a label without a name.
    """
    images, labels = _as_arrays(name, pair)
    _check_labels(labels, class_names)
    return Dataset(images, labels.astype(np.int32), tuple(class_names), (0.5,) * 3, (0.5,) * 3)


def _check_labels(labels: np.ndarray, class_names: Sequence[str]) -> None:
    if len(set(class_names)) < len(class_names):
        raise UserError(f"two classes have the same name: {', '.join(class_names)}")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(class_names):
        raise UserError(f"labels must lie in 0 to {len(class_names) - 1}, one for each class name")


def _as_arrays(name: str, pair: Any) -> Arrays:
    """(images [N, H, W, 3] uint8, labels [N]) as NumPy arrays. Raises: UserError for anything else."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise UserError(f"{name} must be two arrays, (images, labels)")
    images, labels = map(np.asarray, pair)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{name} images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{name} labels must be {len(images)} whole numbers, not {labels.dtype} {labels.shape}")
    return images, labels


def load(config: Config) -> dict[str, Dataset]:
    """{"train", "validation", "test"} from config.data or the config's own `get_data`; "validation" may be empty.

    Raises: UserError when the source is missing, damaged or too small.
    """
    if get_data := code.of(config, "get_data"):
        with code.blamed(config, "get_data"):
            return whole(get_data(config), config.data)
    return _of_a_source(config.data)


def whole(splits: Any, fields: Data) -> dict[str, Dataset]:
    """All three splits of what `get_data` returned or a caller gave: each a Dataset or (images, labels).

    Raises: UserError for anything else.
    """
    if not isinstance(splits, Mapping) or not {"train", "test"} <= set(splits) <= {"train", "validation", "test"}:
        raise UserError(
            'data, given or returned by get_data, must be {"train": (images, labels), "test": ...}, and optionally '
            '"validation"'
        )
    named, first = [part for part in splits.values() if isinstance(part, Dataset)], splits["train"]
    if any(part.class_names != named[0].class_names for part in named):
        raise UserError("the splits of the data have different class names")
    pairs: Any = {k: (part.images, part.labels) if isinstance(part, Dataset) else part for k, part in splits.items()}
    names = named[0].class_names if named else None
    found = from_arrays(**pairs, class_names=names, normalization=fields.normalization)
    if len(named) == len(splits):
        found |= splits  # checked, and their fingerprints are those of their own arrays
    if isinstance(first, Dataset):
        found = {k: dataclasses.replace(part, mean=first.mean, std=first.std) for k, part in found.items()}
    return found


def _of_a_source(config: Data) -> dict[str, Dataset]:
    if config.name in cifar.SOURCES:
        if config.image_size != 32:
            raise UserError(
                f"{config.name} is 32x32; config.data.image_size={config.image_size} needs the folder source"
            )
        train, test, names = cifar.load(config.name, config.data_dir, config.archive)
    elif config.name == "digits":
        train, test, names = _digits(config.image_size)
    else:
        train, test, names = folder(path(config.data_dir), config.image_size, config.shrink if config.resize else "")
    training, held_out = train, np.arange(0)
    if config.validation_size or config.train_size:
        if config.validation_size + max(config.train_size, 1) > len(train[1]):
            raise UserError(
                f"config.data.validation_size={config.validation_size} and train_size={config.train_size} "
                f"ask for more than the {len(train[1])} training images of {config.name}"
            )
        held_out, kept = _draw(len(train[1]), config.validation_size, config.train_size, config.seed)
        training = train[0][kept], train[1][kept]
    return from_arrays(training, test, (train[0][held_out], train[1][held_out]), names, config.normalization)


def _draw(n: int, validation_size: int, train_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices held out and indices kept (train_size of them; 0: all others), drawn from n training images."""
    held_out, rest = np.split(np.random.default_rng(seed).permutation(n), [validation_size])
    return np.sort(held_out), np.sort(rest[: train_size or None])


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel (mean, std) of uint8 images [N, H, W, 3] in units of [0, 1], exact since from histograms."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(3):
        parts = np.array_split(images[..., channel], 1 + len(images) // 256)  # bincount widens its numbers to int64
        weights = sum(np.bincount(part.ravel(), minlength=256) for part in parts) / images[..., channel].size
        mean = float(weights @ values)
        means.append(mean)
        stds.append(float(np.sqrt(weights @ (values - mean) ** 2)) or 1.0)  # 1 for a constant channel
    return tuple(means), tuple(stds)


def _digits_table() -> np.ndarray:
    """64 pixels and the label of each digit, [1797, 65], from load_digits' file: importing it takes a second."""
    file = Path(str(metadata.distribution("scikit-learn").locate_file(_DIGITS)))
    if file.exists():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits: Any = load_digits(return_X_y=True)
    return np.column_stack(digits)


def _digits(size: int) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, resized; a fixed 360 of them are the test set."""
    table = _digits_table()
    labels, pictures = table[:, 64], (table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = [np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR)) for p in pictures]
    images = np.repeat(np.stack(resized)[..., None], 3, -1)
    labels = labels.astype(np.int32)
    names = tuple(str(digit) for digit in range(10))
    test, train = np.split(np.random.default_rng(0).permutation(len(labels)), [360])
    return (images[train], labels[train]), (images[test], labels[test]), names
