"""Exercises of notebook 02, representation spaces."""

from __future__ import annotations

import numpy as np

from labkit.course.exercises import Exercise

# The last row of the gallery is long: its dot product with every query is the largest, and it is never near.
_GALLERY = np.array([[0.0, 0.0], [0.2, 0.1], [1.0, 1.2], [1.3, 1.0], [1.1, 0.9], [2.0, 0.2], [2.2, 0.0], [9.0, 9.0]])
_OF_GALLERY = np.array([2, 2, 0, 0, 1, 1, 1, 2])  # (n,)
_QUERIES = np.array([[0.1, 0.2], [1.1, 1.1], [2.1, 0.3], [1.7, 0.6]])  # (q, d)

_POINTS = np.array([[0.0, 0.5], [1.0, -0.5], [0.5, 1.0], [6.0, 5.0], [4.5, 5.5], [5.0, 4.0]])  # (n, d)
_CENTERS = np.array([[0.0, 0.0], [5.0, 6.0], [4.0, 3.5]])  # (C, d)
_CENTERS_ONE_EMPTY = np.array([[0.0, 0.0], [5.0, 6.0], [20.0, 20.0]])

_TABLE = np.array([[30, 2, 0], [4, 20, 8], [0, 3, 33]])  # (classes, clusters)
_MORE_CLUSTERS = np.array([[10, 12, 0, 1], [0, 3, 25, 9]])
_INDEPENDENT = np.array([[8, 16], [4, 8]])

_RIGHT_A = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1], dtype=bool)  # (n,)
_RIGHT_B = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
_RIGHT_C = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=bool)


def _vote(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    distance = ((queries[:, None] - gallery) ** 2).sum(axis=2)
    nearest = np.argsort(distance, axis=1)[:, :k]
    return np.array([np.bincount(labels[row]).argmax() for row in nearest])


def _vote_of_the_farthest(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    distance = ((queries[:, None] - gallery) ** 2).sum(axis=2)
    farthest = np.argsort(-distance, axis=1)[:, :k]
    return np.array([np.bincount(labels[row]).argmax() for row in farthest])


def _vote_by_product(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    nearest = np.argsort(-queries @ gallery.T, axis=1)[:, :k]
    return np.array([np.bincount(labels[row]).argmax() for row in nearest])


def _mean_label(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    distance = ((queries[:, None] - gallery) ** 2).sum(axis=2)
    return labels[np.argsort(distance, axis=1)[:, :k]].mean(axis=1)


def _assigned(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center of each sample, and the squared distance to it."""
    distance = ((features[:, None] - centers) ** 2).sum(axis=2)
    return distance.argmin(axis=1), distance.min(axis=1)


def _moved(features: np.ndarray, centers: np.ndarray) -> np.ndarray:
    labels, moved = _assigned(features, centers)[0], centers.copy()
    for k in np.unique(labels):
        moved[k] = features[labels == k].mean(axis=0)
    return moved


def _lloyd(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    labels, moved = _assigned(features, centers)[0], _moved(features, centers)
    return moved, float(((features - moved[labels]) ** 2).sum())


def _lloyd_before(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    return _moved(features, centers), float(_assigned(features, centers)[1].sum())


def _lloyd_not_squared(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    labels, moved = _assigned(features, centers)[0], _moved(features, centers)
    return moved, float(np.linalg.norm(features - moved[labels], axis=1).sum())


def _lloyd_mean(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    moved, objective = _lloyd(features, centers)
    return moved, objective / len(features)


def _lloyd_careless(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean of nothing is nan."""
    labels, moved = _assigned(features, centers)[0], _moved(features, centers)
    moved[np.bincount(labels, minlength=len(centers)) == 0] = np.nan
    return moved, _lloyd(features, centers)[1]


def _entropies(table: np.ndarray) -> tuple[float, float, float]:
    """Of the classes, of the clusters, and of both jointly, in nats."""
    joint = table / table.sum()
    shares = (joint.sum(axis=1), joint.sum(axis=0), joint.ravel())
    return tuple(float(-(p[p > 0] * np.log(p[p > 0])).sum()) for p in shares)  # type: ignore[return-value]


def _information(table: np.ndarray) -> float:
    classes, clusters, joint = _entropies(table)
    return classes + clusters - joint


def _nmi(table: np.ndarray) -> float:
    classes, clusters, _ = _entropies(table)
    return _information(table) / float(np.sqrt(classes * clusters))


def _nmi_with_zeros(table: np.ndarray) -> float:
    joint = table / table.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = (joint * np.log(joint / independent)).sum()
    classes, clusters, _ = _entropies(table)
    return float(information / np.sqrt(classes * clusters))


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _pair_counts(table: np.ndarray) -> tuple[float, float, float, float]:
    """Pairs together in both, in the classes, in the clusters, and all pairs."""
    sizes = table.sum(axis=1), table.sum(axis=0), table.sum()
    return _pairs(table), _pairs(sizes[0]), _pairs(sizes[1]), _pairs(sizes[2])


def _ari(table: np.ndarray) -> float:
    both, classes, clusters, total = _pair_counts(table)
    expected = classes * clusters / total
    return (both - expected) / ((classes + clusters) / 2 - expected)


def _rand(table: np.ndarray) -> float:
    both, classes, clusters, total = _pair_counts(table)
    return (total + 2 * both - classes - clusters) / total


def _ari_to_one(table: np.ndarray) -> float:
    both, classes, clusters, total = _pair_counts(table)
    return (both - classes * clusters / total) / (total - classes * clusters / total)


def _not_adjusted(table: np.ndarray) -> float:
    both, classes, clusters, _ = _pair_counts(table)
    return both / ((classes + clusters) / 2)


def _ari_of_squares(table: np.ndarray) -> float:
    both, classes, clusters = ((x**2).sum() for x in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = classes * clusters / table.sum() ** 2
    return float((both - expected) / ((classes + clusters) / 2 - expected))


EXERCISES = (
    Exercise(
        id="02.1",
        title="A vote of the nearest neighbors",
        cases=[(_QUERIES, _GALLERY, _OF_GALLERY, 1), (_QUERIES, _GALLERY, _OF_GALLERY, 3)],
        reference=_vote,
        mistakes={
            "You took the largest dot products. They favor long vectors, near or not. Use the distance.": (
                _vote_by_product
            ),
            "You took the k farthest images. argsort puts the smallest first, so keep the first k columns.": (
                _vote_of_the_farthest
            ),
            "You averaged class numbers. The mean of classes 0 and 2 is not class 1: let the majority decide.": (
                _mean_label
            ),
            "You returned row numbers of the gallery. Look up the labels of these rows, and let them vote.": (
                lambda queries, gallery, labels, k: ((queries[:, None] - gallery) ** 2).sum(axis=2).argmin(axis=1)
            ),
        },
        hints=(
            "Three steps: all squared distances (q, n); the k nearest rows of each query; the most frequent label.",
            "((queries[:, None] - gallery) ** 2).sum(axis=2): the distances; np.argsort(…, axis=1)[:, :k]: the rows.",
            "If row holds the k nearest of one query, np.bincount(labels[row]).argmax() is its vote. Do this for all.",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="02.2",
        title="One step of K-means, and its objective",
        cases=[(_POINTS, _CENTERS), (_POINTS, _CENTERS_ONE_EMPTY)],
        reference=_lloyd,
        mistakes={
            "Your objective uses the old centers. Assign, move, and then measure distances to the moved centers.": (
                _lloyd_before
            ),
            "Your objective adds up distances. K-means minimizes the sum of squared distances.": _lloyd_not_squared,
            "Your objective is a mean over the images. The formula has a sum.": _lloyd_mean,
            "A cluster without members became nan: the mean of no rows. Let its center stay where it was.": (
                _lloyd_careless
            ),
            "You returned only the centers. Return two things: the new centers, and the objective.": _moved,
        },
        hints=(
            "Squared distances of all pairs (n, C), argmin along axis 1: that is step 1.",
            "moved = centers.copy(); for every k that has members, moved[k] = features[labels == k].mean(axis=0).",
            "moved[labels] holds each image's center, so the objective is ((features - moved[labels]) ** 2).sum().",
        ),
        difficulty=3,
        importance=5,
        minutes=10,
    ),
    Exercise(
        id="02.3",
        title="Normalized mutual information",
        cases=[(_TABLE,), (_MORE_CLUSTERS,), (_INDEPENDENT,)],
        reference=_nmi,
        mistakes={
            "An empty cell of the table became nan: 0 · log 0 counts as 0. Leave out the empty cells.": _nmi_with_zeros,
            "That is the mutual information in nats. Divide it by the geometric mean of the two entropies.": (
                _information
            ),
            "You divided by the arithmetic mean of the two entropies. Take the geometric mean, as the paper does.": (
                lambda table: 2 * _information(table) / sum(_entropies(table)[:2])
            ),
            "You divided by the joint entropy. Divide by the geometric mean of the other two entropies.": (
                lambda table: _information(table) / _entropies(table)[2]
            ),
        },
        hints=(
            "joint = table / table.sum() holds p(c, k). Its row sums are p(c), its column sums p(k).",
            "A helper for entropies, entropy(p) = -(p[p > 0] * np.log(p[p > 0])).sum(), takes care of the zeros.",
            "I = H(classes) + H(clusters) − H(joint): three calls of the helper. Then divide by np.sqrt(H · H).",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="02.4",
        title="Adjusted Rand index",
        cases=[(_TABLE,), (_MORE_CLUSTERS,), (_INDEPENDENT,)],
        reference=_ari,
        mistakes={
            "That is the Rand index, not adjusted for chance. Subtract E from numerator and denominator.": _rand,
            "The maximum is not the number of all pairs, but the mean (A + B)/2 of pairs in classes and in clusters.": (
                _ari_to_one
            ),
            "You did not subtract the expected number of pairs: independent labelings should score near 0.": (
                _not_adjusted
            ),
            "You counted m² pairs in a group of m images, but there are only m(m − 1)/2.": (_ari_of_squares),
        },
        hints=(
            "Write pairs(counts) = (counts * (counts - 1) / 2).sum() and use it on cells, row sums and column sums.",
            "expected = pairs(row sums) * pairs(column sums) / pairs(table.sum()).",
            "ARI = (pairs(table) − expected) / ((pairs(row sums) + pairs(column sums)) / 2 − expected).",
        ),
        difficulty=3,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="02.5",
        title="Do two spaces fail together?",
        cases=[(_RIGHT_A, _RIGHT_B), (_RIGHT_A, _RIGHT_C), (_RIGHT_B, _RIGHT_C)],
        reference=lambda right_a, right_b: np.mean(~right_a & ~right_b) / (np.mean(~right_a) * np.mean(~right_b)),
        mistakes={
            "You compared how often both are right. Negate the arrays first: ~right is where a space is wrong.": (
                lambda right_a, right_b: np.mean(right_a & right_b) / (np.mean(right_a) * np.mean(right_b))
            ),
            "That is how often both are wrong. Divide it by what is expected under independence.": (
                lambda right_a, right_b: np.mean(~right_a & ~right_b)
            ),
            "You divided counts by counts. Use shares of all images: np.mean, not np.sum.": (
                lambda right_a, right_b: np.sum(~right_a & ~right_b) / (np.sum(~right_a) * np.sum(~right_b))
            ),
        },
        hints=(
            "If the errors of the two spaces were independent, how often would both be wrong?",
            "Probabilities of independent events multiply: expected = np.mean(~right_a) * np.mean(~right_b).",
            "The observed share is np.mean(~right_a & ~right_b). Divide it by the expected share.",
        ),
        difficulty=2,
        importance=5,
        minutes=6,
    ),
)
