"""What a path holds: a run, a table's or another folder of runs, or a landscape study."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgg_jax.console.errors import UserError
from vgg_jax.landscape.pictures import LABELS
from vgg_jax.page.reading import RunFiles, is_run, parse, read

DEPTH = 3  # a table's runs are in <table>/<row>/seed<n>


class Row(NamedTuple):
    """What a table says of one of its rows: its name there, and the accuracy in [0, 1] that its project reported."""

    name: str
    reported: float | None


class Found(NamedTuple):
    """What the page is about: names of the given paths, runs, folders of studies, tables' rows by folder."""

    names: list[str]
    runs: list[RunFiles]
    studies: list[Path]
    rows: dict[Path, Row]


def find(paths: Sequence[Path]) -> Found:
    """Everything at these paths, each run and study once.

    Raises: UserError for a path that holds nothing to show.
    """
    places: dict[Path, tuple[str, str]] = {}  # of a run -> its name, its row
    studies: dict[Path, None] = {}
    rows: dict[Path, Row] = {}
    for path in paths:
        for folder in _folders(path):
            if is_study(folder):
                studies[folder] = None
            places |= {run: named for run, named in _runs(path, folder).items() if run not in places}
        rows |= _rows(path)
    names = [name for name, _ in places.values()]
    runs = [
        read(folder, str(folder) if names.count(name) > 1 else name, row)  # whole paths where two have the same name
        for folder, (name, row) in places.items()
    ]
    return Found(list(dict.fromkeys(map(_name, paths))), runs, list(studies), rows)


def _folders(path: Path) -> list[Path]:
    """The runs and studies at or in a path.

    Raises: UserError when there are none.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise UserError(f"{path} {what}; give the directory of a run, a table or a landscape study")
    if found := _search(path, DEPTH):
        return found
    raise UserError(f"{path} holds no run, table or landscape study; train one first")


def _search(folder: Path, depth: int) -> list[Path]:
    """The folder if it is a run or a study, or else those in it."""
    if is_study(folder) or is_run(folder):
        return [folder]
    if not depth:
        return []
    inside = sorted((inner for inner in folder.iterdir() if inner.is_dir()), key=_natural)
    return [found for inner in inside for found in _search(inner, depth - 1)]


def _natural(path: Path) -> list[Any]:
    """A key that sorts seed2 before seed10."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", str(path))
    ]


def is_study(folder: Path) -> bool:
    """Whether a folder is a landscape study, be it finished or not."""
    if (folder / "verdict.json").is_file() or any(folder.glob("*_plain*.npz")) or any(folder.glob("*_bn*.npz")):
        return True
    try:
        return "landscape" in parse((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _runs(path: Path, folder: Path) -> dict[Path, tuple[str, str]]:
    """The runs of a folder with their names and rows: itself, or those of a study's two networks."""
    if not is_study(folder):
        inner = folder.relative_to(path).as_posix()
        row = folder.parent.name if re.fullmatch(r"seed\d+", folder.name) and folder != path else ""
        return {folder: (_name(path) if inner == "." else inner, row)}
    both = [(network, run) for network in LABELS for run in sorted(folder.glob(f"{network}/seed*"), key=_natural)]
    return {run: (f"{network}/{run.name}", LABELS[network]) for network, run in both if is_run(run)}


def _name(path: Path) -> str:
    return path.resolve().name or str(path)


def _rows(path: Path) -> dict[Path, Row]:
    """The rows, by their folder, of the tables whose JSON `reproduce` has written into a folder."""
    found = {}
    for file in sorted(path.glob("*.json")):
        try:
            table = parse(file.read_text())
            for row in table["rows"]:
                reported = row["reported"] / 100 if row["reported"] else None
                found[path.resolve() / str(row["config"])] = Row(str(row["name"]), reported)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
