"""K-means on more features than memory holds: as good as on all of them, with FAISS and without."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import cluster
from sklearn.datasets import make_blobs

from labkit.errors import FitError
from labkit.evaluation import large
from labkit.evaluation.baselines import KMeans, LinearProbe
from labkit.evaluation.metrics import clustering_accuracy
from labkit.spaces.shards import ShardedFeatures

N, D, CLUSTERS = 6000, 80, 12


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows are many, a sample is a third of them, and a block has a hundred."""
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "ROWS", 2000)
    monkeypatch.setattr(large, "ROWS_PER_CLUSTER", 160)
    monkeypatch.setattr(large, "BLOCK", 100 * D)


@pytest.fixture(params=["faiss", "scikit-learn"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "faiss":
        pytest.importorskip("faiss")
        monkeypatch.setattr(cluster.KMeans, "fit_predict", None)  # nothing but its last step
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)  # not installed
    return request.param


def blobs(spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted by their class, as files in folders are."""
    x, y = make_blobs(N, D, centers=CLUSTERS, cluster_std=spread, center_box=(-3, 3), random_state=0)
    order = np.argsort(y, kind="stable")
    return x[order].astype(np.float32), y[order]


def inertia(x: np.ndarray, labels: np.ndarray) -> float:
    return float(sum(((x[labels == c] - x[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels)))


@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_inertia_is_that_of_all_samples(spread: float, engine: str) -> None:
    x, y = blobs(spread)
    best = cluster.KMeans(CLUSTERS, n_init=10, random_state=0).fit(x)
    ours = KMeans(CLUSTERS, random_state=0).fit(x)
    assert ours.labels_.dtype == np.int64
    assert inertia(x, ours.labels_) <= 1.01 * best.inertia_
    if spread == 1:
        assert clustering_accuracy(y, ours.labels_) == 1


def test_features_may_stay_on_disk(engine: str, tmp_path: Path) -> None:
    x, _ = blobs(4.0)
    halves = [x[:, :50].astype(np.float16), x[:, 50:]]
    np.save(tmp_path / "half.npy", halves[0])
    stored = [
        np.load(tmp_path / "half.npy", mmap_mode="r"),
        ShardedFeatures.write(tmp_path / "shards", [halves[1]], dtype="float32", shard=999),
    ]
    for normalize in (False, True):
        expected = KMeans(CLUSTERS, normalize=normalize, random_state=0).fit(halves)
        model = KMeans(CLUSTERS, normalize=normalize, random_state=0).fit(stored)
        np.testing.assert_array_equal(model.labels_, expected.labels_)
        np.testing.assert_array_equal(model.predict(stored), model.labels_)
        np.testing.assert_array_equal(model.predict([z[:7] for z in halves]), model.labels_[:7])  # not large


def test_nothing_is_held_but_the_sample_and_a_block(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = blobs()

    class Counted:
        shape, dtype, most = x.shape, x.dtype, 0

        def read(self, rows: np.ndarray) -> np.ndarray:
            Counted.most = max(Counted.most, len(rows))
            return x[rows]

        def blocks(self, size: int) -> Any:
            raise AssertionError

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise AssertionError("the whole was read")

    KMeans(CLUSTERS, random_state=0).fit(Counted())
    assert 100 <= Counted.most <= 2000
    probe = LinearProbe().fit(x[:10], np.arange(10) % 2)
    Counted.most = 0
    np.testing.assert_array_equal(probe.predict(Counted()), probe.predict(x))
    assert Counted.most == 100


def test_scale_and_seed_do_what_they_do_for_few_samples(engine: str) -> None:
    x, _ = blobs(4.0)
    first = KMeans(CLUSTERS, random_state=1).fit(x)
    np.testing.assert_array_equal(KMeans(CLUSTERS, random_state=1).fit(torch.from_numpy(x)).labels_, first.labels_)
    np.testing.assert_array_equal(
        KMeans(CLUSTERS, random_state=1).fit(x.astype(np.float64) * 2.0**60).labels_, first.labels_
    )
    np.testing.assert_array_equal(KMeans(4, n_init=1, random_state=0).fit(x[:, :3]).predict(x[:, :3]).shape, (N,))


def test_few_samples_are_clustered_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", N * D)
    monkeypatch.setattr(large, "faiss_centers", None)
    x, y = blobs()
    assert clustering_accuracy(y, KMeans(CLUSTERS, random_state=0).fit(x).labels_) == 1


def test_what_cannot_be_clustered_is_named(engine: str) -> None:
    x, _ = blobs()
    bad = x.copy()
    bad[-1, 0] = np.nan
    for model, given, message in (
        (KMeans(1), x, "n_clusters is 1"),
        (KMeans(N + 1), x, f"n_samples = {N}"),
        (KMeans(3, n_init=0), x, "n_init is 0"),
        (KMeans(3, random_state=-1), x, "random_state is -1"),
        (KMeans(3, n_init=1, random_state=0), bad, "contains NaN"),
        (KMeans(3), [x, x[:5]], "rows"),
    ):
        with pytest.raises(FitError, match=message):
            model.fit(given)
    with pytest.raises(FitError, match=r"80 \+ 80 features together. Expected 80"):
        KMeans(3, n_init=1).fit(x).predict([x, x])
