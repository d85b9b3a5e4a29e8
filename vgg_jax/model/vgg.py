"""One VGG: a table of stages and a set of switches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from vgg_jax.model.layers import Dropout, Whitening, conv_general_dilated, global_max, max_pool
from vgg_jax.settings.stages import STAGES

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.1),
    "gelu": nn.gelu,
    "silu": nn.silu,
}

_scaling = nn.initializers.variance_scaling
_torch_linear = _scaling(1 / 3, "fan_in", "uniform")  # U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), PyTorch's default


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """PyTorch's default, but the first output channels are the input channels (a Dirac kernel)."""
    kernel, n = _torch_linear(key, shape, dtype), min(shape[-2:])
    centre = (shape[0] // 2, shape[1] // 2)
    return kernel.at[..., :n].set(0).at[(*centre, jnp.arange(n), jnp.arange(n))].set(1)


# name -> (convolution kernels, dense kernels)
KERNEL_INITS: dict[str, tuple[Callable, ...]] = {
    "msr": (_scaling(2.0, "fan_out", "normal"), _torch_linear),  # N(0, sqrt(2 / (k * k * out)))
    "xavier_normal": (nn.initializers.glorot_normal(),) * 2,
    # Kaiming normal, fan-out, with the gain of a leaky ReLU of slope 0.1.
    "kaiming_leaky": (_scaling(2 / (1 + 0.1**2), "fan_out", "normal"),) * 2,
    "he_normal": (_scaling(2.0, "fan_in", "normal"), _torch_linear),
    "pytorch": (_torch_linear,) * 2,
    "identity": (_identity, _torch_linear),  # the first output channels copy the input's
}


class VGG(nn.Module):
    """VGG for small images; every variant is a setting of these fields.

    Variables: `params`, and with BatchNorm or whitening `batch_stats`. RNG: `dropout`, in training only.

    Attributes:
      stages: a key of `STAGES`.
      num_classes: outputs.
      width: multiplies the channels of every convolution.
      hidden: sizes of the dense layers before the output.
      batch_norm: "none", or "before" or "after" the activation.
      batch_norm_head: also normalise after each hidden dense layer.
      batch_norm_scale: whether BatchNorm has a scale; it always has a bias.
      batch_norm_epsilon, batch_norm_momentum: as in `nn.BatchNorm`.
      stage_dropout: a rate per stage, applied after every convolution but the stage's last;
        empty for none.
      spatial_dropout: stage_dropout drops whole maps (as PyTorch's Dropout2d), not single elements.
      head_dropout: a rate per dense layer, applied to its input; empty for none.
      whitening: patch side of a fixed first layer that whitens patches; its filters come from the
        images given at initialisation (`whitening_filters`). 0 for no such layer.
      pool: max-pool after a stage's "last" or "first" convolution.
      global_pool: global max-pool before the head.
      bias: whether convolutions and dense layers have a bias.
      logits_scale: factor on the logits.
      residual: every convolution becomes a block conv-BN-act-conv-BN, plus its input, act.
      activation: a key of `ACTIVATIONS`.
      tied: convolutions with as many outputs as inputs share one kernel and bias for each width.
      kernel_init: a key of `KERNEL_INITS`.
      bias_init: of convolutions and dense layers: "zeros", or "pytorch" for U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)).
      dtype: dtype of the computation; parameters, statistics and the last layer stay float32.
      axis_name: average BatchNorm statistics over this mapped axis (`pmap`), or "".
    """

    stages: str = "D"
    num_classes: int = 10
    width: float = 1.0
    hidden: tuple[int, ...] = (512,)
    batch_norm: str = "before"
    batch_norm_head: bool = True
    batch_norm_scale: bool = True
    batch_norm_epsilon: float = 1e-3
    batch_norm_momentum: float = 0.9
    stage_dropout: tuple[float, ...] = ()
    spatial_dropout: bool = False
    head_dropout: tuple[float, ...] = ()
    whitening: int = 0
    pool: str = "last"
    global_pool: bool = False
    bias: bool = True
    logits_scale: float = 1.0
    residual: bool = False
    activation: str = "relu"
    tied: bool = False
    kernel_init: str = "msr"
    bias_init: str = "zeros"
    dtype: str = "float32"
    axis_name: str = ""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[N, H, W, 3] normalised images -> [N, num_classes] float32 logits."""
        x = x.astype(self.dtype)
        if self.whitening:
            x = ACTIVATIONS[self.activation](Whitening(self.whitening, name="whiten")(x))
        conv = functools.partial(self._conv, {})
        for s, widths in enumerate(STAGES[self.stages], 1):
            for i, features in enumerate(widths, 1):
                pooled = self.pool == "first" and i == 1
                x = self._block(conv, x, max(1, round(features * self.width)), f"{s}_{i}", train, pooled)
                if i < len(widths):
                    rate = _at(self.stage_dropout, s - 1)
                    x = Dropout(rate, self.spatial_dropout, name=f"dropout{s}_{i}")(x, train)
            x = max_pool(x) if self.pool == "last" else x
        x = global_max(x) if self.global_pool else x.reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden, 1):
            x = Dropout(_at(self.head_dropout, i - 1), name=f"dropout_fc{i}")(x, train)
            x = self._dense(x, features, f"fc{i}")
            x = self._activate(x, f"_fc{i}" if self.batch_norm_head else "", train)
        x = Dropout(_at(self.head_dropout, len(self.hidden)), name="dropout_logits")(x, train)
        wide = jnp.promote_types(self.dtype, jnp.float32)  # bfloat16 logits would tie, and round confidences
        return self._dense(x, self.num_classes, "logits", wide) * self.logits_scale

    def _block(
        self, conv: Callable[..., jax.Array], x: jax.Array, features: int, name: str, train: bool, pooled: bool
    ) -> jax.Array:
        """One convolution, max-pool where it is pooled, and activation; or the residual block in their place."""
        if not self.residual:
            x = conv(x, features, f"conv{name}")
            return self._activate(max_pool(x) if pooled else x, name, train)
        y = self._activate(conv(x, features, f"conv{name}a"), f"{name}a", train)
        y = self._norm(conv(y, features, f"conv{name}b"), f"{name}b", train)
        if x.shape[-1] != features:
            x = self._norm(conv(x, features, f"proj{name}", size=1), f"{name}p", train)
        return ACTIVATIONS[self.activation](x + y)

    def _activate(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """Activation with BatchNorm `bn{name}` before or after it; without BatchNorm if name is empty."""
        place = self.batch_norm if name else "none"
        if place == "before":
            x = self._norm(x, name, train)
        x = ACTIVATIONS[self.activation](x)
        return self._norm(x, name, train) if place == "after" else x

    def _norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        if self.batch_norm == "none":
            return x
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            use_scale=self.batch_norm_scale,
            dtype=self.dtype,
            axis_name=self.axis_name or None,
            name=f"bn{name}",
        )(x)

    def _conv(self, made: dict[str, nn.Conv], x: jax.Array, features: int, name: str, size: int = 3) -> jax.Array:
        """A convolution of its own, or the one of its width in `made`."""
        if self.tied and x.shape[-1] == features:
            name = f"conv{features}"
        if name not in made:
            made[name] = nn.Conv(
                features,
                (size, size),
                use_bias=self.bias,
                dtype=self.dtype,
                kernel_init=KERNEL_INITS[self.kernel_init][0],
                bias_init=self._bias_init(size * size * x.shape[-1]),
                promote_dtype=_all_but_bias,
                conv_general_dilated=conv_general_dilated,
                name=name,
            )
        return made[name](x).astype(self.dtype)

    def _dense(self, x: jax.Array, features: int, name: str, dtype: Any = None) -> jax.Array:
        return nn.Dense(
            features,
            use_bias=self.bias,
            dtype=dtype or self.dtype,
            kernel_init=KERNEL_INITS[self.kernel_init][1],
            bias_init=self._bias_init(x.shape[-1]),
            promote_dtype=_all_but_bias,
            name=name,
        )(x).astype(dtype or self.dtype)

    def _bias_init(self, fan_in: int) -> Callable[..., jax.Array]:
        if self.bias_init == "zeros":
            return nn.initializers.zeros_init()
        return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)


def _all_but_bias(*arrays: Any, **options: Any) -> list[Any]:
    """Flax's promotion of (input, kernel, bias), but the bias stays: its gradient is then summed in float32."""
    *others, bias = arrays
    return [*promote_dtype(*others, **options), bias]


def _at(rates: tuple[float, ...], i: int) -> float:
    return rates[i] if i < len(rates) else 0.0
