"""The two networks that the study compares: trained with every seed, probed on the way, snapshots kept."""

import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import Batch
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape import kept, probe, snapshots
from vgg_jax.landscape.score import make_score
from vgg_jax.landscape.snapshots import Snapshot
from vgg_jax.model.network import make_model, shapes
from vgg_jax.runs import directory, entry
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.runs.log import Record
from vgg_jax.runs.loop import Probe, fit
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training.step import Recipe, TrainState, make_recipe

NETWORKS = {"plain": "none", "bn": "before"}  # name -> config.model.batch_norm


class Network(NamedTuple):
    """One of the two networks, trained with every seed.

    Attributes:
      variables: at the end of training, by seed.
      equal: the first of each seed under config.landscape.equal_loss; None where none was.
      path: snapshots of the first seed, from its start to its end.
      settings: what a measure depends on besides the weights, by name.
      weights: digests of every seed's weights, under its name.
    """

    name: str
    config: Config
    workdirs: list[Path]
    model: nn.Module
    variables: list[Any]
    equal: list[Snapshot | None]
    path: list[Snapshot]
    settings: dict[str, Any]
    weights: list[dict[str, str]]

    def of(self, *seeds: int) -> dict[str, Any]:
        """What a measure of the seeds of these places depends on."""
        return functools.reduce(operator.or_, (self.weights[place] for place in seeds), self.settings)


def base_config(config: Config, batch_norm: str) -> Config:
    """The training config of one network: without the landscape fields, with or without BatchNorm."""
    return configs.override(configs.without(config, "landscape"), {"model.batch_norm": batch_norm})


def check(config: Config, num_classes: int) -> None:
    """Raises: UserError when a network of one's own does not have BatchNorm just where the study asks for it."""
    for batch_norm in NETWORKS.values():
        base = base_config(config, batch_norm)
        has = "batch_stats" in shapes(make_model(base, num_classes), config.data.image_size)
        if has != (batch_norm != "none"):
            raise UserError(
                f"the study compares networks without and with BatchNorm, but for config.model.batch_norm="
                f"{batch_norm!r} get_model gives one {'with' if has else 'without'} it"
            )


def train(config: Config, splits: dict[str, Dataset], workdir: Path) -> dict[str, Network]:
    """Train both networks with every seed, each as an ordinary run in workdir/<name>/seed<n>, with probes."""
    return {name: _train(config, splits, workdir, name) for name in NETWORKS}


def _train(config: Config, splits: dict[str, Dataset], workdir: Path, name: str) -> Network:
    fields, base, names = config.landscape, base_config(config, NETWORKS[name]), splits["train"].class_names
    seeded = configs.seeded(base, fields.seeds)
    workdirs = [workdir / name / f"seed{one.seed}" for one in seeded]
    with contextlib.ExitStack() as stack:
        for one, its_workdir in zip(seeded, workdirs):
            stack.enter_context(entry.taken_back(its_workdir, entry.open_run(its_workdir, one, splits)))
        recipe = make_recipe(base, len(names), len(splits["train"]))
        total = recipe.total_steps
        watch = Probe(fields.probe_steps, _watching(config, base, recipe, splits["train"], workdirs[0]))
        print(f"training {name}, BatchNorm {NETWORKS[name]}, {fields.seeds} seeds", flush=True)
        for one, its_workdir in zip(seeded, workdirs):
            fit(one, splits, its_workdir, watch)
    loaded = [load_model(its_workdir, "latest", base, len(names)) for its_workdir in workdirs]
    variables = [variables for _, variables in loaded]
    equal = [snapshots.read(snapshots.equal_file(w), v) for w, v in zip(workdirs, variables)]
    weights = [
        {f"weights of {w.name}": kept.digest(v), f"weights of {w.name} at equal loss": kept.digest(e and e.variables)}
        for w, v, e in zip(workdirs, variables, equal)
    ]
    every, kept_path = snapshots.path_steps(total, fields.probe_steps), snapshots.read_path(workdirs[0], variables[0])
    before = [one for one in kept_path if one.step < total]
    path = [one for one in before if one.step % every == 0]
    if len(path) < snapshots.POINTS // 2:  # a study begun by an earlier version, on another grid
        path = before
    path.append(Snapshot(total, math.nan, variables[0]))
    return Network(
        name, base, workdirs, recipe.model, variables, equal, path, _settings(config, base, splits), weights
    )  # fmt: skip


def _watching(
    config: Config, base: Config, recipe: Recipe, dataset: Dataset, first: Path
) -> Callable[[TrainState, Batch, Path], Record]:
    """The measure of a `Probe`: `probe.make_measure`, and the loss on other images than those that the study measures
    on, since that loss chooses snapshots.
    """
    fields = config.landscape
    measure = probe.make_measure(base, recipe, dataset, fields.step_sizes, fields.update_sizes)
    score = jax.jit(make_score(base, recipe.model, other_images(dataset, fields.images), "recomputed"))
    every = snapshots.path_steps(recipe.total_steps, fields.probe_steps)

    def watch(state: TrainState, data: Batch, workdir: Path) -> Record:
        variables = state.variables
        loss = float(score(variables["params"], variables["batch_stats"])[0])
        snapshots.keep_equal(workdir, state, loss, fields.equal_loss)
        if workdir == first:
            snapshots.keep_path(workdir, state, loss, every)
        return {"choosing_loss": loss} | {key: np.asarray(x).tolist() for key, x in measure(state, data).items()}

    return watch


def other_images(dataset: Dataset, n: int) -> Dataset:
    """n images, none of them in dataset.sample(n); the dataset must have 2 n."""
    every = dataset.sample(len(dataset))
    return dataclasses.replace(every, images=every.images[-n:], labels=every.labels[-n:])


def _settings(config: Config, base: Config, splits: dict[str, Dataset]) -> dict[str, Any]:
    study = {name: value for name, value in configs.flatten(config).items() if name.startswith("landscape.")}
    return directory.fields(base) | study | {f"{split} images": part.fingerprint for split, part in splits.items()}
