"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2015): the CPU's fast path.

A patch d has 6 x 6 pixels and overlaps the next patch by two. A ((G k G^T) * (B d B^T)) A^T makes 4 x 4 output pixels
from it with 36 products, where a plain convolution takes 144. Every matrix is applied down the image first; then a loop
over the six rows applies it across and multiplies. The loop stops XLA from fusing the two halves of a transform, which
would recompute the first half for each output. Images are processed in tiles; the gradient is the exact adjoint.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_B = np.array([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_G = np.array([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
])  # fmt: skip
_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_TILE_PATCHES = 512  # in a tile: enough rows for the BLAS, few enough for the L2 cache (docs/speed.md)


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution, stride 1. [N, H, W, C], [3, 3, C, O] -> [N, H, W, O]"""
    h, w = x.shape[1:3]
    whole = jnp.pad(x, ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)))
    return _conv(whole, kernel)[:, :h, :w]


def _forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv` for maps whose sides are multiples of four."""
    tiles, taps = _tiles(x), _kernel_rows(kernel)

    def row(args: tuple[jax.Array, jax.Array]) -> jax.Array:
        patches, taps = args
        products = [v @ tap for v, tap in zip(_across(patches), _combine(_G, taps))]
        n, h, w, _ = patches.shape
        return jnp.stack(_combine(_A, products), 1).reshape(n, h, w - 2, -1)

    def tile(x: jax.Array) -> jax.Array:
        rows = lax.map(row, (_down(x), taps))
        return jnp.stack(_combine(_A, rows), 2).reshape(*x.shape[:3], -1)  # from [n, H/4, 4, W, O]

    return lax.map(tile, tiles).reshape(*x.shape[:3], -1)


def _saving(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(x, kernel), (x, kernel)  # calls the plain function, so that it can be differentiated again


def _backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    tiles, taps = (_tiles(x), _tiles(dy)), _kernel_rows(kernel)

    def row(args: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        dtaps, patches, dy, taps = args
        products = [p.reshape(-1, p.shape[-1]) for p in _combine(_A.T, [dy[:, :, j::4] for j in range(4)])]
        sums = [v.T @ p for v, p in zip(_across(patches), products)]
        n, h, w, _ = dy.shape
        dpatches = [(p @ tap.T).reshape(n, h, w // 4, -1) for p, tap in zip(products, _combine(_G, taps))]
        return dtaps + jnp.stack(_combine(_G.T, sums)), _overlap(_combine(_B.T, dpatches), 2)

    def tile(dtaps: jax.Array, xdy: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, dy = xdy
        dy_rows = jnp.stack(_combine(_A.T, [dy[:, i::4] for i in range(4)]))
        dtaps, rows = lax.map(row, (dtaps, _down(x), dy_rows, taps))
        return dtaps, _overlap(_combine(_B.T, rows), 1)

    dtaps, dx = lax.scan(tile, jnp.zeros_like(taps), tiles)
    return dx.reshape(x.shape), jnp.stack(_combine(_G.T, dtaps))


_conv = jax.custom_vjp(_forward)
_conv.defvjp(_saving, _backward)


def _combine(matrix: np.ndarray, terms: Iterable[jax.Array]) -> list[jax.Array]:
    """matrix @ terms, written as sums: XLA fuses sums, and is slow at products with such a small matrix."""
    terms, sums = list(terms), []
    for row in matrix:
        used = [x if c == 1 else -x if c == -1 else float(c) * x for c, x in zip(row, terms) if c]
        sums.append(sum(used[1:], used[0]))
    return sums


def _tiles(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [T, N/T, H, W, C]; each of the T tiles has at most _TILE_PATCHES patches, or is one image."""
    n, h, w, _ = x.shape
    most = max(1, _TILE_PATCHES * 16 // (h * w))
    size = max(divisor for divisor in range(1, min(n, most) + 1) if n % divisor == 0)
    return x.reshape(n // size, size, *x.shape[1:])


def _kernel_rows(kernel: jax.Array) -> jax.Array:
    """G k: [3, 3, C, O] -> [6, 3, C, O]"""
    return jnp.stack(_combine(_G, kernel))


def _down(x: jax.Array) -> jax.Array:
    """B d of every patch, down the image: [n, H, W, C] -> [6, n, H/4, W + 2, C]"""
    padded, h = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1]
    return jnp.stack(_combine(_B, [padded[:, i : i + h - 3 : 4] for i in range(6)]))


def _across(row: jax.Array) -> list[jax.Array]:
    """d B^T of every patch, across the image: [n, H/4, W + 2, C] -> six [n * H/4 * W/4, C]"""
    w, c = row.shape[2] - 2, row.shape[3]
    return [v.reshape(-1, c) for v in _combine(_B, [row[:, :, j : j + w - 3 : 4] for j in range(6)])]


def _overlap(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """The adjoint of cutting patches: place the six pixels of each patch along axis, add them where patches overlap,
    and drop the first and the last pixel, which are padding."""

    def side_by_side(pixels: Sequence[jax.Array]) -> jax.Array:
        joined = jnp.stack(pixels, axis + 1)
        return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])

    def padded(x: jax.Array, before: int, after: int) -> jax.Array:
        return jnp.pad(x, [(before, after) if d == axis else (0, 0) for d in range(x.ndim)])

    own = side_by_side(parts[:4])
    next_ones = side_by_side([*parts[4:], *[jnp.zeros_like(parts[0])] * 2])
    whole = padded(own, 0, 4) + padded(next_ones, 4, 0)
    return lax.slice_in_dim(whole, 1, 1 + own.shape[axis], axis=axis)
