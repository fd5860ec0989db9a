"""The choice without labels: a generalization score that agrees with scikit-learn's, and no collapsed labeling."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from labkit.papers.choice import choose, generalization

N = 400


def spaces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(4) * 4, N // 4, axis=0)
    return [centers @ rng.standard_normal((4, d)) + rng.standard_normal((N, d)) for d in (12, 20)]


def run(labels: np.ndarray, *, n_found: int = 4, confidence: float = 0.5) -> Any:
    return types.SimpleNamespace(
        labels_=labels.astype(np.int64),
        n_clusters_=4,
        device="cpu",
        confidence_=np.array([confidence]),
        n_found_=np.array([n_found]),
    )


def labelings() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    true = np.repeat(np.arange(4), N // 4)
    half = np.where(rng.random(N) < 0.5, true, rng.integers(0, 4, N))
    return [rng.integers(0, 4, N), half, true]


def test_the_score_is_that_of_logistic_regressions_in_scikit_learn() -> None:
    given = spaces()
    ours = generalization(given, [run(labels) for labels in labelings()], n_scored=N, seed=0)
    for score, labels in zip(ours, labelings(), strict=True):
        theirs = []
        for space in given:
            # the same features as ours: centered, half whitened, of norm 8
            pca = PCA().fit(space)
            rows = pca.transform(space) * pca.explained_variance_**-0.25
            rows *= 8 / np.sqrt((rows**2).sum(1).mean())
            folds = StratifiedKFold(10, shuffle=True, random_state=0)
            theirs.append(cross_val_score(LogisticRegression(C=1e-2, max_iter=1000), rows, labels, cv=folds).mean())
        assert score == pytest.approx(np.mean(theirs), abs=0.03)
    assert ours[0] < 0.4 < ours[1] < 0.8 < ours[2]


def test_of_many_rows_a_sample_is_scored_and_always_the_same() -> None:
    runs = [run(labels) for labels in labelings()]
    one, two = (generalization(spaces(), runs, n_scored=100, seed=3) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, generalization(spaces(), runs, n_scored=100, seed=4))


def test_the_best_is_kept_but_no_collapsed_one() -> None:
    random, half, true = labelings()
    collapsed = run(np.minimum(true, 1), n_found=2, confidence=1.0)
    settings = [{"outer_lr": value} for value in (1.0, 2.0, 3.0)]
    sweep, by = choose(spaces(), [collapsed, run(random), run(half)], settings, n_scored=N, seed=0)
    assert by == "generalization"
    assert sweep.table.index.tolist() == [2, 1, 0]
    assert sweep.table["generalization"].idxmax() == 0  # the collapsed one is the easiest to predict
    assert np.array_equal(sweep.best().labels_, half)


def test_where_ten_folds_cannot_be_made_the_confidence_chooses() -> None:
    few = [space[:: N // 8] for space in spaces()]
    true = np.repeat(np.arange(4), 2)
    runs = [run(true, confidence=0.3), run(true[::-1], confidence=0.9)]
    sweep, by = choose(few, runs, [{"outer_lr": 1.0}, {"outer_lr": 2.0}], n_scored=N, seed=0)
    assert by == "confidence"
    assert np.isnan(sweep.table["generalization"]).all()
    assert sweep.table.index.tolist() == [1, 0]


def test_a_score_that_only_collapsed_labelings_have_chooses_nothing() -> None:
    few = [space[:: N // 32] for space in spaces()]  # 32 rows: four clusters of eight, or two of sixteen
    true = np.repeat(np.arange(4), 8)
    runs = [run(true // 2, n_found=2, confidence=1.0), run(true, confidence=0.3), run(true[::-1], confidence=0.4)]
    sweep, by = choose(few, runs, [{"outer_lr": value} for value in (1.0, 2.0, 3.0)], n_scored=N, seed=0)
    assert np.isnan(sweep.table["generalization"].sort_index()).tolist() == [False, True, True]
    assert by == "confidence"
    assert sweep.table.index.tolist() == [2, 1, 0]
