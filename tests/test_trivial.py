"""TrivialAugment's changes against Pillow's, and how it draws them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from small import config, dataset

from vgg_jax.datasets.batches import make_get_batch
from vgg_jax.datasets.trivial import ENHANCED, KINDS, LEVELS, MOVES, change, trivial_augment


def pictures(n, size=(32, 32)):
    """Smooth random pictures with few values in some channels, and one of a single colour."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 5, 5, 3), np.uint8)
    large = np.stack([np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BICUBIC)) for x in small])
    large[1, ..., 0] = np.where(large[1, ..., 0] > 128, 90, 70)
    large[2] = (10, 200, 90)
    return large


def by_pillow(kind, pixels, level, sign):
    """With the ranges of torchvision's TrivialAugmentWide."""
    image, m = Image.fromarray(pixels), sign * level / LEVELS
    shear, shift = 0.99 * m, int(32 * m)
    moves = {
        "shear_x": (1, shear, 0, 0, 1, 0), "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, shift),
    }  # fmt: skip
    if kind in moves:
        return image.transform(image.size, Image.Transform.AFFINE, moves[kind])
    if kind in ENHANCED:
        return getattr(ImageEnhance, kind.title())(image).enhance(1 + 0.99 * m)
    return {
        "identity": lambda: image,
        "rotate": lambda: image.rotate(135 * m),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(level / (LEVELS / 6))),
        "solarize": lambda: ImageOps.solarize(image, 255 - 255 * level / LEVELS),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[kind]()


@pytest.mark.parametrize("size", [(32, 32), (16, 24)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_change_is_pillows(kind, size):
    images = pictures(8, size)
    for level, sign in ((0, 1), (7, 1), (13, -1), (22, 1), (29, -1), (30, 1), (30, -1)):
        many = (jnp.full(8, x) for x in (KINDS.index(kind), level, sign))
        ours = np.asarray(change(jnp.asarray(images), *many))
        assert ours.dtype == np.uint8
        theirs = np.stack([np.asarray(by_pillow(kind, x, level, sign)) for x in images])
        apart = np.abs(ours.astype(int) - theirs).max(-1)
        if kind in MOVES:  # rounding may choose the neighbouring pixel
            assert (apart > 0).mean() < 0.06, (level, sign)
        else:
            assert apart.max() <= (1 if kind in (*ENHANCED, "autocontrast") else 0), (level, sign)
            assert (apart > 0).mean() < 0.2, (level, sign)


def test_images_of_a_batch_get_different_changes_of_all_kinds_and_strengths():
    images = jnp.asarray(np.repeat(pictures(3)[:1], 4000, 0))
    ours = np.asarray(trivial_augment(jax.random.key(0), images))
    kinds, levels = (x.ravel() for x in jnp.mgrid[: len(KINDS), : LEVELS + 1])
    every = [np.asarray(change(images[: len(kinds)], kinds, levels, jnp.full(len(kinds), sign))) for sign in (-1, 1)]
    possible, drawn = {x.tobytes() for x in np.concatenate(every)}, [x.tobytes() for x in ours]
    assert set(drawn) <= possible and len(set(drawn)) > 0.9 * len(possible)
    unchanged = drawn.count(np.asarray(images[0]).tobytes()) / len(drawn)
    assert 0.07 < unchanged < 0.15  # identity, most others at strength 0, posterize at 0 to 2: 1/14 (1 + 12/31)


def test_the_policy_is_a_field_and_off_by_default():
    data = dataset(n=32)
    on_device = {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}

    def batch(seed=0, **fields):
        c = config(augment__flip="none", train__batch_size=32, **fields)
        return make_get_batch(c, data)(jax.random.key(seed), jnp.int32(0), on_device, jnp.arange(32))["image"]

    plain, trivial = batch(), batch(augment__policy="trivial")
    changed = (np.asarray(plain) != trivial).any((1, 2, 3))
    assert 20 < changed.sum() <= 32
    np.testing.assert_array_equal(trivial, batch(augment__policy="trivial"))
    assert not np.array_equal(trivial, batch(1, augment__policy="trivial"))
