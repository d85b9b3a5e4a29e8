"""Checkpoints: the only file that knows Orbax.

`latest/` holds the last two states, `best/` the variables with the best accuracy so far. They are
two managers, because one that keeps the best deletes what is newer.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vgg_jax.errors import UserError
from vgg_jax.models import VGG
from vgg_jax.train import TrainState
from vgg_jax.types import Config


class Checkpoints:
    """The two checkpoint directories of a run; saving is asynchronous, `close` waits for it."""

    def __init__(self, workdir: Path):
        self._folder = workdir / "latest"
        self._latest = _manager(self._folder, keep=2)
        self._best = _manager(workdir / "best", keep=2)

    def save_latest(self, state: TrainState) -> None:
        if self._latest.latest_step() != int(state.step):
            args = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
            self._latest.save(int(state.step), args=ocp.args.Composite(**args))

    def save_best(self, step: int, variables: Any) -> None:
        """On the disk when it returns, so that no later `save_latest` can get ahead of it."""
        self._best.save(step, args=ocp.args.Composite(variables=ocp.args.StandardSave(variables)))
        self._best.wait_until_finished()

    def steps(self) -> set[int]:
        """Those whose state can be restored."""
        return set(self._latest.all_steps())

    def restore(self, template: TrainState, step: int) -> TrainState:
        """The state of that step, in the shape of template."""
        args = {name: ocp.args.StandardRestore(tree) for name, tree in _items(template).items()}
        restored = _read(self._folder, self._latest, step, ocp.args.Composite(**args))
        training = restored["training"]
        average = restored["variables"] if "trained" in training else {}
        trained = training.pop("trained", restored["variables"])
        return TrainState(key=jax.random.wrap_key_data(training.pop("key")), average=average, **training, **trained)

    def drop_after(self, step: int) -> None:
        """Delete what is newer, which a crash between two saves can leave; training on makes it again."""
        for manager in (self._latest, self._best):
            for newer in [s for s in manager.all_steps() if s > step]:
                manager.delete(newer)

    def wait(self) -> None:
        """Until everything saved is on the disk."""
        self._best.wait_until_finished()
        self._latest.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._latest.close()
        self._best.close()


def load_model(workdir: Path, which: str, config: Config, num_classes: int) -> tuple[int, VGG, Any]:
    """(step, model, variables as NumPy) of a run's `latest` or `best` checkpoint, on any machine.

    Raises: UserError when there is none.
    """
    folder = workdir / which
    steps = saved_steps(workdir, which)
    if not steps:
        raise UserError(f"no checkpoint in {folder}; train it first, or give another --workdir or --checkpoint")
    model = VGG(num_classes=num_classes, **config.model)
    size = config.data.image_size
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    template = {"batch_stats": {}} | jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with _manager(folder, keep=None) as manager:
        args = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
        return max(steps), model, _read(folder, manager, max(steps), args)["variables"]


def saved_steps(workdir: Path, which: str = "latest") -> set[int]:
    """Steps with a checkpoint in a run directory."""
    folder = workdir / which
    return set(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else set()


def _items(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds: the variables, which suffice to evaluate, and the rest of the state."""
    training = {"step": state.step, "opt_state": state.opt_state, "sums": state.sums}
    if state.average:
        training["trained"] = state.trained
    return {"variables": state.variables, "training": training | {"key": jax.random.key_data(state.key)}}


def _read(folder: Path, manager: ocp.CheckpointManager, step: int, args: Any) -> Any:
    try:
        return manager.restore(step, args=args)
    except Exception as error:  # whatever Orbax and TensorStore say of damaged files
        what = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(f"{folder / str(step)} is damaged ({what}); delete it, and the one before serves") from None


def _manager(folder: Path, keep: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)
