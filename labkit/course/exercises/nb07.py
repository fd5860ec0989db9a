"""Exercises of notebook 07, MUST in practice."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from labkit.course.exercises import Exercise
from labkit.course.exercises.stopping import (
    HISTORIES,
    from_zero,
    keep_epoch,
    last_safe,
    look_ahead,
    never_settled,
    step_by_step,
    unknown_as_class,
    without_guard,
)

_CONFIDENT = np.eye(3)[[0, 1, 2, 0, 1, 2]]  # every prediction certain, all classes equally frequent
_COLLAPSED = np.tile([0.98, 0.01, 0.01], (5, 1))  # every image confidently predicted as the same class
_MIXED = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]])  # (n, C)


# ------------------------------------------------------------------------------------------ 07.1 mutual information


def _mutual_information_with_plain_logarithms(probs: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((probs * np.log(probs / probs.mean(axis=0))).sum(axis=1).mean())


# ---------------------------------------------------------------------------------------------------- 07.2 patience


def _patience(values: list[float], patience: int) -> tuple[int, int]:
    """The epoch to keep and the epochs run, both from 1 on."""
    best = 1
    for epoch, value in enumerate(values, 1):
        if value > values[best - 1]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(values)


def _wait_longer(values: list[float], patience: int) -> tuple[int, int]:
    """`_patience` with > where the stop needs >=."""
    return _patience(values, patience + 1)


def _take_equals(values: list[float], patience: int) -> tuple[int, int]:
    """`_patience` with >= where a new best needs >."""
    best = 1
    for epoch, value in enumerate(values, 1):
        if value >= values[best - 1]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(values)


def _count_falls(values: list[float], patience: int) -> tuple[int, int]:
    """Stop after `patience` epochs in a row that did not rise above the one before."""
    best, falls = 1, 0
    for epoch, value in enumerate(values[1:], 2):
        falls = falls + 1 if value <= values[epoch - 2] else 0
        best = epoch if value > values[best - 1] else best
        if falls >= patience:
            return best, epoch
    return best, len(values)


# -------------------------------------------------------------------------------------- 07.3 the price of collapse


def _collapsed_loss(p: float, n_classes: int, weight: float) -> float:
    others = (1 - p) / (n_classes - 1)
    fairness = -(np.log(p) + (n_classes - 1) * np.log(others)) / n_classes
    return float(-np.log(p) + weight * fairness)


def _undivided_rest(p: float, n_classes: int, weight: float) -> float:
    fairness = -(np.log(p) + (n_classes - 1) * np.log(1 - p)) / n_classes
    return float(-np.log(p) + weight * fairness)


# --------------------------------------------------------------------------- 07.5 fairness under an estimated prior


def _prior(labels: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels[labels >= 0], minlength=n_classes) + 1
    return counts / counts.sum()


def _fairness(probs: np.ndarray, labels: np.ndarray) -> float:
    return float(-(_prior(labels, probs.shape[1]) * np.log(probs.mean(axis=0))).sum())


def _without_one_more(probs: np.ndarray, labels: np.ndarray) -> float:
    counts = np.bincount(labels[labels >= 0], minlength=probs.shape[1])
    return float(-(counts / counts.sum() * np.log(probs.mean(axis=0))).sum())


def _unknown_as_last_class(probs: np.ndarray, labels: np.ndarray) -> float:
    """-1 as an index: unknown images count for the last class."""
    counts = np.ones(probs.shape[1])
    np.add.at(counts, labels, 1)
    return float(-(counts / counts.sum() * np.log(probs.mean(axis=0))).sum())


_PREDICTED = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]])  # (B, C)

EXERCISES = (
    Exercise(
        id="07.1",
        title="How much does a prediction tell?",
        cases=[(_MIXED,), (_CONFIDENT,), (_COLLAPSED,)],
        reference=lambda probs: entr(probs.mean(axis=0)).sum() - entr(probs).sum(axis=1).mean(),
        mistakes={
            "That is the entropy of the mean alone. It is just as high if all images get the same uniform prediction: "
            "subtract the mean entropy of the single predictions.": lambda probs: entr(probs.mean(axis=0)).sum(),
            "The sign is reversed: the entropy of the mean comes first, and the result is never negative.": (
                lambda probs: entr(probs).sum(axis=1).mean() - entr(probs.mean(axis=0)).sum()
            ),
            "These are bits. Use the natural logarithm, as labkit and the losses do.": (
                lambda probs: (entr(probs.mean(axis=0)).sum() - entr(probs).sum(axis=1).mean()) / np.log(2)
            ),
            "You get nan where a probability is 0, because 0 times log 0 is nan in NumPy. entr(p) is 0 there.": (
                _mutual_information_with_plain_logarithms
            ),
        },
        hints=(
            "Two entropies: one of the mean prediction, one of each prediction. Which should be large, which small?",
            "probs.mean(axis=0) is the mean prediction, (C,). entr(probs).sum(axis=1) is the entropy of each, (n,).",
            "entr(probs.mean(axis=0)).sum() minus the mean of entr(probs).sum(axis=1).",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="07.2",
        title="Patience",
        cases=[
            ([0.5, 0.8, 0.9, 0.7, 0.6, 1.2], 2),
            ([0.1, 0.2, 0.3], 2),
            ([1.0, 0.9, 1.1, 1.0, 0.9, 0.8], 1),
            ([0.5, 0.5, 0.5, 0.7], 2),
            ([0.9, 0.5, 0.6, 0.5, 0.7], 2),
        ],
        reference=_patience,
        mistakes={
            "You looked into the future: the highest of *all* epochs may come after the stop, and is never reached.": (
                lambda values, patience: (int(np.argmax(values)) + 1, _patience(values, patience)[1])
            ),
            "You kept the last epoch that was run. Patience is how long you wait; then you go back to the best.": (
                lambda values, patience: (_patience(values, patience)[1],) * 2
            ),
            "You counted the kept epoch from 0. The first one is epoch 1.": (
                lambda values, patience: (_patience(values, patience)[0] - 1, _patience(values, patience)[1])
            ),
            "You counted falls in a row. Patience counts epochs since the *best*: a rise that stays below the best "
            "does not reset it.": _count_falls,
            "You took an equal value for a new best. Only a larger one is: > and not >=.": _take_equals,
            "You waited one epoch too long. The fit stops as soon as the best is `patience` epochs ago: >= and "
            "not >.": _wait_longer,
        },
        hints=(
            "Go through the epochs in order, and remember the best one so far.",
            "An epoch is the new best only if its value is *larger*. How many epochs ago was the best?",
            "In the loop: if epoch - best >= patience, return best, epoch. After it: best, len(values).",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="07.3",
        title="The price of collapse",
        cases=[(0.9, 10, 1.0), (0.5, 4, 0.2), (0.99, 2, 0.0)],
        reference=_collapsed_loss,
        mistakes={
            "You summed over the classes. The fairness loss is a mean over the classes: divide by their number.": (
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
            "Every image gets the same row of probabilities, so the mean prediction is that row, too.",
            "The self-training loss is -log(p). The fairness loss is the mean over the classes of minus the logarithm "
            "of each entry of the row.",
            "One entry is p, and n_classes - 1 of them are (1 - p) / (n_classes - 1). Add -log(p) and weight times the "
            "mean.",
        ),
        difficulty=3,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="07.4",
        title="A label-free stopping rule",
        cases=HISTORIES,
        reference=keep_epoch,
        mistakes={
            "You kept an epoch that is not safe. Mutual information can be largest just when classes are lost: choose "
            "among the safe epochs only.": without_guard,
            "You looked into the future: epochs after the stop are never run, so you cannot keep them.": look_ahead,
            "You kept the last safe epoch. Keep the one with the largest mutual information.": last_safe,
            "You compared the entropy with that of the epoch before. You notice that classes are lost little by "
            "little only if you compare with epoch 1.": step_by_step,
            "You treated -1 as a class. It stands for *left out*: measure the agreement among images that have a "
            "pseudo-label in both epochs.": unknown_as_class,
            "You did not stop when the pseudo-labels had settled: once the agreement with the epoch before reaches "
            "`stable`, that epoch is the last.": never_settled,
            "You counted the kept epoch from 0. The first one is epoch 1.": from_zero,
        },
        hints=(
            "Go through the epochs in order. First ask whether this epoch is safe; if not, the run ends here.",
            "both = (now >= 0) & (before >= 0) are the images to compare. Collect the safe epochs in a list.",
            "For t in range(T): if entropy[0] - entropy[t] > fall, run = t + 1 and break; safe.append(t); if t > 0 and "
            "the agreement is >= stable, run = t + 1 and break. Then max(safe, key=lambda t: information[t]) + 1.",
        ),
        difficulty=4,
        importance=5,
        minutes=15,
    ),
    Exercise(
        id="07.5",
        title="Fairness under an estimated prior",
        cases=[
            (_PREDICTED, np.array([0, 0, 0, 2, -1, 2, 0])),
            (_PREDICTED[:2], np.array([1, 1, 0, -1, 3, 3, 3])),
        ],
        reference=_fairness,
        mistakes={
            "A class that was never predicted has prior 0, and the loss no longer asks for it: add one to every "
            "count.": _without_one_more,
            "You used the uniform prior, as the paper does. Weight the logarithms with the estimated one.": (
                lambda probs, labels: float(-np.log(probs.mean(axis=0)).mean())
            ),
            "You took the logarithm before the mean. Fairness is about the *mean* prediction: mean first, then the "
            "logarithm.": (
                lambda probs, labels: float(-(_prior(labels, probs.shape[1]) * np.log(probs).mean(axis=0)).sum())
            ),
            "You swapped the two distributions: the prior weights the logarithms of the mean prediction.": (
                lambda probs, labels: float(-(probs.mean(axis=0) * np.log(_prior(labels, probs.shape[1]))).sum())
            ),
            "You counted -1 as the last class. It stands for *unknown*: leave these images out.": (
                _unknown_as_last_class
            ),
        },
        hints=(
            "First the prior (count, add one, divide), then the mean prediction, then their cross-entropy.",
            "np.bincount(labels[labels >= 0], minlength=probs.shape[1]) counts every class, (C,).",
            "prior = counts / counts.sum() with counts = np.bincount(...) + 1; the loss is "
            "-(prior * np.log(probs.mean(axis=0))).sum().",
        ),
        difficulty=3,
        importance=3,
        minutes=8,
    ),
)
