"""Where a run's time goes, from the shell prompt to the summary, with empty and then with filled caches.

python -m benchmarks.end_to_end [--config configs/bn.py] [--json FILE] [--config.FIELD=VALUE ...]

The config says which run, and how long it is. `imports` starts at the shell, `data` is reading and
decoding, `compile` to `save` are phases of the training loop, `other` is the rest: initialisation,
the first pictures, the loop's bookkeeping.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console import errors, flags

PHASES = ("imports", "data", "compile", "train", "evaluate", "save", "other")


def _child(begun: float, config_file: str, overrides: dict[str, str]) -> None:
    """Time the stages of `vgg_jax.main`; the last printed line is JSON."""
    from vgg_jax.datasets import load as data
    from vgg_jax.runs import entry, origin
    from vgg_jax.runs.loop import fit
    from vgg_jax.settings import cache, config as configs
    from vgg_jax.training import sharding

    imports = time.time() - begun
    config = configs.load(config_file, overrides)
    sharding.use_cores([config])
    cache.use()
    before = time.monotonic()
    splits = data.load(config)
    seconds = {"imports": imports, "data": time.monotonic() - before}
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        entry.open_run(workdir, config, splits)
        summary = fit(config, splits, workdir)
    seconds |= summary["last_session_seconds"]
    seconds["other"] = time.time() - begun - sum(seconds.values())
    batch = config.train.batch_size
    speed = len(splits["train"]) // batch * batch * config.train.epochs / seconds["train"]
    print(json.dumps({"device": origin.device(), "images_per_second": round(speed, 1), "seconds": seconds}))


def measure(argv: Sequence[str], cache: str) -> dict:
    """One run in a separate process."""
    command = [sys.executable, "-m", "benchmarks.end_to_end", "--begun", str(time.time()), *argv]
    child = subprocess.run(command, env={**os.environ, "VGG_JAX_CACHE": cache}, stdout=subprocess.PIPE, text=True)
    if child.returncode:
        raise errors.UserError("the run failed; see its message above")
    return json.loads(child.stdout.splitlines()[-1])


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"default": "configs/bn.py", "help": "the run that is timed"},
        "--json": {"help": "also write the figures here"},
        "--begun": {"type": float, "help": "used by the command itself"},
    })  # fmt: skip
    if given.begun:
        return _child(given.begun, given.config, overrides)
    with tempfile.TemporaryDirectory() as cache:
        runs = {name: measure(argv, cache) for name in ("empty caches", "filled caches")}
    print(f"{given.config} {' '.join(f'{k}={v}' for k, v in overrides.items())}, {runs['empty caches']['device']}")
    print(f"{'seconds':<15}" + "".join(f"{phase:>10}" for phase in (*PHASES, "in all")) + "  images/s")
    for name, run in runs.items():
        seconds = [run["seconds"].get(phase, 0.0) for phase in PHASES]
        print(
            f"{name:<15}"
            + "".join(f"{s:>10.1f}" for s in (*seconds, sum(seconds)))
            + f"{run['images_per_second']:>10,.1f}"
        )
    if given.json:
        Path(given.json).write_text(
            json.dumps({"config": given.config, "overrides": overrides, **runs}, indent=2) + "\n"
        )


if __name__ == "__main__":
    errors.run(main)
