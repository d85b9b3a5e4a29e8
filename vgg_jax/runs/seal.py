"""Seals: SHA-256 sums beside a checkpoint's files, which show whether it is damaged.

A seal vouches for the files that it names, and for itself. Others (an editor's backup, what a file browser leaves) are
no part of a checkpoint.
"""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"  # in the format that `sha256sum -c` reads


def write(folder: Path) -> None:
    """Seal a folder whose files are complete."""
    lines = "".join(f"{_digest(file)}  {name}\n" for name, file in _files(folder).items())
    partial = folder.parent / f".{folder.name}.{NAME}"
    partial.write_bytes((_comment(lines) + lines).encode())
    partial.replace(folder / NAME)


def fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder; None when no file that the seal names has changed."""
    try:
        text, files = (folder / NAME).read_bytes().decode(), _files(folder)
        lines = text.partition("\n")[2] if text.startswith("#") else text  # not in seals of earlier versions
        if not lines.endswith("\n") or text not in (lines, _comment(lines) + lines):
            return f"{NAME} has changed"
        then = {name: digest for digest, _, name in (line.partition("  ") for line in lines.splitlines())}
        if missing := [name for name in then if name not in files and not _is_hidden(Path(name))]:
            return f"{missing[0]} is missing"
        unlike = [name for name, file in files.items() if name in then and then[name] != _digest(file)]
        return f"{unlike[0]} has changed" if unlike else None
    except FileNotFoundError:
        return f"no {NAME}: its save is under way, or was cut off"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def of(folder: Path) -> str | None:
    """The SHA-256 of a folder's seal, which stands for all its files; None without one."""
    return None if is_cut_off(folder) else _digest(folder / NAME)


def is_cut_off(folder: Path) -> bool:
    """Whether there is no seal at all."""
    return not (folder / NAME).exists()


def _comment(lines: str) -> str:
    """The first line of a seal, which `sha256sum -c` skips: a checksum of the lines below, which could be cut short."""
    return f"# {hashlib.sha256(lines.encode()).hexdigest()}  below\n"


def _files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint, by name. Hidden ones (.DS_Store, NFS's .nfs0001) come and go by themselves."""
    files = [p for p in folder.rglob("*") if p.is_file() and p != folder / NAME and not _is_hidden(p)]
    return {p.relative_to(folder).as_posix(): p for p in sorted(files)}


def _is_hidden(file: Path) -> bool:
    return file.name.startswith(".")


def _digest(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
