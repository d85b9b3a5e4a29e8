"""Sharpness around a network at one moment of its training: random lines, the Hessian, the worst case nearby."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.console.progress import Progress
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape import hessian, kept, surface
from vgg_jax.landscape.kept import Arrays
from vgg_jax.landscape.networks import Network
from vgg_jax.landscape.score import make_score
from vgg_jax.landscape.surface import Score
from vgg_jax.settings.fields import Config, Landscape

ROUNDING = 1e-4  # of the largest eigenvalue: what is smaller counts as 0
LINE = (-1.0, -0.5, 0.0, 0.5, 1.0)  # places on a line, in units of config.landscape.surface_radius
# name -> (moment, BatchNorm's statistics). Stored ones are not asked for at equal loss: training is fast there, and its
# running averages lag behind the network.
PLACES = {
    "end_stored": ("end", "stored"),
    "end_recomputed": ("end", "recomputed"),
    "equal_recomputed": ("equal", "recomputed"),
}


def measure(config: Config, network: Network, dataset: Dataset, folder: Path) -> Arrays:
    """For each of PLACES, under its name and an underscore, with a row for each seed:

    lines [seeds, D, L], losses at LINE on D random filter-normalised lines; loss [seeds]; worst_loss [seeds];
    ritz and residuals [seeds, 2, iterations] of the Hessian, plain and filter-normalised.
    All NaN where a seed never came under the equal loss.
    """
    fields, found, programs, like = config.landscape, {}, {}, {}
    progress = Progress(len(PLACES) * fields.seeds, f"around {network.name}", " networks")
    for name, (moment, statistics) in PLACES.items():
        kind = statistics if network.variables[0]["batch_stats"] else "stored"  # all the same without BatchNorm
        if kind not in programs:
            score = make_score(network.config, network.model, dataset.sample(fields.images), kind)
            programs[kind] = make_program(score, fields)
        seeds = []
        for place in range(fields.seeds):
            seed = config.seed + place
            file = folder / f"around_{network.name}_{moment}_{kind}_seed{seed}.npz"
            seeds.append(_one(network, moment, place, seed, programs[kind], file))
            progress.update(1)
        like = like or seeds[0]  # the first place is the end of training, which every seed has
        whole = [one or {key: np.full_like(value, np.nan) for key, value in like.items()} for one in seeds]
        found |= {f"{name}_{key}": np.array([one[key] for one in whole]) for key in like}
    progress.close()
    return found


def make_program(score: Score, fields: Landscape) -> Any:
    """program(params, batch_stats, key) -> what `measure` has of one seed; three programs, each compiled once."""

    def lines(params: Any, batch_stats: Any, key: jax.Array) -> jax.Array:
        def on(key: jax.Array) -> jax.Array:
            move = surface.direction(key, params)

            def at(distance: jax.Array) -> jax.Array:
                moved = jax.tree.map(lambda w, d: w + distance * fields.surface_radius * d, params, move)
                return score(moved, batch_stats)[0]

            return jax.lax.map(at, jnp.array(LINE, jnp.float32))

        return jax.lax.map(on, jax.random.split(key, fields.directions))

    def spectra(params: Any, batch_stats: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return hessian.spectra(lambda p: score(p, batch_stats)[0], params, fields.hessian_iterations, key)

    def worst(params: Any, batch_stats: Any) -> jax.Array:
        return hessian.worst_case(lambda p: score(p, batch_stats)[0], params, fields.ascent_radius, fields.ascent_steps)

    lines, spectra, worst = map(jax.jit, (lines, spectra, worst))

    def program(params: Any, batch_stats: Any, key: jax.Array) -> Arrays:
        first, second = jax.random.split(key)
        found: dict[str, Any] = {"lines": lines(params, batch_stats, first), "worst_loss": worst(params, batch_stats)}
        found["ritz"], found["residuals"] = spectra(params, batch_stats, second)
        found["loss"] = found["lines"][0, LINE.index(0.0)]
        return jax.device_get(found)

    return program


def _one(network: Network, moment: str, place: int, seed: int, program: Any, file: Path) -> Arrays:
    """The arrays of one seed, measured or read again; {} where it never came under the equal loss."""
    equal = network.equal[place]
    variables = network.variables[place] if moment == "end" else equal and equal.variables
    if variables is None:
        return {}
    key = jax.random.key(np.uint32(seed))
    measure = functools.partial(program, variables["params"], variables["batch_stats"], key)
    return kept.measured(file, network.of(place), measure)


def rise(lines: np.ndarray, distance: float) -> np.ndarray:
    """How much the loss rises so many radii away, mean of both sides of all lines: [..., D, L] -> [...]"""
    there = [i for i, place in enumerate(LINE) if abs(place) == distance]
    return lines[..., there].mean((-2, -1)) - lines[..., LINE.index(0.0)].mean(-1)


def nonconvexity(ritz: np.ndarray) -> np.ndarray:
    """How far down the loss curves where it curves down most, as a share of how far up at most: [..., N] -> [...]

    -smallest / largest of a Hessian's Ritz values: a lower bound, as the smallest lies above the smallest eigenvalue.
    0 where nothing curves down by more than rounding, which is about 1e-5 of the largest.
    """
    share = -ritz.min(-1) / ritz.max(-1)
    return np.where(share < ROUNDING, 0.0, share)
