"""TrivialAugment (Müller & Hutter 2021), the wide space: each image gets one change, drawn with its strength.

The ranges are those of torchvision's TrivialAugmentWide, from which the authors' code differs a little. Changes are
Pillow's: rounding down to whole values, black where a moved image leaves a gap. Shifts are up to 32 pixels, also of
images of another size.
"""

import jax
import jax.numpy as jnp

LEVELS = 30  # strengths are 0, 1, ..., LEVELS
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
ENHANCED = ("brightness", "color", "contrast", "sharpness")
KINDS = ("identity", *MOVES, *ENHANCED, "posterize", "solarize", "autocontrast", "equalize")


def trivial_augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Change each image by one of KINDS, all equally likely, as are the strengths. uint8 [N, H, W, 3] -> the same."""
    kind_key, level_key, sign_key = jax.random.split(key, 3)
    n = (len(images),)
    kinds = jax.random.randint(kind_key, n, 0, len(KINDS))
    levels = jax.random.randint(level_key, n, 0, LEVELS + 1)
    return change(images, kinds, levels, jax.random.rademacher(sign_key, n))


def change(images: jax.Array, kinds: jax.Array, levels: jax.Array, signs: jax.Array) -> jax.Array:
    """Each image changed by its kind, an index of KINDS, at its level; signs, -1 or 1, are for MOVES and ENHANCED.

    uint8 [N, H, W, 3]; kinds, levels, signs [N] -> uint8 [N, H, W, 3]. Every image is changed in every way and one
    result taken, which needs the memory of about twenty batches.
    """
    strength, level = (signs * levels / LEVELS)[:, None, None, None], levels[:, None, None, None]
    x = jnp.asarray(images, jnp.int32)
    first_move, first_enhanced = KINDS.index(MOVES[0]), KINDS.index(ENHANCED[0])
    results = {
        "identity": x,
        **dict.fromkeys(MOVES, _moved(x, kinds - first_move, strength[:, 0, 0, 0])),
        **dict.fromkeys(ENHANCED, _enhanced(x, kinds - first_enhanced, 0.99 * strength)),
        "posterize": x & -(1 << jnp.round(level * 6 / LEVELS).astype(jnp.int32)),  # 8 to 2 bits are left
        "solarize": jnp.where(x < 255 * (1 - level / LEVELS), x, 255 - x),
        "autocontrast": _autocontrast(x),
        "equalize": _equalize(x),
    }
    wanted = kinds[:, None, None, None]
    return jnp.select([wanted == i for i in range(len(KINDS))], [results[kind] for kind in KINDS]).astype(jnp.uint8)


def _moved(x: jax.Array, kinds: jax.Array, strength: jax.Array) -> jax.Array:
    """Sheared from the upper left corner, shifted, or rotated about the centre; the nearest pixel is taken."""
    _, h, w, _ = x.shape
    zero, one, angle = jnp.zeros_like(strength), jnp.ones_like(strength), jnp.deg2rad(-135 * strength)
    shear, shift, cos, sin = 0.99 * strength, jnp.trunc(32 * strength), jnp.cos(angle), jnp.sin(angle)
    middle, centre = w / 2, h / 2
    # (a, b, c, d, e, f): the pixel at (x, y) comes from (a x + b y + c, d x + e y + f).
    ways = (
        (one, shear, zero, zero, one, zero),
        (one, zero, zero, shear, one, zero),
        (one, zero, shift, zero, one, zero),
        (one, zero, zero, zero, one, shift),
        (cos, sin, middle - cos * middle - sin * centre, -sin, cos, centre + sin * middle - cos * centre),
    )
    a, b, c, d, e, f = (jnp.choose(kinds, terms, mode="clip")[:, None, None] for terms in zip(*ways))
    column, row = jnp.arange(w)[None, None] + 0.5, jnp.arange(h)[None, :, None] + 0.5
    from_column = jnp.floor(a * column + b * row + c).astype(jnp.int32)
    from_row = jnp.floor(d * column + e * row + f).astype(jnp.int32)
    inside = (from_row >= 0) & (from_row < h) & (from_column >= 0) & (from_column < w)
    image = jnp.arange(len(x))[:, None, None]
    return jnp.where(inside[..., None], x[image, from_row.clip(0, h - 1), from_column.clip(0, w - 1)], 0)


def _enhanced(x: jax.Array, kinds: jax.Array, strength: jax.Array) -> jax.Array:
    """Moved away from a version without brightness, colour, contrast or sharpness, or towards it."""
    grey = (x @ jnp.array([19595, 38470, 7471]) + 0x8000) >> 16
    flat = jnp.floor(grey.mean((1, 2)) + 0.5).astype(jnp.int32)[:, None, None]
    without = (jnp.zeros_like(x), grey[..., None], flat[..., None], _blurred(x))  # in the order of ENHANCED
    none = jnp.choose(kinds[:, None, None, None], without, mode="clip")
    return jnp.floor((none + (1 + strength) * (x - none)).clip(0, 255)).astype(jnp.int32)


def _blurred(x: jax.Array) -> jax.Array:
    """Each pixel the mean of itself, counted five times, and its eight neighbours; the edge stays as it is."""
    h, w = x.shape[1:3]
    around = sum(x[:, i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    inner = (around + 4 * x[:, 1:-1, 1:-1] + 6) // 13
    return x.at[:, 1:-1, 1:-1].set(inner)


def _autocontrast(x: jax.Array) -> jax.Array:
    """Each channel stretched to 0 to 255."""
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    stretched = jnp.floor((x - low) * (255 / jnp.maximum(high - low, 1)))
    return jnp.where(high > low, stretched.clip(0, 255), x).astype(jnp.int32)


def _equalize(x: jax.Array) -> jax.Array:
    """Histogram equalisation of each channel."""
    n, h, w, channels = x.shape
    flat = x.reshape(n, h * w, channels)
    image, channel = jnp.arange(n)[:, None, None], jnp.arange(channels)[None, None]
    counts = jnp.zeros((n, 256, channels), jnp.int32).at[image, flat, channel].add(1)
    below = counts.cumsum(1) - counts
    of_largest = jnp.take_along_axis(counts, flat.max(1, keepdims=True), 1)
    step = (h * w - of_largest) // 255
    table = jnp.where(step > 0, ((below + step // 2) // jnp.maximum(step, 1)).clip(0, 255), jnp.arange(256)[:, None])
    return table[image, flat, channel].reshape(x.shape)
