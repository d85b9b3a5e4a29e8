"""Every operation against XLA's own, forward and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from vgg_jax.model import layers
from vgg_jax.model.layers import Dropout, conv_cpu, conv_general_dilated, global_max, max_pool

OUR_CONVOLUTION = True


def reference_conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def agree(ours, theirs, share=2e-5):
    """To a share of the largest element: a sum that ends near 0 is rounded as its terms are."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * float(jnp.abs(theirs).max()))


# (batch, height, width, channels in, out): several tiles, one tile, sides not multiples of 4, a thin map, tiny maps.
SHAPES = [(9, 32, 32, 3, 8), (6, 8, 8, 32, 16), (5, 7, 6, 16, 4), (3, 1, 9, 8, 4), (4, 2, 2, 24, 8), (4, 1, 2, 16, 8)]


@pytest.mark.parametrize("size", [3, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolution_and_its_gradients_agree_with_xla(shape, size):
    n, h, w, c, o = shape
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (n, h, w, c))
    kernel = jax.random.normal(keys[1], (size, size, c, o)) / np.sqrt(9 * c)
    dy = jax.random.normal(keys[2], (n, h, w, o))
    ours, our_vjp = jax.vjp(conv_cpu, x, kernel)
    theirs, their_vjp = jax.vjp(reference_conv, x, kernel)
    assert ours.shape == theirs.shape
    agree(ours, theirs)
    for mine, other in zip(our_vjp(dy), their_vjp(dy)):
        agree(mine, other, 1e-4)


def test_convolution_can_be_differentiated_twice():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 16))
    kernel, direction = jax.random.normal(jax.random.key(1), (2, 3, 3, 16, 8)) / 12

    def hessian_vector(conv):
        return jax.jvp(jax.grad(lambda k: jnp.sum(jnp.sin(conv(x, k)))), (kernel,), (direction,))[1]

    agree(hessian_vector(conv_cpu), hessian_vector(reference_conv), 1e-4)


def test_convolution_keeps_the_dtype():
    x, kernel = jnp.ones((2, 4, 4, 16), jnp.bfloat16), jnp.ones((3, 3, 16, 8), jnp.bfloat16)
    assert (
        conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).dtype
        == jnp.bfloat16
    )


OPTIONS = [
    {}, {"strides": 2}, {"strides": (1, 2)}, {"padding": "VALID"}, {"padding": 1}, {"padding": 0},
    {"padding": ((2, 0), (1, 1))}, {"padding": "CIRCULAR"}, {"kernel_dilation": 2},
    {"input_dilation": 2, "padding": 1}, {"feature_group_count": 2},
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_setting_of_nn_conv_is_what_flax_makes_of_it(options, size):
    """The fast path is taken only for the convolutions that it computes."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    stock, ours = (
        nn.Conv(6, (size, size), **options, **more) for more in ({}, {"conv_general_dilated": conv_general_dilated})
    )
    variables = stock.init(jax.random.key(1), x)
    agree(ours.apply(variables, x), stock.apply(variables, x))


def test_convolution_under_vmap_is_the_plain_one():
    x = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 16))
    kernels = jax.random.normal(jax.random.key(1), (2, 3, 3, 16, 8))
    together = jax.vmap(conv_cpu)(x, kernels)
    np.testing.assert_allclose(together, jnp.stack([conv_cpu(a, b) for a, b in zip(x, kernels)]), atol=1e-4)


def flax_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def test_max_pool_and_its_gradient_agree_with_flax():
    x = jax.random.normal(jax.random.key(0), (3, 7, 8, 5))  # the last row of an odd number is dropped
    dy = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    ours, our_vjp = jax.vjp(max_pool, x)
    theirs, their_vjp = jax.vjp(flax_pool, x)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(our_vjp(dy)[0], their_vjp(dy)[0])


def test_the_first_of_a_tie_takes_the_gradient_as_in_flax():
    x = jax.random.randint(jax.random.key(0), (4, 8, 8, 16), 0, 3).astype(jnp.float32)
    ours, theirs = (jax.grad(lambda x, p=pool: jnp.sum(jnp.sin(p(x))))(x) for pool in (max_pool, flax_pool))
    np.testing.assert_array_equal(ours, theirs)


def test_the_global_maximum_and_its_gradient_which_the_first_of_a_tie_takes():
    x = jax.random.randint(jax.random.key(0), (4, 3, 5, 16), 0, 6).astype(jnp.float32)
    np.testing.assert_array_equal(global_max(x), x.max((1, 2)))
    dy = jax.random.normal(jax.random.key(1), (4, 16))
    (dx,) = jax.vjp(global_max, x)[1](dy)
    flat, expected = np.asarray(x).reshape(4, 15, 16), np.zeros((4, 15, 16), np.float32)
    for i, c in np.ndindex(4, 16):
        expected[i, list(flat[i, :, c]).index(flat[i, :, c].max()), c] = dy[i, c]
    np.testing.assert_array_equal(dx.reshape(4, 15, 16), expected)


def test_the_max_pools_gradient_does_not_need_the_saved_maximum():
    """XLA may compute x twice and round it differently: no element need be equal to the maximum of the first time."""
    x, dy = jax.random.normal(jax.random.key(0), (8, 4, 4, 16)), jax.random.normal(jax.random.key(1), (8, 2, 2, 16))
    _, saved = layers._max_pool_fwd(x)
    assert [leaf.shape for leaf in jax.tree.leaves(saved)] == [x.shape]
    (dx,) = layers._max_pool_bwd(jax.tree.map(lambda s: s * (1 + 2**-22), saved), dy)
    np.testing.assert_allclose(dx.sum(), dy.sum(), rtol=1e-5)


def test_on_a_cpu_the_convolution_is_ours():
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))

    def program():
        def conv(x, k):
            return conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        return str(jax.make_jaxpr(conv)(x, kernel))

    assert "conv_general_dilated" not in program()
    with layers.stock_operations():
        assert "conv_general_dilated" in program()


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    x = jnp.ones((64, 32, 33))
    y = Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    dropped = float(jnp.mean(y == 0))
    assert abs(dropped - rate) < 0.01
    assert abs(float(y.mean()) - 1) < 0.01
    assert len(np.unique(np.asarray(y))) == 2
    y = Dropout(rate).apply({}, jnp.ones((64, 64, 256)), train=True, rngs={"dropout": jax.random.key(0)})
    assert abs(float(jnp.mean(y == 0)) - round(256 * rate) / 256) < 0.002
    assert abs(float(y.mean()) - 1) < 0.003


def test_dropout_masks_are_independent_of_each_other():
    x = jnp.ones((1000, 8))
    kept = np.asarray(Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})) > 0
    correlation = np.corrcoef(kept.T) - np.eye(8)  # four channels share one random word
    assert np.abs(correlation).max() < 0.15


def test_dropout_does_nothing_in_evaluation_or_at_rate_zero():
    x = jax.random.normal(jax.random.key(0), (4, 8))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, train=True), x)


def test_whitening_does_not_amplify_what_is_not_there():
    filters = np.asarray(layers.whitening_filters(jnp.zeros((2, 4, 4, 3)), 2)).reshape(12, 24)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=0), 5e-4**-0.5, rtol=1e-4)
