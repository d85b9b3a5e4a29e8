"""Train a run in its directory, from its config to its summary."""

import sys
from pathlib import Path
from typing import Any

from vgg_jax.datasets import load
from vgg_jax.datasets.load import Dataset
from vgg_jax.model import network
from vgg_jax.runs import entry, origin, tracking
from vgg_jax.runs.loop import fit
from vgg_jax.runs.run import Callback
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training import processes

_NOT_HELD_OUT = (
    "own data have no validation images: config.data.validation_size holds none out, and best/ is chosen on the test "
    "images; vgg_jax.data(train=..., test=..., validation_size=...) holds some out"
)


def train(
    config: Config, workdir: Path, splits: dict[str, Dataset] | None = None, callback: Callback | None = None
) -> dict[str, Any]:
    """Train or resume, printing the network, data and devices; returns the summary.

    splits: as `load.whole` returns them; without them, those of the config.

    Raises: UserError when the directory, the data or the devices do not fit the config; see `fit`.
    """
    configs.check_trains(config)
    tracking.check(config)
    given = splits is not None
    found = splits if splits is not None else processes.in_turn("data", lambda: load.load(config))
    new = processes.in_turn("directory", lambda: entry.open_run(workdir, config, found, given))
    with entry.taken_back(workdir, new):
        print(network.line(config, len(found["train"].class_names)))
        own = given or bool(code.of(config, "get_data"))
        name = "own data" if own else config.data.name
        print(f"{name}: {', '.join(f'{len(part):,} {split}' for split, part in found.items() if len(part))}")
        if own and config.data.validation_size and not len(found["validation"]):
            print(_NOT_HELD_OUT, file=sys.stderr)
        if given and config.data.train_size:
            print("config.data.train_size has no effect on data that are given", file=sys.stderr)
        print(f"on {origin.devices(config)}, run directory {workdir}", flush=True)
        summary = fit(config, found, workdir, callback=callback)
    for protocol, result in summary["protocols"].items():
        if result:
            print(f"{protocol:>9}: test accuracy {result['test_accuracy']:.2%} (epoch {result['epoch']})")
    if tta := summary.get("tta"):
        print(f"with {tta['views']} views: test accuracy {tta['test_accuracy']:.2%}")
    return summary
