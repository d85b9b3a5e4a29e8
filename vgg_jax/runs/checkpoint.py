"""Checkpoints: the only file that saves and restores with Orbax.

`latest/` holds the last two states, `best/` the variables of the best epoch so far and of the one before it. Each has
its own manager, because one that keeps the best checkpoint deletes newer ones. A checkpoint is sealed once it is on the
disk.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.model.network import make_model, shapes
from vgg_jax.runs import seal
from vgg_jax.runs.damage import begin_again, newest_whole, put_aside, saved_steps
from vgg_jax.settings.fields import Config
from vgg_jax.training.processes import is_first, wait_for_all
from vgg_jax.training.step import TrainState

_METADATA_BYTES = 2**18  # room for what a checkpoint holds besides its arrays


class Checkpoints:
    """The two checkpoint directories of a run; saving is asynchronous, `close` waits for it.

    Raises: RunFailed when every saved state is damaged.
    """

    def __init__(self, workdir: Path):
        self._workdir, self._folder = workdir, workdir / "latest"
        if is_first():
            for kind in ("best", "latest"):
                put_aside(workdir, kind)
            begin_again(workdir)
        wait_for_all("checkpoints_checked")
        self._latest = _manager(self._folder, clean=True)
        self._best = _manager(workdir / "best", clean=True)
        self._background = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self.ending = ""  # why the run is about to end; put before the message of a refused save

    def save_latest(self, state: TrainState) -> None:
        """Save in the background, after waiting for the previous save."""
        step = int(state.step)
        if self._latest.latest_step() == step:
            return
        self.wait()
        args = {name: ocp.args.StandardSave(tree) for name, tree in _one_copy(_items(state)).items()}
        self._reserve(state)
        with self._one_line():
            self._latest.save(step, args=ocp.args.Composite(**args))
        self._saving = self._background.submit(_finish, self._latest, self._folder / str(step))

    def save_best(self, step: int, variables: Any) -> None:
        """Save, and wait until it is on the disk: a later `save_latest` must not finish first."""
        self.wait()
        self._reserve(variables)
        with self._one_line():
            if self._best.latest_step() != step:  # else a save that was interrupted before its seal
                self._best.save(step, args=ocp.args.Composite(variables=ocp.args.StandardSave(_one_copy(variables))))
            _finish(self._best, self._workdir / "best" / str(step))

    def steps(self) -> set[int]:
        """The steps whose state can be restored."""
        return set(self._latest.all_steps())

    def best_step(self) -> int | None:
        """The step of the best variables on the disk; None if there are none."""
        return self._best.latest_step()

    def restore(self, template: TrainState, step: int) -> TrainState:
        """The state saved at step, with the structure and shapes of template."""
        args = {name: ocp.args.StandardRestore(tree) for name, tree in _items(template).items()}
        restored = _read(self._folder, self._latest, step, ocp.args.Composite(**args))
        training = restored["training"]
        average = restored["variables"] if "trained" in training else {}
        trained = training.pop("trained", restored["variables"])
        return TrainState(key=jax.random.wrap_key_data(training.pop("key")), average=average, **training, **trained)

    def drop_best_after(self, step: int) -> None:
        """Delete a newer best, which a crash between two saves can leave; the resumed run saves it again."""
        for newer in [s for s in self._best.all_steps() if s > step]:
            self._best.delete(newer)

    def wait(self) -> None:
        """Wait until everything saved is on the disk and sealed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._one_line():
                saving.result()

    def close(self) -> None:
        self.wait()
        self._background.shutdown()
        self._latest.close()
        self._best.close()

    def _reserve(self, tree: Any) -> None:
        """Reserve the disk space that a save needs, then free it: a full disk gives one clean error here.

        Raises: UserError when the disk or the quota is full, read-only, or the directory is gone.
        """
        if not is_first():
            return
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        try:
            with tempfile.TemporaryFile(dir=self._workdir) as file:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, size + size // 16 + _METADATA_BYTES)
        except OSError as error:
            if error.errno in errors.MACHINE:  # other errors mean that the file system cannot reserve space
                raise UserError(self._refusal(error.errno)) from None

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """End the process with one line when the disk fails during a save: Orbax's threads would keep running."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise their own classes, with the error number in the text
            found = re.search(r"(?:OS error|Errno) (\d+)", str(error))
            if found is None:
                raise
            errors.give_up(self._refusal(int(found[1])))

    def _refusal(self, code: int) -> str:
        if not self._workdir.exists():
            return f"{self.ending}{self._workdir} was removed while the run was in it; nothing more can be saved"
        return (
            f"{self.ending}cannot save in {self._workdir}: {os.strerror(code)}; earlier checkpoints are kept, and "
            "the same command goes on from them"
        )


def load_model(workdir: Path, which: str, config: Config, num_classes: int) -> tuple[int, Any]:
    """(step, variables as NumPy) of a run's `latest` or `best` checkpoint, on any machine.

    Raises: UserError when there is no undamaged checkpoint.
    """
    folder = workdir / which
    if not saved_steps(workdir, which):
        raise UserError(
            f"no checkpoint in {folder}; a run in training saves its first after config.train.save_minutes; otherwise "
            "train it first, or give another --workdir or --checkpoint"
        )
    model = make_model(config, num_classes)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes(model, config.data.image_size))
    template = {"batch_stats": {}} | zeros
    step = newest_whole(workdir, which)
    with _manager(folder) as manager:
        args = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
        return step, _read(folder, manager, step, args)["variables"]


def save_variables(workdir: Path, step: int, variables: Any) -> None:
    """Save variables (NumPy) alone as workdir's `latest` checkpoint, and wait until it is on the disk.

    A run cannot go on from it, but it can be loaded.
    """
    with _manager(workdir / "latest") as manager:
        manager.save(step, args=ocp.args.Composite(variables=ocp.args.StandardSave(variables)))
        _finish(manager, workdir / "latest" / str(step))


def _finish(manager: ocp.CheckpointManager, folder: Path) -> None:
    """Wait for a save, then seal it."""
    manager.wait_until_finished()
    if is_first():
        seal.write(folder)


def _one_copy(tree: Any) -> Any:
    """With one process, the first device's copy of each array; Orbax would read a part of it from every device."""
    return tree if jax.process_count() > 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)


def _items(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds: the variables, which suffice to evaluate, and the rest of the state."""
    training = {"step": state.step, "opt_state": state.opt_state, "sums": state.sums}
    if state.average:
        training["trained"] = state.trained
    return {"variables": state.variables, "training": training | {"key": jax.random.key_data(state.key)}}


def _read(folder: Path, manager: ocp.CheckpointManager, step: int, args: Any) -> Any:
    try:
        return manager.restore(step, args=args)
    except Exception as error:  # Orbax and TensorStore have many classes
        if errors.OUT_OF_MEMORY in str(error) or errors.is_of_the_machine(error):
            raise
        what = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(
            f"cannot restore {folder / str(step)} ({what}); run.json has the versions that it was saved with"
        ) from None


def _manager(folder: Path, clean: bool = False) -> ocp.CheckpointManager:
    """A folder's manager, which keeps two checkpoints; clean: it removes what an interrupted save has left."""
    chosen = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(2),
        cleanup_tmp_directories=clean,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=folder.name  # processes that wait in one manager must not meet the other's
        ),
    )
    return ocp.CheckpointManager(folder.absolute(), options=chosen)
