"""Temperature scaling (Guo et al. 2017): one number that brings a network's confidence to its accuracy.

probabilities = softmax(logits / temperature). No prediction changes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.console.errors import UserError
from vgg_jax.model import scores
from vgg_jax.runs import directory

FILE = "calibration.json"


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least cross-entropy of logits [N, C], between 0.01 and 100.

    Raises: UserError when all are right: then the least temperature is the best.
    """
    if (logits.argmax(-1) == labels).all():
        raise UserError(
            f"no temperature can be fitted on {len(labels)} images that are all classified right; hold out more "
            "with config.data.validation_size"
        )

    from scipy.optimize import minimize_scalar  # half a second, which every other command would wait for

    def cross_entropy(log_temperature: float) -> float:
        return scores.scores(logits / np.exp(log_temperature), labels)["cross_entropy"]

    found: Any = minimize_scalar(cross_entropy, bounds=(np.log(0.01), np.log(100)), method="bounded")
    return float(np.exp(found.x))


def read(workdir: Path, checkpoint: str, step: int) -> dict[str, Any] | None:
    """What `write` has stored for the checkpoint at this step, if anything: step, temperature, split and images."""
    found = _all(workdir).get(checkpoint)
    if not isinstance(found, dict) or not found.keys() >= {"step", "temperature", "split", "images"}:
        return None
    number = found["temperature"]
    return found if found["step"] == step and type(number) in (int, float) and number > 0 else None


def write(workdir: Path, checkpoint: str, found: dict[str, Any]) -> None:
    directory.write(workdir / FILE, json.dumps(_all(workdir) | {checkpoint: found}, indent=2) + "\n")


def _all(workdir: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((workdir / FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):  # it can be fitted again
        return {}
