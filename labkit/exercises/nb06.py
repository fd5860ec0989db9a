"""Exercises of notebook 06, masked self-training."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, softmax

from labkit.exercises import Exercise

# Large logits in the first row and small ones in the third: in neither is a class probable.
_LOGITS = np.array([[6.0, 5.8, 5.7, 1.0], [0.2, 2.5, -1.0, -2.0], [0.6, 0.5, 0.4, 0.3], [-3.0, -4.0, 1.5, -2.0]])
_STUDENT = np.array([[2.0, 0.0, -1.0], [0.5, 0.4, 0.0], [-1.0, 0.0, 3.0], [0.0, 1.0, 1.0], [1.0, -2.0, 0.0]])  # (B, C)
_LABELS = np.array([0, 2, 2, 1, 1])
_SOME = np.array([True, False, True, True, False])

_UNEVEN = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])  # (B, C)
_COLLAPSED = np.tile([0.98, 0.01, 0.01], (4, 1))
_SURE_AND_EQUAL = np.eye(3)[[0, 1, 2]] * 0.94 + 0.02

_PICTURE = np.linspace(-1.0, 1.0, 3 * 4 * 4).reshape(3, 4, 4)  # (3, h, w)
_GUESS = np.sin(7 * _PICTURE)
_HIDDEN = np.zeros((4, 4), dtype=bool)
_HIDDEN[:2, 2:] = True


def _pseudo_labels(logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    probs = softmax(logits, axis=1)
    return probs.argmax(axis=1), probs.max(axis=1) > threshold


def _over_the_pictures(logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    probs = softmax(logits, axis=0)
    return probs.argmax(axis=1), probs.max(axis=1) > threshold


def _errors(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def _self_training(logits: np.ndarray, labels: np.ndarray, kept: np.ndarray) -> float:
    return float((_errors(logits, labels) * kept).sum() / max(kept.sum(), 1))


def _nan_when_empty(logits: np.ndarray, labels: np.ndarray, kept: np.ndarray) -> float:
    return float(_errors(logits, labels)[kept].mean()) if kept.any() else float("nan")


EXERCISES = (
    Exercise(
        id="06.1",
        title="Which answers to believe",
        cases=[(_LOGITS, 0.7), (_LOGITS, 0.3)],
        reference=_pseudo_labels,
        mistakes={
            "You compared logits with the threshold. A logit has no upper end: turn every row into probabilities "
            "first.": lambda logits, threshold: (logits.argmax(axis=1), logits.max(axis=1) > threshold),
            "Your softmax runs over the pictures. The classes compete for one picture: take it along axis 1.": (
                _over_the_pictures
            ),
            "You kept the answers that the teacher is unsure of. Keep those *above* the threshold.": (
                lambda logits, threshold: (logits.argmax(axis=1), softmax(logits, axis=1).max(axis=1) <= threshold)
            ),
        },
        hints=(
            "Two arrays of length B: which class is the most probable, and whether its probability is high enough.",
            "softmax(logits, axis=1) gives probabilities (B, C). One row is one picture.",
            "return probs.argmax(axis=1), probs.max(axis=1) > threshold",
        ),
        difficulty=1,
        importance=5,
        minutes=5,
    ),
    Exercise(
        id="06.2",
        title="The loss of self-training, even of nothing",
        cases=[
            (_STUDENT, _LABELS, _SOME),
            (_STUDENT, _LABELS, np.zeros(5, dtype=bool)),
            (_STUDENT, _LABELS, np.ones(5, dtype=bool)),
        ],
        reference=_self_training,
        mistakes={
            "Right, until no label is kept: then you take the mean of nothing, which is nan. It should be 0.": (
                _nan_when_empty
            ),
            "You divided by the number of all pictures. Divide by the number of those that are kept.": (
                lambda logits, labels, kept: float((_errors(logits, labels) * kept).mean())
            ),
            "You used every label. Those that are not kept must not count.": (
                lambda logits, labels, kept: float(_errors(logits, labels).mean())
            ),
        },
        hints=(
            "The error of one picture is minus the log-probability of its pseudo-label. Average it over the kept ones.",
            "log_softmax(logits, axis=1)[np.arange(len(labels)), labels] holds the log-probabilities, (B,).",
            "Multiply the errors by kept, add up, and divide by max(kept.sum(), 1): never by 0.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="06.3",
        title="Fair to all classes",
        cases=[(_UNEVEN,), (_COLLAPSED,), (_SURE_AND_EQUAL,)],
        reference=lambda probs: float(-np.log(probs.mean(axis=0)).mean()),
        mistakes={
            "You took the logarithm before the mean over the pictures. That asks every *single* picture to be "
            "undecided. Average the pictures first.": lambda probs: float(-np.log(probs).mean()),
            "This is minus the entropy of the mean, as TURTLE has it. Here every class counts the same: leave out the "
            "factor in front of the logarithm, and take the mean.": (
                lambda probs: float((probs.mean(axis=0) * np.log(probs.mean(axis=0))).sum())
            ),
            "You added the classes up. Take the mean over them: -(1/C) times the sum.": (
                lambda probs: float(-np.log(probs.mean(axis=0)).sum())
            ),
        },
        hints=(
            "First ask how often each class is said in this batch, with all its doubts counted.",
            "probs.mean(axis=0) is that share, (C,). Each class pays minus the logarithm of its share.",
            "-np.log(share).mean(): the mean over the classes, not the sum.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="06.4",
        title="Only what it could not see",
        cases=[(_GUESS, _PICTURE, _HIDDEN), (_GUESS, _PICTURE, ~_HIDDEN)],
        reference=lambda guess, picture, hidden: float(np.abs(guess - picture)[:, hidden].mean()),
        mistakes={
            "You averaged over all pixels. What is in plain sight is no riddle: count the hidden ones only.": (
                lambda guess, picture, hidden: float(np.abs(guess - picture).mean())
            ),
            "This is three times too large: a hidden pixel has three colours. Divide by three times their number.": (
                lambda guess, picture, hidden: float(np.abs(guess - picture)[:, hidden].sum() / hidden.sum())
            ),
            "These are squared errors. The loss takes absolute ones.": (
                lambda guess, picture, hidden: float(((guess - picture) ** 2)[:, hidden].mean())
            ),
        },
        hints=(
            "The error of every pixel and colour first, (3, h, w); then choose; then average.",
            "A mask (h, w) chooses from the last two axes: errors[:, hidden] is (3, number of hidden pixels).",
            "np.abs(guess - picture)[:, hidden].mean()",
        ),
        difficulty=1,
        importance=4,
        minutes=5,
    ),
    Exercise(
        id="06.5",
        title="The same memory with another batch",
        cases=[(0.9, 256), (0.5, 512), (0.99, 4096), (0.9, 1024)],
        reference=lambda decay, batch_size: decay ** (batch_size / 1024),
        mistakes={
            "You scaled the decay itself. Smaller batches would then forget faster; they have to forget *less* at each "
            "step, because they take more steps.": lambda decay, batch_size: decay * batch_size / 1024,
            "You scaled what is forgotten, 1 - decay. That is nearly right for decays near 1 and small batches, but "
            "forgetting is repeated, and repeating is a power.": (
                lambda decay, batch_size: 1 - (1 - decay) * batch_size / 1024
            ),
            "Your exponent is turned round. Four batches of 256 make one of 1,024: each has a *fourth* as exponent.": (
                lambda decay, batch_size: decay ** (1024 / batch_size)
            ),
        },
        hints=(
            "How many steps with the small batch see as many pictures as one step with 1,024?",
            "After k steps with decay d, the share d**k of the old teacher is left. It should equal `decay` when "
            "k = 1024 / batch_size.",
            "Solve d ** (1024 / batch_size) = decay for d.",
        ),
        difficulty=2,
        importance=4,
        minutes=6,
    ),
)
