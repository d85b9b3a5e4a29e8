"""Each augmentation does what it says, to each image separately."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small import config

from vgg_jax.datasets.augment import augment, cutout, mix, random_crop, random_flip

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
    around_a_pixel = {(max(pixel - 2, 0), min(pixel + 1, 7)) for pixel in range(8)}
    for axis in (1, 2):
        assert {(np.flatnonzero(line)[0], np.flatnonzero(line)[-1]) for line in holes.any(axis)} == around_a_pixel
    np.testing.assert_array_equal(holes, holes.any(2, keepdims=True) & holes.any(1, keepdims=True))  # rectangles


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


def mixed(**fields):
    images, share = mix(KEY, IMAGES, config(**{f"augment__{name}": value for name, value in fields.items()}).augment)
    assert images.shape == IMAGES.shape and share.shape == (200,)
    before = np.roll(IMAGES, 1, 0)
    return np.asarray(images), np.asarray(share), (np.asarray(images) - before) / (np.asarray(IMAGES) - before)


def test_mixup_blends_each_image_with_the_one_before_it():
    _, share, kept = mixed(mixup=1.0)
    np.testing.assert_allclose(kept, np.broadcast_to(share[:, None, None, None], kept.shape), atol=0.02)
    assert stats.kstest(share, "uniform").pvalue > 0.01  # Beta(1, 1)
    assert np.std(mixed(mixup=0.1)[1]) > 0.4 > 0.1 > np.std(mixed(mixup=50.0)[1])


def test_cutmix_takes_one_square_from_the_image_before():
    images, share, _ = mixed(cutmix=1.0)
    taken = (images == np.roll(IMAGES, 1, 0)).all(-1)
    np.testing.assert_array_equal(images[~taken], IMAGES[~taken])
    np.testing.assert_allclose(share, 1 - taken.mean((1, 2)), atol=1e-6)
    for hole in taken:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)  # a rectangle
    assert 0.6 < share.mean() < 0.8  # half is taken on average, less what lies beyond the edge
    half = (mixed(cutmix=50.0)[0] == np.roll(IMAGES, 1, 0)).all(-1)  # of the area, so a side of 5.7
    assert half.any(2).sum(1).max() == half.any(1).sum(1).max() == 6


def test_with_mixup_and_cutmix_half_of_the_images_get_each():
    images, _, _ = mixed(mixup=50.0, cutmix=1.0)
    pasted = ((images == np.asarray(IMAGES)) | (images == np.roll(IMAGES, 1, 0))).all((1, 2, 3))
    assert 70 < pasted.sum() < 130


def test_crop_flip_and_cutout_draw_independently():
    crop, flip, hole = jax.random.split(KEY, 3)
    images = jax.random.normal(jax.random.key(1), (50, 8, 8, 3)) + 5
    expected = cutout(hole, random_flip(flip, random_crop(crop, images, 2, "reflect")), 3)
    c = config(augment__flip="random", augment__crop=2, augment__cutout=3, augment__padding="reflect").augment
    np.testing.assert_array_equal(augment(KEY, images, c), expected)
