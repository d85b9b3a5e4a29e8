"""The loss along the gradient during training (Santurkar et al. 2018), and the scale of activations."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from vgg_jax.datasets.batches import Batch, epoch_order, make_get_batch
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.vgg import VGG
from vgg_jax.runs.log import Record
from vgg_jax.settings.fields import Config
from vgg_jax.training.step import Recipe, TrainState, step_dropout_key, together, training_loss

Together = Callable[[Callable[[Any], Any], Any], Any]


def along_gradient(
    objective: Callable[[Any], jax.Array], params: Any, step_sizes: jax.Array, together: Together = together
) -> dict[str, jax.Array]:
    """Loss and gradient at w - e g for every step size e in step_sizes [E], where g is the gradient at w = params.

    Returns: loss L(w); gradient_norm ||g||; losses L(w - e g) [E]; distances
      ||g - grad L(w - e g)|| [E]. Norms are Euclidean over all parameters.
    """
    loss, gradient = jax.value_and_grad(objective)(params)

    def at(size: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = jax.tree.map(lambda w, g: w - size * g, params, gradient)
        there, its_gradient = jax.value_and_grad(objective)(moved)
        return there, optax.tree.norm(jax.tree.map(jnp.subtract, gradient, its_gradient))

    losses, distances = together(at, step_sizes)
    return {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        "losses": losses,
        "distances": distances,
    }


def band_width(losses: np.ndarray) -> np.ndarray:
    """Loss band: max - min over step sizes of L(w - e g). [..., E] -> [...]"""
    return losses.max(-1) - losses.min(-1)


def predictiveness(distances: np.ndarray) -> np.ndarray:
    """Worst gradient predictiveness: max over step sizes of ||g - grad L(w - e g)||. [..., E] -> [...]"""
    return distances.max(-1)


def smoothness(distances: np.ndarray, gradient_norm: np.ndarray, step_sizes: Any) -> np.ndarray:
    """Effective beta-smoothness: max over step sizes of ||g - grad L(w - e g)|| / ||e g||. [..., E], [...] -> [...]"""
    return (distances / (np.asarray(step_sizes) * np.asarray(gradient_norm)[..., None])).max(-1)


def make_measure(
    config: Config, recipe: Recipe, dataset: Dataset, step_sizes: tuple[float, ...]
) -> Callable[[TrainState, Batch], Record]:
    """The measure of a `Probe`: along_gradient and activations on the batch of the next step."""
    get_batch = make_get_batch(config, dataset)
    sizes = jnp.array(step_sizes, jnp.float32)

    @jax.jit
    def measure(state: TrainState, data: Batch) -> dict[str, jax.Array]:
        order = epoch_order(state.key, state.step // recipe.steps_per_epoch, len(dataset))
        batch, key = get_batch(state.key, state.step, data, order), step_dropout_key(state)

        def objective(params: Any) -> jax.Array:
            return training_loss(recipe, params, state.batch_stats, batch, key)[0]

        return along_gradient(objective, state.params, sizes) | activations(
            recipe.model, state.trained, batch["image"], key
        )

    return lambda state, data: {name: np.asarray(x).tolist() for name, x in measure(state, data).items()}


def activations(model: nn.Module, variables: Any, images: jax.Array, dropout_key: jax.Array) -> dict[str, jax.Array]:
    """Statistics [L] of each activation function's input, by depth, in training mode.

    activation_mean and activation_std are over all elements; activation_off is the share that is not positive.
    That input is the output of the convolution, or of its BatchNorm if that precedes the activation. In a network of
    your own it is taken to be the output of every BatchNorm on feature maps, or of every convolution without any.
    """
    normalised = model.batch_norm == "before" if isinstance(model, VGG) else bool(variables.get("batch_stats"))
    kind, signals = nn.BatchNorm if normalised else nn.Conv, []

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output, layer = call(*args, **kwargs), context.module
        counts = re.fullmatch(r"(conv|bn)\d+_\d+a?", str(layer.name)) if isinstance(model, VGG) else output.ndim == 4
        if isinstance(layer, kind) and context.method_name == "__call__" and counts:
            signals.append(output.astype(jnp.float32))
        return output

    with nn.intercept_methods(record):
        model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key})
    return {
        "activation_mean": jnp.stack([x.mean() for x in signals]),
        "activation_std": jnp.stack([x.std() for x in signals]),
        "activation_off": jnp.stack([(x <= 0).mean() for x in signals]),
    }
