"""Variations of a config, ranked by their accuracy on held-out training images; test images have no say."""

import hashlib
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.load import Dataset
from vgg_jax.evaluation.intervals import estimate, mean_of
from vgg_jax.runs import directory, log, tracking
from vgg_jax.settings import code, config as configs, files
from vgg_jax.settings.fields import Config
from vgg_jax.tables import pictures
from vgg_jax.tables.rows import Job

Rows = list[dict[str, Any]]
NEEDS = "a sweep chooses on held-out images"


def plan(source: str, overrides: Mapping[str, str], seeds: int, workdir: Path) -> dict[str, list[Job]]:
    """The runs of every variation, by its name; every config is checked before any training.

    Raises: UserError also when images are not held out, or two variations are the same.
    """
    base, jobs = configs.load(source, overrides), {}
    for changes in files.sweep(source):
        config, name = configs.override(base, changes), name_of(changes)
        configs.check_trains(config)
        tracking.check(config)
        if not config.data.validation_size and not code.of(config, "get_data"):
            raise UserError(f"{NEEDS}: set config.data.validation_size, as 5000 of CIFAR-10")
        if name in jobs:
            raise UserError(f"sweep() of {source} yields {name} twice")
        folder = workdir / _folder(name)
        jobs[name] = [(c, folder / f"seed{c.seed}") for c in configs.seeded(config, seeds)]
    return jobs


def check_data(splits: Mapping[str, Dataset]) -> None:
    """Raises: UserError when no images are held out."""
    if not len(splits["validation"]):
        raise UserError(f"{NEEDS}: get_data must return a split named validation")


def name_of(changes: Mapping[str, Any]) -> str:
    """'optimizer.learning_rate=0.05, train.epochs=3'; 'unchanged' for none."""
    return ", ".join(f"{field}={value}" for field, value in changes.items()) or "unchanged"


def _folder(name: str) -> str:
    """A folder's name that tells a reader the variation, and is no other variation's."""
    plain = re.sub(r"[^\w.=,+-]", "", name.replace(", ", ","))
    readable = plain == name.replace(", ", ",") and len(plain) <= 120
    return plain if readable else f"{plain[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def collect(jobs: Mapping[str, Sequence[Job]]) -> Rows:
    """A row for every variation, the best first: its name and the final held-out accuracy of each finished seed."""
    rows = []
    for name, seeded in jobs.items():
        done = [(config, workdir) for config, workdir in seeded if _is_done(config, workdir)]
        finished = [(config, workdir, records) for config, workdir in done if (records := log.read(workdir))]
        sizes = [directory.read_facts(workdir)["sizes"]["validation"] for _, workdir, _ in finished]
        rows.append({
            "name": name,
            "seeds": [config.seed for config, _, _ in finished],
            "held_out_images": min(sizes, default=0),
            "held_out_accuracy": [records[-1]["validation_accuracy"] for _, _, records in finished],
            "seconds": [records[-1]["seconds"] for _, _, records in finished],
        })  # fmt: skip
    return sorted(rows, key=lambda row: -statistics.mean(row["held_out_accuracy"] or [-1.0]))


def _is_done(config: Config, workdir: Path) -> bool:
    """Whether workdir has a finished run of config; of a run of another config it says so."""
    if directory.read_summary(workdir) is None:
        return False
    differing = directory.differing(directory.read_run(workdir)[0], config)
    if differing:
        print(f"{workdir} holds a run of another config ({', '.join(differing)}); it is left out", file=sys.stderr)
    return not differing


def markdown(rows: Rows) -> str:
    """The table, the best first."""
    head = "| variation | held-out accuracy (%) | 95 % interval | n | seconds per seed | minus `unchanged` |"
    lines, base = [head, "|" + " --- |" * 6], next((row for row in rows if row["name"] == name_of({})), {"seeds": []})
    for row in rows:
        found = estimate(row["held_out_accuracy"], row["held_out_images"])
        cells = [row["name"], *[""] * 4, _minus(row, base)]
        if found:
            spread = f" ± {100 * found.deviation:.2f}" if found.deviation is not None else ""
            cells[1:5] = [
                f"{100 * found.mean:.2f}{spread}",
                found.interval("{:.2f} to {:.2f}"),
                str(found.n),
                f"{statistics.mean(row['seconds']):,.0f}",
            ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join([*lines, "", NOTE])


def _minus(row: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """'+0.30 (-0.50 to +1.10)' points, paired over the seeds that both have; "" where no interval can be had."""
    if row["name"] == base.get("name"):
        return ""
    its, theirs = (dict(zip(one["seeds"], one.get("held_out_accuracy", []))) for one in (row, base))
    both = [round(100 * (its[seed] - theirs[seed]), 9) for seed in its if seed in theirs]
    if len(both) < 2 or len(set(both)) == 1:  # differences that agree exactly, as coarse shares may, are no certainty
        return ""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*mean_of(both))


NOTE = (
    "Accuracy after the last epoch on held-out training images, mean ± standard deviation over the seeds. The interval "
    "of several seeds is Student's, that of one is Wilson's. The last column is the mean difference to "
    "`unchanged` over the seeds that both have, in points, with Student's interval: it may tell two apart whose "
    "own intervals overlap. The best of many is partly the luckiest: its accuracy is optimistic here. Report that on "
    "test images, once."
)


def write(rows: Rows, folder: Path) -> None:
    """sweep.json, sweep.md and sweep.png."""
    directory.write(folder / "sweep.json", json.dumps({"rows": rows}, indent=1) + "\n")
    directory.write(folder / "sweep.md", markdown(rows) + "\n")
    pictures.held_out(rows, folder / "sweep.png")
