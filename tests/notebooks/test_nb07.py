"""The references of notebook 07's exercises say what labkit computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import labkit as lk
from labkit.course.exercises import get

PROBS = np.random.default_rng(0).dirichlet(np.ones(5), 40)  # (B, C)


def test_price_of_collapse_is_the_sum_of_two_losses() -> None:
    p, n_classes, weight = 0.7, 5, 0.3
    row = torch.tensor([p] + [(1 - p) / (n_classes - 1)] * (n_classes - 1), dtype=torch.float64)
    logits, labels = row.log().repeat(8, 1), torch.zeros(8, dtype=torch.int64)
    loss = lk.must.self_training_loss(logits, labels, torch.ones(8, dtype=torch.bool))
    loss = loss + weight * lk.must.fairness_loss(logits.softmax(-1).mean(0))
    assert get("07.3").reference(p, n_classes, weight) == pytest.approx(float(loss))


def test_fairness_under_an_estimated_prior_is_that_of_labkit() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, -1, -1])
    prior = torch.tensor([4, 2, 3, 1, 1], dtype=torch.float64) / 11
    loss = lk.must.fairness_loss(torch.tensor(PROBS.mean(axis=0)), prior)
    assert get("07.5").reference(PROBS, labels) == pytest.approx(float(loss))


def test_the_stopping_rule_without_alarm_keeps_the_most_informative_epoch() -> None:
    rng = np.random.default_rng(1)
    pseudo_labels, information = rng.integers(0, 5, (6, 50)), rng.random(6).tolist()
    kept, run = get("07.4").reference(pseudo_labels, [1.5] * 6, information, 0.1, 1.0)
    assert (kept, run) == (int(np.argmax(information)) + 1, 6)


def test_the_stopping_rule_ends_a_run_that_loses_classes() -> None:
    pseudo_labels = np.tile(np.arange(4), (4, 1)) + np.arange(4)[:, None]
    rule = get("07.4").reference
    assert rule(pseudo_labels, [1.4, 1.4, 1.0, 0.5], [0.1, 0.2, 0.3, 0.4], 0.1, 1.0) == (2, 3)
    assert rule(pseudo_labels, [1.4, 1.4, 1.0, 0.5], [0.1, 0.2, 0.3, 0.4], 2.0, 1.0) == (4, 4)  # an alarm set too high
