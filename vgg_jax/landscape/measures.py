"""The measures that can confirm or refute each claim, and their numbers."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.landscape import around, probe
from vgg_jax.landscape.kept import Arrays
from vgg_jax.landscape.networks import Network
from vgg_jax.runs import directory, log
from vgg_jax.settings.fields import Config


class Measure(NamedTuple):
    """What is measured.

    Attributes:
      claim: of project 2, about the network with BatchNorm.
      where: when, and for measures around a network with which of BatchNorm's statistics.
      source: who defined it.
      larger: whether the claim says larger with BatchNorm, not smaller.
      share: whether it is a share, whose differences count, not its ratios.
    """

    claim: str
    name: str
    where: str
    key: str
    source: str
    larger: bool = False
    share: bool = False


SMOOTH, STEADY, CONVEX, FLAT, GENERAL = (
    "smoother landscape", "less sensitive to the learning rate", "well-defined, convex-like basin",
    "fewer sharp minima", "better generalisation",
)  # fmt: skip
SANTURKAR, LI, OURS = "Santurkar et al. 2018", "directions of Li et al. 2018", "this project"
GRADIENT, UPDATE, TRAINING = "along the gradient", "along the optimizer's update", "in training"
WHERE = {
    "end_stored": "at the end, stored statistics",
    "end_recomputed": "at the end, recomputed statistics",
    "equal_recomputed": "at equal loss, recomputed statistics",
}
_AROUND = (
    (CONVEX, "non-convexity of the filter-normalised Hessian", "nonconvexity", "after Li et al. 2018", True),
    (FLAT, "rise of the loss half a radius away", "rise", f"{OURS}; {LI}", False),
    (FLAT, "rise of the loss a radius away", "far_rise", f"{OURS}; {LI}", False),
    (FLAT, "largest Hessian eigenvalue", "eigenvalue", "after Yao et al. 2020", False),
    (FLAT, "largest Hessian eigenvalue, filter-normalised", "relative_eigenvalue", OURS, False),
    (FLAT, "rise to the worst loss in the relative radius", "worst_rise", "after Keskar et al. 2017, Kwon et al. 2021",
     False),
)  # fmt: skip
MEASURES = (
    Measure(SMOOTH, "loss band, max - min over step sizes", GRADIENT, "loss_band", SANTURKAR),
    Measure(SMOOTH, "gradient predictiveness, largest change of the gradient", GRADIENT, "predictiveness", SANTURKAR),
    Measure(SMOOTH, "the same in units of the gradient's norm", GRADIENT, "relative_predictiveness", OURS),
    Measure(SMOOTH, "effective beta-smoothness", GRADIENT, "beta_smoothness", SANTURKAR),
    Measure(SMOOTH, "loss band, max - min over step sizes", UPDATE, "update_loss_band", OURS),
    Measure(SMOOTH, "largest change of the gradient, in units of its norm", UPDATE, "update_relative_predictiveness",
            OURS),
    Measure(SMOOTH, "effective beta-smoothness", UPDATE, "update_beta_smoothness", OURS),
    Measure(STEADY, "learning-rate band, max - min of the training loss", TRAINING, "rate_band", "project 2's course"),
    *(
        Measure(claim, name, where, f"{place}_{key}", source, share=share)
        for (claim, name, key, source, share), (place, where) in itertools.product(_AROUND, WHERE.items())
    ),
    Measure(GENERAL, "test accuracy", "at the end", "test_accuracy", "standard", larger=True, share=True),
    Measure(GENERAL, "train less test accuracy", "at the end", "gap", "standard", share=True),
    Measure(GENERAL, "test accuracy", WHERE["equal_recomputed"], "equal_test_accuracy", OURS, larger=True, share=True),
)  # fmt: skip


def numbers(config: Config, network: Network, found: Mapping[str, Arrays]) -> dict[str, Any]:
    """By key one number per seed for every measure, from the stages' arrays.

    NaN where a seed never came under the equal loss; infinite where a loss was not finite.
    """
    probed, arrays = found["probes"], found["around"]
    accuracies = np.array([log.read(workdir)[-1]["test_accuracy"] for workdir in network.workdirs])
    trained = [(directory.read_summary(workdir) or {})["train_accuracy"] for workdir in network.workdirs]
    return {
        **_along("", probed, probed["gradient_norm"], config.landscape.step_sizes),
        **_along("update_", probed, probed["update_length"], config.landscape.update_sizes),
        "rate_band": _no_nan(np.ptp(found["rates"]["losses"], -2).mean(-1)),
        **{f"{place}_{key}": x for place in around.PLACES for key, x in _around(arrays, place).items()},
        "test_accuracy": accuracies,
        "gap": np.array(trained) - accuracies,
        "equal_test_accuracy": found["equal"]["test_accuracy"],
    }


def _along(prefix: str, probed: Arrays, length: np.ndarray, sizes: Any) -> dict[str, np.ndarray]:
    """Medians over the probes: at the start the plain network's gradient nearly vanishes, later a probe may explode.

    Probes where the move has no length, at a learning rate of 0, are left out.
    """
    losses, distances = probed[f"{prefix}losses"], probed[f"{prefix}distances"]
    change = distances.max(-1)
    found = {
        "loss_band": np.ptp(losses, -1),
        "predictiveness": change,
        "relative_predictiveness": change / probed["gradient_norm"],
        "beta_smoothness": probe.smoothness(distances, length, sizes),
    }
    moved = np.nan_to_num(length, nan=1.0) > 0

    def median(values: np.ndarray) -> np.ndarray:
        return np.array([np.median(one[kept]) if kept.any() else np.nan for one, kept in zip(_no_nan(values), moved)])

    return {f"{prefix}{key}": median(x) for key, x in found.items()}


def _around(arrays: Arrays, place: str) -> dict[str, np.ndarray]:
    lines, loss, worst, ritz = (arrays[f"{place}_{key}"] for key in ("lines", "loss", "worst_loss", "ritz"))
    there = np.isfinite(loss)
    found = {
        "rise": around.rise(lines, 0.5),
        "far_rise": around.rise(lines, 1.0),
        "eigenvalue": ritz[:, 0].max(-1),
        "relative_eigenvalue": ritz[:, 1].max(-1),
        "worst_rise": worst - loss,
        "nonconvexity": around.nonconvexity(ritz[:, 1]),
    }
    return {key: np.where(there, _no_nan(x), np.nan) for key, x in found.items()}


def residuals(both: Mapping[str, Arrays]) -> tuple[float, float]:
    """The largest residuals of the Ritz values that MEASURES take, smallest and largest, as shares of the largest."""
    shares = np.array([
        arrays[f"{place}_residuals"] / np.abs(arrays[f"{place}_ritz"][..., -1:])
        for arrays in both.values()
        for place in around.PLACES
    ])  # fmt: skip
    smallest, largest = shares[..., 1, 0], shares[..., -1]
    return float(np.nanmax(smallest, initial=0.0)), float(np.nanmax(largest, initial=0.0))


def _no_nan(values: np.ndarray) -> np.ndarray:
    """A mean or difference of losses of which some are not finite counts as infinite."""
    return np.where(np.isfinite(values), values, np.inf)
