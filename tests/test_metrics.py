"""Scores against values computed by hand, and a log that never repeats a step."""

import json

import numpy as np
import pytest

from vgg_jax.console.errors import UserError
from vgg_jax.evaluation import temperature
from vgg_jax.model import scores
from vgg_jax.runs.log import Log, at_chance, protocols

LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]]))
LABELS = np.array([0, 1, 0, 1])


def test_scores_by_hand():
    got = scores.scores(LOGITS, LABELS)
    assert got["accuracy"] == 0.5
    assert got["cross_entropy"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.3]).mean())
    assert got["top5_accuracy"] == 1.0
    ranks = np.tile(-np.arange(10.0), (10, 1))
    assert scores.scores(ranks, np.arange(10))["top5_accuracy"] == 0.5
    dead = scores.scores(np.zeros((10, 10)), np.arange(10))  # all classes are equal, and the first ones are taken
    assert (dead["accuracy"], dead["top5_accuracy"]) == (0.1, 0.5)
    assert scores.scores(np.array([[0.0, 1000.0]]), np.array([0]))["cross_entropy"] == 1000


def test_confusion_counts_truth_by_row():
    np.testing.assert_array_equal(scores.confusion(LOGITS, LABELS), [[1, 0, 1], [1, 1, 0], [0, 0, 0]])


def test_calibration_by_hand():
    error, bins = scores.calibration(LOGITS, LABELS, bins=2)  # confidences 0.7 0.8 | 0.4 | 0.6
    assert [b["count"] for b in bins] == [1, 3]
    assert error == pytest.approx((1 * abs(0 - 0.4) + 3 * abs(2 / 3 - 0.7)) / 4)
    sure = np.array([[100.0, 0.0]])
    assert scores.calibration(sure, np.array([0]))[0] == pytest.approx(0, abs=1e-12)


def test_the_temperature_is_the_one_that_the_labels_were_drawn_with():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 10))
    labels = (logits / 2.5 + rng.gumbel(size=logits.shape)).argmax(-1)  # drawn from softmax(logits / 2.5)
    found = temperature.fit(logits, labels)
    assert found == pytest.approx(2.5, rel=0.03)
    before, after = (scores.calibration(x, labels)[0] for x in (logits, logits / found))
    assert before > 0.2 and after < 0.02
    with pytest.raises(UserError, match="all classified right"):
        temperature.fit(logits, logits.argmax(-1))


def record(step, test, validation=None):
    base = {"step": step, "epoch": step, "test_accuracy": test, "test_loss": 1.0}
    return base | ({"validation_accuracy": validation} if validation is not None else {})


def test_the_three_protocols_are_three_numbers():
    records = [record(1, 0.5, 0.9), record(2, 0.8, 0.6), record(3, 0.7, 0.7)]
    got = {name: r["test_accuracy"] for name, r in protocols(records).items()}
    assert got == {"final": 0.7, "best_test": 0.8, "selected": 0.5}
    assert protocols([record(1, 0.5)])["selected"] is None
    tied = protocols([record(1, 0.8, 0.9), record(2, 0.8, 0.9)])
    assert tied["best_test"]["step"] == tied["selected"]["step"] == 1  # as best/ keeps the first


def test_log_goes_on_from_a_step_and_drops_what_came_after(tmp_path):
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(record(step, step / 10))
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 4, "ep')  # cut short by a crash
    log = Log(tmp_path, 2)
    log.write(record(3, 0.9))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["test_accuracy"]) for r in lines] == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("accuracies", "every", "stuck"),
    [
        ([0.1, 0.102, 0.099], 1, True),
        ([0.1, 0.1], 1, False),  # too early to say
        ([0.1, 0.1, 0.12], 1, False),  # it has begun
        ([0.3, 0.3, 0.1, 0.1, 0.1], 1, True),  # it fell back
        ([0.3, 0.1, 0.1], 1, False),
        ([0.1], 12, True),
        ([0.1, 0.2], 3, False),
    ],
)
def test_chance_is_within_three_standard_deviations(accuracies, every, stuck):
    """Of 50,000 images and 0.1, that is 0.104."""
    records = [{"epoch": (i + 1) * every, "train_accuracy": a} for i, a in enumerate(accuracies)]
    assert at_chance(records, 0.1, 50_000) == stuck
