"""Train a table's rows over several seeds, and print the table; the same command resumes.

python -m vgg_jax.reproduce project1|project2 [--seeds 3] [--rows vgg_a,vgg_a_bn] [--config.FIELD=VALUE ...]
python -m vgg_jax.reproduce own --rows my.py,vgg_a ...
"""

from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.tables.rows import OLD_NAMES, TABLES, Row, row_of


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "name": {"choices": (*TABLES, "own", *OLD_NAMES), "metavar": "|".join((*TABLES, "own"))},
        "--seeds": {"type": int, "default": 3, "help": "number of seeds, starting at config.seed; default 3"},
        "--rows": {"default": "", "help": "names of recipes, separated by commas; for own also config files"},
        "--workdir": {"type": flags.path, "help": "where the runs are; default checkpoints/TABLE"},
        "--results": {"type": flags.path, "help": "where TABLE.json, .md and pictures go; default the workdir"},
        "--table": {"action": "store_true", "dest": "only_print", "help": "only print the results so far"},
    })  # fmt: skip
    name: str = OLD_NAMES.get(given.name) or given.name
    rows = _chosen(name, given.rows)
    workdir = given.workdir or _default_workdir(name)
    from vgg_jax.settings import cache
    from vgg_jax.tables import table, train
    from vgg_jax.training import sharding

    in_table = TABLES.get(name, rows)
    if given.only_print:
        print(table.markdown(table.collect(name, in_table, workdir)))
        return
    results = given.results or workdir
    train.check_seeds(given.seeds)
    jobs = train.plan(rows, given.seeds, workdir, overrides)
    if results.exists() and not results.is_dir():
        raise UserError(f"{results} is a file; give another --results")
    results.mkdir(parents=True, exist_ok=True)
    sharding.use_cores(config for seeded in jobs.values() for config, _ in seeded)
    cache.use()
    failed = train.train_all(jobs)
    result = table.collect(name, in_table, workdir)
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
    asked = [row.strip() for row in given.split(",") if row.strip()]
    if name == "own":
        return _own(asked)
    rows = {row.config: row for row in TABLES[name]}
    chosen = asked or list(rows)
    for row in chosen:
        if row not in rows:
            raise UserError(f"no row {row} in {name}; its rows are {', '.join(rows)}")
    return [rows[row] for row in chosen]


def _own(asked: list[str]) -> list[Row]:
    rows = [row_of(source) for source in asked]
    if not rows:
        raise UserError("a table of your own needs --rows, as --rows my.py,vgg_a")
    if twice := [row.config for i, row in enumerate(rows) if row.config in [other.config for other in rows[:i]]]:
        raise UserError(f"two rows are called {twice[0]}; rename one of the files")
    return rows


if __name__ == "__main__":
    errors.run(main)
