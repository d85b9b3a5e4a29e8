"""Train a VGG; the same command resumes.

python -m vgg_jax.main --config configs/bn_dropout.py [--workdir DIR] [--config.FIELD=VALUE ...]
"""

from collections.abc import Sequence
from pathlib import Path

from vgg_jax import cache, config as configs, data, describe, errors, flags, rundir, sharding
from vgg_jax.fit import fit
from vgg_jax.types import Config


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "--config": {"required": True, "help": "a config file, as configs/bn_dropout.py"},
        "--workdir": {"type": flags.path, "help": "the run directory; default checkpoints/<config name>"},
        "--coordinator": {"help": "HOST:PORT of process 0, for a run of several processes; Slurm needs none of these"},
        "--num_processes": {"type": int, "help": "how many they are"},
        "--process_id": {"type": int, "help": "which of them this is, from 0"},
    })  # fmt: skip
    config = configs.load(given.config, overrides)
    sharding.use_cores(config, given.num_processes)
    with sharding.processes(given.coordinator, given.num_processes, given.process_id):
        train(config, given.workdir or Path("checkpoints", Path(given.config).stem))


def train(config: Config, workdir: Path) -> None:
    cache.use()
    splits = sharding.in_turn("data", lambda: data.load(config.data))
    sharding.in_turn("directory", lambda: rundir.open_run(workdir, config, splits))
    print(describe.line(config, len(splits["train"].class_names)))
    print(f"{config.data.name}: {', '.join(f'{len(part):,} {split}' for split, part in splits.items() if len(part))}")
    print(f"on {rundir.devices(config)}, run directory {workdir}", flush=True)
    summary = fit(config, splits, workdir)
    for protocol, result in summary["protocols"].items():
        if result:
            print(f"{protocol:>9}: test accuracy {result['test_accuracy']:.2%} (epoch {result['epoch']})")
    if tta := summary.get("tta"):
        print(f"with {tta['views']} views: test accuracy {tta['test_accuracy']:.2%}")
    print(f"finished: {workdir}; curves in {workdir / 'curves.png'}; more by vgg-jax evaluate --workdir {workdir}")


if __name__ == "__main__":
    errors.run(main)
