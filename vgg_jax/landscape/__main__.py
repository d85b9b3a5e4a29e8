"""Why does BatchNorm help? Train VGG-A without and with it, and measure both; the same command resumes.

python -m vgg_jax.landscape --config configs/landscape_quick.py [--workdir DIR] [--config.FIELD=VALUE ...]
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.console.progress import clock
from vgg_jax.datasets.load import Dataset, load
from vgg_jax.landscape import kept, pictures, study, verdict
from vgg_jax.landscape.kept import Arrays
from vgg_jax.runs import directory, origin
from vgg_jax.runs.lock import lock
from vgg_jax.settings import cache, code, config as configs
from vgg_jax.settings.fields import Config


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "--config": {"required": True, "help": "configs/landscape.py, or landscape_quick.py"},
        "--workdir": {"type": flags.path, "help": "the study's directory; default checkpoints/<config name>"},
    })  # fmt: skip
    config = configs.load(given.config, overrides)
    if "landscape.seeds" not in configs.flatten(config):
        raise UserError(f"{given.config} has no landscape fields; see configs/landscape.py")
    if config.model.whitening or config.optimizer.name == "muon":
        raise UserError("the study needs config.model.whitening=0 and an optimizer with one learning rate, not muon")
    workdir = given.workdir or Path("checkpoints", Path(given.config).stem)
    cache.use()
    splits = load(config)
    if code.of(config).get_model:
        study.check(config, len(splits["train"].class_names))
    if config.landscape.images > len(splits["train"]):
        raise UserError(f"config.landscape.images is more than the {len(splits['train'])} training images")
    directory.open_run(workdir, config, splits)
    with lock(workdir), jax.default_matmul_precision("highest"):  # a GPU's TF32 would round to 1e-3
        print(run(config, splits, workdir))
    print(f"finished: verdict.md, verdict.json and pictures in {workdir}")


def run(config: Config, splits: dict[str, Dataset], workdir: Path) -> str:
    """Run all stages, except those already saved as npz files in workdir; returns the verdict as Markdown."""
    begun = time.monotonic()
    networks, train = study.train(config, splits, workdir), splits["train"]
    found: dict[str, dict[str, Arrays]] = {}
    every = range(config.landscape.seeds)
    stages: dict[str, tuple[Sequence[int], Callable[[str], Arrays]]] = {  # name -> (seeds whose weights count, measure)
        "probes": (every, lambda name: study.probes(networks[name])),
        "rates": ((), lambda name: study.rate_band(config, networks[name], splits)),
        "surfaces": (every, lambda name: study.surfaces(config, networks[name], train, workdir, name)),
        "sharp": (every, lambda name: study.sharpness(config, networks[name], train, workdir, name)),
        "pixels": ((0,), lambda name: study.interpretation(networks[name], splits["test"])),
    }
    for number, (stage, (seeds, measure)) in enumerate(stages.items(), 1):
        print(f"{clock(time.monotonic() - begun)}  stage {number} of {len(stages)}, {stage}", flush=True)
        found[stage] = {
            name: _kept(workdir / f"{stage}_{name}.npz", network.of(*seeds), functools.partial(measure, name))
            for name, network in networks.items()
        }
        _draw(stage, found[stage], config, workdir)
    numbers = {
        name: study.numbers(config, network, {stage: both[name] for stage, both in found.items()})
        for name, network in networks.items()
    }
    rows = verdict.judge(numbers)
    note = _note(config, len(train))
    text = verdict.markdown(rows, note)
    (workdir / "verdict.json").write_text(json.dumps(verdict.plain_json({"rows": rows, "note": note}), indent=1) + "\n")
    (workdir / "verdict.md").write_text(text)
    pictures.verdict(rows, workdir / "verdict.png")
    return text


def _kept(file: Path, of: kept.Of, measure: Callable[[], Arrays]) -> Arrays:
    """A stage's arrays, read from its file or else measured and saved there."""
    arrays, fault = kept.read(file, of)
    if fault:
        print(f"{fault}; measuring again", flush=True)
    if not arrays:
        arrays = measure()
        kept.save(file, of, **arrays)
    return arrays


def _draw(stage: str, both: dict[str, Arrays], config: Config, workdir: Path) -> None:
    fields = config.landscape
    statistics = f"BatchNorm statistics: {fields.surface_statistics}"
    if stage == "probes":
        pictures.probes(both, fields.step_sizes, workdir / "gradient_probes.png")
        pictures.activations(both, workdir / "activations.png")
    elif stage == "rates":
        pictures.rate_band(both, fields.learning_rates, workdir / "learning_rate_band.png")
    elif stage == "surfaces":
        pictures.surface_line(both, statistics, workdir / "surface_line.png")
        pictures.surface_plane(both, statistics, workdir / "surface_plane.png")
        pictures.surface_hills(both, statistics, workdir / "surface_hills.png")
    elif stage == "sharp":
        pictures.sharpness(both, statistics, workdir / "sharpness.png")
    else:
        pictures.filters(both, workdir / "filters.png")
        pictures.saliency(both, workdir / "saliency.png")


def _note(config: Config, train_images: int) -> str:
    f, own = config.landscape, code.of(config).get_model
    name = "own network" if own else f"VGG {config.model.stages}, width {config.model.width:g}"
    return (
        f"{name}, {train_images:,} training images, "
        f"{config.train.epochs} epochs of {config.optimizer.name} at {config.optimizer.learning_rate:g}, batch "
        f"{config.train.batch_size}, {f.seeds} seeds, on {origin.device()}. Mean ± standard deviation over seeds; a "
        f"claim holds by a measure if it holds for every seed. Along the gradient: steps {min(f.step_sizes):g} to "
        f"{max(f.step_sizes):g}, every {f.probe_steps} training steps. Surfaces and sharpness: {f.images} training "
        f"images, no augmentation, BatchNorm statistics: {f.surface_statistics}; worst case within {f.ascent_radius:g} "
        "of each filter's norm."
    )


if __name__ == "__main__":
    errors.run(main)
