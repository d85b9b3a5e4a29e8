"""Pictures of the first seed's loss: a random plane around its end, and the plane in which training walked."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from vgg_jax.console.progress import Progress
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape import surface
from vgg_jax.landscape.kept import Arrays
from vgg_jax.landscape.networks import Network
from vgg_jax.landscape.score import STATISTICS, make_score
from vgg_jax.settings.fields import Config

MARGIN = 0.25  # of the path's extent, on every side of it


def planes(config: Config, network: Network, dataset: Dataset, folder: Path) -> Arrays:
    """plane [2, P, P, 2]: loss and accuracy on a random filter-normalised plane, for each of STATISTICS; axis [P]."""
    fields, variables = config.landscape, network.variables[0]
    key = jax.random.key(np.uint32(config.seed))
    moves = [surface.direction(jax.random.fold_in(key, i), variables["params"]) for i in (0, 1)]
    points = surface.grid(fields.surface_radius, fields.surface_points)
    kinds = STATISTICS if variables["batch_stats"] else STATISTICS[:1]
    found = [
        _evaluate(config, network, dataset, statistics, variables, moves, points, folder, f"plane_{statistics}")
        for statistics in kinds
    ]
    axis = points[:: fields.surface_points, 0]
    return {"plane": np.array(found * (len(STATISTICS) // len(kinds))), "axis": axis}


def path(config: Config, network: Network, dataset: Dataset, folder: Path) -> Arrays:
    """The plane through the end of training that holds most of the path walked (Li et al. 2018, section 7).

    It is spanned by the first two principal components of the snapshots less the end. BatchNorm's statistics are
    recomputed at every point, since those stored belong to the end.

    Returns: plane [P, P, 2], loss and accuracy; axes [2, P], Euclidean distances from the end along both components;
      walked [T, 2], the snapshots' places in the plane; steps [T]; share [2], the components' shares of the snapshots'
      summed squared distances from the end.
    """
    fields, end = config.landscape, network.variables[0]
    flat, unravel = ravel_pytree(end["params"])
    walked = np.stack([ravel_pytree(one.variables["params"])[0] for one in network.path]) - np.asarray(flat)
    places, lengths, components = np.linalg.svd(walked, full_matrices=False)
    places = (places * lengths)[:, :2]
    low, high = places.min(0), places.max(0)
    room = np.maximum(MARGIN * (high - low), 1e-6)
    axes = np.linspace(low - room, high + room, fields.surface_points, axis=1).astype(np.float32)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    moves = [unravel(component) for component in components[:2]]
    plane = _evaluate(config, network, dataset, STATISTICS[1], end, moves, points, folder, "path")
    return {
        "plane": plane,
        "axes": axes,
        "walked": places,
        "steps": np.array([one.step for one in network.path]),
        "share": lengths[:2] ** 2 / max((lengths**2).sum(), 1e-30),
    }


def _evaluate(
    config: Config, network: Network, dataset: Dataset, statistics: str, variables: Any, moves: list[Any],
    points: np.ndarray, folder: Path, name: str,
) -> np.ndarray:  # fmt: skip
    """Loss and accuracy [P, P, 2] at points [P * P, 2]; finished ones are kept in a file of the folder."""
    side = config.landscape.surface_points
    score = make_score(network.config, network.model, dataset.sample(config.landscape.images), statistics)
    scan = surface.make_scan(score)
    at = functools.partial(scan, *jax.device_put((variables["params"], variables["batch_stats"], *moves)))
    progress = Progress(len(points), f"{name} of {network.name}", " points")
    values = surface.evaluate(at, points, folder / f"{name}_{network.name}_points.npz", network.of(0), progress)
    progress.close()
    return values.reshape(side, side, 2)
