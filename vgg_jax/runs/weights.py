"""Start a run with the weights of another one."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vgg_jax.console.errors import UserError
from vgg_jax.console.flags import path
from vgg_jax.model.network import make_model, shapes
from vgg_jax.runs import directory, seal
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training import processes
from vgg_jax.training.sharding import Placement
from vgg_jax.training.step import TrainState


def start_from(config: Config, workdir: Path, state: TrainState, placement: Placement) -> TrainState:
    """The state before the first step, with the weights of the run that config.train.start_from names.

    Where the number of classes differs, arrays whose shape depends on it stay as they are. workdir/start.json
    records what was taken.

    Raises: UserError when there is no such run, it has another network, or its weights have changed since the run
      in workdir began with them.
    """
    source = path(config.train.start_from)
    its_config, facts = directory.read_run(source)
    if code.of(config, "get_model"):
        its_config = configs.with_code(its_config, config)
    its_classes = len(facts["class_names"])
    step, variables = load_model(source, "latest", its_config, its_classes)
    found, fresh = _flat(variables), _flat(state.trained)
    alike = _flat(shapes(make_model(config, its_classes), config.data.image_size))
    for name in sorted(found.keys() | alike.keys()):
        there, here = (tree[name].shape if name in tree else None for tree in (found, alike))
        if there != here:
            raise UserError(
                f"config.train.start_from={source} is a run of another network: {name} is {there or 'not there'} "
                f"there and {here or 'not there'} here"
            )
    ours = directory.read_facts(workdir)
    if not np.allclose([facts["mean"], facts["std"]], [ours["mean"], ours["std"]], atol=0.01):
        print(
            f"{source} was trained on images normalised by mean {_rounded(facts['mean'])} and std "
            f"{_rounded(facts['std'])}, this run normalises by {_rounded(ours['mean'])} and {_rounded(ours['std'])}",
            file=sys.stderr,
        )
    if processes.is_first():
        _record(workdir, {"run": str(source.absolute()), "step": step, "sums": seal.of(source / "latest" / str(step))})
    kept = sorted(name for name in found if found[name].shape != fresh[name].shape)
    print(f"starting with the weights of {source} at step {step}" + (f", but for {', '.join(kept)}" if kept else ""))
    weights = {name: fresh[name] if name in kept else placement.replicate(found[name]) for name in found}
    trained = {"batch_stats": {}} | traverse_util.unflatten_dict(weights, sep="/")
    return state.replace(**trained, average=jax.tree.map(jnp.copy, trained) if state.average else {})


def _rounded(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _record(workdir: Path, start: dict[str, Any]) -> None:
    file = workdir / "start.json"
    if file.exists() and json.loads(file.read_text())["sums"] != start["sums"]:
        raise UserError(
            f"{start['run']} has changed since the run in {workdir} began with its weights; give another --workdir"
        )
    directory.write(file, json.dumps(start, indent=2) + "\n")
