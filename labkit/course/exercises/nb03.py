"""Exercises of notebook 03, max-margin labelings."""

from __future__ import annotations

import numpy as np

from labkit.course.exercises import Exercise

_POINTS = np.array([[0.0, 0.0], [1.0, 0.5], [3.0, 0.0], [4.0, 1.0]])  # (n, 2)
_APART = np.array([0, 0, 1, 1])  # a line at x = 2 separates these, and none these:
_MIXED = np.array([0, 1, 0, 1])

_SHARP = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])  # (n, C), each row sums to 1
_SOFT = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
_EMPTY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def _distances(points: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Signed distances to the line (n,), positive on the right side."""
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


EXERCISES = (
    Exercise(
        id="03.1",
        title="Count the labelings",
        cases=[(2,), (3,), (12,)],
        reference=lambda n: 2 ** (n - 1) - 1,
        mistakes={
            "You counted every labeling twice: swapping all 0s and 1s gives the same labeling.": lambda n: 2**n - 2,
            "One too many: you counted the labeling that leaves a heap empty.": lambda n: 2 ** (n - 1),
            "These are all words of 0s and 1s. Swapped names count once, and no heap may be empty.": lambda n: 2**n,
        },
        hints=(
            "Write down all labelings of three pictures. Which are the same after a swap? Three should be left.",
            "Each picture has two choices. A swap pairs the labelings up, so half of them are left.",
            "Half of 2 to the power of n, less the one labeling with an empty heap.",
        ),
        difficulty=1,
        importance=3,
        minutes=4,
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
            "Your margin grows when weight and bias are doubled. The line stays! Divide by the length of weight.": (
                lambda points, labels, weight, bias: ((2 * labels - 1) * (points @ weight + bias)).min()
            ),
            "You lost the sign: a picture on the wrong side must count as negative, however far it is from the line.": (
                lambda points, labels, weight, bias: np.abs(_distances(points, labels, weight, bias)).min()
            ),
            "That is the mean distance. The margin belongs to the worst picture: take the smallest.": (
                lambda points, labels, weight, bias: _distances(points, labels, weight, bias).mean()
            ),
            "You raised negative values to zero. That comes later, for the best line: a line that leaves a picture on "
            "the wrong side has a negative margin.": (
                lambda points, labels, weight, bias: max(0.0, _distances(points, labels, weight, bias).min())
            ),
            "Twice too much: the margin is half the width of the street.": (
                lambda points, labels, weight, bias: 2 * _distances(points, labels, weight, bias).min()
            ),
            "The sides are exchanged: label 1 belongs where weight · x + bias is positive, label 0 where not.": (
                lambda points, labels, weight, bias: _distances(points, 1 - labels, weight, bias).min()
            ),
            "Pictures with label 0 drop out if you multiply by the label. Turn 0 into −1 first: 2 * labels - 1.": (
                lambda points, labels, weight, bias: (labels * (points @ weight + bias)).min() / np.linalg.norm(weight)
            ),
        },
        hints=(
            "First one number a picture: points @ weight + bias. Its sign says on which side the picture lies.",
            "Turn labels 0 and 1 into signs −1 and +1 with 2 * labels - 1, and multiply: positive is the right side.",
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
            "You took the entropy of each picture, then the mean. First the mean over pictures, then the entropy.": (
                lambda labeling: np.mean([_entropy(row) for row in labeling])
            ),
            "The sign is turned round: entropy is minus the sum of share times log of share, and never negative.": (
                lambda labeling: -_entropy(labeling.mean(axis=0))
            ),
            "Your entropy is in bits. Use the natural logarithm, np.log.": (
                lambda labeling: _entropy(labeling.mean(axis=0)) / np.log(2)
            ),
            "An empty heap makes your result nan: NumPy computes 0 · log 0 as nan. Leave empty heaps out of the sum.": (
                _entropy_without_care
            ),
        },
        hints=(
            "How large is the share of each heap? One number for each of the C heaps.",
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
            "You split at the mean. The mean does not look at the gaps: one far number moves it.": (
                lambda numbers: (numbers > numbers.mean()).astype(int)
            ),
            "You looked for the largest step in the order given. Only sorting makes neighbours on the line adjacent.": (
                lambda numbers: (np.arange(len(numbers)) > np.abs(np.diff(numbers)).argmax()).astype(int)
            ),
            "The gap's place is one in the sorted list: compare with the number that stands there, not as given.": (
                lambda numbers: (numbers > numbers[np.diff(np.sort(numbers)).argmax()]).astype(int)
            ),
            "np.argsort tells which number comes first, not each number's place. Compare the numbers themselves.": (
                lambda numbers: (np.argsort(numbers) > np.diff(np.sort(numbers)).argmax()).astype(int)
            ),
            "Right split, wrong order: your labels belong to the sorted numbers. Keep the order of the question.": (
                lambda numbers: np.sort(_widest_split(numbers))
            ),
        },
        hints=(
            "Only neighbours on the line can have the widest gap between them. How do you find neighbours?",
            "np.sort puts neighbours side by side, np.diff gives the gaps, argmax tells which is the widest.",
            "If gap k is the widest, all numbers above np.sort(numbers)[k] have label 1: compare the numbers as given.",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
)
