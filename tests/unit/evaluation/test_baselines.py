"""Baselines: the best K-means and a converged probe, on one space and on several."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import cluster
from sklearn.datasets import make_blobs

from labkit.errors import FitError
from labkit.evaluation.baselines import KMeans, LinearProbe
from labkit.evaluation.metrics import clustering_accuracy

X, Y = make_blobs(400, 6, centers=5, cluster_std=0.7, random_state=0)


def test_kmeans_finds_blobs_and_predicts_new_samples() -> None:
    model = KMeans(5, random_state=0).fit(X[:300])
    assert clustering_accuracy(Y[300:], model.predict(X[300:])) == 1


def test_kmeans_is_no_worse_than_ten_single_runs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    singles = [cluster.KMeans(8, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(10)]
    assert KMeans(8, random_state=0).fit(x).estimator_.inertia_ <= np.median(singles)


def test_the_search_in_principal_directions_loses_no_inertia() -> None:
    x, _ = make_blobs(1000, 300, centers=8, cluster_std=12.0, random_state=1)
    x = x.astype(np.float32)
    plain = cluster.KMeans(8, n_init=10, random_state=0).fit(x)
    ours = KMeans(8, random_state=0).fit(x).estimator_
    assert ours.n_features_in_ == 300
    assert ours.inertia_ <= 1.001 * plain.inertia_


@pytest.mark.parametrize("normalize", [True, False])
def test_spaces_are_put_side_by_side_and_count_the_same_once_they_are_normalized(normalize: bool) -> None:
    spaces = [X, 1000 * X[:, :2]]
    units = [space / np.linalg.norm(space, axis=1, keepdims=True) for space in spaces]
    joined = np.hstack(units if normalize else spaces)
    ours = KMeans(5, normalize=normalize, random_state=0).fit(spaces)
    plain = cluster.KMeans(5, n_init=10, random_state=0).fit(joined)
    assert ours.estimator_.inertia_ == pytest.approx(plain.inertia_, rel=1e-4)
    means = [joined[ours.labels_ == k].mean(axis=0) for k in range(5)]
    np.testing.assert_allclose(ours.estimator_.cluster_centers_, means, rtol=1e-3, atol=1e-4)


def test_the_probe_converges_and_predicts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = LinearProbe().fit([X[:300], X[:300] * 1e3], Y[:300])
    assert (probe.predict([X[300:], X[300:] * 1e3]) == Y[300:]).mean() == 1
    assert (LinearProbe().fit(X[:300], np.roll(Y[:300], 1)).predict(X[300:]) == Y[300:]).mean() < 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KMeans(1).fit(X), "n_clusters is 1"),
        (lambda: KMeans(401).fit(X), "n_samples = 400"),
        (lambda: KMeans(3, normalize="whitened").fit(X), "True or False"),
        (lambda: KMeans(3).fit(X * np.nan), "NaN"),
        (lambda: KMeans(3).fit([X, X[1:]]), r"\[400, 399\] rows"),
        (lambda: KMeans(3).fit(X).predict(X[:, 1:]), "5 features together. Expected 6"),
        (lambda: LinearProbe().fit(X, Y[1:]), "399 labels for 400"),
    ],
)
def test_bad_input_is_explained(call, message: str) -> None:
    with pytest.raises(FitError, match=message):
        call()
