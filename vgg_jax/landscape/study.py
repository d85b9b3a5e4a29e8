"""The stages of the study: what is measured of both trained networks, each kept in a file."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.datasets.batches import normalise
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape import around, band, interpret, kept, slices
from vgg_jax.landscape.kept import Arrays
from vgg_jax.landscape.networks import Network
from vgg_jax.landscape.score import settled
from vgg_jax.model.forward import make_forward, predict
from vgg_jax.model.scores import scores
from vgg_jax.runs import log
from vgg_jax.settings.fields import Config


class Stage(NamedTuple):
    """measure gives a network's arrays; seeds are the places of the seeds whose weights they depend on."""

    measure: Callable[[Network], Arrays]
    seeds: Sequence[int]


def stages(config: Config, splits: dict[str, Dataset], folder: Path) -> dict[str, Stage]:
    """By name, in the order in which they are measured."""
    every, train, test = range(config.landscape.seeds), splits["train"], splits["test"]
    return {
        "probes": Stage(probes, every),
        "rates": Stage(lambda network: rate_band(config, network, train), ()),
        "equal": Stage(lambda network: equal_loss(config, network, train, test), every),
        "around": Stage(lambda network: around.measure(config, network, train, folder), every),
        "planes": Stage(lambda network: slices.planes(config, network, train, folder), (0,)),
        "path": Stage(lambda network: slices.path(config, network, train, folder), (0,)),
        "pixels": Stage(lambda network: interpretation(network, test), (0,)),
    }


def measured(name: str, stage: Stage, network: Network, folder: Path) -> Arrays:
    """A stage's arrays of a network, read from its file or else measured and saved there."""
    file = folder / f"{name}_{network.name}.npz"
    return kept.measured(file, network.of(*stage.seeds), functools.partial(stage.measure, network))


def probes(network: Network) -> Arrays:
    """probes.jsonl of every seed as arrays [seeds, probes, ...]; steps [probes]."""
    records = [log.read_lines(workdir / "probes.jsonl") for workdir in network.workdirs]
    arrays = {key: np.array([[r[key] for r in run] for run in records]) for key in records[0][0]}
    return arrays | {"step": arrays["step"][0]}


def rate_band(config: Config, network: Network, train: Dataset) -> Arrays:
    """Training losses [seeds, learning rates, steps]."""
    fields = config.landscape
    seeds = [config.seed + i for i in range(fields.seeds)]
    return {"losses": band.train(network.config, train, fields.learning_rates, seeds, fields.band_epochs)}


def equal_loss(config: Config, network: Network, train: Dataset, test: Dataset) -> Arrays:
    """Of every seed's first snapshot under the equal loss: step, loss (on the images that chose it) and test_accuracy
    [seeds], NaN without one.

    BatchNorm's statistics are those of the study's training images: the running ones lag behind in early training.
    """
    chosen = train.sample(config.landscape.images)
    images = normalise(jnp.asarray(chosen.images), train.mean, train.std)
    settle = jax.jit(functools.partial(settled, network.model))
    forward = make_forward(network.model, train.mean, train.std)
    rows = []
    for one in network.equal:
        if one is None:
            rows.append((np.nan,) * 3)
            continue
        logits = predict(forward, settle(one.variables, images), test.images)
        rows.append((one.step, one.loss, scores(logits, test.labels)["accuracy"]))
    return dict(zip(("step", "loss", "test_accuracy"), np.array(rows, np.float64).T))


def interpretation(network: Network, dataset: Dataset, count: int = 8) -> Arrays:
    """The first seed's first-layer filters [F, 3, 3, 3], and its saliency [count, H, W] on the first test images."""
    variables, images = network.variables[0], dataset.images[:count]
    pixels, labels = normalise(jnp.asarray(images), dataset.mean, dataset.std), jnp.asarray(dataset.labels[:count])
    saliency = jax.jit(interpret.saliency, static_argnums=0)(network.model, variables, pixels, labels)
    return {"filters": interpret.first_filters(variables["params"]), "saliency": np.asarray(saliency), "images": images}
