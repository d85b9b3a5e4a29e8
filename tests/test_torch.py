"""Project 1's networks against PyTorch: same weights, same masks, same outputs and gradients.

Gradients in float64 on both sides: in float32 one unit in a million falls on the other side of a kink of ReLU or
max-pool, and two correct gradients differ by up to 1e-2 (so do PyTorch's own in float32 and float64).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn, traverse_util
from small import config

from vgg_jax.model.layers import Dropout
from vgg_jax.model.vgg import VGG
from vgg_jax.training.step import init_state, make_recipe, make_train_step

torch = pytest.importorskip("torch")
F = torch.nn.functional
OUR_CONVOLUTION = True

# Written out independently of the package's table: stage by stage, convolutions and dropout rates.
STAGES = [(2, 0.3), (2, 0.4), (3, 0.4), (3, 0.4), (3, 0.4)]
BATCH = 8


def masks_of(model, images):
    """Fixed dropout masks (already scaled) by layer name, which the model is made to use."""
    rng, found = np.random.default_rng(1), {}

    def record(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, Dropout) and layer.rate:
            n, *sides, channels = args[0].shape
            spread = [1] * len(sides) if layer.spatial else sides  # project 1 drops whole maps: Dropout2d
            kept = rng.random((n, *spread, channels)) >= layer.rate
            found[layer.name] = (kept / (1 - layer.rate)).astype(np.float32)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), images)
    return found


def flax_loss(model, masks, batch_stats):
    def masked(call, args, kwargs, context):
        if isinstance(context.module, Dropout):
            return args[0] * masks.get(context.module.name, np.float32(1))
        return call(*args, **kwargs)

    def loss(params, images, labels):
        with nn.intercept_methods(masked):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    return loss


def torch_logits(p, masks, images, batch_norm, statistics=None, train=False):
    """The network as project 1 defines it, in NCHW; statistics {(layer, "mean" or "var")} are used, or moved."""

    def activate(x, name):
        if batch_norm:
            scale, bias = p[f"bn{name}", "scale"], p[f"bn{name}", "bias"]
            s = statistics or {}
            mean, var = s.get((f"bn{name}", "mean")), s.get((f"bn{name}", "var"))
            x = F.batch_norm(x, mean, var, scale, bias, training=train or not s, eps=1e-5)
        return F.relu(x)

    def drop(x, name):
        mask = masks.get(name)
        return x if mask is None else x * torch.tensor(mask if mask.ndim == 2 else mask.transpose(0, 3, 1, 2))

    x = images
    for s, (convolutions, _) in enumerate(STAGES, 1):
        for i in range(1, convolutions + 1):
            own = f"conv{s}_{i}"
            name = own if (own, "kernel") in p else f"conv{x.shape[1]}"  # shared by all of its width
            x = F.conv2d(x, p[name, "kernel"], p.get((name, "bias")), padding=1)
            x = activate(x, f"{s}_{i}")
            if i < convolutions:
                x = drop(x, f"dropout{s}_{i}")
        x = F.max_pool2d(x, 2)
    x = drop(x.flatten(1), "dropout_fc1")
    x = F.relu(F.linear(x, p["fc1", "kernel"], p.get(("fc1", "bias"))))
    return F.linear(drop(x, "dropout_logits"), p["logits", "kernel"], p.get(("logits", "bias")))


def to_torch(x):
    x = np.asarray(x)
    return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T


def difference(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("row", ["bn_dropout", "bn", "dropout", "plain", "plain_tied"])
def test_forward_and_gradient_agree(row):
    c = config(row, {})
    model = VGG(num_classes=10, **c.model)
    variables = model.init(jax.random.key(0), jnp.zeros((BATCH, 32, 32, 3)))
    masks = masks_of(model, jnp.zeros((BATCH, 32, 32, 3)))
    assert bool(masks) == ("dropout" in row)
    narrow, _ = compare(model, variables, masks)
    with jax.enable_x64():
        wide = jax.tree.map(lambda x: x.astype(np.float64), (variables, masks))
        forward, gradient = compare(model.clone(dtype="float64"), *wide)
    print(f"{row}: relative difference of logits {forward:.1e}, of the worst gradient {gradient:.1e}; ", end="")
    print(f"of logits in float32 {narrow:.1e}")
    assert max(forward, gradient) < 1e-12
    assert narrow < 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ten_steps_are_pytorchs_and_their_running_statistics_too(optimizer):
    """Weight decay as an L2 gradient. PyTorch's running variance is unbiased: n / (n - 1) times ours, of n values.

    Without biases: BatchNorm takes them out again, so their gradients are rounding, which Adam makes large.
    """
    fields = {"optimizer.name": optimizer, "optimizer.learning_rate": "0.01", "optimizer.weight_decay": "5e-4"}
    fields |= {
        "model.width": "0.25",
        "model.bias": "False",
        "schedule.name": "constant",
        "train.batch_size": str(BATCH),
    }
    c = config("bn_dropout", fields)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(10, BATCH, 32, 32, 3)), rng.integers(0, 10, (10, BATCH))
    with jax.enable_x64():
        start, ours, masks = ten_steps(c, images, labels)
    theirs, statistics = ten_steps_of_pytorch(c, start, masks, images, labels)
    worst = max(
        difference(to_torch(leaf), theirs[path].detach().numpy())
        for path, leaf in traverse_util.flatten_dict(ours.params).items()
    )
    apart = 0.0
    for (layer, kind), leaf in traverse_util.flatten_dict(ours.batch_stats).items():
        n = BATCH * (32 >> int(layer[2]) - 1) ** 2
        moved = 0.9**10 + n / (n - 1) * (leaf - 0.9**10) if kind == "var" else leaf  # it started at 1
        apart = max(apart, difference(moved, statistics[layer, kind].numpy()))
    print(f"{optimizer}: after ten steps parameters differ by {worst:.1e}, running statistics by {apart:.1e}")
    assert max(worst, apart) < 1e-9


def ten_steps(c, images, labels):
    """(parameters at the start, state after ten steps in float64, the dropout masks of every step)"""
    recipe = make_recipe(c, 10, BATCH * 10)
    model = recipe.model.clone(dtype="float64")
    masks = {name: mask.astype(np.float64) for name, mask in masks_of(model, images[0]).items()}
    state = init_state(recipe, 0)
    start = jax.device_get(state.params)
    state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)

    def masked(call, args, kwargs, context):
        return (
            args[0] * masks.get(context.module.name, 1.0)
            if isinstance(context.module, Dropout)
            else call(*args, **kwargs)
        )

    step = jax.jit(make_train_step(recipe._replace(model=model)))
    with nn.intercept_methods(masked):
        for image, label in zip(images, labels):
            state, _ = step(state, {"image": image, "label": label})
    return start, jax.device_get(state.replace(key=0)), masks


def ten_steps_of_pytorch(c, start, masks, images, labels):
    """(parameters, running statistics) by path"""
    p = {
        path: torch.tensor(to_torch(leaf).copy(), dtype=torch.float64, requires_grad=True)
        for path, leaf in traverse_util.flatten_dict(start).items()
    }
    statistics = {
        (layer, kind): (torch.zeros if kind == "mean" else torch.ones)(len(bias), dtype=torch.float64)
        for (layer, leaf), bias in p.items()
        for kind in ("mean", "var")
        if layer.startswith("bn") and leaf == "bias"
    }
    rate, decay = c.optimizer.learning_rate, c.optimizer.weight_decay
    kinds = {"sgd": functools.partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}
    optimizer = kinds[c.optimizer.name](p.values(), lr=rate, weight_decay=decay)
    for image, label in zip(images, labels):
        optimizer.zero_grad()
        logits = torch_logits(p, masks, torch.tensor(image.transpose(0, 3, 1, 2)), True, statistics, train=True)
        F.cross_entropy(logits, torch.tensor(label)).backward()
        optimizer.step()
    return p, statistics


def compare(model, variables, masks):
    """Relative differences of the logits and of the worst parameter's gradient; ours in the variables' dtype."""
    params = variables["params"]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH)
    loss = flax_loss(model, masks, variables.get("batch_stats", {}))
    dtype = jax.tree.leaves(params)[0].dtype
    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, images.astype(dtype), labels)
    batch_norm = "bn1_1" in params
    p = {
        path: torch.tensor(to_torch(leaf).copy(), dtype=torch.float64, requires_grad=True)
        for path, leaf in traverse_util.flatten_dict(params).items()
    }
    wide = {name: mask.astype(np.float64) for name, mask in masks.items()}
    nchw = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64)
    theirs = torch_logits(p, wide, nchw, batch_norm)
    F.cross_entropy(theirs, torch.tensor(labels)).backward()

    forward = difference(np.asarray(logits), theirs.detach().numpy())
    cancelled = [  # with BatchNorm, the gradient of a bias before it is zero except for rounding
        path for path in p if path[1] == "bias" and batch_norm and path[0].startswith("conv")
    ]
    gradient = max(
        difference(to_torch(grad), p[path].grad.numpy())
        for path, grad in traverse_util.flatten_dict(grads).items()
        if path not in cancelled
    )
    return forward, gradient


@pytest.mark.parametrize("row", ["bn_dropout", "plain_tied"])
def test_evaluation_agrees(row):
    """Running statistics are used and dropout is not."""
    c = config(row, {})
    model = VGG(num_classes=10, **c.model)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    params, stats = (traverse_util.flatten_dict(variables.get(k, {})) for k in ("params", "batch_stats"))
    stats = {path: np.float32(rng.uniform(0.5, 1, leaf.shape) - (path[1] == "mean")) for path, leaf in stats.items()}
    ours = jax.jit(model.apply)(
        {"params": variables["params"], "batch_stats": traverse_util.unflatten_dict(stats)}, images
    )
    p = {path: torch.tensor(to_torch(leaf).copy()) for path, leaf in params.items()}
    statistics = {path: torch.tensor(leaf) for path, leaf in stats.items()}
    theirs = torch_logits(p, {}, torch.tensor(images.transpose(0, 3, 1, 2)), bool(stats), statistics)
    assert difference(np.asarray(ours), theirs.numpy()) < 1e-4
