"""Open a run as a `TrainedRun`: by training it, from its directory, or the shipped one."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ml_collections import ConfigDict, FrozenConfigDict

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.load import Dataset, whole
from vgg_jax.evaluation.trained import TrainedRun
from vgg_jax.exchange import incoming
from vgg_jax.runs import directory, training
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.runs.run import Callback
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config


def train(
    config: Config | ConfigDict | FrozenConfigDict,
    workdir: str | os.PathLike[str],
    data: dict[str, Dataset] | None = None,
    callback: Callback | None = None,
) -> TrainedRun:
    """Train to the end, resuming the run in workdir if there is one; the run that `python -m vgg_jax.main` makes.

    Unlike the command it leaves JAX's settings alone: it makes no devices of CPU cores and keeps no compiled programs.

    Args:
      config: from `vgg_jax.config`, or any ConfigDict with its fields.
      workdir: the run directory; nothing of the run is written elsewhere.
      data: {"train", "validation", "test"} from `vgg_jax.data`; without it, the data of config.data.
      callback: called after each evaluation as callback(record, variables), in every process; not for a run that is
        finished. record is what metrics.jsonl gets; variables are those that were evaluated, to read, and live only
        for the call. The numbers that it may return, by name, join the record. To resume, give it again.

    Raises:
      UserError: the directory, the data or the devices do not fit the config, or the loss is not finite.
      Stopped: SIGINT or SIGTERM came (to the main thread); everything is saved, and the same call goes on.
    """
    checked = configs.load(cast(ConfigDict, config))
    if callback is not None and not callable(callback):
        raise UserError("callback must be a function of (record, variables)")
    given = whole(data, checked.data) if data is not None else None
    training.train(checked, Path(workdir), given, callback)
    return _open(Path(workdir), checked, directory.read_facts(Path(workdir)), "latest", given)


def load(
    workdir: str | os.PathLike[str],
    checkpoint: str = "latest",
    overrides: Mapping[str, Any] = MappingProxyType({}),
    config: str | os.PathLike[str] | None = None,
) -> TrainedRun:
    """The "latest" or "best" checkpoint of a run directory.

    Args:
      checkpoint: "best" is the epoch with the highest validation accuracy; where no images were held out it is that
        with the highest test accuracy, which flatters.
      overrides: where the data are now, e.g. {"data.data_dir": "pictures"}.
      config: the config file that made the run, if it defines its own network or data.

    Raises: UserError when there is no such run or no undamaged checkpoint.
    """
    folder = Path(workdir)
    its_config, facts = directory.read_run(folder, overrides, os.fspath(config) if config else None)
    if "data.data_dir" not in overrides and os.path.isdir(facts.get("data_dir") or ""):
        its_config = configs.override(its_config, {"data.data_dir": facts["data_dir"]})  # as given, it may be relative
    return _open(folder, its_config, facts, checkpoint)


def load_pretrained(overrides: Mapping[str, Any] = MappingProxyType({})) -> TrainedRun:
    """The network that comes with the package: the recipe `speedrun`, trained to the end on CIFAR-10.

    vgg_jax/pretrained/README.md has its accuracy, and what it is not for.

    Args:
      overrides: where CIFAR-10 is, to evaluate: {"data.data_dir": "DIR"}.
    """
    config, facts, step, variables = incoming.read_exported(incoming.SHIPPED, overrides)
    return TrainedRun(incoming.SHIPPED, config, facts, "latest", step, variables)


def load_or_shipped(
    workdir: Path | None, checkpoint: str, overrides: Mapping[str, Any], config: str | None
) -> TrainedRun:
    """`load`, or `load_pretrained` where a command was given no workdir.

    Raises: UserError for what the shipped network does not have.
    """
    if workdir is not None:
        return load(workdir, checkpoint, overrides, config)
    if checkpoint != "latest" or config:
        raise UserError("--checkpoint and --config are for a run of yours; add --workdir RUN")
    return load_pretrained(overrides)


def _open(
    workdir: Path, config: Config, facts: dict[str, Any], checkpoint: str, given: dict[str, Dataset] | None = None
) -> TrainedRun:
    step, variables = load_model(workdir, checkpoint, config, len(facts["class_names"]))
    return TrainedRun(workdir, config, facts, checkpoint, step, variables, given)
