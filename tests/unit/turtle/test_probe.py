"""Batched logistic regressions against scikit-learn's, one at a time, on the same folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from labkit.turtle import Turtle
from labkit.turtle.probe import cross_validated_accuracy, stratified_folds

RNG = np.random.default_rng(0)
N, C = 400, 5
CENTERS = RNG.normal(size=(C, 12))
CLASSES = np.arange(N) % C
FEATURES = (CENTERS[CLASSES] + 0.9 * RNG.normal(size=(N, 12))).astype(np.float32)
FEATURES -= FEATURES.mean(0)
FEATURES = FEATURES @ np.linalg.svd(FEATURES, full_matrices=False)[2].T  # uncorrelated


def labelings() -> np.ndarray:
    """Of a sweep: some good, some early, and the classes with more and more of them at random."""
    turtles = [Turtle(C, n_outer_steps=steps, n_restarts=1, random_state=0).fit(FEATURES) for steps in (1, 5, 20, 100)]
    noisy = [np.where(RNG.random(N) < share, RNG.integers(0, C, N), CLASSES) for share in (0, 0.1, 0.3, 0.6, 1)]
    return np.stack([*(turtle.labels_ for turtle in turtles), *noisy])


def one_by_one(labels: np.ndarray, folds: np.ndarray) -> float:
    scores = []
    for fold in range(folds.max() + 1):
        seen = folds != fold
        probe = LogisticRegression(C=1e-2, max_iter=1000).fit(FEATURES[seen], labels[seen])
        scores.append(probe.score(FEATURES[~seen], labels[~seen]))
    return float(np.mean(scores))


@pytest.mark.filterwarnings("ignore::labkit.errors.CollapseWarning")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 0.006), (torch.bfloat16, 0.015)])
def test_scores_are_those_of_scikit_learn(dtype: torch.dtype, most: float) -> None:
    given = torch.from_numpy(labelings())
    found = cross_validated_accuracy(
        torch.from_numpy(FEATURES).to(dtype), given, C, generator=torch.Generator().manual_seed(3)
    )
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    folds = stratified_folds(given, order, 10).numpy()
    expected = [one_by_one(labels, fold) for labels, fold in zip(given.numpy(), folds, strict=True)]
    assert np.abs(found.numpy() - expected).max() < most
    assert spearmanr(found, expected)[0] > 0.95


def test_folds_share_each_cluster() -> None:
    given = torch.from_numpy(np.stack([CLASSES, np.sort(RNG.integers(0, 3, N))]))
    folds = stratified_folds(given, torch.randperm(N, generator=torch.Generator().manual_seed(0)), 10)
    for labels, fold in zip(given.numpy(), folds.numpy(), strict=True):
        for cluster in np.unique(labels):
            sizes = np.bincount(fold[labels == cluster], minlength=10)
            assert sizes.max() - sizes.min() <= 1
    assert not torch.equal(folds[0], folds[1])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given, features = torch.from_numpy(np.stack([CLASSES, CLASSES[::-1].copy()])), torch.from_numpy(FEATURES)
    both = cross_validated_accuracy(features, given, C, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("labkit.turtle.probe.MOST_ENTRIES", 1)
    one = cross_validated_accuracy(features, given, C, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(both, one, atol=0.003)


def test_small_clusters_are_left_out_and_a_collapsed_labeling_has_no_score() -> None:
    few = np.where(np.arange(N) < 6, 4, CLASSES % 4)
    given = torch.from_numpy(np.stack([few, np.zeros(N, dtype=np.int64), np.where(np.arange(N) < 6, 1, 0)]))
    scores = cross_validated_accuracy(torch.from_numpy(FEATURES), given, C, generator=torch.Generator().manual_seed(0))
    assert 0.5 < scores[0] < 1
    assert scores[1].isnan()
    assert scores[2].isnan()
