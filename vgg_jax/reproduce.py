"""Train a table's rows over several seeds, and print the table; the same command resumes.

python -m vgg_jax.reproduce project1|project2 [--seeds 3] [--rows vgg_a,vgg_a_bn] [--config.FIELD=VALUE ...]
"""

from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.tables.rows import OLD_NAMES, TABLES, Row


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "name": {"choices": (*TABLES, *OLD_NAMES), "metavar": "|".join(TABLES)},
        "--seeds": {"type": int, "default": 3, "help": "number of seeds, starting at config.seed"},
        "--rows": {"default": "", "help": "config names, separated by commas; default all"},
        "--workdir": {"type": flags.path, "help": "where the runs are; default checkpoints/TABLE"},
        "--results": {"type": flags.path, "help": "where TABLE.json, .md and pictures go; default the workdir"},
        "--table": {"action": "store_true", "dest": "only_print", "help": "only print the results so far"},
    })  # fmt: skip
    name: str = OLD_NAMES.get(given.name) or given.name
    rows = _chosen(name, given.rows)
    workdir = given.workdir or _default_workdir(name)
    from vgg_jax.settings import cache
    from vgg_jax.tables import table, train

    if given.only_print:
        print(table.markdown(table.collect(name, workdir)))
        return
    results = given.results or workdir
    jobs = train.plan(rows, _count(given.seeds), workdir, overrides)
    if results.exists() and not results.is_dir():
        raise UserError(f"{results} is a file; give another --results")
    results.mkdir(parents=True, exist_ok=True)
    cache.use()
    failed = train.train_all(jobs)
    result = table.collect(name, workdir)
    text = table.markdown(result)
    print(text)
    if any(row["runs"] for row in result["rows"]):
        train.write(result, text, results)
        print(f"written to {results / name}.json, .md, _accuracy.png and _curves.png")
    if failed:
        raise UserError("; ".join(failed))


def _default_workdir(name: str) -> Path:
    """checkpoints/TABLE, or the folder with the table's old name if the runs are there."""
    old = [Path("checkpoints", old) for old, new in OLD_NAMES.items() if new == name]
    there = [folder for folder in (Path("checkpoints", name), *old) if folder.is_dir()]
    return (there or [Path("checkpoints", name)])[0]


def _chosen(name: str, given: str) -> list[Row]:
    rows = {row.config: row for row in TABLES[name]}
    chosen = [row.strip() for row in given.split(",") if row.strip()] or list(rows)
    for row in chosen:
        if row not in rows:
            raise UserError(f"no row {row} in {name}; its rows are {', '.join(rows)}")
    return [rows[row] for row in chosen]


def _count(seeds: int) -> int:
    if not 1 <= seeds <= 1000:
        raise UserError(f"--seeds takes 1 to 1000, not {seeds}")
    return seeds


if __name__ == "__main__":
    errors.run(main)
