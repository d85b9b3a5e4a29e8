"""Each augmentation does what it says, to each image separately."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import config

from vgg_jax.datasets.augment import augment, cutout, random_crop, random_flip

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (200, 8, 8, 3)) + 5  # no zeros


def test_flip_mirrors_about_half_of_the_images():
    flipped = np.asarray(random_flip(KEY, IMAGES))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES)]
    assert all(m != s for m, s in zip(mirrored, same))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crop_is_a_shift_of_every_amount(mode):
    pad = 2
    padded = np.pad(IMAGES, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode)
    shifts = set()
    for crop, image in zip(np.asarray(random_crop(KEY, IMAGES, pad, mode)), padded):
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(crop, image[i : i + 8, j : j + 8])]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 25


def test_cutout_zeroes_one_square_that_may_reach_over_the_edge():
    holes = np.asarray(cutout(KEY, IMAGES, 4) == 0).all(-1)
    sizes = set()
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)  # a rectangle
        sizes.add((len(rows), len(columns)))
    assert (4, 4) in sizes
    assert max(sizes) == (4, 4)
    assert {(2, 4), (4, 2)} <= sizes  # clipped at the edge


def test_augment_does_only_what_the_config_asks():
    nothing = config(augment__flip="none").augment
    np.testing.assert_array_equal(augment(KEY, IMAGES, nothing), IMAGES)
    for field, value in (("flip", "random"), ("crop", 2), ("cutout", 3)):
        settings = config(**{"augment__flip": "none", f"augment__{field}": value}).augment
        changed = augment(KEY, IMAGES, settings)
        assert not np.array_equal(changed, IMAGES)
        np.testing.assert_array_equal(changed, augment(KEY, IMAGES, settings))
        assert not np.array_equal(changed, augment(jax.random.key(9), IMAGES, settings))
        assert changed.shape == IMAGES.shape and changed.dtype == jnp.float32
