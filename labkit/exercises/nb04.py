"""Exercises of notebook 04, TURTLE from scratch."""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax

from labkit.exercises import Exercise

_LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])  # (n, C)
_LABELING = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]])  # (n, C)
_CONFIDENT = np.eye(3)[[0, 1, 2, 0, 1, 2]]  # every image sure of its cluster, all clusters the same size
_COLLAPSED = np.tile([1.0, 0.0, 0.0], (5, 1))  # every image sure of the same cluster


def _reach(features: np.ndarray, n_steps: int, lr: float) -> np.ndarray:
    return n_steps * lr * (np.abs(features).sum(axis=1) + 1)


def _choose(confidence: np.ndarray, n_found: np.ndarray) -> int:
    return int(np.where(n_found == n_found.max(), confidence, -1).argmax())


EXERCISES = (
    Exercise(
        id="04.1",
        title="The gradient of the inner loss",
        cases=[(_LOGITS, _LABELING), (_LOGITS[:2, :2], np.array([[1.0, 0.0], [0.5, 0.5]]))],
        reference=lambda logits, labeling: (softmax(logits, axis=1) - labeling) / len(logits),
        mistakes={
            "The sign is turned round: where a class gets too much probability, its logit has to come down, so the "
            "gradient there is positive.": lambda logits, labeling: (labeling - softmax(logits, axis=1)) / len(logits),
            "The loss is a mean over n images, so each image counts 1/n: divide by len(logits).": (
                lambda logits, labeling: softmax(logits, axis=1) - labeling
            ),
            "The classes of one image stand in a row: take the softmax along axis 1.": (
                lambda logits, labeling: (softmax(logits, axis=0) - labeling) / len(logits)
            ),
        },
        hints=(
            "Take one image. If the classifier already says what the labeling says, the gradient is zero.",
            "It is the difference of two (n, C) arrays of probabilities, times a number.",
            "What the classifier says is softmax(logits, axis=1); what it should say is the labeling; a mean over n "
            "images brings 1/n.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="04.2",
        title="The entropy that TURTLE rewards",
        cases=[(_CONFIDENT,), (_COLLAPSED,), (_LABELING,)],
        reference=lambda labeling: entr(labeling.mean(axis=0)).sum(),
        mistakes={
            "This is the mean of the entropies. It rewards images that cannot decide. TURTLE wants the entropy of the "
            "mean: sure images, equal clusters.": lambda labeling: entr(labeling).sum(axis=1).mean(),
            "The sign is turned round: entropy is minus the sum of p log p, and never negative.": (
                lambda labeling: -entr(labeling.mean(axis=0)).sum()
            ),
            "That is the entropy in bits. Use the natural logarithm, as the cross-entropy does.": (
                lambda labeling: entr(labeling.mean(axis=0)).sum() / np.log(2)
            ),
        },
        hints=(
            "First ask how large each cluster is, then how evenly the sizes are spread.",
            "labeling.mean(axis=0) holds the share of each cluster, (C,).",
            "Entropy is minus the sum of p log p, and an empty cluster adds 0: sum what scipy.special.entr gives.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="04.3",
        title="How far can a cold classifier get?",
        cases=[
            (np.array([[1.0, -2.0, 3.0], [0.0, 0.5, 0.0]]), 10, 1e-3),
            (np.array([[10.0, -20.0, 30.0], [0.0, 5.0, 0.0]]), 10, 1e-3),
            (np.array([[1.0, -1.0]]), 5, 2e-3),
        ],
        reference=_reach,
        mistakes={
            "You forgot the bias. It moves as far as any weight, and its input is 1.": (
                lambda features, n_steps, lr: n_steps * lr * np.abs(features).sum(axis=1)
            ),
            "That is the length of the vector. Adam moves every weight by lr, so the absolute values of the features "
            "add up.": lambda features, n_steps, lr: n_steps * lr * (np.sqrt((features**2).sum(axis=1)) + 1),
            "Negative features help too: their weight moves down. Take absolute values before you add.": (
                lambda features, n_steps, lr: n_steps * lr * (features.sum(axis=1) + 1)
            ),
        },
        hints=(
            "The logit is the sum of weight times feature, plus the bias. How far is each weight after n_steps?",
            "Each weight is at most n_steps · lr away from zero, in whichever direction helps.",
            "The best direction for feature x_j is its sign, and then it adds n_steps · lr · |x_j|; the bias adds "
            "n_steps · lr.",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="04.4",
        title="Choose a restart without labels",
        cases=[
            (np.array([0.86, 0.88, 0.81, 0.99]), np.array([10, 10, 10, 1])),
            (np.array([0.70, 0.95, 0.72]), np.array([8, 5, 8])),
            (np.array([0.5, 0.6]), np.array([3, 3])),
        ],
        reference=_choose,
        mistakes={
            "The most confident of all may have collapsed. Look at n_found first.": (
                lambda confidence, n_found: int(confidence.argmax())
            ),
            "You took the first that finds the most clusters. Among those, take the most confident.": (
                lambda confidence, n_found: int(n_found.argmax())
            ),
            "You took the least confident of those with the most clusters. Take the most confident.": (
                lambda confidence, n_found: int(np.where(n_found == n_found.max(), confidence, 2).argmin())
            ),
        },
        hints=(
            "Two steps: which restarts may be chosen at all, and which of them is best?",
            "n_found == n_found.max() marks those that may be chosen.",
            "np.where(mark, confidence, -1) leaves the others no chance; then argmax.",
        ),
        difficulty=2,
        importance=4,
        minutes=6,
    ),
)
