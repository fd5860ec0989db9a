"""Exercises of notebook 02, representation spaces."""

from __future__ import annotations

import numpy as np

from labkit.course.exercises import Exercise

# Row 4 is long: its dot product with every row is the largest. Rows 0 and 3 differ a lot, but their sums are the same.
_POINTS = np.array([[1.0, 1.0], [2.0, 1.5], [1.5, 2.5], [3.0, -1.0], [9.0, 8.0], [8.0, 6.0]])  # (n, d)
_PIXELS = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0], [0.1, 0.4, 0.8], [0.0, 1.0, 1.0]])

_CENTERS = np.array([[0.0, 0.0], [5.0, 5.0], [2.0, 2.0]])  # (C, d)
_LABELS = np.array([0, 0, 2, 0, 1, 1])
_LABELS_ONE_EMPTY = np.array([0, 0, 0, 0, 1, 1])

_RIGHT_A = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1], dtype=bool)  # (n,)
_RIGHT_B = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
_RIGHT_C = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=bool)


def _nearest(features: np.ndarray, i: int) -> int:
    distance = ((features - features[i]) ** 2).sum(axis=1)
    distance[i] = np.inf
    return int(distance.argmin())


def _largest_product(features: np.ndarray, i: int) -> int:
    product = features @ features[i]
    product[i] = -np.inf
    return int(product.argmax())


def _cancelled(features: np.ndarray, i: int) -> int:
    distance = np.abs((features - features[i]).sum(axis=1))
    distance[i] = np.inf
    return int(distance.argmin())


def _sums(features: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == k].sum(axis=0) for k in range(len(centers))])


def _moved(features: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels, minlength=len(centers))[:, None]
    return np.where(sizes > 0, _sums(features, labels, centers) / np.maximum(sizes, 1), centers)


def _moved_without_care(features: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return _sums(features, labels, centers) / np.bincount(labels, minlength=len(centers))[:, None]


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every pair of different pictures: whether a, and whether b, puts the two together."""
    i, j = np.triu_indices(len(a), 1)
    return a[i] == a[j], b[i] == b[j]


def _rand(a: np.ndarray, b: np.ndarray) -> float:
    together_a, together_b = _pairs(a, b)
    return float(np.mean(together_a == together_b))


def _rand_with_itself(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a[:, None] == a) == (b[:, None] == b)))


def _only_together(a: np.ndarray, b: np.ndarray) -> float:
    together_a, together_b = _pairs(a, b)
    return float(np.mean(together_a & together_b))


EXERCISES = (
    Exercise(
        id="02.1",
        title="The nearest other picture",
        cases=[(_POINTS, 0), (_POINTS, 1), (_POINTS, 4), (_PIXELS, 0)],
        reference=_nearest,
        mistakes={
            "You found the picture itself: its distance to itself is 0. Leave it out.": lambda features, i: i,
            "You took the largest dot product. It prefers long vectors, wherever they point. Use the distance.": (
                _largest_product
            ),
            "You added up the differences before squaring, so that + and − cancel. Square each difference first.": (
                _cancelled
            ),
        },
        hints=(
            "features - features[i] is the way from picture i to every picture, (n, d), all at once.",
            "The squared length of each way is its entries squared and added up along axis 1. The smallest wins.",
            "Picture i itself has distance 0: set distance[i] = np.inf before you take argmin.",
        ),
        difficulty=1,
        importance=4,
        minutes=5,
    ),
    Exercise(
        id="02.2",
        title="Move the centers",
        cases=[(_POINTS, _LABELS, _CENTERS), (_POINTS, _LABELS_ONE_EMPTY, _CENTERS)],
        reference=_moved,
        mistakes={
            "You added up the members of each cluster. Divide by how many there are: a center is a mean.": (
                lambda features, labels, centers: np.where(
                    np.bincount(labels, minlength=len(centers))[:, None] > 0, _sums(features, labels, centers), centers
                )
            ),
            "A cluster without members became nan: the mean of nothing. Let its center stay where it was.": (
                _moved_without_care
            ),
            "You gave one row for each picture. Give one row for each cluster, in the order of the centers.": (
                lambda features, labels, centers: _moved(features, labels, centers)[labels]
            ),
        },
        hints=(
            "A loop over range(len(centers)) is fine. Which rows of features belong to cluster k?",
            "features[labels == k].mean(axis=0) is the new center of cluster k, if the cluster has members.",
            "Start with moved = centers.copy() and overwrite only the rows of clusters for which (labels == k).any().",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="02.3",
        title="Agree on pairs",
        cases=[
            (np.array([0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, 0])),
            (np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0])),
            (np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2])),
        ],
        reference=_rand,
        mistakes={
            "You counted each picture as a pair with itself. Only pairs of different pictures count.": (
                _rand_with_itself
            ),
            "You compared cluster numbers. Numbers are names; ask of each labeling which pictures are together.": (
                lambda a, b: np.mean(a == b)
            ),
            "You counted the pairs that both put together. To keep a pair apart in both is agreement too.": (
                _only_together
            ),
        },
        hints=(
            "For a pair of pictures a labeling says one of two things: together, or apart.",
            "i, j = np.triu_indices(len(a), 1) lists every pair once. a[i] == a[j] says whether a puts it together.",
            "Compare the two answers with ==, and take the mean over the pairs.",
        ),
        difficulty=2,
        importance=3,
        minutes=8,
    ),
    Exercise(
        id="02.4",
        title="Do two spaces fail together?",
        cases=[(_RIGHT_A, _RIGHT_B), (_RIGHT_A, _RIGHT_C), (_RIGHT_B, _RIGHT_C)],
        reference=lambda right_a, right_b: np.mean(~right_a & ~right_b) / (np.mean(~right_a) * np.mean(~right_b)),
        mistakes={
            "You compared how often both are right. Turn the arrays round first: ~right is where a space is wrong.": (
                lambda right_a, right_b: np.mean(right_a & right_b) / (np.mean(right_a) * np.mean(right_b))
            ),
            "That is how often both are wrong. Divide it by what independent errors would give.": (
                lambda right_a, right_b: np.mean(~right_a & ~right_b)
            ),
            "You divided counts by counts. Use shares of all pictures: np.mean, not np.sum.": (
                lambda right_a, right_b: np.sum(~right_a & ~right_b) / (np.sum(~right_a) * np.sum(~right_b))
            ),
        },
        hints=(
            "If a coin decided on each space's errors, how often would both coins fall on wrong?",
            "Independent events multiply: the expected share is np.mean(~right_a) * np.mean(~right_b).",
            "The observed share is np.mean(~right_a & ~right_b). Divide it by the expected share.",
        ),
        difficulty=2,
        importance=5,
        minutes=6,
    ),
)
