"""The loss along the gradient (Santurkar et al. 2018) and the update during training, and the scale of activations."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from vgg_jax.datasets.batches import Batch, epoch_order, make_get_batch
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.vgg import VGG
from vgg_jax.settings.fields import Config
from vgg_jax.training.step import Recipe, TrainState, step_dropout_key, training_loss


def along(
    objective: Callable[[Any], jax.Array],
    params: Any,
    moves: Callable[[Any], Sequence[Any]],
    sizes: Sequence[jax.Array],
) -> tuple[dict[str, jax.Array], list[dict[str, jax.Array]]]:
    """Loss and gradient at w + e m for moves m and their step sizes e, where g is the gradient at w = params.

    Args:
      moves: g -> the moves, each a tree like params.
      sizes: for every move its step sizes [E].

    Returns: (loss L(w), gradient_norm ||g||), and for every move: length ||m||; losses L(w + e m) [E]; distances
      ||g - grad L(w + e m)|| [E]. Norms are Euclidean over all parameters.
    """
    loss, gradient = jax.value_and_grad(objective)(params)
    found = moves(gradient)
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    def at(place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        move, size = place
        moved = jax.tree.map(lambda w, m: w + size * m[move], params, stacked)
        there, its_gradient = jax.value_and_grad(objective)(moved)
        return there, optax.tree.norm(jax.tree.map(jnp.subtract, gradient, its_gradient))

    counts = [len(one) for one in sizes]
    all_places = jnp.repeat(jnp.arange(len(found)), np.array(counts)), jnp.concatenate(sizes)
    losses, distances = (jnp.split(x, np.cumsum(counts)[:-1]) for x in jax.lax.map(at, all_places))
    return {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}, [
        {"length": optax.tree.norm(move), "losses": its_losses, "distances": its_distances}
        for move, its_losses, its_distances in zip(found, losses, distances)
    ]


def along_gradient(objective: Callable[[Any], jax.Array], params: Any, step_sizes: jax.Array) -> dict[str, jax.Array]:
    """`along` -g alone: the scalars loss and gradient_norm, losses [E], distances [E]. Lesson 3 uses it."""
    here, (there,) = along(objective, params, lambda g: [jax.tree.map(jnp.negative, g)], [step_sizes])
    return here | {key: there[key] for key in ("losses", "distances")}


def smoothness(distances: np.ndarray, length: np.ndarray, step_sizes: Any) -> np.ndarray:
    """Effective beta-smoothness: max over step sizes of ||g - grad L(w + e m)|| / ||e m||. [..., E], [...] -> [...]

    length: ||m||; along the gradient it is ||g||.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a move of no length
        return (distances / (np.asarray(step_sizes) * np.asarray(length)[..., None])).max(-1)


def make_measure(
    config: Config, recipe: Recipe, dataset: Dataset, step_sizes: Sequence[float], update_sizes: Sequence[float]
) -> Callable[[TrainState, Batch], dict[str, jax.Array]]:
    """On the batch of the next step: `along` the gradient and the optimizer's own update, and `activations`.

    step_sizes are multiples of -g, update_sizes of the update that the optimizer is about to make.
    """
    get_batch = make_get_batch(config, dataset)
    sizes = [jnp.array(given, jnp.float32) for given in (step_sizes, update_sizes)]

    @jax.jit
    def measure(state: TrainState, data: Batch) -> dict[str, jax.Array]:
        order = epoch_order(state.key, state.step // recipe.steps_per_epoch, len(dataset))
        batch, key = get_batch(state.key, state.step, data, order), step_dropout_key(state)

        def objective(params: Any) -> jax.Array:
            return training_loss(recipe, params, state.batch_stats, batch, key)[0]

        def moves(gradient: Any) -> list[Any]:
            again = jax.grad(objective)
            update, _ = recipe.optimizer.update(gradient, state.opt_state, state.params, grad_fn=lambda w, _: again(w))
            return [jax.tree.map(jnp.negative, gradient), update]

        here, (down, update) = along(objective, state.params, moves, sizes)
        there = {"losses": down["losses"], "distances": down["distances"]}
        there |= {f"update_{key}": value for key, value in update.items()}
        return here | there | activations(recipe.model, state.trained, batch["image"], key)

    return measure


def activations(model: nn.Module, variables: Any, images: jax.Array, dropout_key: jax.Array) -> dict[str, jax.Array]:
    """Statistics [L] of what comes before each convolution's activation, by depth, in training mode.

    activation_mean and activation_std are over all elements; activation_off is the share that is not positive. It is
    the output of the convolution, or of its BatchNorm if that precedes the activation; of a residual block the first
    only. In a network of your own it is taken to be the output of every BatchNorm on feature maps, or of every
    convolution without any.
    """
    normalised = model.batch_norm == "before" if isinstance(model, VGG) else bool(variables.get("batch_stats"))
    kind, signals = nn.BatchNorm if normalised else nn.Conv, []

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output, layer = call(*args, **kwargs), context.module
        if isinstance(layer, kind) and context.method_name == "__call__":
            name = str(layer.name)
            if re.fullmatch(r"(conv|bn)\d+(_\d+a?)?", name) if isinstance(model, VGG) else output.ndim == 4:
                signals.append(output.astype(jnp.float32))
        return output

    with nn.intercept_methods(record):
        model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key})
    return {
        "activation_mean": jnp.stack([x.mean() for x in signals]),
        "activation_std": jnp.stack([x.std() for x in signals]),
        "activation_off": jnp.stack([(x <= 0).mean() for x in signals]),
    }
