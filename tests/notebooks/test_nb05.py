"""Exercises of notebook 05 against independent calculations: loops, differences, enumeration, scikit-learn."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from labkit.turtle import outer_grad_logits


def test_the_corrected_score_is_cohens_kappa(answer: Any) -> None:
    random = np.random.default_rng(0)
    for n_clusters in (2, 3, 7):
        labels, predicted = random.integers(n_clusters, size=(2, 50))
        predicted[:20] = labels[:20]
        assert answer("05.1")(labels, predicted) == pytest.approx(cohen_kappa_score(labels, predicted))


def divergence(task_logits: np.ndarray, prior: np.ndarray) -> float:
    """KL(mean labeling, prior), by loops."""
    n, n_clusters = task_logits.shape
    total = 0.0
    for c in range(n_clusters):
        mean = sum(np.exp(row[c]) / sum(np.exp(value) for value in row) for row in task_logits) / n
        total += mean * np.log(mean / prior[c])
    return float(total)


def test_the_gradient_of_the_divergence_by_finite_differences(answer: Any) -> None:
    random, prior = np.random.default_rng(1), np.array([0.6, 0.3, 0.1])
    task_logits, gamma, step = random.normal(size=(5, 3)), 7.0, 1e-5
    grad = answer("05.2")(task_logits, np.log(prior), gamma)
    for i, c in np.ndindex(5, 3):
        nudge = np.zeros((5, 3))
        nudge[i, c] = step
        slope = divergence(task_logits + nudge, prior) - divergence(task_logits - nudge, prior)
        assert grad[i, c] == pytest.approx(gamma * slope / (2 * step), abs=1e-7)


def test_the_gradient_of_the_divergence_is_labkits(answer: Any) -> None:
    task_logits = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    probs = task_logits.softmax(1).T[None]
    theirs = outer_grad_logits(probs, torch.zeros_like(probs), 3.0, log_prior)[0].T
    np.testing.assert_allclose(answer("05.2")(task_logits.numpy(), log_prior.numpy(), 3.0), theirs)


def test_shares_of_runs_that_agree_are_those_of_every_run(answer: Any) -> None:
    labels = np.repeat([0, 1, 2], [10, 6, 4])
    runs = np.stack([np.array(names)[labels] for names in permutations(range(3))])
    np.testing.assert_allclose(answer("05.3")(runs, 3), [0.5, 0.3, 0.2])


def test_stability_is_the_best_over_all_renamings(answer: Any) -> None:
    random = np.random.default_rng(2)
    for _ in range(5):
        first, second = random.integers(4, size=(2, 30))
        best = max(np.mean(np.array(names)[second] == first) for names in permutations(range(4)))
        assert answer("05.4")(first, second) == pytest.approx(best)


def test_the_optimism_of_equal_candidates_is_the_expected_maximum(answer: Any) -> None:
    """Of 10 standard normal draws the mean maximum is 1.539; what the solution says of 10 and of 100."""
    random = np.random.default_rng(3)
    for n, expected in ((10, 1.539), (100, 2.508)):
        optimism, regret = answer("05.5")(random.normal(size=(20000, n)), np.zeros(n))
        assert optimism == pytest.approx(expected, abs=0.02)
        assert regret == 0
