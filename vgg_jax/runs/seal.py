"""Seals: SHA-256 sums beside a checkpoint's files, which show whether it is damaged."""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"  # in the format that `sha256sum -c` reads


def write(folder: Path) -> None:
    """Seal a folder whose files are complete."""
    partial = folder.parent / f".{folder.name}.{NAME}"
    partial.write_text(_text(_sums(folder)))
    partial.replace(folder / NAME)


def fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder; None when no file has changed."""
    try:
        text, now = (folder / NAME).read_text(), _sums(folder)
    except FileNotFoundError:
        return f"no {NAME}, so its save was cut off"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if text == _text(now):
        return None
    then = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    if unlike := [name for name in sorted(then.keys() & now.keys()) if then[name] != now[name]]:
        return f"{unlike[0]} has changed"
    if missing := sorted(then.keys() - now.keys()):
        return f"{missing[0]} is missing"
    return f"{NAME} has changed"


def of(folder: Path) -> str | None:
    """The SHA-256 of a folder's seal, which stands for all its files; None without one."""
    return None if is_cut_off(folder) else _digest(folder / NAME)


def is_cut_off(folder: Path) -> bool:
    """Whether there is no seal at all."""
    return not (folder / NAME).exists()


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return {p.relative_to(folder).as_posix(): _digest(p) for p in files}


def _digest(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _text(sums: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())
