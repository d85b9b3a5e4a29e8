"""Try variations of a config over several seeds, and rank them by held-out accuracy; the same command resumes.

python -m vgg_jax.sweep --config my.py [--seeds 2] [--workdir DIR] [--config.FIELD=VALUE ...]

Besides get_config(), my.py defines sweep(), which yields overrides: yield {"optimizer.learning_rate": 0.05}
"""

from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"required": True, "help": "a config file with get_config() and sweep()"},
        "--seeds": {"type": int, "default": 2, "help": "number of seeds, starting at config.seed; default 2"},
        "--workdir": {"type": flags.path, "help": "where the runs are; default checkpoints/<config name>_sweep"},
        "--table": {"action": "store_true", "dest": "only_print", "help": "only print the results so far"},
    })  # fmt: skip
    workdir = given.workdir or Path("checkpoints", f"{Path(given.config).stem}_sweep")
    from vgg_jax.runs import entry
    from vgg_jax.settings import cache
    from vgg_jax.tables import sweep, train
    from vgg_jax.training import sharding

    train.check_seeds(given.seeds)
    jobs = sweep.plan(given.config, overrides, given.seeds, workdir)
    failed = []
    if not given.only_print:
        sharding.use_cores(config for seeded in jobs.values() for config, _ in seeded)
        cache.use()
        entry.make(workdir)
        failed = train.train_all(jobs, sweep.check_data)
    rows = sweep.collect(jobs)
    print(sweep.markdown(rows))
    if not given.only_print:
        sweep.write(rows, workdir)
        print(f"written to {workdir}/sweep.json, .md and .png")
    if failed:
        raise UserError("; ".join(failed))


if __name__ == "__main__":
    errors.run(main)
