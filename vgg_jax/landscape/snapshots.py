"""Weights kept during training, as npz files in a run's directory: under equal loss, and along the path walked."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.landscape.kept import UNREADABLE, write
from vgg_jax.training.step import TrainState

POINTS = 16  # intervals of a path, at most


class Snapshot(NamedTuple):
    step: int
    loss: float  # on the images that chose it, with their own statistics
    variables: Any


def save(file: Path, state: TrainState, loss: float) -> None:
    leaves = jax.device_get(jax.tree.leaves(state.variables))
    write(file, step=int(state.step), loss=loss, **{f"leaf{i}": leaf for i, leaf in enumerate(leaves)})


def read(file: Path, like: Any) -> Snapshot | None:
    """What `save` wrote, in the shape of the tree `like`; None where there is none.

    Raises: UserError when it is damaged.
    """
    if not file.exists():
        return None
    leaves, tree = jax.tree.flatten(like)
    step, loss, *found = _load(file, "step", "loss", *(f"leaf{i}" for i in range(len(leaves))))
    return Snapshot(int(step), float(loss), jax.tree.unflatten(tree, found))


def _load(file: Path, *names: str) -> list[np.ndarray]:
    try:
        with open(file, "rb") as opened, np.load(opened) as found:
            return [found[name] for name in names]
    except UNREADABLE:
        raise UserError(
            f"{file} is damaged; delete the directory of its run, and the same command trains it again"
        ) from None


def equal_file(workdir: Path) -> Path:
    return workdir / "equal_loss.npz"


def keep_equal(workdir: Path, state: TrainState, loss: float, threshold: float) -> None:
    """Keep the first network of a run whose loss is at most the threshold."""
    file, step = equal_file(workdir), int(state.step)
    if file.exists() and (step == 0 or _load(file, "step")[0] >= step):  # of steps that a kill undid
        file.unlink()
    if loss <= threshold and not file.exists():
        save(file, state, loss)


def path_steps(total: int, probe_steps: int) -> int:
    """Steps between snapshots: 1, 2, 4, ... probes, so that a longer run's are among those of a shorter one."""
    return probe_steps << (-(-(total // probe_steps) // POINTS) - 1).bit_length()


def keep_path(workdir: Path, state: TrainState, loss: float, every: int) -> None:
    """Keep the networks of the steps that every divides."""
    folder, step = workdir / "path", int(state.step)
    if step % every == 0:
        folder.mkdir(exist_ok=True)
        save(folder / f"{step:07d}.npz", state, loss)


def read_path(workdir: Path, like: Any) -> list[Snapshot]:
    """In the order of the steps."""
    found = [read(file, like) for file in sorted((workdir / "path").glob("[0-9]*[0-9].npz"))]
    return [one for one in found if one]
