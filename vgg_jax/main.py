"""Train a VGG; the same command resumes.

python -m vgg_jax.main --config configs/bn_dropout.py [--workdir DIR] [--config.FIELD=VALUE ...]
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console import errors, flags
from vgg_jax.settings import code, config as configs, help


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, f"{__doc__}\nThe fields of a config:\n{help.listing()}", {
        "--config": {"required": True, "help": "a config file, e.g. configs/bn_dropout.py"},
        "--workdir": {"type": flags.path, "help": "the run directory; default checkpoints/<config name>"},
        "--coordinator": {"help": "HOST:PORT of process 0, for several processes; under Slurm, omit all three flags"},
        "--num_processes": {"type": int, "help": "the number of processes"},
        "--process_id": {"type": int, "help": "the number of this process, from 0"},
    })  # fmt: skip
    config = configs.load(given.config, overrides)
    workdir = given.workdir or Path("checkpoints", Path(given.config).stem)
    from vgg_jax.runs.training import train
    from vgg_jax.settings import cache
    from vgg_jax.training import processes, sharding

    sharding.use_cores([config], given.num_processes)
    with processes.join(given.coordinator, given.num_processes, given.process_id):
        cache.use()
        train(config, workdir)
        own = ["--config", given.config] if code.is_needed(config) else []
        scored, shown = ["vgg-jax", "evaluate", "--workdir", str(workdir), *own], ["vgg-jax", "report", str(workdir)]
        print(f"finished: {workdir}; curves in {workdir / 'curves.png'}; all on one page: {shlex.join(shown)}")
        print(f"next: {shlex.join(scored)}")


if __name__ == "__main__":
    errors.run(main)
