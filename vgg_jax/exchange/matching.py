"""Whose array goes where: a foreign state dict against the arrays that a network has.

Foreign names differ in how they count layers and what they call the head. So unless all names are ours, layers are
taken in their order, features before the head, and every name and shape must then fit.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest

import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.torch.names import Arrays, Leaf

# torchvision, chenyaofo: features, classifier. kuangliu: the same, classifier without a number. edadaltocg: head.fc.
_SECTIONS = ("features", "pre_logits", "classifier", "head", "fc")


def matched(arrays: Arrays, table: list[Leaf], source: str) -> Arrays:
    """The arrays under the names of the table.

    Raises: UserError naming the first array that does not fit, its shape, and the shape expected.
    """
    if arrays.keys() >= {leaf.key for leaf in table} or not table[0].key.startswith("features."):
        found = _by_name(arrays, table, source)
    else:
        found = _in_order(arrays, table, source)
    for leaf in table:
        if not leaf.path and (found[leaf.key] != 1).any():
            raise UserError(
                f"{source}: {leaf.key} scales BatchNorm, and the config's has no scale (model.batch_norm_scale=False)"
            )
    return found


def _by_name(arrays: Arrays, table: list[Leaf], source: str) -> Arrays:
    for leaf in table:
        if leaf.key not in arrays:
            raise _missing(source, leaf, leaf.key)
        _check(source, leaf, leaf.key, arrays[leaf.key])
    if extra := sorted(arrays.keys() - {leaf.key for leaf in table}):
        raise _extra(source, arrays, extra[0])
    return {leaf.key: arrays[leaf.key] for leaf in table}


def _in_order(arrays: Arrays, table: list[Leaf], source: str) -> Arrays:
    found = {}
    for ours, theirs in zip_longest(_ours(table), _theirs(arrays, source)):
        if ours is None:
            raise _extra(source, arrays, _names(arrays, theirs)[0])
        names = {f"{theirs}.{leaf.key.rpartition('.')[2]}": leaf for leaf in ours}
        for name, leaf in names.items():
            if name not in arrays:
                raise _missing(source, leaf, name if theirs else leaf.key)
            found[leaf.key] = arrays[name]
            _check(source, leaf, name, arrays[name])
        if more := [name for name in _names(arrays, theirs) if name not in names]:
            raise _extra(source, arrays, more[0])
    return found


def _ours(table: list[Leaf]) -> Iterator[list[Leaf]]:
    """The table layer by layer."""
    for layer in dict.fromkeys(leaf.layer for leaf in table):
        yield [leaf for leaf in table if leaf.layer == layer]


def _theirs(arrays: Arrays, source: str) -> list[str]:
    """The names of their layers, in order."""
    for name in arrays:
        if name.partition(".")[0] not in _SECTIONS or "." not in name:
            raise _extra(source, arrays, name)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in arrays)

    def place(layer: str) -> tuple:
        section, _, rest = layer.partition(".")
        numbers = [
            (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"\.|(\d{1,9})", rest) if part
        ]
        return _SECTIONS.index(section), numbers

    return sorted(layers, key=place)


def _names(arrays: Arrays, layer: str) -> list[str]:
    return [name for name in arrays if name.rpartition(".")[0] == layer]


def _check(source: str, leaf: Leaf, name: str, array: np.ndarray) -> None:
    if array.shape != leaf.shape:
        raise UserError(
            f"{source} holds another network: {name} has shape {list(array.shape)}, and {leaf.layer} of the config "
            f"takes {list(leaf.shape)}"
        )


def _missing(source: str, leaf: Leaf, name: str) -> UserError:
    return UserError(
        f"{source} holds another network: it has no {name}, and {leaf.layer} of the config takes {list(leaf.shape)}"
    )


def _extra(source: str, arrays: Arrays, name: str) -> UserError:
    shape = list(arrays[name].shape)
    return UserError(f"{source} holds another network: {name} of shape {shape} has no place in the config's")
