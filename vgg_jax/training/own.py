"""The functions of a config file that take part in training, tried before it."""

import functools

import jax
import jax.numpy as jnp

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.load import Dataset
from vgg_jax.settings import code
from vgg_jax.settings.fields import Config
from vgg_jax.training.step import init_state, make_recipe, make_train_chunk


def check(config: Config, dataset: Dataset) -> None:
    """Trace a step with functions of one's own, without computing anything.

    Raises: UserError when one fails, or the loss is not that of each example.
    """
    if not any(code.of(config, name) for name in code.TRAINING):
        return
    classes, shape = len(dataset.class_names), dataset.images.shape
    images = jax.ShapeDtypeStruct((2, *shape[1:]), jnp.float32)
    data = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8), "label": jax.ShapeDtypeStruct(shape[:1], jnp.int32)}
    with code.blamed(config, "training"):
        recipe = make_recipe(config, classes, len(dataset))
        jax.eval_shape(recipe.schedule, 0)
        given = jax.ShapeDtypeStruct((2, classes), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
        each = jax.eval_shape(recipe.loss, *given)
        if getattr(each, "shape", None) != (2,):
            raise UserError(f"get_loss gives {each} for 2 examples; it must give (2,), the loss of each")
        augment = code.make(config, "get_augment", lambda _: lambda key, images: images)
        augmented = jax.eval_shape(augment, jax.random.key(0), images)
        if getattr(augmented, "shape", None) != images.shape:
            raise UserError(f"get_augment gives {augmented} for images {images.shape}; it must give the same shape")
        state = jax.eval_shape(functools.partial(init_state, recipe, 0), images)
        jax.eval_shape(make_train_chunk(config, recipe, dataset), state, data, 1)
