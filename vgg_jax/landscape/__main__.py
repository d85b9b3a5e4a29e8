"""Why does BatchNorm help? Train VGG-A without and with it, and measure both; the same command resumes.

python -m vgg_jax.landscape --config configs/landscape_quick.py [--workdir DIR] [--config.FIELD=VALUE ...]
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.console.progress import clock
from vgg_jax.datasets.load import Dataset, load
from vgg_jax.landscape import maps, measures, networks, pictures, study, verdict
from vgg_jax.landscape.kept import Arrays
from vgg_jax.runs import directory, entry, origin
from vgg_jax.runs.lock import lock
from vgg_jax.settings import cache, code, config as configs
from vgg_jax.settings.fields import Config


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--config": {"required": True, "help": "configs/landscape.py, or landscape_quick.py"},
        "--workdir": {"type": flags.path, "help": "the study's directory; default checkpoints/<config name>"},
    })  # fmt: skip
    config = configs.load(given.config, overrides)
    if "landscape.seeds" not in configs.flatten(config):
        raise UserError(f"{given.config} has no landscape fields; see configs/landscape.py")
    unfit = {
        "model.whitening=0": config.model.whitening,
        "augment.small_size=0": config.augment.small_size,
        "train.average=0": config.train.average,
        "train.start_from=": bool(config.train.start_from),
        "train.micro_batch=0": configs.micro_batches(config) > 1,
        "model.dtype=float32": config.model.dtype != "float32",
        "another optimizer than muon, which has two learning rates": config.optimizer.name == "muon",
    }
    if found := [needed for needed, differs in unfit.items() if differs]:
        raise UserError(f"the study cannot measure this rightly; it needs {', '.join(found)}")
    if any(code.of(config, name) for name in code.TRAINING):
        raise UserError("the study takes a network and data of one's own, but no other functions")
    workdir = given.workdir or Path("checkpoints", Path(given.config).stem)
    cache.use()
    splits = load(config)
    entry.check_fits(config, splits)
    if code.of(config, "get_model"):
        networks.check(config, len(splits["train"].class_names))
    begun = entry.is_there(workdir)  # perhaps by an earlier version, which allowed it
    if 2 * config.landscape.images > len(splits["train"]) and not begun:
        raise UserError(
            f"config.landscape.images is more than half of the {len(splits['train'])} training images, and the study "
            "chooses the networks at equal loss on as many others"
        )
    steps = config.train.epochs * (len(splits["train"]) // config.train.batch_size)
    if config.landscape.probe_steps > steps:
        raise UserError(f"config.landscape.probe_steps is more than the {steps} training steps")
    entry.enter(workdir, config, splits)
    with lock(workdir), jax.default_matmul_precision("highest"):  # a GPU's TF32 would round to 1e-3
        print(run(config, splits, workdir))
    print(f"finished: verdict.md, verdict.json and pictures in {workdir}")


def run(config: Config, splits: dict[str, Dataset], workdir: Path) -> str:
    """Run all stages, except those already saved as npz files in workdir; returns the verdict as Markdown."""
    begun = time.monotonic()
    trained, found = networks.train(config, splits, workdir), {}
    stages = study.stages(config, splits, workdir)
    for number, (name, stage) in enumerate(stages.items(), 1):
        print(f"{clock(time.monotonic() - begun)}  stage {number} of {len(stages)}, {name}", flush=True)
        found[name] = {kind: study.measured(name, stage, network, workdir) for kind, network in trained.items()}
        _draw(name, found[name], config, workdir)
    by_network = {
        kind: measures.numbers(config, network, {name: both[kind] for name, both in found.items()})
        for kind, network in trained.items()
    }
    rows = verdict.judge(by_network)
    note = _note(config, len(splits["train"]), found)
    text = verdict.markdown(rows, note)
    content = {"rows": rows, "summary": verdict.summary(rows), "note": note}
    directory.write(workdir / "verdict.json", json.dumps(verdict.plain_json(content), indent=1) + "\n")
    directory.write(workdir / "verdict.md", text)
    pictures.verdict(rows, workdir / "verdict.png")
    return text


def _draw(stage: str, both: dict[str, Arrays], config: Config, workdir: Path) -> None:
    fields = config.landscape
    if stage == "probes":
        pictures.probes(both, fields.step_sizes, fields.update_sizes, workdir / "gradient_probes.png")
        pictures.activations(both, workdir / "activations.png")
    elif stage == "rates":
        pictures.rate_band(both, fields.learning_rates, workdir / "learning_rate_band.png")
    elif stage == "around":
        maps.lines(both, workdir / "lines.png")
        pictures.sharpness(both, workdir / "sharpness.png")
    elif stage == "planes":
        maps.contours(both, workdir / "surface_plane.png")
        maps.hills(both, workdir / "surface_hills.png")
    elif stage == "path":
        maps.path(both, workdir / "path.png")
    elif stage == "pixels":
        pictures.filters(both, workdir / "filters.png")
        pictures.saliency(both, workdir / "saliency.png")


def _note(config: Config, train_images: int, found: dict[str, dict[str, Arrays]]) -> str:
    f, given, own = config.landscape, config.optimizer, code.of(config, "get_model")
    name = "own network" if own else f"VGG {config.model.stages}, width {config.model.width:g}"
    steps = "; ".join(
        f"{pictures.LABELS[kind]} after {verdict.spread(arrays['step'].tolist())} steps, then "
        f"{verdict.spread(found['around'][kind]['equal_recomputed_loss'].tolist())} on the measured images"
        for kind, arrays in found["equal"].items()
    )
    smallest, largest = measures.residuals(found["around"])
    return " ".join((
        f"{name}, {train_images:,} training images, {config.train.epochs} epochs of {given.name} at",
        f"{given.learning_rate:g}, batch {config.train.batch_size}, {f.seeds} seeds (mean ± standard deviation), on",
        f"{origin.device()}. Effect: with / without BatchNorm, or with - without for shares, with its 95 % interval",
        "over the seeds that have both, paired; p: of a two-sided sign test; Holm: of Student's test, or of the sign",
        "test where a number is not finite or all seeds are alike, corrected for all measures. A",
        "claim holds by a measure if the interval lies on its side of no effect. Along the gradient: steps",
        f"{min(f.step_sizes):g} to {max(f.step_sizes):g}; along the optimizer's update: {min(f.update_sizes):g} to",
        f"{max(f.update_sizes):g} times it; every {f.probe_steps} training steps. Around a network: {f.images}",
        f"training images, no augmentation, {f.directions} random lines, worst case within {f.ascent_radius:g} of each",
        f"filter's norm. Equal loss: at most {f.equal_loss:g} on as many other images, {steps}. Residuals: of the",
        f"largest eigenvalues at most {largest:.2g} of them, of the smallest at most {smallest:.2g} of the largest.",
    ))  # fmt: skip


if __name__ == "__main__":
    errors.run(main)
