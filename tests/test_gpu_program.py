"""The programs that a GPU would run, as text: JAX lowers them for CUDA without one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import config, dataset

from vgg_jax.model import layers
from vgg_jax.training.step import init_state, make_recipe, make_train_chunk

TINY = {"model__width": "0.25", "train__batch_size": "16", "train__micro_batch": "0", "model__dtype": "bfloat16"}


def program(name):
    """What training lowers to."""
    c, train = config(name, {}, **TINY), dataset(32)
    recipe = make_recipe(c, 4, 32)
    images = jnp.zeros((8, 32, 32, 3)) if c.model.whitening else jnp.zeros((1, 32, 32, 3))
    data = {"image": train.images, "label": train.labels}
    with layers.stock_operations():  # those of a GPU
        state = jax.eval_shape(functools.partial(init_state, recipe), 0, images)
        traced = jax.jit(make_train_chunk(c, recipe, train)).trace(state, data, np.int32(1))
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("name", ["vgg_a_bn", "speedrun"])
def test_what_is_slow_on_a_gpu_is_not_in_its_program(name):
    """Grouped convolutions, and select-and-scatter, the gradient of XLA's max-pool."""
    text = program(name)
    groups = set(re.findall(r"feature_group_count = (\d+)", text))
    assert "stablehlo.convolution" in text and groups == {"1"} and "select_and_scatter" not in text
    assert "xbf16>" in text


@pytest.mark.parametrize("name", ["bn_dropout", "vgg_a_dropout_bn_res"])
def test_in_bfloat16_sums_are_in_float32(name):
    """Those of a bias's gradient have as many terms as a batch has pixels. A CPU would widen them by itself."""
    sums = [line for line in program(name).splitlines() if "stablehlo.reduce(" in line and "stablehlo.add" in line]
    assert len(sums) > 10 and not [line for line in sums if "bf16" in line]


def test_the_whitening_layer_is_made_in_float32():
    """Not in TF32, which is a GPU's default: its matrix is a sum of millions of terms."""
    traced = jax.jit(functools.partial(layers.whitening_filters, size=2)).trace(jnp.zeros((8, 32, 32, 3)))
    assert "precision = [HIGHEST, HIGHEST]" in traced.lower(lowering_platforms=("cuda",)).as_text()
