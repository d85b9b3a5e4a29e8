"""The operations of a VGG: 3x3 convolution, 2x2 max-pool, dropout.

Each is one function (or module) that computes the same on every platform. On a GPU or TPU the
convolution is XLA's. On a CPU, XLA is slow in two cases (a naive kernel on 2x2 maps, convolution
gradients inside a loop), so there the 3x3 convolution is written as matrix products: Winograd's
minimal filtering, and for maps of 2x2 one dense product.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from vgg_jax.model import winograd

_stock = contextvars.ContextVar("stock", default=False)


@contextlib.contextmanager
def stock_operations() -> Iterator[None]:
    """Within it, programs are traced with XLA's own operations, also on a CPU: for those that leave this machine.

    It acts when a function is traced, so give it one that JAX has not traced before.
    """
    token = _stock.set(True)
    try:
        yield
    finally:
        _stock.reset(token)


def _for_this_cpu() -> bool:
    return jax.default_backend() == "cpu" and not _stock.get()


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """Drop-in for `lax.conv_general_dilated` in `nn.Conv`, with a faster path on a CPU.

    The fast path is for a VGG's convolutions: kernels of 3x3 or 1x1, stride 1, SAME, NHWC, no dilation, no groups.
    All others are left to XLA.

    Args:
      x: [N, H, W, C].
      kernel: [K, K, C, O].

    Returns: [N, H, W, O], of x's dtype.
    """
    if not (_for_this_cpu() and _is_plain(x, kernel, window_strides, padding, **options)):
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # bfloat16 between the layers gains nothing here (docs/speed.md)
    return conv_cpu(x.astype(wide), kernel.astype(wide)).astype(x.dtype)


def _is_plain(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int], padding: Any,
    dimension_numbers: Any = None, precision: Any = None, preferred_element_type: Any = None, **more: Any,
) -> bool:  # fmt: skip
    """Whether it is a convolution that `conv_cpu` computes, at any precision; more: dilations, numbers of groups."""
    if x.ndim != 4 or kernel.shape[:2] not in ((1, 1), (3, 3)):
        return False
    ones = jax.tree.leaves((window_strides, more))
    layout = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    around = kernel.shape[0] // 2
    return (
        all(n == 1 for n in ones)
        and layout == lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
        and (padding == "SAME" or [tuple(side) for side in padding] == [(around, around)] * 2)
        and preferred_element_type in (None, x.dtype)
    )


def conv_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution by matrix products, the method chosen by shape. [N,H,W,C], [K,K,C,O] -> [N,H,W,O], K 1 or 3"""
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    return _conv_tiny_map(x, kernel) if max(x.shape[1:3]) <= 2 else winograd.conv(x, kernel)


def _conv_tiny_map(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Up to 2x2, every output pixel sees every input pixel through exactly one kernel element: a dense layer."""
    n, h, w, c = x.shape
    pixels = [(i, j) for i in range(h) for j in range(w)]
    taps = [[kernel[1 + i - a, 1 + j - b] for a, b in pixels] for i, j in pixels]
    dense = jnp.stack([jnp.stack(row, 1) for row in taps])  # [input pixel, C, output pixel, O]
    return (x.reshape(n, -1) @ dense.reshape(h * w * c, -1)).reshape(n, h, w, -1)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pool, stride 2. [N, H, W, C] -> [N, H//2, W//2, C]; in a tie the first element gets the gradient.

    By reshape: its gradient is faster on a CPU than JAX's own, a select-and-scatter, which XLA expands into atomic
    additions on a GPU.
    """
    return _window_max(x)


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
    """The gradient, from comparing a window's elements with each other, never with the saved maximum.

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


max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def global_max(x: jax.Array) -> jax.Array:
    """The maximum over each image. [N, H, W, C] -> [N, C]; in a tie the first element gets the gradient.

    Selected by index: the gradient of `x.max` has the same fault as that of JAX's max-pool (`_max_pool_bwd`).
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])  # len(x) would be no number in a program for any batch size
    chosen = jnp.arange(flat.shape[1])[None, :, None] == flat.argmax(1, keepdims=True)
    return jnp.where(chosen, flat, 0).sum(1)


class Dropout(nn.Module):
    """Dropout from 8 random bits per element, cheaper than `nn.Dropout`, which draws 32.

    The rate is rounded to n/256 (0.3 becomes 77/256 = 0.3008), and kept elements are scaled by
    256/(256 - n), so the expectation of the output is the input.

    Attributes:
      rate: the probability of dropping.
      spatial: drop whole maps, each with that probability, not single elements (Tompson et al. 2015).
    """

    rate: float
    spatial: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[..., C] -> [..., C]; needs the `dropout` RNG when train is True and the rate is not 0."""
        dropped = round(self.rate * 256)
        if not train or dropped == 0:
            return x
        channels = x.shape[-1]
        places = (x.shape[0], *(1 for _ in x.shape[1:-1])) if self.spatial else x.shape[:-1]
        words = jax.random.bits(self.make_rng("dropout"), (*places, -(-channels // 4)))
        octets = lax.bitcast_convert_type(words, jnp.uint8).reshape(*places, -1)
        keep = octets[..., :channels] >= dropped
        return jnp.where(keep, x * (256 / (256 - dropped)), 0).astype(x.dtype)


def whitening_filters(images: jax.Array, size: int) -> jax.Array:
    """Filters that turn size x size patches of images into uncorrelated numbers of variance 1.

    The eigenvectors of the patches' second-moment matrix, divided by sqrt(eigenvalue + 5e-4), and
    their negatives. [N, H, W, C] -> [size, size, C, 2 size^2 C]. Source: Page 2019, Jordan 2024.
    """
    h, w, c = images.shape[1:]
    shifted = [images[:, i : h - size + 1 + i, j : w - size + 1 + j] for i in range(size) for j in range(size)]
    patches = jnp.stack(shifted, 3).reshape(-1, size * size * c)
    moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)  # not TF32: millions of terms
    values, vectors = jnp.linalg.eigh(moments)
    filters = vectors / jnp.sqrt(jnp.maximum(values, 0) + 5e-4)[None]
    return jnp.concatenate([filters, -filters], 1).reshape(size, size, c, -1)


class Whitening(nn.Module):
    """A fixed convolution by `whitening_filters` of the images that the layer was initialised with.

    The filters are a variable in `batch_stats`, beside the other statistics of the data.
    """

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] -> [N, H, W, 2 size^2 C]"""
        kernel = self.variable("batch_stats", "kernel", lambda: whitening_filters(x.astype(jnp.float32), self.size))
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel.value.astype(x.dtype), (1, 1), "SAME", dimension_numbers=numbers)
