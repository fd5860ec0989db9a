"""Exercises of notebook 03, max-margin labelings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.course.exercises import TODO, Exercise

_POINTS = np.array([[0.0, 0.0], [1.0, 0.5], [3.0, 0.0], [4.0, 1.0]])  # (n, 2)
_APART = np.array([0, 0, 1, 1])  # a line at x = 2 separates these, and none these:
_MIXED = np.array([0, 1, 0, 1])

_SHARP = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])  # (n, C), each row sums to 1
_SOFT = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
_EMPTY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


# ------------------------------------------------------------------------------------------------------- 03.1: listing


def _words(n: int) -> np.ndarray:
    """All words of n zeros and ones, (2^n, n)."""
    return np.arange(2**n)[:, None] >> np.arange(n) & 1


def _label_zero_first(labelings: np.ndarray) -> np.ndarray:
    return labelings[labelings[:, 0] == 0]


def _in_any_order(attempt: Callable[..., Any]) -> Callable[..., Any]:
    """The rows sorted and each named so that its first label is 0: neither the order nor the names matter."""

    def listed(n: int) -> Any:
        answer = attempt(n)
        if answer is TODO or answer is None:
            return answer
        rows = np.asarray(answer)
        if rows.ndim != 2 or not np.isin(rows, (0, 1)).all():
            return rows
        rows = np.where(rows[:, :1] == 1, 1 - rows, rows).astype(int)
        return rows[np.lexsort(rows.T[::-1])]

    return listed


# ------------------------------------------------------------------------------------------- 03.2 to 03.4: by formula


def _distances(points: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Signed distances to the line (n,), positive on the correct side."""
    return (2 * labels - 1) * (points @ weight + bias) / np.linalg.norm(weight)


def _entropy(share: np.ndarray) -> float:
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def _entropy_without_care(labeling: np.ndarray) -> float:
    share = labeling.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-(share * np.log(share)).sum())


def _widest_split(numbers: np.ndarray) -> np.ndarray:
    in_order = np.sort(numbers)
    return (numbers > in_order[np.diff(in_order).argmax()]).astype(int)


# ------------------------------------------------------------------------------------------------- 03.5: a competition

_CLEARLY = 0.2  # of accuracy
_KMEANS_WINS = "K-means clearly beats the largest margin, with and without outliers as clusters"
_NO_DATASET = "no pair of points (n, 2) and labels (n,)"


def _max_margin(points: np.ndarray, smallest: int) -> np.ndarray:
    """The labeling with the largest margin of all that have at least `smallest` points in each cluster."""
    i, j = np.triu_indices(len(points), 1)
    between = points[j] - points[i]
    directions = np.concatenate([between, between[:, ::-1] * [1, -1]])  # across a pair of points, and along it
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    along = points @ (directions / np.maximum(length, 1e-12)).T  # (n, k)
    gaps = np.diff(np.sort(along, axis=0), axis=0)[smallest - 1 : len(points) - smallest]
    cut, k = np.unravel_index(gaps.argmax(), gaps.shape)
    return (along[:, k] > np.sort(along[:, k])[cut + smallest - 1]).astype(int)


def _competition(points: np.ndarray, labels: np.ndarray) -> str:
    """Who finds the classes: K-means, or the largest margin among all labelings and among balanced ones."""
    from sklearn.cluster import KMeans

    from labkit.evaluation.metrics import clustering_accuracy

    found = KMeans(2, n_init=5, random_state=0).fit_predict(points)
    kmeans = clustering_accuracy(labels, found)
    free, balanced = (clustering_accuracy(labels, _max_margin(points, m)) for m in (1, -(-len(points) // 4)))
    if max(free, balanced) - kmeans >= _CLEARLY:
        return "the largest margin clearly beats K-means"
    if kmeans - free < _CLEARLY:
        return "both find the classes" if kmeans > 0.8 else "neither clearly beats the other, and both are often wrong"
    if kmeans - balanced < _CLEARLY:
        return "K-means clearly beats the largest margin only where an outlier may be a cluster"
    return _KMEANS_WINS


def _winner(attempt: Callable[..., Any]) -> Callable[..., Any]:
    """Instead of the dataset that an attempt makes: what happens when both rules run on it."""

    def compared(seed: int) -> Any:
        answer = attempt(seed)
        if answer is TODO or answer is None:
            return answer
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            return _NO_DATASET
        points, labels = np.asarray(answer[0], dtype=float), np.asarray(answer[1]).ravel()
        if points.ndim != 2 or points.shape != (len(labels), 2) or not np.isfinite(points).all():
            return _NO_DATASET
        classes, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        few = len(np.unique(points, axis=0)) < 20
        if few or len(labels) > 120 or len(classes) != 2 or 4 * sizes.min() < len(labels):
            return "not 20 to 120 different points in two classes, each at least a quarter of them"
        return _competition(points, labels)

    return compared


def _blobs(seed: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Two round classes of 30 points each, their centers `apart`."""
    labels = np.repeat([0, 1], 30)
    points = np.random.default_rng(seed).normal(size=(60, 2))
    return points + np.c_[apart * labels, 0 * labels], labels


def _with_outlier(seed: int) -> tuple[np.ndarray, np.ndarray]:
    points, labels = _blobs(seed, 5.0)
    points[0] = [2.5, 9.0]
    return points, labels


def _stripes(seed: int, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Two long stripes, one above the other with a gap between them; classes by coordinate 0 (left, right) or 1."""
    rng = np.random.default_rng(seed)
    points = np.c_[rng.uniform(-4, 4, 60), np.repeat([-1, 1], 30) + rng.uniform(-0.2, 0.2, 60)]
    return points, (points[:, by] > 0).astype(int)


EXERCISES = (
    Exercise(
        id="03.1",
        title="List the labelings",
        cases=[(2,), (3,), (6,)],
        observe=_in_any_order,
        reference=lambda n: _label_zero_first(_words(n))[1:],
        mistakes={
            "Every labeling is there twice: swapping all 0s and 1s gives the same one. Fix the first label at 0.": (
                lambda n: _words(n)[1:-1]
            ),
            "One too many: you kept the labeling that leaves a cluster empty.": lambda n: _label_zero_first(_words(n)),
            "These are all rows of 0s and 1s. Count two swapped labelings once, and leave no cluster empty.": _words,
            "Some are missing: keep every cluster size from 1 to n - 1, not only clusters of equal size.": (
                lambda n: _label_zero_first(_words(n))[_label_zero_first(_words(n)).sum(1) == n // 2]
            ),
            "Right, but transposed: return one row for each labeling, one column for each image.": (
                lambda n: _label_zero_first(_words(n))[1:].T
            ),
        },
        hints=(
            "How many labelings do three images have? Write them down; three should be left without swaps.",
            "Give the first image label 0: only one of two swapped labelings is left. The other n - 1 labels "
            "are free, so they are the binary digits of a number.",
            "Loop over itertools.product((0, 1), repeat=n - 1), put a 0 before each, and leave out all zeros.",
        ),
        difficulty=2,
        importance=3,
        minutes=8,
    ),
    Exercise(
        id="03.2",
        title="The margin of a line",
        cases=[
            (_POINTS, _APART, np.array([3.0, 0.0]), -6.0),
            (_POINTS, _MIXED, np.array([3.0, 0.0]), -6.0),
            (_POINTS, _APART, np.array([1.0, 1.0]), -2.0),
        ],
        reference=lambda points, labels, weight, bias: _distances(points, labels, weight, bias).min(),
        mistakes={
            "Your margin grows when weight and bias are doubled, though the line stays where it is. Divide by the norm "
            "of weight.": lambda points, labels, weight, bias: ((2 * labels - 1) * (points @ weight + bias)).min(),
            "You lost the sign: a point on the wrong side must count as negative, however far it is from the line.": (
                lambda points, labels, weight, bias: np.abs(_distances(points, labels, weight, bias)).min()
            ),
            "That is the mean distance. The margin is set by the worst point: take the smallest.": (
                lambda points, labels, weight, bias: _distances(points, labels, weight, bias).mean()
            ),
            "You clipped negative values to zero. That comes later, for the best line: a line that leaves a point on "
            "the wrong side has a negative margin.": (
                lambda points, labels, weight, bias: max(0.0, _distances(points, labels, weight, bias).min())
            ),
            "Twice as large as it should be: the margin is half the width of the margin band.": (
                lambda points, labels, weight, bias: 2 * _distances(points, labels, weight, bias).min()
            ),
            "You swapped the sides: label 1 belongs where weight · x + bias is positive, label 0 elsewhere.": (
                lambda points, labels, weight, bias: _distances(points, 1 - labels, weight, bias).min()
            ),
            "Points with label 0 drop out if you multiply by the label. Turn 0 into −1 first: 2 * labels - 1.": (
                lambda points, labels, weight, bias: (labels * (points @ weight + bias)).min() / np.linalg.norm(weight)
            ),
        },
        hints=(
            "First one number per point: points @ weight + bias. Its sign says on which side the point lies.",
            "Turn labels 0 and 1 into signs −1 and +1 with 2 * labels - 1, and multiply: positive means correct.",
            "Take the smallest of these numbers and divide it by np.linalg.norm(weight).",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="03.3",
        title="The entropy of the mean labeling",
        cases=[(_SHARP,), (_SOFT,), (_EMPTY,)],
        reference=lambda labeling: _entropy(labeling.mean(axis=0)),
        mistakes={
            "You took the entropy of each image, then the mean. First the mean over images, then the entropy.": (
                lambda labeling: np.mean([_entropy(row) for row in labeling])
            ),
            "The sign is wrong: entropy is minus the sum of share times log of share, and never negative.": (
                lambda labeling: -_entropy(labeling.mean(axis=0))
            ),
            "Your entropy is in bits. Use the natural logarithm, np.log.": (
                lambda labeling: _entropy(labeling.mean(axis=0)) / np.log(2)
            ),
            "An empty cluster makes your result nan: NumPy computes 0 · log 0 as nan. Leave empty clusters out of the "
            "sum.": _entropy_without_care,
        },
        hints=(
            "What share of the images does each cluster have? One number for each of the C clusters.",
            "The shares are labeling.mean(axis=0). Entropy is minus the sum of share times log of share.",
            "Before you take the logarithm: share = share[share > 0].",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="03.4",
        title="The widest gap",
        cases=[
            (np.array([4.0, 0.0, 3.5, 3.0, 4.4, 2.6, 1.9, 3.3]),),
            (np.array([7.0, 1.0, 2.0, 8.0, 6.5, 2.4, 0.5]),),
        ],
        reference=_widest_split,
        mistakes={
            "You split at the mean. The mean ignores the gaps: one distant number moves it.": (
                lambda numbers: (numbers > numbers.mean()).astype(int)
            ),
            "You took the largest step in the order given. Only after sorting are neighbors on the line adjacent.": (
                lambda numbers: (np.arange(len(numbers)) > np.abs(np.diff(numbers)).argmax()).astype(int)
            ),
            "The index of the gap belongs to the sorted array: compare with the number found there.": (
                lambda numbers: (numbers > numbers[np.diff(np.sort(numbers)).argmax()]).astype(int)
            ),
            "np.argsort gives the index of the smallest number first, not each number's rank. Compare the numbers "
            "themselves.": lambda numbers: (np.argsort(numbers) > np.diff(np.sort(numbers)).argmax()).astype(int),
            "Right split, wrong order: your labels belong to the sorted numbers. Keep the order given.": (
                lambda numbers: np.sort(_widest_split(numbers))
            ),
        },
        hints=(
            "Only neighbors on the line can have the widest gap between them. How do you find neighbors?",
            "np.sort puts neighbors side by side, np.diff gives the gaps, argmax finds the widest.",
            "If gap k is the widest, all numbers above np.sort(numbers)[k] have label 1: compare the numbers as given.",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="03.5",
        title="Beat the margin",
        cases=[(0,), (1,), (2,)],
        observe=_winner,
        reference=lambda seed: _stripes(seed, by=0),
        mistakes={
            "Both rules find your classes: they are far apart. K-means wins only if the widest gap is not between the "
            "classes.": lambda seed: _blobs(seed, 12.0),
            "That beats the margin only as long as a few outliers may form a cluster. Once each must hold a quarter of "
            "the points, the margin is as good as K-means. Put a wide gap where it does not separate your classes.": (
                _with_outlier
            ),
            "The other way around: here the margin wins. K-means splits where the points are spread out the most, the "
            "margin where the gap is widest. Put your class boundary at the other one.": (
                lambda seed: _stripes(seed, by=1)
            ),
            "Neither rule finds your classes, so K-means is not clearly better. Move the means of your classes "
            "apart.": lambda seed: (_blobs(seed, 6.0)[0], np.arange(60) % 2),
            "Return a pair: points of shape (n, 2), one row for each point, and labels of shape (n,).": (
                lambda seed: (_blobs(seed, 6.0)[0].T, _blobs(seed, 6.0)[1])
            ),
            "Use 20 to 120 different points in two classes, and at least a quarter of the points in each class.": (
                lambda seed: (_blobs(seed, 6.0)[0], (np.arange(60) == 0).astype(int))
            ),
        },
        hints=(
            "K-means minimizes the spread within the clusters; the margin asks only for the widest empty band. Where "
            "would you put a wide empty band that does not separate your classes?",
            "Make the points spread out most along the first coordinate, without any gap in it, and give the second "
            "coordinate two values with a gap between them. The classes are left and right.",
            "With rng = np.random.default_rng(seed): x = rng.uniform(-4, 4, 60), y = ±1 plus some noise, labels x > 0.",
        ),
        difficulty=4,
        importance=4,
        minutes=12,
    ),
)
