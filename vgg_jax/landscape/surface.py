"""The loss around a trained network, on filter-normalised lines and planes (Li et al. 2018)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.console.progress import Progress
from vgg_jax.landscape import kept

BATCH = 8  # grid points per call

# (params, batch_stats) -> (loss, accuracy)
Score = Callable[[Any, Any], tuple[jax.Array, jax.Array]]


def filter_norms(params: Any) -> Any:
    """Euclidean norm of every filter (last kernel axis), shape [1, ..., 1, O]; 0 for biases and BatchNorm."""
    return jax.tree.map(_filter_norm, params)


def _filter_norm(w: jax.Array) -> jax.Array:
    if w.ndim < 2:
        return jnp.zeros_like(w)
    return jnp.sqrt(jnp.sum(w**2, tuple(range(w.ndim - 1)), keepdims=True))


def direction(key: jax.Array, params: Any) -> Any:
    """A random direction d, each filter of it scaled to the norm of the weights': d ||w|| / (||d|| + 1e-10)."""
    leaves, tree = jax.tree.flatten(params)
    drawn = [jax.random.normal(jax.random.fold_in(key, i), w.shape) for i, w in enumerate(leaves)]
    return tree.unflatten([d * _filter_norm(w) / (_filter_norm(d) + 1e-10) for w, d in zip(leaves, drawn)])


def grid(radius: float, points: int) -> np.ndarray:
    """Coordinates [points ** 2, 2] of a square grid in [-radius, radius], row by row."""
    axis = np.linspace(-radius, radius, points, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def make_scan(score: Score) -> Callable[..., jax.Array]:
    """scan(params, batch_stats, d1, d2, points [B, 2]) -> [B, 2]: loss and accuracy at w + a d1 + b d2."""

    def scan(params: Any, batch_stats: Any, d1: Any, d2: Any, points: jax.Array) -> jax.Array:
        def at(point: jax.Array) -> jax.Array:
            moved = jax.tree.map(lambda w, x, y: w + point[0] * x + point[1] * y, params, d1, d2)
            return jnp.stack(score(moved, batch_stats))

        return jax.lax.map(at, points)

    return jax.jit(scan)


def evaluate(
    scan: Callable[..., jax.Array], points: np.ndarray, file: Path, of: kept.Of, progress: Progress
) -> np.ndarray:
    """Loss and accuracy [P, 2] at points [P, 2], in batches; finished ones are saved in file and not repeated."""
    values = np.full((len(points), 2), np.nan, np.float32)
    done_before, _ = kept.read(file, of)
    if done_before and np.array_equal(done_before["points"], points):
        values = done_before["values"]
    todo = np.flatnonzero(np.isnan(values[:, 0]))
    progress.update(len(points) - len(todo))
    for start in range(0, len(todo), BATCH):
        chosen = todo[start : start + BATCH]
        padded = points[np.resize(chosen, BATCH)]  # one compiled size
        values[chosen] = np.nan_to_num(np.asarray(scan(padded))[: len(chosen)], nan=np.inf, posinf=np.inf)
        kept.save(file, of, points=points, values=values)
        progress.update(len(chosen))
    return values
