"""The stages of the study: train both networks with probes, then measure the trained networks."""

import functools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vgg_jax.console.errors import UserError
from vgg_jax.console.progress import Progress
from vgg_jax.datasets.batches import normalise
from vgg_jax.datasets.load import Dataset
from vgg_jax.landscape import band, hessian, interpret, kept, probe, surface
from vgg_jax.landscape.kept import Arrays
from vgg_jax.model.network import make_model, shapes
from vgg_jax.model.vgg import VGG
from vgg_jax.runs import directory, log
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.runs.loop import Probe, fit_together
from vgg_jax.runs.resuming import in_step
from vgg_jax.settings import config as configs
from vgg_jax.settings.fields import Config
from vgg_jax.training.step import make_recipe

NETWORKS = {"plain": "none", "bn": "before"}  # name -> config.model.batch_norm
_FIRST, _SECOND, _LANCZOS = range(3)  # streams of randomness, folded into a seed's key


class Network(NamedTuple):
    """One of the two networks, trained with every seed."""

    config: Config
    workdirs: list[Path]
    model: nn.Module
    variables: list[Any]
    settings: dict[str, Any]  # what a measure depends on besides the weights, by name
    weights: list[dict[str, str]]  # of every seed, under its name

    def of(self, *seeds: int) -> dict[str, Any]:
        """What a measure of the seeds of these places depends on."""
        return functools.reduce(operator.or_, (self.weights[place] for place in seeds), self.settings)


def base_config(config: Config, batch_norm: str) -> Config:
    """The training config of one network: without the landscape fields, with or without BatchNorm."""
    return configs.override(configs.without(config, "landscape"), {"model.batch_norm": batch_norm})


def check(config: Config, num_classes: int) -> None:
    """Raises: UserError when a network of one's own does not have BatchNorm just where the study asks for it."""
    if config.landscape.surface_statistics == "batch":
        raise UserError("config.landscape.surface_statistics=batch is not for a get_model, which may have dropout")
    for batch_norm in NETWORKS.values():
        base = base_config(config, batch_norm)
        has = "batch_stats" in shapes(make_model(base, num_classes), config.data.image_size)
        if has != (batch_norm != "none"):
            raise UserError(
                f"the study compares networks without and with BatchNorm, but for config.model.batch_norm="
                f"{batch_norm!r} get_model gives one {'with' if has else 'without'} it"
            )


def train(config: Config, splits: dict[str, Dataset], workdir: Path) -> dict[str, Network]:
    """Train both networks with every seed, each as an ordinary run in workdir/<name>/seed<n>, with probes."""
    fields, networks = config.landscape, {}
    for name, batch_norm in NETWORKS.items():
        base = base_config(config, batch_norm)
        seeded = configs.seeded(base, fields.seeds)
        workdirs = [workdir / name / f"seed{one.seed}" for one in seeded]
        for one, its_workdir in zip(seeded, workdirs):
            directory.open_run(its_workdir, one, splits)
        names = splits["train"].class_names
        recipe = make_recipe(base, len(names), len(splits["train"]))
        measure = probe.make_measure(base, recipe, splits["train"], fields.step_sizes)
        print(f"training {name}, BatchNorm {batch_norm}, {fields.seeds} seeds", flush=True)
        for group in in_step(list(zip(seeded, workdirs))):
            fit_together([c for c, _ in group], splits, [w for _, w in group], Probe(fields.probe_steps, measure))
        loaded = [load_model(its_workdir, "latest", base, len(names)) for its_workdir in workdirs]
        variables = [variables for _, _, variables in loaded]
        weights = [{f"weights of {w.name}": kept.digest(v)} for w, v in zip(workdirs, variables)]
        networks[name] = Network(base, workdirs, loaded[0][1], variables, _settings(config, base, splits), weights)
    return networks


def _settings(config: Config, base: Config, splits: dict[str, Dataset]) -> dict[str, Any]:
    study = {name: value for name, value in configs.flatten(config).items() if name.startswith("landscape.")}
    return directory.fields(base) | study | {f"{split} images": part.fingerprint for split, part in splits.items()}


def probes(network: Network) -> Arrays:
    """probes.jsonl of every seed as arrays [seeds, probes, ...]; steps [probes]."""
    records = [log.read_lines(workdir / "probes.jsonl") for workdir in network.workdirs]
    arrays = {key: np.array([[r[key] for r in run] for run in records]) for key in records[0][0]}
    return arrays | {"step": arrays["step"][0]}


def rate_band(config: Config, network: Network, splits: dict[str, Dataset]) -> Arrays:
    """Training losses [seeds, learning rates, steps]."""
    fields = config.landscape
    seeds = [config.seed + i for i in range(fields.seeds)]
    return {"losses": band.train(network.config, splits["train"], fields.learning_rates, seeds, fields.band_epochs)}


def make_score(config: Config, network: Network, dataset: Dataset) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """score(params, batch_stats) -> (loss, accuracy) on training images, without dropout.

    BatchNorm uses batch_stats, or the images' own statistics if the config says so.
    """
    fields = config.landscape
    chosen = dataset.sample(fields.images)
    images, labels = normalise(jnp.asarray(chosen.images), dataset.mean, dataset.std), jnp.asarray(chosen.labels)
    model = network.model
    if isinstance(model, VGG):
        model = model.clone(stage_dropout=(), head_dropout=())
    recipe = make_recipe(network.config, len(dataset.class_names), len(dataset))

    def score(params: Any, batch_stats: Any) -> tuple[jax.Array, jax.Array]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any
        if fields.surface_statistics == "batch":
            logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        else:
            logits = model.apply(variables, images, train=False)
        return recipe.loss(logits, labels).mean(), jnp.mean(logits.argmax(-1) == labels)

    return score


def surfaces(config: Config, network: Network, dataset: Dataset, folder: Path, name: str) -> Arrays:
    """Loss and accuracy on a line [seeds, P, 2] and on a plane [seeds, P, P, 2], P = surface_points."""
    fields, score = config.landscape, make_score(config, network, dataset)
    grids = {d: surface.grid(fields.surface_radius, fields.surface_points, d) for d in (1, 2)}
    scan = surface.make_scan(score)
    progress = Progress(len(network.variables) * sum(map(len, grids.values())), f"surface of {name}", " points")
    found: dict[int, list[np.ndarray]] = {1: [], 2: []}
    for place, variables in enumerate(network.variables):
        seed = config.seed + place
        key = jax.random.key(np.uint32(seed))
        d1, d2 = (surface.direction(jax.random.fold_in(key, i), variables["params"]) for i in (_FIRST, _SECOND))

        at = functools.partial(scan, variables["params"], variables["batch_stats"], d1, d2)
        for dimensions, points in grids.items():
            file = folder / f"surface_{dimensions}d_{name}_seed{seed}.npz"
            values = surface.evaluate(at, points, file, network.of(place), progress)
            found[dimensions].append(values.reshape(*[fields.surface_points] * dimensions, 2))
    progress.close()
    return {"line": np.array(found[1]), "plane": np.array(found[2]), "axis": grids[1][:, 0]}


def sharpness(config: Config, network: Network, dataset: Dataset, folder: Path, name: str) -> Arrays:
    """Ritz values [seeds, iterations] of the Hessian, plain and filter-normalised; loss and worst loss [seeds]."""
    fields, score = config.landscape, make_score(config, network, dataset)

    @jax.jit
    def measure(variables: Any, key: jax.Array) -> dict[str, jax.Array]:
        def objective(params: Any) -> jax.Array:
            return score(params, variables["batch_stats"])[0]

        params, n = variables["params"], fields.hessian_iterations
        return {
            "eigenvalues": hessian.spectrum(objective, params, n, key),
            "relative_eigenvalues": hessian.spectrum(objective, params, n, key, relative=True),
            "loss": objective(params),
            "worst_loss": hessian.worst_case(objective, params, fields.ascent_radius, fields.ascent_steps),
        }

    progress, found = Progress(fields.seeds, f"sharpness of {name}", " networks"), []
    for place, variables in enumerate(network.variables):
        seed = config.seed + place
        file, of = folder / f"sharp_{name}_seed{seed}.npz", network.of(place)
        if not (one := kept.read(file, of)[0]):
            one = jax.device_get(measure(variables, jax.random.fold_in(jax.random.key(np.uint32(seed)), _LANCZOS)))
            kept.save(file, of, **one)
        found.append(one)
        progress.update(1)
    progress.close()
    return {key: np.array([one[key] for one in found]) for key in found[0]}


def interpretation(network: Network, dataset: Dataset, count: int = 8) -> Arrays:
    """The first seed's first-layer filters [F, 3, 3, 3], and its saliency [count, H, W] on the first test images."""
    variables, images = network.variables[0], dataset.images[:count]
    pixels, labels = normalise(jnp.asarray(images), dataset.mean, dataset.std), jnp.asarray(dataset.labels[:count])
    saliency = jax.jit(interpret.saliency, static_argnums=0)(network.model, variables, pixels, labels)
    return {"filters": interpret.first_filters(variables["params"]), "saliency": np.asarray(saliency), "images": images}


def numbers(config: Config, network: Network, found: dict[str, Arrays]) -> dict[str, Any]:
    """One number per seed for every measure of the verdict, from the stages' arrays."""
    fields, probed, rates, area, sharp = config.landscape, *(found[k] for k in ("probes", "rates", "surfaces", "sharp"))
    distances, norms = probed["distances"], probed["gradient_norm"]
    far = np.hypot(*np.meshgrid(area["axis"], area["axis"]))
    ring = np.abs(far - fields.surface_radius / 2) <= np.diff(area["axis"])[0] / 2
    middle = fields.surface_points // 2
    accuracies = [log.read(workdir)[-1]["test_accuracy"] for workdir in network.workdirs]
    trained = [(directory.read_summary(workdir) or {})["train_accuracy"] for workdir in network.workdirs]
    return {
        "loss_band": probe.band_width(probed["losses"]).mean(-1),
        "predictiveness": probe.predictiveness(distances).mean(-1),
        "relative_predictiveness": (probe.predictiveness(distances) / norms).mean(-1),
        "beta_smoothness": probe.smoothness(distances, norms, fields.step_sizes).mean(-1),
        "rate_band": band.width(rates["losses"]).mean(-1),
        "negative_curvature": [surface.negative_curvature(plane[..., 0]) for plane in area["plane"]],
        "surface_rise": [plane[ring, 0].mean() - plane[middle, middle, 0] for plane in area["plane"]],
        "eigenvalue": sharp["eigenvalues"].max(-1),
        "relative_eigenvalue": sharp["relative_eigenvalues"].max(-1),
        "worst_rise": sharp["worst_loss"] - sharp["loss"],
        "test_accuracy": accuracies,
        "gap": np.array(trained) - np.array(accuracies),
    }
