"""Exercises of notebook 00, start here."""

from __future__ import annotations

import itertools

import numpy as np

from labkit.course.exercises import Exercise

_PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]])  # (n, C)

# Class and cluster of each picture. In the second pair two clusters hold mostly class 0, and only one may have it.
_RENAMED = (np.array([0, 0, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 0, 0, 1]))
_CONTESTED = (np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 1]))


def _best_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    ways = [np.array(way) for way in itertools.permutations(range(3))]  # way[cluster] is its class
    return max(float(np.mean(way[found] == truth)) for way in ways)


def _purity(truth: np.ndarray, found: np.ndarray) -> float:
    """Every cluster takes the class that it holds most of, whether or not another cluster has it."""
    return sum(int(np.bincount(truth[found == cluster]).max()) for cluster in np.unique(found)) / len(truth)


EXERCISES = (
    Exercise(
        id="00.1",
        title="From probabilities to labels",
        cases=[(_PROBS,), (np.array([[0.1, 0.9], [0.8, 0.2]]),)],
        reference=lambda probs: probs.argmax(axis=1),
        mistakes={
            "You took the largest over the images of each class. Look along each row: axis 1.": (
                lambda probs: probs.argmax(axis=0)
            ),
            "You returned the largest probability itself. We want its position: argmax, not max.": (
                lambda probs: probs.max(axis=1)
            ),
            "Your labels start at 1. In Python the first class is number 0.": lambda probs: probs.argmax(axis=1) + 1,
        },
        hints=(
            "Each row is one image. Which column holds its largest number?",
            "NumPy arrays have a method that gives the position of the largest element: argmax.",
            "argmax works along the axis that you name; the classes are along axis 1.",
        ),
        difficulty=1,
        importance=4,
        minutes=3,
    ),
    Exercise(
        id="00.2",
        title="Accuracy needs a matching",
        cases=[_RENAMED, _CONTESTED],
        reference=_best_accuracy,
        mistakes={
            "You compared cluster numbers with class numbers. Clusters have no names: rename them in all six ways.": (
                lambda truth, found: np.mean(truth == found)
            ),
            "You let every cluster take its most frequent class, so two clusters can take the same one. "
            "Hand out the classes one to one.": _purity,
            "You counted the hits. Divide by the number of pictures: an accuracy is a fraction from 0 to 1.": (
                lambda truth, found: _best_accuracy(truth, found) * len(truth)
            ),
        },
        hints=(
            "Each of the six ways says which class every cluster stands for. Score each way; keep the best score.",
            "With way = np.array((2, 0, 1)), way[found] turns every cluster number into its class, all at once.",
            "np.mean(way[found] == truth) is the accuracy of one way; take the max over permutations(range(3)).",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="00.3",
        title="The accuracy of no idea",
        cases=[(np.array([0, 1, 1, 1, 2]),), (np.array([0, 1, 2, 0, 1, 2]),), (np.array([3, 3, 3, 0]),)],
        reference=lambda truth: np.bincount(truth).max() / len(truth),
        mistakes={
            "That is one over the number of classes: right only if all classes are of equal size.": (
                lambda truth: 1 / len(np.unique(truth))
            ),
            "You counted the pictures of the largest class. Divide by the number of all pictures.": (
                lambda truth: np.bincount(truth).max()
            ),
            "You returned which class is the largest. We want its share of all pictures.": (
                lambda truth: np.bincount(truth).argmax()
            ),
        },
        hints=(
            "The single cluster is matched to one class. Which choice is best, and which pictures are then right?",
            "np.bincount(truth) counts the pictures of each class.",
            "Divide the largest of these counts by len(truth).",
        ),
        difficulty=1,
        importance=4,
        minutes=4,
    ),
)
