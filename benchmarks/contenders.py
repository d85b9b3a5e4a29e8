"""Who is timed: this package, stock Flax, and PyTorch in every way that its user has. One function each."""

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.settings import code

STEPS = 5  # batches, each for a step of its own
Turn = Callable[[int], list[float]]  # takes so many times STEPS steps; returns the losses before the last STEPS


def batches(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the steps take in turn, again and again: images [STEPS, B, H, H, 3] float32, labels [STEPS, B] int32."""
    rng = np.random.default_rng(0)
    shape = STEPS, config.train.batch_size, *(config.data.image_size,) * 2, 3
    return rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[:2], np.int32)


def _jax(config: Any, make_steps: Callable[[Callable, Any, Any], Callable[[Any, int], Any]]) -> Turn:
    """make_steps(step, state, batches) -> compiled steps: (state, how many) -> (state, the last losses)."""
    import jax

    from vgg_jax.training.step import init_state, make_recipe, make_train_step

    recipe = make_recipe(config, 10, 50_000)
    images, labels = batches(config)
    state = jax.jit(functools.partial(init_state, recipe))(np.uint32(0), images[0])
    data = jax.block_until_ready(jax.device_put({"image": images, "label": labels}))
    steps = make_steps(make_train_step(recipe), state, data)

    def turn(count: int) -> list[float]:
        nonlocal state
        state, losses = steps(state, count * STEPS)
        return [float(loss) for loss in jax.device_get(losses)]

    return turn


def ours(config: Any) -> Turn:
    """This package's step as a chunk runs it: a turn is one program, for any number of steps."""
    import jax

    def make_steps(step: Callable, state: Any, data: Any) -> Callable[[Any, int], Any]:
        def several(state: Any, data: Any, count: Any) -> Any:
            def body(i: Any, carry: Any) -> Any:
                state, losses = carry
                state, metrics = step(state, {k: v[i % STEPS] for k, v in data.items()})
                return state, losses.at[i % STEPS].set(metrics["loss"])

            return jax.lax.fori_loop(0, count, body, (state, jax.numpy.zeros(STEPS)))

        compiled = jax.jit(several, donate_argnums=0).lower(state, data, np.int32(0)).compile()
        return lambda state, count: compiled(state, data, np.int32(count))

    return _jax(config, make_steps)


def stock_flax(config: Any) -> Turn:
    """The same network with Flax's own convolution, pooling and dropout, one jitted step a call; biases as ours."""
    import jax
    from flax import linen as nn
    from jax import lax

    from vgg_jax.model import vgg as models

    class Dropout(nn.Module):
        rate: float
        spatial: bool = False

        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return nn.Dropout(self.rate, (1, 2) if self.spatial else (), deterministic=not train)(x)

    def make_steps(step: Callable, state: Any, data: Any) -> Callable[[Any, int], Any]:
        each = jax.block_until_ready([{k: v[i] for k, v in data.items()} for i in range(STEPS)])
        compiled = jax.jit(step, donate_argnums=0).lower(state, each[0]).compile()

        def steps(state: Any, count: int) -> Any:
            losses = []
            for i in range(count):
                state, metrics = compiled(state, each[i % STEPS])
                losses.append(metrics["loss"])
            return state, losses[-STEPS:]

        return steps

    max_pool = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    stock = {"conv_general_dilated": lax.conv_general_dilated, "max_pool": max_pool, "Dropout": Dropout}
    with mock.patch.multiple(models, **stock):
        return _jax(config, make_steps)


def pytorch(config: Any, channels_last: bool = False, mode: str = "") -> Turn:
    """The same network and SGD in PyTorch, on JAX's GPU or all cores; `mode` is torch.compile's, "" is eager."""
    import torch  # pyright: ignore[reportMissingImports]

    from vgg_jax.model.chain import chain
    from vgg_jax.torch import names as torch_names, network

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True  # as XLA does, try the algorithms
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device, c, o = os.environ["TORCH_DEVICE"], config.model, config.optimizer
    layout: Any = torch.channels_last if channels_last else torch.contiguous_format
    model: Any = network.VGG(c, 10, config.data.image_size)
    table = torch_names.leaves(c, chain(c, 10, config.data.image_size))
    network.copy(model, torch_names.to_torch(table, dict(np.load(os.environ["WEIGHTS"]))))
    model = model.to(device).to(memory_format=layout)
    images, labels = (torch.from_numpy(of_all).to(device) for of_all in batches(config))
    data = [(x.permute(0, 3, 1, 2).contiguous(memory_format=layout), y.long()) for x, y in zip(images, labels)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, o.learning_rate, o.momentum, 0, o.weight_decay, o.nesterov, fused=True)

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=c.dtype == "bfloat16"):
            logits = model(x)
        return torch.nn.functional.cross_entropy(logits, y, label_smoothing=config.loss.label_smoothing)

    loss_of = _compiled(loss_of, mode, data[0]) if mode else loss_of

    def turn(count: int) -> list[float]:
        losses = []
        for x, y in data * count:
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())  # a CUDA graph writes the next one to the same place
        return [loss.item() for loss in losses[-STEPS:]]

    return turn


def _compiled(loss_of: Callable, mode: str, batch: tuple[Any, Any]) -> Callable:
    """By torch.compile, forward and back. Raises: UserError where it cannot, as without a C++ compiler."""
    import torch  # pyright: ignore[reportMissingImports]

    try:
        compiled = torch.compile(loss_of, mode=mode)
        compiled(*batch).backward()
    except RuntimeError as error:
        raise UserError("torch.compile: " + str(error).split("\n")[0]) from None
    return compiled


class Contender(NamedTuple):
    make: Callable[[Any], Turn]
    dtype: str  # of the computation; parameters stay float32


SUFFIX = {"float32": "", "bfloat16": ", bfloat16"}  # of a contender's name
_MODES = {"": "", ", compiled": "default", ", compiled, CUDA graphs": "reduce-overhead"}
_PYTORCH = {
    f"PyTorch {layout}{how}": functools.partial(pytorch, channels_last=layout == "channels-last", mode=mode)
    for layout in ("NCHW", "channels-last")
    for how, mode in _MODES.items()
}
CONTENDERS = {
    name + suffix: Contender(make, dtype)
    for dtype, suffix in SUFFIX.items()
    for name, make in {"vgg_jax": ours, "stock Flax": stock_flax, **_PYTORCH}.items()
}


def names(config: Any, all_dtypes: bool, gpu: bool, without: Sequence[str] = ()) -> list[str]:
    """Those that could take part: of the config's dtype or of both, CUDA graphs on a GPU only; not the rivals whose
    name contains a word of `without`."""
    dtypes = SUFFIX if all_dtypes else (config.model.dtype,)
    found = [n for n, c in CONTENDERS.items() if c.dtype in dtypes and (gpu or "CUDA graphs" not in n)]
    return [n for n in found if n.startswith("vgg_jax") or not any(word in n for word in without)]


def pytorch_lacks(config: Any) -> str:
    """Why PyTorch cannot take part, or ""."""
    if not importlib.util.find_spec("torch"):
        return "it is not installed; pip install torch"
    if config.loss.name != "cross_entropy":
        return "only with cross-entropy"
    if code.of(config, "get_model"):
        return "only with a VGG"
    if any(code.of(config, name) for name in code.TRAINING):
        return "only with our optimizers and losses"
    return ""


def write_weights(config: Any, file: str) -> None:
    """The weights that our side and stock Flax start from, for PyTorch."""
    import jax
    from flax import traverse_util

    from vgg_jax.training.step import init_state, make_recipe

    init = jax.jit(functools.partial(init_state, make_recipe(config, 10, 50_000)))
    state = init(np.uint32(0), batches(config)[0][0])
    weights: Any = traverse_util.flatten_dict({"params": state.params, "batch_stats": state.batch_stats}, sep="/")
    np.savez(file, **weights)
