"""Augmentation on the device, on normalised float images; `trivial` works on uint8 images, before that."""

import jax
import jax.numpy as jnp
from jax import lax

from vgg_jax.settings.fields import Augment


def augment(key: jax.Array, images: jax.Array, config: Augment) -> jax.Array:
    """Crop, flip and cutout, each if config.augment asks for it. [N, H, W, C] -> [N, H, W, C]

    Zero is the mean colour of normalised images (mid-grey with data.normalization=half).
    """
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    if config.crop:
        images = random_crop(crop_key, images, config.crop, config.padding)
    if config.flip == "random":
        images = random_flip(flip_key, images)
    if config.cutout:
        images = cutout(cutout_key, images, config.cutout)
    return images


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror each image left-right with probability 1/2."""
    return mirror(images, jax.random.bernoulli(key, shape=(len(images),)))


def mirror(images: jax.Array, which: jax.Array) -> jax.Array:
    """Mirror left-right the images where which [N] is True."""
    return jnp.where(which[:, None, None, None], images[:, :, ::-1], images)


def random_crop(key: jax.Array, images: jax.Array, pad: int, mode: str) -> jax.Array:
    """Shift each image uniformly by up to pad pixels in each direction; mode as in `jnp.pad`."""
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Zero a size x size square around a uniformly drawn pixel (DeVries & Taylor 2017), clipped at
    the image's edge."""
    return jnp.where(_squares(key, images, size)[..., None], 0, images)


def _squares(key: jax.Array, images: jax.Array, size: int | jax.Array) -> jax.Array:
    """[N, H, W] bool: in each image a square around a drawn pixel, clipped at the edge; size: scalar or [N, 1]."""
    n, h, w, _ = images.shape
    row_key, column_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (n, 1), 0, h) - size // 2
    columns = jax.random.randint(column_key, (n, 1), 0, w) - size // 2
    y, x = jnp.arange(h)[None], jnp.arange(w)[None]
    in_rows = (y >= rows) & (y < rows + size)
    in_columns = (x >= columns) & (x < columns + size)
    return in_rows[:, :, None] & in_columns[:, None, :]


def mix(key: jax.Array, images: jax.Array, config: Augment) -> tuple[jax.Array, jax.Array]:
    """Mix each image with the one before it in the batch. Images are square.

    mixup (Zhang et al. 2018) adds them in shares lambda and 1 - lambda, lambda ~ Beta(alpha, alpha). CutMix (Yun
    et al. 2019) replaces a square with 1 - lambda of the area, clipped at the edge. Each image draws its own lambda,
    where the papers draw one for a batch, and with both its own kind, each with probability 1/2.

    Returns: (mixed images [N, H, W, C], the share of each that is still itself [N]).
    """
    n, side = images.shape[:2]
    kind_key, blend_key, cut_key, place_key = jax.random.split(key, 4)
    kept = []  # how much of each pixel is kept: [N, H, W]
    if config.mixup:
        shares = jax.random.beta(blend_key, config.mixup, config.mixup, (n, 1, 1))
        kept.append(jnp.broadcast_to(shares, images.shape[:3]))
    if config.cutmix:
        sides = side * jnp.sqrt(1 - jax.random.beta(cut_key, config.cutmix, config.cutmix, (n, 1)))
        kept.append(1.0 - _squares(place_key, images, jnp.round(sides).astype(jnp.int32)))
    keep = kept[0] if len(kept) == 1 else jnp.where(jax.random.bernoulli(kind_key, shape=(n, 1, 1)), *kept)
    mixed = keep[..., None] * images + (1 - keep[..., None]) * jnp.roll(images, 1, 0)
    return mixed, keep.mean((1, 2))
