"""The operations of a VGG: 3x3 convolution, 2x2 max-pool, dropout.

Each is one function (or module) with one meaning on every platform. On a GPU or TPU it is the
stock XLA operation. On a CPU, XLA has two cliffs (a naive kernel on 2x2 maps, slow convolution
gradients inside a loop), so there the 3x3 convolution is written as matrix products instead:
Winograd's minimal filtering, im2col for few channels, one dense product for 2x2 maps.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

# Winograd F(2x2, 3x3) turns kernels [3, 3] into [4, 4] by G k G^T (Lavin & Gray 2015, eq. 8).
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
# Rows of each matrix product: large enough for the BLAS, small enough to stay in the L2 cache.
_WINOGRAD_ROWS = 512


def conv_general_dilated(x: jax.Array, kernel: jax.Array, *args, **kwargs) -> jax.Array:
    """Drop-in for `lax.conv_general_dilated` in `nn.Conv` (stride 1, SAME, NHWC).

    Args:
      x: [N, H, W, C].
      kernel: [K, K, C, O]; K = 1 and K = 3 have a path of their own on a CPU.

    Returns: [N, H, W, O], of x's dtype.
    """
    if jax.default_backend() != "cpu" or kernel.shape[:2] not in ((1, 1), (3, 3)):
        return lax.conv_general_dilated(x, kernel, *args, **kwargs)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # bfloat16 products are slower than float32 ones on a CPU
    return conv_cpu(x.astype(wide), kernel.astype(wide)).astype(x.dtype)


def conv_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution by matrix products, chosen by shape. [N,H,W,C], [K,K,C,O] -> [N,H,W,O], K 1 or 3"""
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    if x.shape[1:3] == (2, 2):
        return _conv_2x2_map(x, kernel)
    if x.shape[-1] < 16:
        return _conv_im2col(x, kernel)
    return _conv_winograd(x, kernel)


def _conv_2x2_map(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """On a 2x2 map every output pixel sees every input pixel through exactly one tap: one dense layer."""
    n, c, o = x.shape[0], kernel.shape[2], kernel.shape[3]
    pixels = [(0, 0), (0, 1), (1, 0), (1, 1)]
    taps = [[kernel[1 + i - a, 1 + j - b] for a, b in pixels] for i, j in pixels]
    dense = jnp.stack([jnp.stack(row, 1) for row in taps])  # [input pixel, C, output pixel, O]
    return (x.reshape(n, 4 * c) @ dense.reshape(4 * c, 4 * o)).reshape(n, 2, 2, o)


def _conv_im2col(x: jax.Array, kernel: jax.Array) -> jax.Array:
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(columns, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    taps = _winograd_kernel(kernel)
    return lax.map(lambda tile: _winograd_tile(tile, taps), _tiles(x)).reshape(*x.shape[:3], -1)


def _winograd_fwd(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _winograd(x, kernel), (x, kernel)  # the plain function, so that this can be differentiated again


def _winograd_bwd(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients in Winograd's domain, tile by tile, so that each tile of dy is read once."""
    x, kernel = saved
    flipped = _winograd_kernel(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))

    def body(dtaps, tile):
        x_tile, dy_tile = tile
        sums = [v.T @ m for v, m in zip(_input_transform(x_tile), _output_cotransform(dy_tile))]
        return dtaps + jnp.stack(sums), _winograd_tile(dy_tile, flipped)

    zeros = jnp.zeros((16, *kernel.shape[2:]), x.dtype)
    dtaps, dx = lax.scan(body, zeros, (_tiles(x), _tiles(dy)))
    dkernel = jnp.einsum("ai,bj,abco->ijco", _G, _G, dtaps.reshape(4, 4, *kernel.shape[2:]))
    return dx.reshape(x.shape), dkernel


_conv_winograd = jax.custom_vjp(_winograd)
_conv_winograd.defvjp(_winograd_fwd, _winograd_bwd)


def _tiles(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [T, N/T, H, W, C], about _WINOGRAD_ROWS 2x2 patches in each of the T tiles."""
    n, h, w, _ = x.shape
    most = max(1, _WINOGRAD_ROWS // (((h + 1) // 2) * ((w + 1) // 2)))
    size = max(divisor for divisor in range(1, min(n, most) + 1) if n % divisor == 0)
    return x.reshape(n // size, size, *x.shape[1:])


def _winograd_kernel(kernel: jax.Array) -> jax.Array:
    """[3, 3, C, O] -> [16, C, O]"""
    return jnp.einsum("ai,bj,ijco->abco", _G, _G, kernel).reshape(16, *kernel.shape[2:])


def _winograd_tile(x: jax.Array, taps: jax.Array) -> jax.Array:
    n, h, w, _ = x.shape
    half_h, half_w = (h + 1) // 2, (w + 1) // 2
    m = [(v @ tap).reshape(n, half_h, half_w, -1) for v, tap in zip(_input_transform(x), taps)]
    columns = [_fold([m[4 * i + j] for i in range(4)]) for j in range(4)]
    rows = [jnp.stack(_fold([column[k] for column in columns]), 3) for k in range(2)]
    return jnp.stack(rows, 2).reshape(n, 2 * half_h, 2 * half_w, -1)[:, :h, :w]


def _input_transform(x: jax.Array) -> list[jax.Array]:
    """B^T d B for every 4x4 patch d (stride 2): 16 matrices [N * H/2 * W/2, C]."""
    h, w, c = x.shape[1:]
    half_h, half_w = (h + 1) // 2, (w + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 2 * half_h - h + 1), (1, 2 * half_w - w + 1), (0, 0)))

    def differences(s):
        return [s[0] - s[2], s[1] + s[2], s[2] - s[1], s[1] - s[3]]

    rows = differences([padded[:, i : i + 2 * half_h - 1 : 2] for i in range(4)])
    patches = [differences([r[:, :, j : j + 2 * half_w - 1 : 2] for j in range(4)]) for r in rows]
    return [patch.reshape(-1, c) for row in patches for patch in row]


def _fold(m: list[jax.Array]) -> list[jax.Array]:
    """A^T m: four Winograd products to two output pixels."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _output_cotransform(dy: jax.Array) -> list[jax.Array]:
    """A dy A^T, the transpose of folding: 16 matrices [N * H/2 * W/2, O]."""
    h, w, o = dy.shape[1:]
    dy = jnp.pad(dy, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))

    def unfold(a, b):
        return [a, a + b, a - b, -b]

    rows = unfold(dy[:, 0::2], dy[:, 1::2])
    patches = [unfold(r[:, :, 0::2], r[:, :, 1::2]) for r in rows]
    return [patch.reshape(-1, o) for row in patches for patch in row]


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pool, stride 2. [N, H, W, C] -> [N, H//2, W//2, C]; of a tie the first takes the gradient.

    On a CPU by reshape: its gradient is three times faster than select-and-scatter.
    """
    if jax.default_backend() != "cpu":
        return nn.max_pool(x, (2, 2), (2, 2))
    return _max_pool_cpu(x)


def _window_max(x: jax.Array) -> jax.Array:
    a, b, c, d = _windows(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four elements of every window, each [N, H//2, W//2, C], row by row."""
    n, h, w, c = x.shape
    windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    return [windows[:, :, i, :, j] for i in range(2) for j in range(2)]


def _max_pool_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _window_max(x), x


def _max_pool_bwd(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    """The window's elements are compared with each other, never with the saved maximum.

    XLA may compute x twice, for the maximum and for the gradient, and round it differently; JAX's own
    rule then finds no element equal to the maximum and divides by zero.
    """
    a, b, c, d = _windows(x)
    upper, a_first, c_first = jnp.maximum(a, b) >= jnp.maximum(c, d), a >= b, c >= d
    takes = (upper & a_first, upper & ~a_first, ~upper & c_first, ~upper & ~c_first)
    da, db, dc, dd = (jnp.where(take, dy, 0) for take in takes)
    dx = jnp.stack([jnp.stack([da, db], 3), jnp.stack([dc, dd], 3)], 2)
    n, h, w, channels = x.shape
    even = dx.reshape(n, h // 2 * 2, w // 2 * 2, channels)
    return (jnp.pad(even, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))),)


_max_pool_cpu = jax.custom_vjp(_window_max)
_max_pool_cpu.defvjp(_max_pool_fwd, _max_pool_bwd)


class Dropout(nn.Module):
    """Dropout from 8 random bits an element, four times cheaper than `nn.Dropout` on a CPU.

    The rate is rounded to 1/256 (0.3 becomes 77/256 = 0.3008) and what is kept is scaled by the
    inverse of exactly that, so the expectation of the output is the input.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[..., C] -> [..., C]; needs the `dropout` RNG when train is True and the rate is not 0."""
        dropped = round(self.rate * 256)
        if not train or dropped == 0:
            return x
        channels = x.shape[-1]
        words = jax.random.bits(self.make_rng("dropout"), (*x.shape[:-1], -(-channels // 4)))
        octets = lax.bitcast_convert_type(words, jnp.uint8).reshape(*x.shape[:-1], -1)
        keep = octets[..., :channels] >= dropped
        return jnp.where(keep, x * (256 / (256 - dropped)), 0).astype(x.dtype)
