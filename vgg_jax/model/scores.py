"""Scores of logits: cross-entropy, accuracy, confusion matrix, calibration."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """[N, C] -> [N, C], in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Cross-entropy (nats), accuracy and top-5 accuracy of logits [N, C]; accuracies in [0, 1]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    order = np.argsort(-logits, -1, kind="stable")  # of equal logits the first class, as argmax has it
    return {
        "cross_entropy": float(-log_probability[np.arange(len(labels)), labels].mean()),
        "accuracy": float((order[:, 0] == labels).mean()),
        "top5_accuracy": float((order[:, :5] == labels[:, None]).any(-1).mean()),
    }


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[C, C] counts, rows the true class, columns the predicted one."""
    classes = logits.shape[-1]
    return np.bincount(labels * classes + logits.argmax(-1), minlength=classes**2).reshape(classes, classes)


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error (Guo et al. 2017) and its bins of equal width.

    ECE = sum over bins of n_b / N * |accuracy_b - confidence_b|; each bin gives its lower end,
    count, mean confidence and accuracy.
    """
    probability = softmax(logits)
    confidence, correct = probability.max(-1), logits.argmax(-1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for b in np.unique(which):
        inside = which == b
        rows.append({
            "low": float(b / bins),
            "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        })  # fmt: skip
    error = sum(r["count"] * abs(r["accuracy"] - r["confidence"]) for r in rows) / len(labels)
    return error, rows
