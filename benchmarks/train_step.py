"""Training steps a second: this package, stock Flax and PyTorch, in turn on the same machine.

python -m benchmarks.train_step [--config configs/bn.py] [--batch_size 128] [--rounds 5] [--json FILE]

Each contender is a process of its own that holds one network and waits; the rounds go A B C A B C,
so that a machine whose speed drifts treats all alike. What counts is the median of the ratios
within a round. PyTorch takes part where it is installed.
"""

import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vgg_jax import config as configs, errors, flags

STEPS = 3  # a turn


def ours(config: Any) -> Callable[[], float]:
    """One turn of this package's step, as a chunk runs it; returns the loss."""
    import jax

    from vgg_jax.train import init_state, make_recipe, make_train_step

    recipe = make_recipe(config, 10, 50_000)
    step = make_train_step(recipe)

    @functools.partial(jax.jit, donate_argnums=0)
    def turn(state, batch):
        def body(_, carry):
            state, metrics = step(carry[0], batch)
            return state, metrics["loss"]

        return jax.lax.fori_loop(0, STEPS, body, (state, 0.0))

    state = init_state(recipe, 0)
    batch = dict(zip(("image", "label"), map(jax.numpy.asarray, _batch(config.train.batch_size))))

    def run() -> float:
        nonlocal state
        state, loss = turn(state, batch)
        return float(loss)

    return run


def stock_flax(config: Any) -> Callable[[], float]:
    """The same network with Flax's own convolution, pooling and dropout, one jitted step a call."""
    from unittest import mock

    import jax
    from flax import linen as nn
    from jax import lax

    from vgg_jax import models
    from vgg_jax.train import init_state, make_recipe, make_train_step

    class Dropout(nn.Module):
        rate: float

        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return nn.Dropout(self.rate, deterministic=not train)(x)

    def max_pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (2, 2), (2, 2))

    recipe = make_recipe(config, 10, 50_000)
    stock = mock.patch.multiple(
        models, conv_general_dilated=lax.conv_general_dilated, max_pool=max_pool, Dropout=Dropout
    )
    images, labels = map(jax.numpy.asarray, _batch(config.train.batch_size))
    with stock:
        state = init_state(recipe, 0)
        step = jax.jit(make_train_step(recipe), donate_argnums=0)
        step = step.lower(state, {"image": images, "label": labels}).compile()

    def run() -> float:
        nonlocal state
        losses = []
        for _ in range(STEPS):
            state, metrics = step(state, {"image": images, "label": labels})
            losses.append(metrics["loss"])
        return float(losses[-1])

    return run


def pytorch(config: Any, channels_last: bool = False) -> Callable[[], float]:
    """The same network and SGD in eager PyTorch on all cores this process may use."""
    import torch  # pyright: ignore[reportMissingImports]

    from vgg_jax.models import STAGES

    c, o = config.model, config.optimizer
    if c.residual or c.batch_norm == "after" or c.activation != "relu" or o.name != "sgd":
        raise errors.UserError("the PyTorch side knows only conv-BatchNorm-ReLU networks and SGD")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    nn, layers, channels = torch.nn, [], 3
    for s, widths in enumerate(STAGES[c.stages]):
        for i, width in enumerate(widths, 1):
            layers.append(nn.Conv2d(channels, round(width * c.width), 3, padding=1))
            channels = round(width * c.width)
            layers += [nn.BatchNorm2d(channels, eps=c.batch_norm_epsilon)] if c.batch_norm != "none" else []
            layers.append(nn.ReLU(inplace=True))
            if c.stage_dropout and i < len(widths):
                layers.append(nn.Dropout(c.stage_dropout[s]))
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    features = channels * (32 >> len(STAGES[c.stages])) ** 2
    for i, hidden in enumerate(c.hidden):
        layers += [nn.Dropout(c.head_dropout[i])] if c.head_dropout else []
        layers.append(nn.Linear(features, hidden))
        layers += (
            [nn.BatchNorm1d(hidden, eps=c.batch_norm_epsilon)] if c.batch_norm != "none" and c.batch_norm_head else []
        )
        layers.append(nn.ReLU(inplace=True))
        features = hidden
    layers += [nn.Dropout(c.head_dropout[len(c.hidden)])] if c.head_dropout else []
    model = nn.Sequential(*layers, nn.Linear(features, 10))
    optimizer = torch.optim.SGD(model.parameters(), o.learning_rate, o.momentum, 0, o.weight_decay, o.nesterov)
    images, labels = _batch(config.train.batch_size)
    x, y = torch.tensor(images.transpose(0, 3, 1, 2).copy()), torch.tensor(labels).long()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore

    def run() -> float:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()  # type: ignore[possibly-undefined]

    return run


CONTENDERS: dict[str, Callable[[Any], Callable[[], float]]] = {
    "vgg_jax": ours,
    "stock Flax": stock_flax,
    "PyTorch NCHW": pytorch,
    "PyTorch channels-last": functools.partial(pytorch, channels_last=True),
}


def _batch(size: int) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, size).astype(np.int32)


class _Worker:
    """A contender in its own process: `turn` has it take its steps and returns the seconds."""

    def __init__(self, name: str, argv: Sequence[str]):
        command = [sys.executable, "-m", "benchmarks.train_step", "--worker", name, *argv]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.turn()  # compiles and warms up

    def turn(self) -> float:
        assert self.process.stdin and self.process.stdout
        print("go", file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise errors.UserError("a contender ended early; its own message stands above")
        return float(line)


def _serve(name: str, config: Any) -> None:
    run = CONTENDERS[name](config)
    for _ in sys.stdin:
        begun = time.perf_counter()
        run()
        print(time.perf_counter() - begun, flush=True)


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "--config": {"default": "configs/bn.py", "help": "whose network and optimizer are timed"},
        "--batch_size": {"type": int, "default": 128},
        "--rounds": {"type": int, "default": 5},
        "--json": {"help": "also write the figures here"},
        "--worker": {"help": "used by the command itself"},
    })  # fmt: skip
    config = configs.load(given.config, overrides | {"train.batch_size": str(given.batch_size)})
    if given.worker:
        return _serve(given.worker, config)
    names = [n for n in CONTENDERS if importlib.util.find_spec("torch") or not n.startswith("PyTorch")]
    workers = {name: _Worker(name, argv) for name in names}
    rounds = [{name: worker.turn() for name, worker in workers.items()} for _ in range(given.rounds)]
    images = STEPS * given.batch_size
    rows = {
        name: {
            "images_per_second": round(images / statistics.median(r[name] for r in rounds), 1),
            "vgg_jax_is_times_faster": round(statistics.median(r[name] / r["vgg_jax"] for r in rounds), 2),
        }
        for name in names
    }
    cores = len(os.sched_getaffinity(0))
    print(f"{given.config}, batch {given.batch_size}, {cores} CPU cores, median of {given.rounds} rounds")
    for name, row in rows.items():
        print(
            f"{name:<24}{row['images_per_second']:>8,.1f} images/s   vgg_jax / it: {row['vgg_jax_is_times_faster']:.2f}"
        )
    if given.json:
        facts = {"config": given.config, "batch_size": given.batch_size, "cores": cores, "rounds": rounds, "rows": rows}
        Path(given.json).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    errors.run(main)
