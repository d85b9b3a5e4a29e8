"""3x3 convolution by Winograd's minimal filtering (Lavin & Gray 2015): the CPU's fast path.

F(m x m, 3 x 3) makes m x m output pixels of an a x a input patch, a = m + 2, by a x a products
instead of 9 m^2: out = A ((G k G^T) * (B d B^T)) A^T. All images go through in tiles small enough
for the cache. The gradient is the exact adjoint, step by step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class _Filtering(NamedTuple):
    """The three matrices of F(m x m, 3 x 3), and how many patches make a tile: enough rows for the
    BLAS, few enough for the L2 cache. Measured on Intel and AMD with AVX-512 (docs/speed.md)."""

    m: int
    patches: int
    b: np.ndarray
    g: np.ndarray
    a: np.ndarray


_TWO = _Filtering(
    m=2,
    patches=1024,
    b=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    g=np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    a=np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
_FOUR = _Filtering(
    m=4,
    patches=512,
    b=np.array([
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]),
    g=np.array([
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]),
    a=np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
)  # fmt: skip


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution, stride 1. [N, H, W, C], [3, 3, C, O] -> [N, H, W, O]

    On small maps F(4x4), whose products are fewer but whose transforms XLA makes slower; else F(2x2).
    """
    h, w = x.shape[1:3]
    return _convs[4 if max(h, w) <= 8 and h % 4 == w % 4 == 0 else 2](x, kernel)


def _make_conv(f: _Filtering) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        taps = _kernel_transform(f, kernel)

        def body(tile: jax.Array) -> jax.Array:
            return _output_transform(f, [v @ tap for v, tap in zip(_input_transform(f, tile), taps)], tile.shape)

        return lax.map(body, _tiles(f, x)).reshape(*x.shape[:3], -1)

    def saving(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return forward(x, kernel), (x, kernel)  # the plain function, so that this can be differentiated again

    def backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = saved
        taps = _kernel_transform(f, kernel)

        def body(dtaps: jax.Array, tile: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            products = _output_adjoint(f, tile[1])
            sums = jnp.stack([v.T @ p for v, p in zip(_input_transform(f, tile[0]), products)])
            return dtaps + sums, _input_adjoint(f, [p @ tap.T for p, tap in zip(products, taps)], tile[0].shape)

        dtaps, dx = lax.scan(body, jnp.zeros_like(taps), (_tiles(f, x), _tiles(f, dy)))
        return dx.reshape(x.shape), _kernel_adjoint(f, dtaps)

    convolve = jax.custom_vjp(forward)
    convolve.defvjp(saving, backward)
    return convolve


def _combine(matrix: np.ndarray, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """matrix @ terms, spelt out: XLA fuses sums, and is slow at products with a matrix this small."""
    sums = []
    for row in matrix:
        used = [x if c == 1 else -x if c == -1 else float(c) * x for c, x in zip(row, terms) if c]
        sums.append(sum(used[1:], used[0]))
    return sums


def _tiles(f: _Filtering, x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [T, N/T, H, W, C], at most f.patches patches in each of the T tiles, or one image."""
    n, h, w, _ = x.shape
    most = max(1, f.patches // (-(-h // f.m) * -(-w // f.m)))
    size = max(divisor for divisor in range(1, min(n, most) + 1) if n % divisor == 0)
    return x.reshape(n // size, size, *x.shape[1:])


def _kernel_transform(f: _Filtering, kernel: jax.Array) -> jax.Array:
    """G k G^T: [3, 3, C, O] -> [a * a, C, O]"""
    columns = [_combine(f.g, [kernel[i, j] for i in range(3)]) for j in range(3)]
    return jnp.stack([tap for row in zip(*columns) for tap in _combine(f.g, row)])


def _kernel_adjoint(f: _Filtering, dtaps: jax.Array) -> jax.Array:
    a = f.m + 2
    rows = [_combine(f.g.T, list(dtaps[a * i : a * i + a])) for i in range(a)]
    columns = [_combine(f.g.T, column) for column in zip(*rows)]
    return jnp.stack([jnp.stack(row) for row in zip(*columns)])


def _input_transform(f: _Filtering, x: jax.Array) -> list[jax.Array]:
    """B d B^T of every patch d, m pixels apart: a * a matrices [N * H/m * W/m, C]."""
    h, w, c = x.shape[1:]
    down, across, a = -(-h // f.m), -(-w // f.m), f.m + 2
    padded = jnp.pad(x, ((0, 0), (1, down * f.m - h + 1), (1, across * f.m - w + 1), (0, 0)))
    rows = _combine(f.b, [padded[:, i : i + f.m * (down - 1) + 1 : f.m] for i in range(a)])
    columns = [[r[:, :, j : j + f.m * (across - 1) + 1 : f.m] for j in range(a)] for r in rows]
    return [v.reshape(-1, c) for row in columns for v in _combine(f.b, row)]


def _input_adjoint(f: _Filtering, dv: Sequence[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    n, h, w, _ = shape
    a = f.m + 2
    patches = [v.reshape(n, -(-h // f.m), -(-w // f.m), -1) for v in dv]
    rows = [_overlap(f, _combine(f.b.T, patches[a * i : a * i + a]), 2) for i in range(a)]
    return _overlap(f, _combine(f.b.T, rows), 1)[:, :h, :w]


def _overlap(f: _Filtering, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Put the pixels of patches m apart side by side along axis, adding where two patches lie over
    each other, and leave out the first pixel, which is padding."""

    def side_by_side(pixels: Sequence[jax.Array]) -> jax.Array:
        joined = jnp.stack(pixels, axis + 1)
        return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])

    def padded(x: jax.Array, before: int, after: int) -> jax.Array:
        return jnp.pad(x, [(before, after) if d == axis else (0, 0) for d in range(x.ndim)])

    own = side_by_side(parts[: f.m])
    next_ones = side_by_side([*parts[f.m :], *[jnp.zeros_like(parts[0])] * (f.m - 2)])
    whole = padded(own, 0, f.m) + padded(next_ones, f.m, 0)
    return lax.slice_in_dim(whole, 1, 1 + own.shape[axis], axis=axis)


def _output_transform(f: _Filtering, products: Sequence[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """A p A^T: a * a matrices [N * H/m * W/m, O] -> [N, H, W, O]"""
    n, h, w, _ = shape
    down, across, a = -(-h // f.m), -(-w // f.m), f.m + 2
    patches = [p.reshape(n, down, across, -1) for p in products]
    columns = [_combine(f.a, patches[j::a]) for j in range(a)]
    rows = [jnp.stack(_combine(f.a, row), 3) for row in zip(*columns)]
    return jnp.stack(rows, 2).reshape(n, f.m * down, f.m * across, -1)[:, :h, :w]


def _output_adjoint(f: _Filtering, dy: jax.Array) -> list[jax.Array]:
    h, w, o = dy.shape[1:]
    dy = jnp.pad(dy, ((0, 0), (0, -h % f.m), (0, -w % f.m), (0, 0)))
    rows = _combine(f.a.T, [dy[:, i :: f.m] for i in range(f.m)])
    return [p.reshape(-1, o) for r in rows for p in _combine(f.a.T, [r[:, :, j :: f.m] for j in range(f.m)])]


_convs = {f.m: _make_conv(f) for f in (_TWO, _FOUR)}
