"""Exercises of notebook 07, MUST in practice."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from labkit.course.exercises import Exercise

_SURE = np.eye(3)[[0, 1, 2, 0, 1, 2]]  # every picture sure of its class, all classes as frequent
_COLLAPSED = np.tile([0.98, 0.01, 0.01], (5, 1))  # every picture sure of the same class
_MIXED = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]])  # (n, C)


def _keep(information: list[float], patience: int) -> tuple[int, int]:
    """The epoch to keep and the epochs run, both from 1 on."""
    best = 1
    for epoch, value in enumerate(information, 1):
        if value > information[best - 1]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(information)


def _wait_longer(information: list[float], patience: int) -> tuple[int, int]:
    """`_keep` with > where the stop needs >=."""
    return _keep(information, patience + 1)


def _take_equals(information: list[float], patience: int) -> tuple[int, int]:
    """`_keep` with >= where a new best needs >."""
    best = 1
    for epoch, value in enumerate(information, 1):
        if value >= information[best - 1]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(information)


def _count_falls(information: list[float], patience: int) -> tuple[int, int]:
    """Stop after `patience` epochs in a row that did not rise above the one before."""
    best, falls = 1, 0
    for epoch, value in enumerate(information[1:], 2):
        falls = falls + 1 if value <= information[epoch - 2] else 0
        best = epoch if value > information[best - 1] else best
        if falls >= patience:
            return best, epoch
    return best, len(information)


def _information_with_plain_logarithms(probs: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((probs * np.log(probs / probs.mean(axis=0))).sum(axis=1).mean())


def _collapsed_loss(p: float, n_classes: int, weight: float) -> float:
    others = (1 - p) / (n_classes - 1)
    fairness = -(np.log(p) + (n_classes - 1) * np.log(others)) / n_classes
    return float(-np.log(p) + weight * fairness)


def _undivided_rest(p: float, n_classes: int, weight: float) -> float:
    fairness = -(np.log(p) + (n_classes - 1) * np.log(1 - p)) / n_classes
    return float(-np.log(p) + weight * fairness)


def _shares(labels: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels[labels >= 0], minlength=n_classes) + 1
    return counts / counts.sum()


def _shares_without_one_more(labels: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    return counts / counts.sum()


def _shares_of_those_said(labels: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels[labels >= 0]) + 1
    return counts / counts.sum()


EXERCISES = (
    Exercise(
        id="07.1",
        title="How much does a prediction tell?",
        cases=[(_MIXED,), (_SURE,), (_COLLAPSED,)],
        reference=lambda probs: entr(probs.mean(axis=0)).sum() - entr(probs).sum(axis=1).mean(),
        mistakes={
            "That is the entropy of the mean alone. It is as high when no picture is told from another: subtract the "
            "mean entropy of a prediction.": lambda probs: entr(probs.mean(axis=0)).sum(),
            "The sign is turned round: the entropy of the mean comes first, and the result is never negative.": (
                lambda probs: entr(probs).sum(axis=1).mean() - entr(probs.mean(axis=0)).sum()
            ),
            "These are bits. Use the natural logarithm, as labkit and the losses do.": (
                lambda probs: (entr(probs.mean(axis=0)).sum() - entr(probs).sum(axis=1).mean()) / np.log(2)
            ),
            "You get nan where a probability is 0, because 0 times log 0 is nan for NumPy. entr(p) is 0 there.": (
                _information_with_plain_logarithms
            ),
        },
        hints=(
            "Two entropies: one of the mean prediction, one of each prediction. What should be large, what small?",
            "probs.mean(axis=0) is the mean prediction, (C,). entr(probs).sum(axis=1) is the entropy of each, (n,).",
            "entr(probs.mean(axis=0)).sum() minus the mean of entr(probs).sum(axis=1).",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="07.2",
        title="When to stop, and what to keep",
        cases=[
            ([0.5, 0.8, 0.9, 0.7, 0.6, 1.2], 2),
            ([0.1, 0.2, 0.3], 2),
            ([1.0, 0.9, 1.1, 1.0, 0.9, 0.8], 1),
            ([0.5, 0.5, 0.5, 0.7], 2),
            ([0.9, 0.5, 0.6, 0.5, 0.7], 2),
        ],
        reference=_keep,
        mistakes={
            "You looked into the future: the highest of *all* epochs may lie after the stop, where nobody ever gets.": (
                lambda information, patience: (int(np.argmax(information)) + 1, _keep(information, patience)[1])
            ),
            "You kept the last epoch that was run. Patience is how long you wait; then you go back to the best.": (
                lambda information, patience: (_keep(information, patience)[1],) * 2
            ),
            "You counted the kept epoch from 0. The first one is epoch 1.": (
                lambda information, patience: (_keep(information, patience)[0] - 1, _keep(information, patience)[1])
            ),
            "You counted falls in a row. Patience counts epochs since the *best*: a rise that stays below the best "
            "does not reset it.": _count_falls,
            "You took an equal value for a new best. Only a larger one is: > and not >=.": _take_equals,
            "You waited one epoch too long. The fit stops as soon as the best lies `patience` epochs behind: >= and "
            "not >.": _wait_longer,
        },
        hints=(
            "Walk through the epochs in order, and remember the best one so far.",
            "An epoch is the new best only if its value is *larger*. How far is the best behind you?",
            "In the loop: if epoch - best >= patience, return best, epoch. After it: best, len(values).",
        ),
        difficulty=3,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="07.3",
        title="The price of collapse",
        cases=[(0.9, 10, 1.0), (0.5, 4, 0.2), (0.99, 2, 0.0)],
        reference=_collapsed_loss,
        mistakes={
            "You added the classes up. The fairness loss is a mean over the classes: divide by their number.": (
                lambda p, n_classes, weight: float(
                    -np.log(p) - weight * (np.log(p) + (n_classes - 1) * np.log((1 - p) / (n_classes - 1)))
                )
            ),
            "You gave each of the other classes all of 1 - p. They share it: each has (1 - p) / (n_classes - 1).": (
                _undivided_rest
            ),
            "You forgot the weight of the fairness loss.": lambda p, n_classes, weight: _collapsed_loss(
                p, n_classes, 1.0
            ),
        },
        hints=(
            "Every picture gets the same row of probabilities, so the mean prediction is that row, too.",
            "Self-training pays -log(p). Fairness pays the mean over the classes of minus the logarithm of each share.",
            "One class has share p, and n_classes - 1 of them have (1 - p) / (n_classes - 1). Add -log(p) and weight "
            "times the mean.",
        ),
        difficulty=3,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="07.4",
        title="Estimate the prior",
        cases=[(np.array([0, 0, 0, 2, -1, 2, 0]), 4), (np.array([1, 1, 0, -1]), 3)],
        reference=_shares,
        mistakes={
            "A class that nobody said has share 0. Then the loss forbids it for ever: count every class once more than "
            "it was met.": _shares_without_one_more,
            "You lost the classes that nobody said: np.bincount needs minlength=n_classes.": _shares_of_those_said,
            "Your shares do not add up to 1. After one more for each class, divide by the new sum.": (
                lambda labels, n_classes: (np.bincount(labels[labels >= 0], minlength=n_classes) + 1) / len(labels)
            ),
        },
        hints=(
            "Count, add one, divide. And leave out what is unknown, -1.",
            "np.bincount(said[said >= 0], minlength=n_classes) counts every class, (C,).",
            "counts = np.bincount(...) + 1, then counts / counts.sum().",
        ),
        difficulty=1,
        importance=3,
        minutes=5,
    ),
)
