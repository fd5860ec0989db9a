"""Clusters that look like parts of one class: between the two there is no valley."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from labkit.own.joined import joined

FEWEST = 10  # images of a cluster, below which it is compared with none
NEAREST = 3  # clusters that each is compared with
BAND = 1 / 6  # of the way from one middle to the other: half the width in which images are counted
# Of pairs of classes of clothing and CIFAR-10 photographs 7 % are above, of classes that TURTLE split in two a third.
VALLEY = 0.5
MOST = 5  # pairs that are named


def look_alikes(labels: np.ndarray, features: Mapping[str, np.ndarray], random_state: int) -> list[tuple[int, int]]:
    """Pairs of clusters that may be one class, most alike first.

    Images are projected on the line through the means of two clusters: those of each half on the means of the other
    half, since in many dimensions even random halves of a class lie apart on their own means. Two classes leave a
    valley in the middle; where a class was split, the middle is as full as the ends.

    Args:
        labels: the cluster of each of n images.
        features: n rows in each space.
        random_state: seed of the halves.
    """
    rng = np.random.default_rng(random_state)
    x = joined(features.values())
    x = x - x.mean(0)
    clusters = [k for k, size in zip(*np.unique(labels, return_counts=True), strict=True) if size >= FEWEST]
    halves = [np.array_split(rng.permutation(np.flatnonzero(labels == k)), 2) for k in clusters]
    means = np.array([[x[half].mean(0) for half in two] for two in halves]).reshape(len(clusters), 2, x.shape[1])
    centers = means.mean(1)
    found = {}
    for i in range(len(clusters)):
        near = np.argsort(np.linalg.norm(centers - centers[i], axis=1), kind="stable")
        for j in [int(j) for j in near if j != i][:NEAREST]:
            a, b = min(i, j), max(i, j)
            found[a, b] = _valley(x, halves[a], halves[b], means[a], means[b])
    alike = sorted((pair for pair, valley in found.items() if valley >= VALLEY), key=lambda pair: -found[pair])
    return [(int(clusters[a]), int(clusters[b])) for a, b in alike[:MOST]]


def _valley(x: np.ndarray, a: list[np.ndarray], b: list[np.ndarray], means_a: np.ndarray, means_b: np.ndarray) -> float:
    """How many images lie midway between the medians of two clusters, for one at the medians."""
    places: list[list[np.ndarray]] = [[], []]
    for half in (0, 1):
        start, way = means_a[1 - half], means_b[1 - half] - means_a[1 - half]
        for rows, into in ((a[half], places[0]), (b[half], places[1])):
            into.append((x[rows] - start) @ way / max(float(way @ way), 1e-12))
    on_a, on_b = np.concatenate(places[0]), np.concatenate(places[1])
    first, last = np.median(on_a), np.median(on_b)
    if last <= first:
        return np.inf  # the halves do not even agree which cluster is where
    on_a, on_b = (on_a - first) / (last - first), (on_b - first) / (last - first)

    def share(of: np.ndarray, middle: float) -> float:
        return float((np.abs(of - middle) < BAND).mean())

    return (share(on_a, 0.5) + share(on_b, 0.5)) / max(share(on_a, 0) + share(on_b, 1), 1e-12)
