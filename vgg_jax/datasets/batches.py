"""Batches on the device: the order of an epoch, normalisation, augmentation."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vgg_jax.datasets.augment import augment, mirror, mix
from vgg_jax.datasets.load import Dataset
from vgg_jax.datasets.trivial import trivial_augment
from vgg_jax.settings import code
from vgg_jax.settings.fields import Config

# {"image": [N, H, W, 3], "label": [N] int32}; of mixed images also {"other": [N] int32, "share": [N]}: the label of
# what is mixed in, and the share of `label`.
Batch = dict[str, jax.Array]
# Streams of randomness, each folded into the run's key.
INIT, SHUFFLE, AUGMENT, DROPOUT, MIRROR, POLICY, MIX, OWN = range(8)


def normalise(images: jax.Array | np.ndarray, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 [N, H, W, 3] -> float32, (x / 255 - mean) / std per channel."""
    scale, shift = 1 / (255 * np.array([[[std]]])), np.array([[[mean]]]) / np.array([[[std]]])
    return jnp.asarray(images, jnp.float32) * scale.astype(np.float32) - shift.astype(np.float32)


def make_get_batch(config: Config, dataset: Dataset) -> Callable[[jax.Array, jax.Array, Batch, jax.Array], Batch]:
    """get_batch(key, step, data, order) -> the augmented batch of that step; order: from `epoch_order`."""
    size, c = config.train.batch_size, config.augment
    steps_per_epoch = len(dataset) // size
    own = code.make(config, "get_augment", lambda _: None)

    def get_batch(key: jax.Array, step: jax.Array, data: Batch, order: jax.Array) -> Batch:
        chosen = lax.dynamic_slice(order, ((step % steps_per_epoch) * size,), (size,))

        def drawn(stream: int) -> jax.Array:
            return jax.random.fold_in(jax.random.fold_in(key, stream), step)

        images, labels = data["image"][chosen], data["label"][chosen]
        if c.policy == "trivial":
            images = trivial_augment(drawn(POLICY), images)
        images = normalise(images, dataset.mean, dataset.std)
        if c.flip == "alternate":
            at_first = jax.random.bernoulli(jax.random.fold_in(key, MIRROR), shape=(len(dataset),))[chosen]
            images = mirror(images, at_first ^ (step // steps_per_epoch % 2 == 1))
        images = augment(drawn(AUGMENT), images, c)
        images = own(drawn(OWN), images) if own else images
        if not (c.mixup or c.cutmix):
            return {"image": images, "label": labels}
        mixed, share = mix(drawn(MIX), images, c)
        return {"image": mixed, "label": labels, "other": jnp.roll(labels, 1), "share": share}

    return get_batch


def epoch_order(key: jax.Array, epoch: jax.Array, n: int) -> jax.Array:
    """A permutation [n] of the image indices, a different one every epoch."""
    return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, SHUFFLE), epoch), n)
