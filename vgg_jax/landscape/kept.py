"""Saved measures: npz files that say what they were measured of, and are used only as long as that is unchanged."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.settings.fields import FIELDS

Arrays = dict[str, np.ndarray]
Of = Mapping[str, Any]  # what a measure depends on, by name: settings, images, weights
_OF = "measured_of"
UNREADABLE = (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile)  # what np.load raises of damaged files


def read(file: Path, of: Of) -> tuple[Arrays, str]:
    """(arrays, ""), or ({}, why they cannot serve); both are empty where there is no file.

    Raises: UserError when it is damaged.
    """
    if not file.exists():
        return {}, ""
    try:
        with np.load(file) as found:
            arrays = dict(found)
        old = json.loads(str(arrays.pop(_OF, "null")))
    except UNREADABLE:
        raise UserError(f"{file} is damaged; delete it, and the same command measures it again") from None
    if old is None:  # of an earlier version; nothing else in it tells one network from another
        return {}, f"{file} does not say which network it was measured of"
    older = _plain({name: FIELDS[name].before for name in of if name in FIELDS})  # of a version without these fields
    changed = [name for name, value in _plain(of).items() if (older | old).get(name) != value]
    return ({}, f"{file} was measured with other {', '.join(changed)}") if changed else (arrays, "")


def save(file: Path, of: Of, **arrays: Any) -> None:
    """Write arrays, and what they were measured of."""
    write(file, **arrays, **{_OF: json.dumps(_plain(of))})


def write(file: Path, **arrays: Any) -> None:
    """Write an npz file in one piece, so that a crash leaves no half-written one."""
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    os.replace(partial, file)


def measured(file: Path, of: Of, measure: Callable[[], Arrays]) -> Arrays:
    """What the file holds, or else what is measured now and saved there; says why an old file cannot serve."""
    arrays, fault = read(file, of)
    if fault:
        print(f"{fault}; measuring again", flush=True)
    if not arrays:
        arrays = measure()
        save(file, of, **arrays)
    return arrays


def digest(weights: Any) -> str:
    """SHA-256 of a tree of arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(weights):
        found.update(repr((leaf.shape, leaf.dtype)).encode())
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()


def _plain(of: Of) -> dict[str, Any]:
    return json.loads(json.dumps(of))
