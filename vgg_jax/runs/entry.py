"""Entering a run's directory: the config must fit the data and the devices, and be that of the run which is there."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vgg_jax.console.errors import RunFailed, Stopped, UserError
from vgg_jax.datasets.load import Dataset
from vgg_jax.model import network
from vgg_jax.runs import directory, numerics, origin, tracking
from vgg_jax.runs.damage import saved_steps
from vgg_jax.runs.lock import lock
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training import own, processes, sharding
from vgg_jax.training.optim import goes_on


def open_run(workdir: Path, config: Config, data: dict[str, Dataset], given: bool = False) -> bool:
    """`check_fits`, then `enter`."""
    check_fits(config, data)
    return enter(workdir, config, data, given)


def check_fits(config: Config, data: dict[str, Dataset]) -> None:
    """Raises: UserError when the config does not fit the data, the devices or the packages."""
    tracking.check(config)
    height, width = data["train"].images.shape[1:3]
    if height != width:
        raise UserError(f"the images must be square, not {width}x{height}")
    if (height, width) != (config.data.image_size,) * 2:
        raise UserError(f"the images have {width}x{height} pixels; set config.data.image_size to their side")
    if not len(data["test"]):
        raise UserError("there are no test images")
    if config.train.batch_size > len(data["train"]):
        raise UserError(
            f"config.train.batch_size={config.train.batch_size} is larger than the {len(data['train'])} training images"
        )
    sharding.place(config)
    network.check(config, len(data["train"].class_names))
    own.check(config, data["train"])


def enter(workdir: Path, config: Config, data: dict[str, Dataset], given: bool = False) -> bool:
    """Make the directory of a new run, or check that an existing one has the same config and data.

    given: the data were handed over, so that config.data does not name them.

    Returns: whether the run is new.

    Raises: UserError listing what differs; Busy when another process is training there.
    """
    make(workdir)
    with lock(workdir):
        if is_there(workdir):
            _go_on(workdir, config, data)
            return False
        if processes.is_first():
            where = {"data_dir": directory.data_dir(config), "data_given": given}
            facts = directory.describe(data) | where | origin.describe()
            directory.write(workdir / "run.json", json.dumps(facts, indent=2) + "\n")
            directory.write(workdir / "config.json", configs.to_json(config))
            return True
        raise UserError(f"{workdir} is not the directory that process 0 made; all processes must share one")


def is_there(workdir: Path) -> bool:
    """Whether workdir describes a run."""
    return os.path.exists(workdir / "config.json")


def check_same(workdir: Path, config: Config, data: dict[str, Dataset]) -> Config:
    """The config of the run in workdir, which may have fewer epochs.

    Raises: UserError listing what differs in the config or the data.
    """
    old_config, facts = directory.read_run(workdir)
    if "origin" in facts:
        raise UserError(
            f"{workdir} holds imported weights, without a state to go on from; to train on from them, give "
            f"--config.train.start_from={workdir} and another --workdir"
        )
    old, new = configs.flatten(old_config), configs.flatten(config)
    differing = directory.differing(old_config, config)
    longer = differing == ["train.epochs"] and new["train.epochs"] > old["train.epochs"]
    if longer and not goes_on(old_config, config):
        raise UserError(
            f"{workdir} holds a run of {old['train.epochs']} epochs whose learning rate or image size may depend on "
            "their number (config.schedule, config.augment.small_part, functions of your own), so it cannot go on to "
            f"{new['train.epochs']}; give another --workdir"
        )
    if differing and not longer:
        listed = ", ".join(f"{k} ({old.get(k)!r} there, {new.get(k)!r} now)" for k in differing)
        raise UserError(f"{workdir} holds a run of another config: {listed}; give another --workdir")
    numerics.check(workdir, facts.get("jax_settings", {}))
    now = directory.describe(data)
    if facts["fingerprint"] != now["fingerprint"]:
        raise UserError(f"{workdir} holds a run on other data (the fingerprint differs); give another --workdir")
    there, here = len(facts["class_names"]), len(now["class_names"])
    if there != here:
        raise UserError(f"{workdir} holds a run of {there} classes, these data have {here}; give another --workdir")
    if not np.allclose([facts["mean"], facts["std"]], [now["mean"], now["std"]]):
        raise UserError(f"{workdir} holds a run on images normalised by another mean and std; give another --workdir")
    return old_config


def _go_on(workdir: Path, config: Config, data: dict[str, Dataset]) -> None:
    old_config = check_same(workdir, config, data)
    directory.say_if_changed(workdir, configs.flatten(old_config), configs.flatten(config))
    if config.train.epochs > old_config.train.epochs:
        print(f"the run in {workdir} goes on from {old_config.train.epochs} to {config.train.epochs} epochs")
        directory.drop_summary(workdir)  # first: a run with a summary is finished
        if processes.is_first():
            directory.write(workdir / "config.json", configs.to_json(config))


@contextlib.contextmanager
def taken_back(workdir: Path, new: bool) -> Iterator[None]:
    """For what is done in a new run's directory: if it fails before anything is saved, another run can begin there."""
    try:
        yield
    except (RunFailed, Stopped):
        raise
    except BaseException:
        if new:
            _take_back(workdir)
        raise


def _take_back(workdir: Path) -> None:
    earned = saved_steps(workdir) or saved_steps(workdir, "best") or (workdir / "metrics.jsonl").exists()
    if processes.is_first() and not earned:
        for name in ("config.json", "run.json", "start.json"):
            (workdir / name).unlink(missing_ok=True)


def make(workdir: Path) -> None:
    """Make a run directory where there is none.

    Raises: UserError when it cannot be made or written to.
    """
    if sys.platform == "win32":
        raise UserError("training needs Linux or macOS; on Windows, use WSL2")
    if odd := sorted(set("[]\\") & set(str(workdir.absolute()))):
        raise UserError(
            f"{workdir} has {odd[0]} in its path, where checkpoints cannot be read back; give another --workdir"
        )
    if os.path.isfile(workdir):
        raise UserError(f"{workdir} is a file; give another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot make {workdir} ({getattr(error, 'strerror', error)}); give another --workdir"
        ) from None
    if not os.access(workdir, os.W_OK):
        raise UserError(f"cannot write to {workdir}; give another --workdir")
