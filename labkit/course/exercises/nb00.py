"""Exercises of notebook 00, start here."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from labkit.course.exercises import Exercise

_PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]])  # (n, C)
_COLLAPSED = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # two clusters are never used
_BALANCED = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]

# Class and cluster of each image. In the second two clusters hold mostly class 0, and only one may have it. In the
# third the largest entry of the contingency table, [[5, 4], [4, 0]], is not part of the best matching.
_RENAMED = (np.array([0, 0, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 0, 0, 1]), 3)
_CONTESTED = (np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 1]), 3)
_LARGEST_IS_WRONG = (np.repeat([0, 0, 1], [5, 4, 4]), np.repeat([0, 1, 0], [5, 4, 4]), 2)

_MAJORITY = (np.array([0] * 9 + [1]), np.zeros(10, dtype=int))
_MIXED = (np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0]))
_GAP = (np.array([3, 3, 3, 0, 0]), np.array([3, 3, 1, 0, 3]))  # classes 1 and 2 do not occur


def _entropy(shares: np.ndarray) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def _with_zeros(probs: np.ndarray) -> float:
    mean = probs.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-(mean * np.log(mean)).sum())


def _table(truth: np.ndarray, found: np.ndarray, n_classes: int) -> np.ndarray:
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (truth, found), 1)
    return table


def _matched(truth: np.ndarray, found: np.ndarray, n_classes: int) -> float:
    table = _table(truth, found, n_classes)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(truth))


def _matched_worst(truth: np.ndarray, found: np.ndarray, n_classes: int) -> float:
    table = _table(truth, found, n_classes)
    return float(table[linear_sum_assignment(table)].sum() / len(truth))


def _greedy(truth: np.ndarray, found: np.ndarray, n_classes: int) -> float:
    """The largest entry of the table first, then the largest in what is left of rows and columns."""
    table, total = _table(truth, found, n_classes), 0.0
    for _ in range(n_classes):
        row, column = np.unravel_index(table.argmax(), table.shape)
        total += max(0.0, table[row, column])
        table[row], table[:, column] = -1, -1
    return total / len(truth)


def _balanced(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean([np.mean(predicted[truth == c] == c) for c in np.unique(truth)]))


def _precision(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean([np.mean(truth[predicted == c] == c) for c in np.unique(predicted)]))


def _over_all_numbers(truth: np.ndarray, predicted: np.ndarray) -> float:
    return _balanced(truth, predicted) * len(np.unique(truth)) / (truth.max() + 1)


EXERCISES = (
    Exercise(
        id="00.1",
        title="How balanced is a labeling?",
        cases=[(_PROBS,), (_COLLAPSED,), (_BALANCED,)],
        reference=lambda probs: _entropy(probs.mean(axis=0)),
        mistakes={
            "You averaged the entropies of single images. First average the probabilities, then take the entropy.": (
                lambda probs: np.mean([_entropy(row) for row in probs])
            ),
            "An unused cluster made it nan, like 0 * log(0) in NumPy. Leave out clusters whose mean is 0.": _with_zeros,
            "Your result is in bits. The formula uses the natural logarithm: np.log, not np.log2.": (
                lambda probs: _entropy(probs.mean(axis=0)) / np.log(2)
            ),
            "The sign is missing: log p is negative, so an entropy is minus the sum.": (
                lambda probs: -_entropy(probs.mean(axis=0))
            ),
            "You averaged over the clusters of each image, which always gives 1/C. Average over the images: axis 0.": (
                lambda probs: _entropy(probs.mean(axis=1))
            ),
        },
        hints=(
            "Two steps: one vector of C mean probabilities, then its entropy.",
            "probs.mean(axis=0) is the mean prediction: the average over the images, one number per cluster.",
            "Keep used = mean[mean > 0]; the entropy is -(used * np.log(used)).sum().",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="00.2",
        title="Accuracy needs a matching",
        cases=[_RENAMED, _CONTESTED, _LARGEST_IS_WRONG],
        reference=_matched,
        mistakes={
            "You compared cluster numbers with class numbers. Clusters have no names: match them to classes first.": (
                lambda truth, found, n_classes: np.mean(truth == found)
            ),
            "You let every cluster take its most frequent class, so two clusters can take the same class (purity). "
            "The matching is one to one.": (
                lambda truth, found, n_classes: _table(truth, found, n_classes).max(axis=0).sum() / len(truth)
            ),
            "You took the largest entry first, then the next (greedy). The best matching can leave out the largest.": (
                _greedy
            ),
            "That is the worst matching: linear_sum_assignment minimizes. Pass maximize=True.": _matched_worst,
            "You counted the correct images. Divide by the number of images: an accuracy is a fraction from 0 to 1.": (
                lambda truth, found, n_classes: _matched(truth, found, n_classes) * len(truth)
            ),
        },
        hints=(
            "Build the contingency table first: table[c, k] counts the images of class c in cluster k.",
            "np.add.at(table, (truth, found), 1) fills it. linear_sum_assignment(table, maximize=True) gives the rows "
            "and columns of the chosen entries.",
            "With rows, columns = linear_sum_assignment(...), table[rows, columns].sum() counts the correct images.",
        ),
        difficulty=3,
        importance=5,
        minutes=10,
    ),
    Exercise(
        id="00.3",
        title="Balanced accuracy",
        cases=[_MAJORITY, _MIXED, _GAP],
        reference=_balanced,
        mistakes={
            "That is the plain accuracy, in which large classes count more. Average over classes, not over images.": (
                lambda truth, predicted: np.mean(truth == predicted)
            ),
            "You took, for each predicted class, the share that is correct (precision). "
            "Take the share of each true class that is found (recall).": _precision,
            "You divided by the largest class number plus one. Average only over the classes that occur in truth.": (
                _over_all_numbers
            ),
            "You added up the accuracies of the classes. Balanced accuracy is their mean.": (
                lambda truth, predicted: _balanced(truth, predicted) * len(np.unique(truth))
            ),
        },
        hints=(
            "For one class c: among the images with truth == c, how many are predicted as c?",
            "np.mean(predicted[truth == c] == c) is the accuracy within class c.",
            "Take the mean of these numbers over c in np.unique(truth).",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
)
