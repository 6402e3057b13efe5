"""AUC and log-loss against their definitions."""

import math

import numpy as np
import pytest

from lma.training import metrics_of


def test_against_the_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = np.round(rng.normal(size=300) + labels, 1)  # with ties
    above = [(p > n) + 0.5 * (p == n) for p in logits[labels == 1] for n in logits[labels == 0]]
    probability = 1 / (1 + np.exp(-logits))
    loss = -np.mean(np.log(np.where(labels == 1, probability, 1 - probability)))
    metrics = metrics_of(logits, labels)
    assert metrics.auc == pytest.approx(np.mean(above))
    assert metrics.log_loss == pytest.approx(loss)
    assert metrics.rows == 300


def test_huge_logits_do_not_overflow():
    assert metrics_of(np.array([1e4, -1e4]), np.array([0, 1])).log_loss == 1e4


def test_one_class_has_no_auc():
    assert math.isnan(metrics_of(np.array([0.1, 0.2]), np.array([1, 1])).auc)


def test_nothing_to_measure():
    assert math.isnan(metrics_of(np.empty(0), np.empty(0)).log_loss)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [([math.nan], [1], "not finite"), ([0.0], [math.nan], "labels are missing")],
)
def test_bad_values(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics_of(np.array(logits), np.array(labels))
