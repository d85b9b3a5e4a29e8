"""Several runs' states as one, with a leading axis. One run's state stays as it is."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def together(function: Callable[..., Any], n: int) -> Callable[..., Any]:
    """function(state, ...) for the joined states of n runs, one after the other.

    `vmap` is no faster on a CPU (0.8 to 1.0 times). On a GPU it makes grouped convolutions, whose gradients cuDNN would
    compute as convolutions with windows as large as the map.
    """
    if n == 1:
        return function
    return lambda states, *rest: jax.lax.map(lambda one: function(one, *rest), states)


def join(states: Sequence[Any]) -> Any:
    return states[0] if len(states) == 1 else _stacked(states)


def split(tree: Any, n: int) -> list[Any]:
    """Each run's part of the joined state of n runs, or of a part of it."""
    return [tree] if n == 1 else _parts(tree, n)


@jax.jit  # one program: on a GPU every operation costs a launch
def _stacked(states: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *states)


@functools.partial(jax.jit, static_argnums=1)
def _parts(tree: Any, n: int) -> list[Any]:
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(n)]
