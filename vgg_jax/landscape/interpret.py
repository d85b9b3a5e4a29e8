"""Interpretation of a trained network: its first filters, and the pixels that a class depends on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def first_filters(params: Any) -> np.ndarray:
    """The kernels of the convolution that sees the image, [filters, K, K, 3], each scaled to [0, 1]."""
    on_colours = [w for w in jax.tree.leaves(params) if w.ndim == 4 and w.shape[2] == 3]
    kernels = np.moveaxis(np.asarray(on_colours[0] if on_colours else np.zeros((3, 3, 3, 0))), -1, 0)
    low, high = (f(kernels, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    return (kernels - low) / np.maximum(high - low, 1e-12)


def saliency(model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """How strongly the true class's logit depends on each pixel, evaluation mode (Simonyan et al. 2014).

    max over channels of |d logit / d pixel|: normalised images [N, H, W, 3], labels [N] -> [N, H, W].
    """

    def evidence(images: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, images, train=False)
        return jnp.sum(jnp.take_along_axis(logits, labels[:, None], 1))

    return jnp.abs(jax.grad(evidence)(images)).max(-1)


def class_evidence(maps: jax.Array, gradients: jax.Array) -> jax.Array:
    """Where a class's evidence lies: Grad-CAM (Selvaraju et al. 2017, equations 1 and 2).

    relu(sum_k a_k A_k) with a_k the mean over all positions of d logit / d A_k: the maps A of a convolutional layer
    [N, H, W, K] and the gradients of the class's logit by them [N, H, W, K] -> [N, H, W], in the unit of the logit.
    If the logit is a linear function of the maps' means, the sum over positions before the relu is that function.
    """
    weights = gradients.mean((1, 2), keepdims=True)
    return jnp.maximum((weights * maps).sum(-1), 0)
