"""Training steps a second: this package, stock Flax and PyTorch, in turn on the same machine.

python -m benchmarks.train_step [--config configs/bn.py] [--batch_size 128] [--rounds 5] [--all] [--without Flax]
                                [--json FILE]

The network and the loss are the config's, the optimizer is SGD for all. Each contender is a process
of its own that holds one network and waits; the rounds go A B C A B C, so that a machine whose speed
drifts treats all alike. What counts is the median of the ratios within a round, as for the share of the matmul peak
(of XLA, in the contender's dtype), which each round measures anew. All start from the same weights and take the same
five batches of random images in the same order, again and again, from the device's memory; by how much their first
ten losses differ from vgg_jax's is shown.
PyTorch takes part eager and compiled, NCHW and channels-last, on a GPU also with CUDA graphs; it computes in the
config's dtype by autocast. With --all each takes part in float32 and in bfloat16. Contenders that cannot run here are
left out, and so are those whose name contains a word given by --without: on a CPU stock Flax takes most of the time.
Peak memory includes what compiling and choosing algorithms take; on a CPU it is read from Linux.
"""

import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import contenders
from benchmarks.contenders import CONTENDERS, STEPS, SUFFIX
from benchmarks.worker import Worker, serve
from vgg_jax.console import errors, flags
from vgg_jax.settings import config as configs

ROUND_SECONDS = 1.0  # as many turns of each contender a round as vgg_jax takes in this, at least one
SAME_FOR_ALL = {
    "train.micro_batch": "0", "train.average": "0", "optimizer.name": "sgd", "optimizer.bias_rate": "1",
    "optimizer.decay": "all", "optimizer.sam_radius": "0", "schedule.name": "constant", "schedule.warmup_epochs": "0",
    "augment.small_size": "0", "optimizer.learning_rate": "0.01",  # gentle, so that losses stay comparable
}  # fmt: skip


def _make_peak_flops(dtype: str) -> Callable[[], float]:
    """What measures the FLOP/s of a large matrix product: the best of ten."""
    import jax

    n = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)  # ones cost a GPU less power, and so run faster
    product = jax.jit(lambda a, b: a @ b).lower(a, a).compile()

    def seconds() -> float:
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        return time.perf_counter() - begun

    return lambda: 2 * n**3 / min(seconds() for _ in range(10))


def _start(us: str, config: Any, argv: Sequence[str], all_dtypes: bool, without: Sequence[str]) -> dict[str, Worker]:
    """The contenders that can run here and have no word of `without` in their name, compiled and warm; `us` must."""
    import jax

    gpu, workers, lacks = jax.default_backend() == "gpu", {}, contenders.pytorch_lacks(config)
    names = contenders.names(config, all_dtypes, gpu, without)
    if lacks:
        print(f"left out: PyTorch ({lacks})", file=sys.stderr, flush=True)
        names = [name for name in names if not name.startswith("PyTorch")]
    with tempfile.TemporaryDirectory() as folder:
        environment = {"WEIGHTS": f"{folder}/weights.npz", "TORCH_DEVICE": "cuda" if gpu else "cpu"}
        contenders.write_weights(config, environment["WEIGHTS"])
        for name in names:
            try:
                workers[name] = Worker(name, argv, environment)
            except errors.UserError as error:
                if name == us:
                    raise
                print(f"left out: {name} ({error})", file=sys.stderr, flush=True)
    return workers


def compare(
    config: Any, argv: Sequence[str], rounds: int, all_dtypes: bool, without: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """After every round all that was measured so far, a row a contender, the fastest first."""
    from vgg_jax.model import network

    us = f"vgg_jax{SUFFIX[config.model.dtype]}"
    workers = _start(us, config, argv, all_dtypes, without)
    peak_flops = {dtype: _make_peak_flops(dtype) for dtype in dict.fromkeys(CONTENDERS[n].dtype for n in workers)}
    count = max(1, round(ROUND_SECONDS / workers[us].seconds))
    images = count * STEPS * config.train.batch_size
    multiply_adds = network.totals(network.make_model(config, 10), config.data.image_size)["multiply_adds"]
    losses = {name: worker.losses for name, worker in workers.items()}
    turns, peaks = [], []
    names = list(workers)
    for done in range(1, rounds + 1):
        first = (done - 1) % len(names)  # each round begins with another contender
        taken = {name: workers[name].turn(count) for name in names[first:] + names[:first]}
        turns.append({name: taken[name] for name in names})
        peaks.append({dtype: peak() for dtype, peak in peak_flops.items()})
        yield {
            "batch_size": config.train.batch_size,
            "steps_a_round": count * STEPS,
            "rounds": done,
            "matmul_peak_gflops": {dtype: [round(peak[dtype] / 1e9) for peak in peaks] for dtype in peak_flops},
            "rows": rows(us, images, images * 6 * multiply_adds, turns, peaks, losses),  # forward and twice back
        }
    for worker in workers.values():
        worker.process.communicate()


def rows(
    us: str,
    images: int,
    flops: int,
    turns: Sequence[Mapping[str, Mapping[str, Any]]],
    peaks: Sequence[Mapping[str, float]],
    losses: Mapping[str, Sequence[float]],
) -> dict[str, dict[str, Any]]:
    """A contender's figures by its name, the fastest first; `us` is whom the others are compared with.

    Args:
      images, flops: of a round.
      turns, peaks: a round each: what the workers answered by name, FLOP/s by dtype.
      losses: the first ten by name.
    """
    found = {}
    for name in turns[0]:
        seconds = [turn[name]["seconds"] for turn in turns]
        ratios = [turn[name]["seconds"] / turn[us]["seconds"] for turn in turns]
        rates = [flops / s / peak[CONTENDERS[name].dtype] for s, peak in zip(seconds, peaks)]
        found[name] = {
            "images_per_second": round(images / statistics.median(seconds), 1),
            "vgg_jax_is_times_faster": round(statistics.median(ratios), 2),
            "share_of_matmul_peak": round(statistics.median(rates), 3),
            "peak_memory_mib": round(max(turn[name]["peak_memory"] for turn in turns) / 2**20),
            "largest_relative_loss_difference_in_10_steps": max(
                abs(a - b) / b for a, b in zip(losses[us], losses[name])
            ),
            "losses": losses[name],
            "seconds": seconds,
        }
    return dict(sorted(found.items(), key=lambda row: statistics.median(row[1]["seconds"])))


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows for people, a line each, in their order."""
    width = max(map(len, figures))
    lines = [f"{'':<{width}}  images/s  vgg_jax / it  of matmul peak  peak MiB  losses differ by"]
    for name, row in figures.items():
        lines.append(
            f"{name:<{width}}  {row['images_per_second']:>8,.1f}  {row['vgg_jax_is_times_faster']:>12.2f}  "
            f"{row['share_of_matmul_peak']:>14.0%}  {row['peak_memory_mib']:>8,}  "
            f"{row['largest_relative_loss_difference_in_10_steps']:.1e}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"default": "configs/bn.py", "help": "whose network is timed"},
        "--batch_size": {"type": int, "default": 128},
        "--rounds": {"type": int, "default": 5},
        "--all": {"action": "store_true", "help": "float32 and bfloat16, not only the config's dtype"},
        "--without": {"action": "append", "default": [], "metavar": "WORD",
                      "help": "leave out contenders with this in their name; may be given several times"},
        "--json": {"help": "also write the figures here"},
        "--worker": {"help": "used by the command itself"},
    })  # fmt: skip
    config = configs.load(given.config, SAME_FOR_ALL | {"train.batch_size": str(given.batch_size)} | overrides)
    if given.worker:
        return serve(given.worker, config)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # this process and its workers share a GPU
    from vgg_jax.runs import origin

    facts: dict[str, Any] = {"config": given.config, **origin.describe()}
    for found in compare(config, argv, given.rounds, given.all, given.without):
        facts |= found
        if any(name.startswith("PyTorch") for name in found["rows"]):
            facts["packages"] |= {"torch": importlib.metadata.version("torch")}
        if given.json:  # after every round, lest a time limit take them all
            Path(given.json).write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{given.config}, batch {facts['batch_size']}, {facts['device']}, median of {given.rounds} rounds")
    print(table(facts["rows"]))


if __name__ == "__main__":
    errors.run(main)
