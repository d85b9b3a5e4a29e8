"""Your own optimizer, learning-rate schedule, loss and augmentation; define those that you need.

COMMAND   python -m vgg_jax.main --config examples/training.py
RUNTIME   as the quickstart
EXPECTED  not measured
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs.quickstart import get_config as quickstart_config


def get_config() -> ConfigDict:
    config = quickstart_config()
    config.optimizer.learning_rate = 1e-3
    config.own = ConfigDict({"focus": 2.0, "noise": 0.05})  # read only by the functions below
    return config


def get_schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """Step -> learning rate."""
    return optax.linear_schedule(config.optimizer.learning_rate, 0.0, config.train.epochs * steps_per_epoch)


def get_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.lion(schedule))


def get_loss(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Focal loss (Lin et al. 2017): logits [N, C], labels [N] -> [N], the loss of each example."""

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return (1 - jnp.exp(-entropy)) ** config.own.focus * entropy

    return loss


def get_augment(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Key, normalised images [N, H, W, 3] -> images; after crop, flip and cutout, before mixup and CutMix."""
    return lambda key, images: images + config.own.noise * jax.random.normal(key, images.shape)
