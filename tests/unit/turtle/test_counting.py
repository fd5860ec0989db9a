"""The number of classes: found where it is plain, doubted where it is not, and a tree that can be cut anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score

from labkit.errors import FitError
from labkit.evaluation.metrics import clustering_accuracy
from labkit.turtle import Turtle
from labkit.turtle.counting import cosine_kmeans, estimate_n_clusters, read_curve, silhouette
from labkit.turtle.tree import cluster_tree


def blobs(sizes: list[int], dims: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    centers = 8 * np.random.default_rng(seed).normal(size=(len(sizes), dims))
    X, y = make_blobs(sizes, dims, centers=centers, random_state=seed)
    return X.astype(np.float32), y


@pytest.mark.parametrize("n_classes", [3, 8, 20])
def test_blobs_are_counted(n_classes):
    X, y = blobs([40] * n_classes)
    count = estimate_n_clusters([X, X[:, :6]], random_state=0)
    assert abs(count.estimate - n_classes) <= 1
    assert count.interval[0] <= n_classes <= count.interval[1]
    assert adjusted_rand_score(y, count.labels(n_classes)) > 0.95


def test_uneven_blobs_are_counted():
    X, _ = blobs([200, 120, 80, 50, 30, 20])
    count = estimate_n_clusters(X, random_state=0)
    assert count.interval[0] <= 6 <= count.interval[1]
    assert abs(count.estimate - 6) <= 2


def test_one_blob_is_the_low_end_and_the_interval_says_that_nothing_is_known():
    X = np.random.default_rng(0).normal(size=(400, 20)).astype(np.float32)
    count = estimate_n_clusters(X, (2, 50), random_state=0)
    assert count.estimate == 2
    assert count.interval == (2, 50)


def test_the_same_seed_counts_the_same_and_rows_in_another_order_nearly():
    X, _ = blobs([50] * 7)
    count, again = (estimate_n_clusters(X, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(count.curve, again.curve)
    np.testing.assert_array_equal(count.leaves, again.leaves)
    order = np.random.default_rng(0).permutation(len(X))
    other = estimate_n_clusters(X[order], random_state=3)
    assert abs(other.estimate - count.estimate) <= 1
    assert adjusted_rand_score(other.labels(7), count.labels(7)[order]) > 0.95


def test_the_tree_refines():
    X, _ = blobs([60, 40, 40, 30, 30])
    count = estimate_n_clusters(X, (2, 40), random_state=0)
    assert (np.diff(count.merges["height"]) >= 0).all()
    finer = count.labels(40)
    for k in range(39, 0, -1):
        coarser = count.labels(k)
        sizes = np.bincount(coarser)
        assert len(sizes) == k
        assert (np.diff(sizes) <= 0).all()
        assert len({*zip(finer.tolist(), coarser.tolist(), strict=True)}) == k + 1
        finer = coarser


def test_next_merges_and_splits_are_those_of_the_tree():
    X, y = blobs([50] * 6)
    count = estimate_n_clusters(X, (2, 30), random_state=0)
    merge = count.next_merges(8).iloc[0]
    now, after = count.labels(8), count.labels(7)
    assert len(set(after[np.isin(now, [merge["first"], merge["second"]])])) == 1
    split = count.next_splits(7).iloc[0]
    sizes = sorted(np.bincount(now[after == split["cluster"]]), reverse=True)
    assert [size for size in sizes if size] == sorted(split[["first_size", "second_size"]], reverse=True)
    assert count.next_merges(8)["together"][0] > count.next_merges(6)["together"][0]  # parts of a blob, two blobs
    assert count.next_splits(3)["together"][0] < count.next_splits(6)["together"][0]
    assert list(count.next_merges(1)) == ["first", "second", "together", "height"]
    assert len(count.next_merges(1)) == len(count.next_splits(30)) == 0
    with pytest.raises(FitError, match="from 1 to 30"):
        count.labels(31)
    assert adjusted_rand_score(y, count.labels(6)) == 1


def test_of_many_samples_a_part_is_looked_at_and_all_are_labeled():
    X, y = blobs([1100] * 5, dims=4)
    count = estimate_n_clusters(X, (2, 30), random_state=0)
    assert count.leaves.shape == (5500,)
    assert adjusted_rand_score(y, count.labels(5)) > 0.95


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_samples_say_little(n):
    count = estimate_n_clusters(np.random.default_rng(0).normal(size=(n, 4)), random_state=0)
    assert count.estimate == 2
    assert count.interval == (2, n)
    assert len(count.labels()) == n


def test_equal_rows_are_no_classes():
    count = estimate_n_clusters(np.ones((50, 4)), random_state=0)
    assert count.estimate == 2
    assert np.isfinite(count.curve.to_numpy()).all()
    assert count.labels().shape == (50,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"between": (1, 5)}, "between is"),
        ({"between": (5, 3)}, "between is"),
        ({"between": 7}, "between is"),
        ({"between": (2.0, 5)}, "between is"),
        ({"between": (40, 50)}, "n_samples = 30"),
        ({"random_state": -1}, "random_state is"),
        ({"progress": 1}, "progress is"),
        ({"device": "no such"}, "device"),
        ({"spaces": [np.ones((3, 2)), np.ones((4, 2))]}, "same samples"),
        ({"spaces": np.full((30, 2), np.nan)}, "NaN"),
        ({"spaces": np.ones(3)}, "2D"),
    ],
)
def test_what_makes_no_sense_is_named(given, message):
    with pytest.raises(FitError, match=message):
        estimate_n_clusters(**{"spaces": np.random.default_rng(0).normal(size=(30, 3)), **given})


def test_silhouette_is_that_of_scikit_learn():
    from labkit.turtle.counting import cosine_distances

    rows = torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(0).normal(size=(60, 5))))
    labels = torch.arange(60) % 4
    labels[0] = 4  # alone
    expected = silhouette_score(rows.numpy(), labels.numpy(), metric="cosine")
    assert silhouette(*cosine_distances(rows.float(), labels)) == pytest.approx(expected, abs=1e-5)


def test_cosine_kmeans_ends_at_centers_of_its_clusters():
    rows = torch.nn.functional.normalize(torch.randn(200, 6, generator=torch.Generator().manual_seed(0)))
    labels = cosine_kmeans(rows, 5, torch.Generator().manual_seed(0), n_steps=1000)
    means = torch.stack([rows[labels == c].sum(0) for c in range(5)])
    nearest = (rows @ torch.nn.functional.normalize(means).T).argmax(1)
    torch.testing.assert_close(nearest, labels)


def test_the_top_of_a_tree_is_that_of_its_samples():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(25, 3))
    apart = np.linalg.norm(points[:, None] - points, axis=-1).astype(np.float32) / 10
    merges, leaf = cluster_tree(apart, 6)
    full = linkage(apart[np.triu_indices(25, 1)], "ward")
    np.testing.assert_allclose(merges["height"], full[-5:, 2], rtol=1e-6)
    members = [np.flatnonzero(leaf == i) for i in range(6)]
    for first, second, together in merges[["first", "second", "together"]].to_numpy():
        a, b = members[int(first)], members[int(second)]
        assert together == pytest.approx(1 - apart[np.ix_(a, b)].mean(), abs=1e-5)
        members.append(np.concatenate([a, b]))
    assert sorted(members[-1]) == list(range(25))


def test_the_peak_is_read_between_the_numbers_that_were_tried():
    import pandas as pd

    tried = np.array([8, 10, 12, 15])
    curve = pd.DataFrame({"n_clusters": tried, "gap": 0.2, "score": 1 - np.log(tried / 10.9) ** 2})
    assert read_curve(curve, 200)[0] == 11
    assert read_curve(curve, 200)[1] == (8, 200)  # flat up to the end: no upper limit is known


def test_turtle_asks_for_the_number_that_it_is_not_given() -> None:
    x, y = blobs([40] * 8)
    turtle = Turtle("auto", random_state=0).fit(x)
    assert turtle.n_clusters_ == estimate_n_clusters(x, random_state=0).estimate
    assert turtle.n_clusters == "auto"
    assert clustering_accuracy(y, turtle.labels_) > 0.85
    with pytest.raises(FitError, match='or "auto"'):
        Turtle("many").fit(x)


def test_a_turtle_that_counted_is_saved(tmp_path: Path) -> None:
    x, _ = make_blobs(300, 8, centers=4, cluster_std=0.5, random_state=0)
    turtle = Turtle("auto", n_outer_steps=40, random_state=0).fit(x)
    turtle.save(tmp_path / "turtle.safetensors")
    loaded = Turtle.load(tmp_path / "turtle.safetensors")
    assert loaded.n_clusters_ == turtle.n_clusters_
    np.testing.assert_array_equal(loaded.predict(x), turtle.predict(x))


def test_turtle_may_count_with_the_seeds_that_it_fits_with() -> None:
    x, _ = blobs([40] * 3)
    for source in (0, np.random.RandomState(0), np.random, None):
        assert Turtle("auto", n_outer_steps=20, random_state=source).fit(x).n_clusters_ >= 2
