"""What a training step costs against batch size, width and depth: a table, JSON and a picture.

python -m benchmarks.cost [--config configs/bn.py] [--out FILE]
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import contenders
from vgg_jax.console import errors, flags
from vgg_jax.console.progress import Progress
from vgg_jax.model import network
from vgg_jax.runs.pictures import subplots, write
from vgg_jax.settings import config as configs

SWEEPS: dict[str, tuple[Any, ...]] = {
    "train.batch_size": (16, 32, 64, 128, 256, 512),
    "model.width": (0.25, 0.5, 1.0, 1.5),
    "model.stages": ("A", "B", "D", "E"),
}


def measure(config: Any) -> dict[str, float]:
    """Speed of a step (median of two turns after a warm-up turn), and seconds for compilation and the first turn."""
    begun = time.perf_counter()
    turn = contenders.ours(config)
    turn(1)
    first, seconds = time.perf_counter() - begun, []
    for _ in range(2):
        begun = time.perf_counter()
        turn(1)
        seconds.append((time.perf_counter() - begun) / contenders.STEPS)
    step = statistics.median(seconds)
    multiply_adds = network.totals(network.make_model(config, 10), config.data.image_size)["multiply_adds"]
    return {
        "images_per_second": round(config.train.batch_size / step, 1),
        "gflops": round(6e-9 * multiply_adds * config.train.batch_size / step, 1),
        "first_turn_seconds": round(first, 1),
    }


def draw(sweeps: dict[str, dict[str, dict[str, float]]], title: str, file: Path) -> None:
    figure, axes = subplots(1, len(sweeps), figsize=(12, 3.4))
    for axis, (field, points) in zip(axes, sweeps.items()):
        axis.plot(list(points), [point["images_per_second"] for point in points.values()], "o-")
        rates = axis.twinx()
        gflops = [point["gflops"] for point in points.values()]
        rates.plot(list(points), gflops, "s--", color="0.6")
        rates.set_ylim(0, 1.1 * max(gflops))
        rates.set_ylabel("GFLOP/s of plain convolutions (dashed)", color="0.4", fontsize=8)
        axis.set(xlabel=field, ylabel="images/s", ylim=(0, None))
    figure.suptitle(title)
    write(figure, file)


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"default": "configs/bn.py", "help": "the recipe that the sweeps start from"},
        "--out": {"default": "cost", "help": "files to write, without their endings"},
    })  # fmt: skip
    from vgg_jax.runs import origin

    base = configs.load(given.config, {"train.micro_batch": "0"} | overrides)
    progress, sweeps = Progress(sum(map(len, SWEEPS.values())), "measuring", " points"), {}
    for field, values in SWEEPS.items():
        sweeps[field] = {}
        for value in values:
            sweeps[field][str(value)] = measure(configs.override(base, {field: str(value)}))
            progress.say(f"{field}={value}: {sweeps[field][str(value)]}")
            progress.update(1)
    progress.close()
    title = f"{Path(given.config).stem}, batch {base.train.batch_size} where not swept, {origin.device()}"
    Path(f"{given.out}.json").write_text(json.dumps({"title": title, "sweeps": sweeps}, indent=2) + "\n")
    draw(sweeps, title, Path(f"{given.out}.png"))
    print(f"wrote {given.out}.json and {given.out}.png")


if __name__ == "__main__":
    errors.run(main)
