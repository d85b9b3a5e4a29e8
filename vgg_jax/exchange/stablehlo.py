"""The whole network as a compiled-once program, by `jax.export`: StableHLO for CPU, CUDA and TPU.

JAX promises that it can be loaded for six months: it is for deployment, not for keeping.
"""

import jax
import jax.numpy as jnp

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import normalise
from vgg_jax.exchange.outgoing import Outgoing
from vgg_jax.model.layers import stock_operations
from vgg_jax.model.network import make_model

PLATFORMS = ("cpu", "cuda", "tpu")


def program(out: Outgoing) -> bytes:
    """Serialised; `jax.export.deserialize(file).call(images)` runs it.

    Input uint8 [N, H, W, 3] for any N, output float32 [N, classes] = softmax(logits / temperature).

    Raises: UserError for a network of one's own that needs to know the number of pictures.
    """
    from jax import export

    model, variables = make_model(out.config, out.classes), jax.device_get(out.variables)
    mean, std, size = out.facts["mean"], out.facts["std"], out.config.data.image_size

    def probabilities(images: jax.Array) -> jax.Array:
        logits = model.apply(variables, normalise(images, mean, std), train=False)
        return jax.nn.softmax(jnp.asarray(logits, jnp.float32) / out.temperature)

    (n,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, size, size, 3), jnp.uint8)
    with stock_operations():
        try:
            exported = export.export(jax.jit(probabilities), platforms=PLATFORMS)(images)
        except Exception as error:
            if not out.is_own:
                raise
            raise UserError(
                "the network cannot be traced for any number of pictures; use x.shape[0], not len(x) "
                f"({type(error).__name__}: {str(error)[:120]})"
            ) from None
    return bytes(exported.serialize())
