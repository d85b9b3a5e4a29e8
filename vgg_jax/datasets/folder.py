"""The user's own pictures: a folder for each class, or a single file."""

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.console.progress import Progress

PICTURES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 64 * 2**20  # of one picture; larger ones are refused before decoding
Arrays = tuple[np.ndarray, np.ndarray]  # images, labels


def folder(root: Path, size: int, shrink: str) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """(training images [N, size, size, 3] uint8 and labels [N] int32, the same of test, class names).

    They are read from root/train/<class>/*.png and root/test/<class>/*; shrink: as in `read_picture`.
    """
    for part in (root / "train", root / "test"):
        if not part.is_dir():
            raise UserError(
                f"no folder {part.absolute()}; "
                "config.data.data_dir must hold train/<class>/*.png and test/<class>/*.png"
            )
    classes = {
        s: sorted(p.name for p in (root / s).iterdir() if p.is_dir() and not p.name.startswith("."))
        for s in ("train", "test")
    }
    if len(classes["train"]) < 2:
        raise UserError(f"{root / 'train'} needs at least two class folders, found {len(classes['train'])}")
    if extra := sorted(set(classes["train"]) ^ set(classes["test"])):
        raise UserError(f"class {extra[0]!r} is in only one of {root / 'train'} and {root / 'test'}")
    files: Mapping[str, list[tuple[Path, int]]] = {
        split: [(file, i) for i, name in enumerate(names) for file in _pictures(root / split / name)]
        for split, names in classes.items()
    }
    with contextlib.closing(Progress(sum(map(len, files.values())), "decoding", " images")) as progress:
        train, test = (_decode(files[split], size, shrink, progress) for split in ("train", "test"))
    return train, test, tuple(classes["train"])


def _pictures(folder: Path) -> list[Path]:
    visible = sorted(p for p in folder.iterdir() if not p.name.startswith("."))  # macOS leaves ._name.png
    found = [p for p in visible if p.suffix.lower() in PICTURES and p.is_file()]
    if not found:
        raise UserError(f"no pictures ({', '.join(PICTURES)}) in class folder {folder}")
    return found


def _decode(files: list[tuple[Path, int]], size: int, shrink: str, progress: Progress) -> Arrays:
    images = np.empty((len(files), size, size, 3), np.uint8)
    for i, (file, _) in enumerate(files):
        images[i] = read_picture(file, size, shrink)
        progress.update(1)
    return images, np.array([label for _, label in files], np.int32)


def read_picture(file: str | os.PathLike[str], size: int, shrink: str, most: int = MAX_PIXELS) -> np.ndarray:
    """One picture as [size, size, 3] uint8, centre-cropped and scaled to fit.

    Args:
      shrink: how a larger one is scaled down: "area" averages (bicubic blurs more than CIFAR's own pictures are), or
        "bicubic"; with "" only a picture of the right size is read.
      most: a picture of more pixels is refused before it is decoded.

    Raises: UserError naming a file that is unreadable, too large or, without shrink, of another size.
    """
    rgb = _upright(file, most)
    if rgb.size == (size, size):
        return np.asarray(rgb)
    width, height = rgb.size
    if not shrink:
        raise UserError(
            f"{file} is {width}x{height}, not {size}x{size}; --config.data.resize=True scales and crops pictures"
        )
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = (left, top, left + side, top + side)
    how = Image.Resampling.BOX if shrink == "area" and side > size else Image.Resampling.BICUBIC
    return np.asarray(rgb.resize((size, size), how, box=square))


def _upright(file: str | os.PathLike[str], most: int) -> Image.Image:
    """A picture's pixels in RGB.

    Raises: UserError naming the file.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(file, formats=("PNG", "JPEG")) as picture,
        ):
            width, height = picture.size
            if width * height > most:
                raise UserError(f"{file} is {width}x{height}, over the limit of {most} pixels")
            if picture.mode.startswith(("I", "F")):
                raise UserError(f"{file} has more than 8 bits a channel; convert it to 8 bits")
            return ImageOps.exif_transpose(picture).convert("RGB")  # upright, as a phone shows it
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"no picture {file}") from None
    except UnidentifiedImageError:
        raise UserError(f"cannot read picture {file}: it is neither PNG nor JPEG, or is damaged") from None
    except Exception as error:  # Pillow raises many classes for damaged pixels or EXIF
        if errors.is_of_the_machine(error):
            raise
        raise UserError(f"cannot read picture {file}: {error}") from None
