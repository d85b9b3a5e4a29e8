"""Training speed of this package, stock Flax and PyTorch, measured in turn on the same machine.

python -m benchmarks.train_step [--config configs/bn.py] [--batch_size 128] [--rounds 5] [--json FILE]

The network and the loss are the config's; the optimizer is SGD for all. Each contender is a separate process that
holds one network and waits; the rounds go A B C A B C, so that a drifting machine speed affects all alike. Speeds are
compared by the median over rounds of the ratio within a round; each round also measures the matmul peak again. All
contenders start from the same weights, and the largest difference of their first ten losses is shown. PyTorch takes
part if it is installed, has the network, and the loss is cross-entropy; on a GPU also compiled, with and without CUDA
graphs, and in bfloat16 if the config is. Contenders that cannot run are left out. Peak memory includes compilation and
the choice of algorithms; on a CPU it is read from Linux.
"""

import functools
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.console import errors, flags
from vgg_jax.model import network
from vgg_jax.settings import config as configs

STEPS = 5  # per turn
ROUND_SECONDS = 1.0  # a round has the turns that vgg_jax does in this time (at least one), for each contender
Turn = Callable[[], list[float]]  # does STEPS steps; returns the loss before each


def _jax_turn(config: Any, jit: Callable[[Callable, Any, Any], Turn]) -> Turn:
    import jax

    from vgg_jax.training.step import init_state, make_recipe, make_train_step

    recipe = make_recipe(config, 10, 50_000)
    images, labels = map(jax.numpy.asarray, _batch(config.train.batch_size))
    state = jax.jit(functools.partial(init_state, recipe))(np.uint32(0), images)
    return jit(make_train_step(recipe), state, {"image": images, "label": labels})


def ours(config: Any) -> Turn:
    """This package's step as in a chunk: a turn is one compiled program."""
    import jax

    def jit(step: Callable, state: Any, batch: Any) -> Turn:
        def steps(state: Any, batch: Any) -> Any:
            def body(state: Any, _: Any) -> Any:
                state, metrics = step(state, batch)
                return state, metrics["loss"]

            return jax.lax.scan(body, state, length=STEPS)

        compiled = jax.jit(steps, donate_argnums=0).lower(state, batch).compile()

        def turn() -> list[float]:
            nonlocal state
            state, losses = compiled(state, batch)
            return losses.tolist()

        return turn

    return _jax_turn(config, jit)


def stock_flax(config: Any) -> Turn:
    """The same network with Flax's own convolution, pooling and dropout, one jitted step per call."""
    from unittest import mock

    import jax
    from flax import linen as nn
    from jax import lax

    from vgg_jax.model import vgg as models

    class Dropout(nn.Module):
        rate: float

        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return nn.Dropout(self.rate, deterministic=not train)(x)

    def max_pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (2, 2), (2, 2))

    def jit(step: Callable, state: Any, batch: Any) -> Turn:
        compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

        def turn() -> list[float]:
            nonlocal state
            losses = []
            for _ in range(STEPS):
                state, metrics = compiled(state, batch)
                losses.append(metrics["loss"])
            return [float(loss) for loss in losses]

        return turn

    stock = {"conv_general_dilated": lax.conv_general_dilated, "max_pool": max_pool, "Dropout": Dropout}
    with mock.patch.multiple(models, **stock):
        return _jax_turn(config, jit)


def pytorch(config: Any, channels_last: bool = False, compiled: str = "") -> Turn:
    """The same network and SGD in PyTorch, on JAX's GPU or all cores; `compiled` is torch.compile's mode."""
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks import torch_vgg

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True  # try the algorithms, as XLA does
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device, c, o = os.environ["TORCH_DEVICE"], config.model, config.optimizer
    model = torch_vgg.build(c)
    torch_vgg.load(model, dict(np.load(os.environ["WEIGHTS"])))
    images, labels = _batch(config.train.batch_size)
    x, y = torch.tensor(images.transpose(0, 3, 1, 2).copy()).to(device), torch.tensor(labels).long().to(device)
    model = model.to(device)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], o.learning_rate, o.momentum, 0, o.weight_decay, o.nesterov
    )

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=c.dtype == "bfloat16"):
            logits = model(x).float() * c.logits_scale
        return torch.nn.functional.cross_entropy(logits, y, label_smoothing=config.loss.label_smoothing)

    loss_of = torch.compile(loss_of, mode=compiled) if compiled else loss_of

    def turn() -> list[float]:
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())  # a CUDA graph writes the next one to the same place
        return [loss.item() for loss in losses]

    return turn


CONTENDERS: dict[str, Callable[[Any], Turn]] = {
    "vgg_jax": ours,
    "stock Flax": stock_flax,
    "PyTorch NCHW": pytorch,
    "PyTorch channels-last": functools.partial(pytorch, channels_last=True),
    "PyTorch channels-last, compiled": functools.partial(pytorch, channels_last=True, compiled="default"),
    "PyTorch channels-last, compiled, CUDA graphs": functools.partial(
        pytorch, channels_last=True, compiled="reduce-overhead"
    ),
}


def _batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, size).astype(np.int32)


def _write_weights(config: Any, file: str) -> None:
    """Save the weights that vgg_jax and stock Flax start from, for PyTorch."""
    from flax import traverse_util

    from vgg_jax.training.step import init_state, make_recipe

    state = init_state(make_recipe(config, 10, 50_000), 0, _batch(config.train.batch_size)[0])
    weights: Any = traverse_util.flatten_dict(state.params, sep="/")
    if config.model.whitening:
        weights["whiten/kernel"] = state.batch_stats["whiten"]["kernel"]
    np.savez(file, **weights)


def _make_peak_flops(config: Any) -> Callable[[], float]:
    """A function that measures the FLOP/s of a large matrix product in the config's dtype, the best of ten."""
    import jax
    import jax.numpy as jnp

    n = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((n, n), config.model.dtype)
    product = jax.jit(lambda a, b: a @ b).lower(a, a).compile()

    def seconds() -> float:
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        return time.perf_counter() - begun

    return lambda: 2 * n**3 / min(seconds() for _ in range(10))


def _peak_memory() -> int:
    """Peak memory of this process in bytes: the GPU's if it uses one, else the machine's."""
    if "torch" in sys.modules:
        import torch  # pyright: ignore[reportMissingImports]

        if os.environ["TORCH_DEVICE"] == "cuda":
            return torch.cuda.max_memory_allocated()
    elif (stats := sys.modules["jax"].devices()[0].memory_stats()) and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    status = Path("/proc/self/status").read_text()  # getrusage would include the parent's memory
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


class _Worker:
    """A contender in its own process: `turn` makes it do count turns and returns its measurements."""

    def __init__(self, name: str, argv: Sequence[str], weights: str):
        import jax

        command = [sys.executable, "-m", "benchmarks.train_step", "--worker", name, *argv]
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        given = {"WEIGHTS": weights, "TORCH_DEVICE": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **given}
        )
        compiling, warm = self.turn(), self.turn()
        self.losses, self.seconds = compiling["losses"] + warm["losses"], warm["seconds"]

    def turn(self, count: int = 1) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(count, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise errors.UserError("a contender ended early; see its message above")
        return json.loads(line)


def _serve(name: str, config: Any) -> None:
    turn = CONTENDERS[name](config)
    for count in sys.stdin:
        begun = time.perf_counter()
        losses = [loss for _ in range(int(count)) for loss in turn()]
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "losses": losses, "peak_memory": _peak_memory()}), flush=True)


def _contenders(config: Any) -> list[str]:
    import jax

    comparable = importlib.util.find_spec("torch") and config.loss.name == "cross_entropy"
    names = [n for n in CONTENDERS if comparable or not n.startswith("PyTorch")]
    return [n for n in names if "compiled" not in n or jax.default_backend() == "gpu"]


def _start(names: Sequence[str], argv: Sequence[str], weights: str) -> dict[str, _Worker]:
    """The contenders that can run here, compiled and warm."""
    workers = {}
    for name in names:
        try:
            workers[name] = _Worker(name, argv, weights)
        except errors.UserError as error:
            if name == "vgg_jax":
                raise
            print(f"left out: {name} ({error})", file=sys.stderr, flush=True)
    return workers


def compare(config: Any, argv: Sequence[str], rounds: int) -> dict[str, Any]:
    """All measurements, one row per contender."""
    batch_size, peak_flops = config.train.batch_size, _make_peak_flops(config)
    with tempfile.TemporaryDirectory() as folder:
        _write_weights(config, f"{folder}/weights.npz")
        workers = _start(_contenders(config), argv, f"{folder}/weights.npz")
        count = max(1, round(ROUND_SECONDS / workers["vgg_jax"].seconds))
        turns, peaks = [], []
        for _ in range(rounds):
            turns.append({name: worker.turn(count) for name, worker in workers.items()})
            peaks.append(peak_flops())
    for worker in workers.values():
        worker.process.communicate()
    images = count * STEPS * batch_size
    multiply_adds = network.totals(network.make_model(config, 10), config.data.image_size)["multiply_adds"]
    flops, rows = images * 6 * multiply_adds, {}  # per round: the backward pass costs two forward passes
    for name in workers:
        seconds = [turn[name]["seconds"] for turn in turns]
        ratios = [turn[name]["seconds"] / turn["vgg_jax"]["seconds"] for turn in turns]
        gaps = [abs(a - b) / b for a, b in zip(workers["vgg_jax"].losses, workers[name].losses)]
        rows[name] = {
            "images_per_second": round(images / statistics.median(seconds), 1),
            "vgg_jax_is_times_faster": round(statistics.median(ratios), 2),
            "share_of_matmul_peak": round(statistics.median(flops / s / p for s, p in zip(seconds, peaks)), 3),
            "peak_memory_mib": round(max(turn[name]["peak_memory"] for turn in turns) / 2**20),
            "largest_relative_loss_difference_in_10_steps": max(gaps),
            "losses": workers[name].losses,
            "seconds": seconds,
        }
    measured = {"batch_size": batch_size, "steps_a_round": count * STEPS, "rounds": rounds}
    return measured | {"matmul_peak_gflops": [round(peak / 1e9) for peak in peaks], "rows": rows}


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "--config": {"default": "configs/bn.py", "help": "the config whose network is timed"},
        "--batch_size": {"type": int, "default": 128},
        "--rounds": {"type": int, "default": 5},
        "--json": {"help": "also write the figures here"},
        "--worker": {"help": "used by the command itself"},
    })  # fmt: skip
    fixed = {"train.batch_size": str(given.batch_size), "train.micro_batch": "0", "optimizer.name": "sgd"}
    fixed |= {"optimizer.bias_rate": "1", "optimizer.decay": "all", "schedule.name": "constant", "train.average": "0"}
    fixed |= {
        "optimizer.learning_rate": "0.01",
        "schedule.warmup_epochs": "0",
    }  # gentle, so that losses stay comparable
    config = configs.load(given.config, fixed | overrides)
    if given.worker:
        return _serve(given.worker, config)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves the GPU's memory to the workers
    from vgg_jax.runs import origin

    facts = {"config": given.config, **origin.describe(), **compare(config, argv, given.rounds)}
    print(f"{given.config}, batch {facts['batch_size']}, {facts['device']}, median of {given.rounds} rounds")
    print(f"{'':<45}images/s  time/vgg_jax  of matmul peak  peak MiB  losses differ by")
    for name, row in facts["rows"].items():
        print(
            f"{name:<45}{row['images_per_second']:>8,.1f}  {row['vgg_jax_is_times_faster']:>12.2f}  "
            f"{row['share_of_matmul_peak']:>14.0%}  {row['peak_memory_mib']:>8,}  "
            f"{row['largest_relative_loss_difference_in_10_steps']:.1e}"
        )
    if given.json:
        Path(given.json).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    errors.run(main)
