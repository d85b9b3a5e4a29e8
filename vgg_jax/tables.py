"""The tables of the two projects: their rows, and what a folder of runs says about them."""

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgg_jax import metrics, rundir
from vgg_jax.models import VGG, totals


class Row(NamedTuple):
    config: str  # in configs/
    name: str  # the project's own
    what: str
    reported: float | None  # the project's accuracy in %, its best epoch on the test set


TABLES = {
    "seed1": (
        Row("bn_dropout", "BN + dropout", "VGG16 with BatchNorm and dropout", 89.89),
        Row("dropout", "dropout only", "without BatchNorm", 88.67),
        Row("bn", "BN only", "without dropout", 88.73),
        Row("plain", "neither", "without both", 86.65),
    ),
    "seed2": (
        Row("vgg_a", "VGG_A", "baseline", 75.77),
        Row("vgg_a_l2", "VGG_A + L2", "weight decay 1e-4 as an L2 gradient in Adam", 74.98),
        Row("vgg_a_mse", "VGG_A + squared error", "squared error against one-hot targets", None),
        Row("vgg_a_bn", "VGG_BatchNorm", "conv-BN-ReLU", 80.43),
        Row("vgg_a_bn_sgd", "VGG_BatchNorm + SGD", "SGD 1e-3, momentum 0.9", 75.53),
        Row("vgg_a_dropout", "VGG_Dropout", "dropout 0.5 twice in the head", None),
        Row("vgg_a_dropout_bn", "VGG_Dropout_BN", "conv-ReLU-BN, dropout 0.5 twice in the head", 81.66),
        Row("vgg_light", "VGG_Light", "conv 16, conv 32, head 128-128-10", 68.71),
        Row("vgg_a_dropout_bn_res", "VGG_Dropout_BN_Res", "every convolution a residual block", 81.96),
        Row("vgg_a_leaky_relu", "VGG_A_LeakyReLU", "slope 0.1, Kaiming normal", 82.16),
        Row("vgg_a_dropout_bn_res_leaky", "VGG_Dropout_BN_Res_Leaky", "residual blocks, slope 0.1", None),
    ),
}
PROTOCOLS = ("final", "best_test", "selected")


def collect(table: str, workdir: Path) -> dict[str, Any]:
    """All that the run directories workdir/<config>/seed<n> say, as results/<table>.json holds it.

    A run under way counts only where no seed of its row is finished. Accuracies are fractions, of the
    test set but for train_accuracy.
    """
    return {"table": table, "rows": [_row(row, workdir / row.config) for row in TABLES[table]]}


def _row(row: Row, folder: Path) -> dict[str, Any]:
    names = [re.fullmatch(r"seed(\d+)", p.parent.name) for p in folder.glob("seed*/metrics.jsonl")]
    found = {int(name[1]): folder / name[0] for name in names if name}
    runs = [run for seed in sorted(found) if (run := _run(seed, found[seed]))["curve"]]
    finished = [run["curve"][-1][0] == run["epochs"] for run in runs]
    for run, done in zip(runs, finished):
        run["counts"] = done or not any(finished)
    counts: dict[str, int] = {}
    if found:
        config, facts = rundir.read_run(found[min(found)])
        counts = totals(VGG(num_classes=len(facts["class_names"]), **config.model), config.data.image_size)
    return row._asdict() | counts | {"runs": runs}


def _run(seed: int, workdir: Path) -> dict[str, Any]:
    config, facts = rundir.read_run(workdir)
    records, summary = metrics.read(workdir), rundir.read_summary(workdir) or {}
    accuracy = {k: v and v["test_accuracy"] for k, v in metrics.protocols(records).items()}
    if records and records[-1]["epoch"] < config.train.epochs:
        accuracy["final"] = None
    return {
        "seed": seed,
        "epochs": config.train.epochs,
        "train_images": facts["sizes"]["train"],
        "batch_size": config.train.batch_size,
        "test_accuracy": accuracy,
        "train_accuracy": summary.get("train_accuracy"),
        "seconds": _seconds(records),
        "device": facts["device"],
        "commit": facts["commit"],
        "curve": [[r["epoch"], r["train_accuracy"], r["test_accuracy"]] for r in records],
    }


def _seconds(records: Sequence[metrics.Record]) -> float:
    """A run's share of the time that it and those trained together with it took."""
    ends = [0.0, *(r["seconds"] for r in records)]
    return sum((end - begin) / r.get("trained_together", 1) for begin, end, r in zip(ends, ends[1:], records))


def markdown(result: dict[str, Any]) -> str:
    """The table as Markdown; a cell is empty where nothing was run."""
    head = (
        "row", "what it is", "reported (%)", "final (%)", "best on test (%)", "selected (%)",
        "train - test", "epochs", "parameters", "multiply-adds", "seconds a seed",
    )  # fmt: skip
    lines = [_line(head), _line(["---"] * len(head))]
    for row in result["rows"]:
        runs = [run for run in row["runs"] if run["counts"]]
        lines.append(_line([
            f"{row['name']} (`{row['config']}.py`)",
            row["what"],
            f"{row['reported']:.2f}" if row["reported"] else "",
            *(spread([100 * a for run in runs if (a := run["test_accuracy"][p]) is not None]) for p in PROTOCOLS),
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
    return (
        f"On {devices}, {images} training images, batch {batch}. Mean ± standard deviation (n seeds) of the accuracy "
        "on all test images; reported: the original project's best epoch on the test set. Epochs like 12 of 30: under "
        "way, without a final accuracy. train - test: accuracy on training images (10,000 of them, in evaluation mode) "
        "less the final one on test images, in points."
    )


def gaps(row: dict[str, Any]) -> list[float]:
    """Train less test accuracy at the end of each finished run."""
    return [
        run["train_accuracy"] - run["test_accuracy"]["final"]
        for run in row["runs"]
        if run["train_accuracy"] is not None and run["test_accuracy"]["final"] is not None
    ]


def spread(values: Sequence[float]) -> str:
    """[1, 2, 3] -> '2.00 ± 1.00 (3)'"""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation} ({len(values)})"


def _epochs(runs: Sequence[dict[str, Any]]) -> str:
    """'30', or '12 of 30' under way."""
    said = {(run["curve"][-1][0], run["epochs"]) for run in runs}
    return ", ".join(str(total) if done == total else f"{done} of {total}" for done, total in sorted(said))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
