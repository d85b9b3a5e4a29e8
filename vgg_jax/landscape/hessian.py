"""Measures of sharpness: the largest eigenvalues of the Hessian, the worst loss within a relative radius."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from vgg_jax.landscape.surface import filter_norms

Objective = Callable[[Any], jax.Array]


def hessian_vector_product(objective: Objective, params: Any, vector: Any) -> Any:
    """H v, the forward-mode derivative of the gradient along v; exact, at twice the cost of a gradient."""
    return jax.jvp(jax.grad(objective), (params,), (vector,))[1]


def lanczos(
    product: Callable[[jax.Array], jax.Array], size: int, iterations: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(Ritz values, their residuals), both [iterations], the values ascending, of a symmetric matrix [size, size].

    product gives the matrix times a vector. An eigenvalue lies within the residual ||A y - theta y|| of each Ritz
    value theta (Parlett, The Symmetric Eigenvalue Problem, 13.2), but for float32's rounding, about 1e-5 of the
    largest. The extreme ones converge first, to the extreme eigenvalues. Uses full reorthogonalisation (Golub & Van
    Loan, Matrix Computations, 10.3), so it stores iterations * size numbers. When the matrix has fewer distinct
    eigenvalues than iterations, the remaining values and residuals are 0, and no eigenvalues.
    """
    start = jax.random.normal(key, (size,))

    def body(i: jax.Array, carry: tuple) -> tuple:
        basis, q, alphas, betas = carry
        basis = basis.at[i].set(q)
        w = product(q)
        alpha = q @ w
        for _ in range(2):  # the second pass removes rounding errors of the first
            w = w - basis.T @ (basis @ w)
        beta = jnp.linalg.norm(w)
        exhausted = beta <= 1e-6 * jnp.maximum(jnp.abs(alpha), jnp.max(betas, initial=1e-30))
        q = jnp.where(exhausted, 0.0, w / jnp.where(exhausted, 1.0, beta))
        return basis, q, alphas.at[i].set(alpha), betas.at[i].set(jnp.where(exhausted, 0.0, beta))

    zeros = jnp.zeros(iterations)
    first = (jnp.zeros((iterations, size)), start / jnp.linalg.norm(start), zeros, zeros)
    _, _, alphas, betas = lax.fori_loop(0, iterations, body, first)
    off = betas[:-1]
    values, vectors = jnp.linalg.eigh(jnp.diag(alphas) + jnp.diag(off, 1) + jnp.diag(off, -1))
    return values, betas[-1] * jnp.abs(vectors[-1])


def spectra(objective: Objective, params: Any, iterations: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Ritz values and residuals, both [2, iterations], of the Hessian at params: plain and filter-normalised.

    Filter-normalised are the coordinates u of weights w + ||w_filter|| u with fixed biases and BatchNorm. Scaling one
    layer of a ReLU network up and the next down changes no output; it changes the plain Hessian, but not this one.
    """
    flat, unravel = ravel_pytree(params)
    norms = jax.tree.map(jnp.broadcast_to, filter_norms(params), jax.tree.map(jnp.shape, params))

    def of(scaling: jax.Array) -> tuple[jax.Array, jax.Array]:
        def product(v: jax.Array) -> jax.Array:
            return scaling * ravel_pytree(hessian_vector_product(objective, params, unravel(scaling * v)))[0]

        return lanczos(product, flat.size, iterations, key)

    return lax.map(of, jnp.stack([jnp.ones_like(flat), ravel_pytree(norms)[0]]))  # compiled once for both


def worst_case(objective: Objective, params: Any, radius: float, steps: int) -> jax.Array:
    """The largest loss found when every filter w moves by at most radius * ||w||; biases and BatchNorm stay.

    Projected gradient ascent, with the gradient normalised for each filter: a lower bound of the true
    maximum.
    """
    norms = filter_norms(params)

    def ascend(moves: Any, _: Any) -> tuple[Any, jax.Array]:
        loss, gradient = jax.value_and_grad(objective)(jax.tree.map(jnp.add, params, moves))
        rate = 2 * radius / steps
        ahead = jax.tree.map(
            lambda m, g, n, own: m + rate * n * g / (own + 1e-30), moves, gradient, norms, filter_norms(gradient)
        )
        lengths = filter_norms(ahead)
        return jax.tree.map(
            lambda m, n, own: m * jnp.minimum(1.0, radius * n / (own + 1e-30)), ahead, norms, lengths
        ), loss

    # The loss of a step's start is known after it: one step more tells the last one's.
    _, losses = lax.scan(ascend, jax.tree.map(jnp.zeros_like, params), length=steps + 1)
    return losses.max()
