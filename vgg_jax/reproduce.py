"""Train a table's rows over several seeds, and print the table; the same command goes on with it.

python -m vgg_jax.reproduce seed1|seed2 [--seeds 3] [--rows vgg_a,vgg_a_bn] [--config.FIELD=VALUE ...]
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vgg_jax import cache, config as configs, data, describe, errors, flags, plots, rundir, tables
from vgg_jax.data import Dataset
from vgg_jax.errors import RunFailed, UserError
from vgg_jax.fit import Job, fit_together, in_step


def plan(rows: Sequence[tables.Row], seeds: int, workdir: Path, overrides: Mapping[str, str]) -> dict[str, list[Job]]:
    """What there is to train, by row; every config is checked before anything is trained."""
    jobs = {}
    for row in rows:
        base = configs.load(configs.SHIPPED / f"{row.config}.py", overrides)
        jobs[row.config] = [(c, workdir / row.config / f"seed{c.seed}") for c in configs.seeded(base, seeds)]
    return jobs


def train(jobs: Sequence[Job], splits: dict[str, Dataset]) -> list[str]:
    """Train a row's seeds, as many of them in one program as stand at the same step and fit into memory.

    Returns: what went wrong with which of them.
    """
    unfinished = [job for job in jobs if not _finished(job[1])]
    return [failure for group in in_step(unfinished) for failure in _train_group(group, splits)]


def _finished(workdir: Path) -> bool:
    return rundir.read_summary(workdir) is not None


def _train_group(group: Sequence[Job], splits: dict[str, Dataset]) -> list[str]:
    try:
        fit_together([config for config, _ in group], splits, [workdir for _, workdir in group])
        return []
    except RunFailed as error:  # one of them
        parts = [[job] for job in group]
        why = str(error)
    except jax.errors.JaxRuntimeError as error:
        if errors.OUT_OF_MEMORY not in str(error):
            raise
        half = len(group) // 2
        parts = [group[:half], group[half:]]
        why = f"not enough memory for {len(group)} seeds at once" if half else errors.LESS_MEMORY
    if len(group) == 1:
        return [why]
    print(f"{why}; going on with {len(parts[0])} at once", flush=True)
    return [failure for part in parts for failure in _train_group(part, splits)]


def write(result: dict[str, Any], text: str, results: Path) -> None:
    """The table as JSON, Markdown and pictures."""
    table = result["table"]
    (results / f"{table}.json").write_text(json.dumps(result) + "\n")
    (results / f"{table}.md").write_text(text)
    plots.table_accuracy(result, tables.caption(result), results / f"{table}_accuracy.png")
    plots.table_curves(result, results / f"{table}_curves.png")


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "table": {"choices": tuple(tables.TABLES)},
        "--seeds": {"type": int, "default": 3, "help": "how many, from config.seed on"},
        "--rows": {"default": "", "help": "config names, separated by commas; default all"},
        "--workdir": {"type": flags.path, "help": "where the runs are; default checkpoints/TABLE"},
        "--results": {"type": flags.path, "help": "where TABLE.json, .md and pictures go; default the workdir"},
        "--table": {"action": "store_true", "dest": "only_print", "help": "train nothing, only print what there is"},
    })  # fmt: skip
    rows = _chosen(given.table, given.rows)
    workdir = given.workdir or Path("checkpoints", given.table)
    if given.only_print:
        print(tables.markdown(tables.collect(given.table, workdir)))
        return
    results = given.results or workdir
    jobs = plan(rows, _count(given.seeds), workdir, overrides)
    if results.exists() and not results.is_dir():
        raise UserError(f"{results} is a file; give another --results")
    results.mkdir(parents=True, exist_ok=True)
    failed = _train_all(jobs)
    result = tables.collect(given.table, workdir)
    text = tables.markdown(result)
    print(text)
    if any(row["runs"] for row in result["rows"]):
        write(result, text, results)
        print(f"written to {results / given.table}.json, .md, _accuracy.png and _curves.png")
    if failed:
        raise UserError("; ".join(failed))


def _train_all(jobs: Mapping[str, Sequence[Job]]) -> list[str]:
    """Trains row after row; returns what failed, so that one run's divergence costs no other run."""
    cache.use()
    loaded: dict[str, dict[str, Dataset]] = {}  # the rows of a table share their images
    for config, workdir in [job for seeded in jobs.values() for job in seeded]:
        key = configs.to_json(config.data)
        loaded[key] = loaded.get(key) or data.load(config.data)
        rundir.open_run(workdir, config, loaded[key])
    failed = []
    for number, (name, seeded) in enumerate(jobs.items(), 1):
        config = seeded[0][0]
        splits = loaded[configs.to_json(config.data)]
        print(f"row {number} of {len(jobs)}, {name}: {describe.line(config, len(splits['train'].class_names))}")
        try:
            failed += [f"{name}: {failure}" for failure in train(seeded, splits)]
        except UserError as error:  # the disk is full
            raise UserError("; ".join([*failed, f"{name}: {error}"])) from None
    return failed


def _chosen(table: str, names: str) -> list[tables.Row]:
    rows = {row.config: row for row in tables.TABLES[table]}
    chosen = [name.strip() for name in names.split(",") if name.strip()] or list(rows)
    for name in chosen:
        if name not in rows:
            raise UserError(f"no row {name} in {table}; its rows are {', '.join(rows)}")
    return [rows[name] for name in chosen]


def _count(seeds: int) -> int:
    if not 1 <= seeds <= 1000:
        raise UserError(f"--seeds takes 1 to 1000, not {seeds}")
    return seeds


if __name__ == "__main__":
    errors.run(main)
