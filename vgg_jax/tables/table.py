"""A table, filled in from a folder of runs."""

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgg_jax.evaluation.intervals import estimate
from vgg_jax.model.network import make_model, totals
from vgg_jax.runs import directory, log
from vgg_jax.tables.rows import Row


def collect(table: str, rows: Sequence[Row], workdir: Path) -> dict[str, Any]:
    """The contents of results/<table>.json, from the run directories workdir/<config>/seed<n>.

    An unfinished run counts only if no seed of its row is finished. Accuracies are fractions, on the
    test set except for train_accuracy.
    """
    return {"table": table, "rows": [_row(row, workdir / row.config) for row in rows]}


def _row(row: Row, folder: Path) -> dict[str, Any]:
    names = [re.fullmatch(r"seed(\d+)", p.parent.name) for p in folder.glob("seed*/metrics.jsonl")]
    found = {int(name[1]): folder / name[0] for name in names if name}
    runs = [run for seed in sorted(found) if (run := _run(seed, found[seed]))["curve"]]
    finished = [run["curve"][-1][0] == run["epochs"] for run in runs]
    for run, done in zip(runs, finished):
        run["counts"] = done or not any(finished)
    counts: dict[str, int] = {}
    if found:
        config, facts = directory.read_run(found[min(found)], own=row.own)
        counts = totals(make_model(config, len(facts["class_names"])), config.data.image_size)
    said = {"config": row.config, "name": row.name, "what": row.what, "reported": row.reported}
    return said | counts | {"runs": runs}


def _run(seed: int, workdir: Path) -> dict[str, Any]:
    config, facts = directory.read_run(workdir)
    summary, records = directory.read_summary(workdir) or {}, log.read(workdir)  # in this order: it may be training
    accuracy = {k: v and v["test_accuracy"] for k, v in log.protocols(records).items()}
    if records and records[-1]["epoch"] < config.train.epochs:
        accuracy["final"] = None
    return {
        "seed": seed,
        "epochs": config.train.epochs,
        "train_images": facts["sizes"]["train"],
        "test_images": facts["sizes"]["test"],
        "batch_size": config.train.batch_size,
        "test_accuracy": accuracy,
        "train_accuracy": summary.get("train_accuracy"),
        "seconds": records[-1]["seconds"] if records else 0.0,
        "device": facts["device"],
        "commit": facts["commit"],
        "curve": [[r["epoch"], r["train_accuracy"], r["test_accuracy"]] for r in records],
    }


def markdown(result: dict[str, Any]) -> str:
    """The table as Markdown; cells without runs are empty."""
    head = (
        "row", "what it is", "reported (%)", "final (%)", "best on test (%)", "selected (%)",
        "train - test", "epochs", "parameters", "multiply-adds", "seconds per seed",
    )  # fmt: skip
    lines = [_line(head), _line(["---"] * len(head))]
    for row in result["rows"]:
        runs = [run for run in row["runs"] if run["counts"]]
        lines.append(_line([
            f"{row['name']} (`{row['config']}.py`)" if row["name"] != row["config"] else f"`{row['config']}.py`",
            row["what"],
            f"{row['reported']:.2f}" if row["reported"] else "",
            *(_accuracy(runs, protocol) for protocol in log.PROTOCOLS),
            spread([100 * g for g in gaps(row)]),
            _epochs(runs),
            f"{row['parameters']:,}" if runs else "",
            f"{row['multiply_adds'] / 1e6:.1f} M" if runs else "",
            f"{statistics.mean(run['seconds'] for run in runs):,.0f}" if runs else "",
        ]))  # fmt: skip
    return "\n".join([*lines, "", caption(result), ""])


def caption(result: dict[str, Any]) -> str:
    runs = [run for row in result["rows"] for run in row["runs"]]
    if not runs:
        return "Nothing has been run yet."
    devices = " and ".join(sorted({run["device"] for run in runs}))
    images = " and ".join(f"{n:,}" for n in sorted({run["train_images"] for run in runs}))
    batch = " and ".join(str(n) for n in sorted({run["batch_size"] for run in runs}))
    reports = any(row["reported"] for row in result["rows"])
    reported = "; reported: by the original project, taken to be its best epoch on the test set" if reports else ""
    return (
        f"On {devices}, {images} training images, batch {batch}. Mean ± standard deviation (n seeds) of the accuracy "
        "on all test images; in brackets its 95 % interval, Student's for several seeds and Wilson's for one"
        f"{reported}. Epochs like 12 of 30: unfinished, without a final accuracy. train - test: "
        "accuracy on training images (10,000 of them, in evaluation mode) minus the final one on test images, in "
        "percentage points."
    )


def gaps(row: dict[str, Any]) -> list[float]:
    """Train minus test accuracy at the end of each finished run."""
    return [
        run["train_accuracy"] - run["test_accuracy"]["final"]
        for run in row["runs"]
        if run["train_accuracy"] is not None and run["test_accuracy"]["final"] is not None
    ]


def _accuracy(runs: Sequence[dict[str, Any]], protocol: str) -> str:
    """'68.47 [67.55, 69.37] (1)', in percent."""
    counted = [run for run in runs if run["test_accuracy"][protocol] is not None]
    found = estimate(
        [run["test_accuracy"][protocol] for run in counted], counted[0]["test_images"] if counted else None
    )
    if found is None:
        return ""
    deviation = f" ± {100 * found.deviation:.2f}" if found.deviation is not None else ""
    return f"{100 * found.mean:.2f}{deviation}{found.interval(' [{:.2f}, {:.2f}]')} ({found.n})"


def spread(values: Sequence[float]) -> str:
    """[1, 2, 3] -> '2.00 ± 1.00 (3)'"""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation} ({len(values)})"


def _epochs(runs: Sequence[dict[str, Any]]) -> str:
    """'30', or '12 of 30' for unfinished runs."""
    said = {(run["curve"][-1][0], run["epochs"]) for run in runs}
    return ", ".join(str(total) if done == total else f"{done} of {total}" for done, total in sorted(said))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
