"""Exercises of notebook 04, TURTLE from scratch."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from labkit.course.exercises import Exercise

_LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])  # (n, C)
_LABELING = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]])  # (n, C)


def _encoder_grad(labeling: np.ndarray, price: np.ndarray) -> np.ndarray:
    return labeling * (price - (labeling * price).sum(axis=1, keepdims=True)) / len(labeling)


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
            "The loss is a mean over n pictures, so each picture counts 1/n: divide by len(logits).": (
                lambda logits, labeling: softmax(logits, axis=1) - labeling
            ),
            "The classes of one picture stand in a row: take the softmax along axis 1.": (
                lambda logits, labeling: (softmax(logits, axis=0) - labeling) / len(logits)
            ),
        },
        hints=(
            "Take one picture. If the classifier already says what the labeling says, the gradient is zero.",
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
        title="The gradient for the task encoder",
        cases=[(_LABELING, -np.log(softmax(_LOGITS, axis=1))), (np.full((1, 3), 1 / 3), -np.log([[0.6, 0.3, 0.1]]))],
        reference=_encoder_grad,
        mistakes={
            "That is the gradient for the labeling, not for the logits. Between them lies the softmax.": (
                lambda labeling, price: price / len(labeling)
            ),
            "The probabilities of a picture share one sum: more for one cluster is less for the others. "
            "Subtract the average price that the picture pays now.": (
                lambda labeling, price: labeling * price / len(labeling)
            ),
            "You subtract the plain mean of the prices. A picture pays each price with the probability that it gives "
            "to the cluster: weight them by the labeling.": (
                lambda labeling, price: labeling * (price - price.mean(axis=1, keepdims=True)) / len(labeling)
            ),
            "The sign is turned round: this is the direction in which the logits go, the gradient is its opposite.": (
                lambda labeling, price: -_encoder_grad(labeling, price)
            ),
            "The loss is a mean over n pictures, so each picture counts 1/n: divide by len(labeling).": (
                lambda labeling, price: _encoder_grad(labeling, price) * len(labeling)
            ),
        },
        hints=(
            "If all prices of a picture are the same, it does not matter where its probability lies: gradient zero.",
            "The softmax has ∂τ_c / ∂a_j = τ_c (1 if c = j else 0) − τ_c τ_j. Multiply by price_c and sum over c.",
            "It is τ times (price − average), where a picture's average is the sum of τ · price over its clusters; "
            "and the mean over pictures brings 1/n.",
        ),
        difficulty=3,
        importance=5,
        minutes=10,
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
            "Two things are missing: every weight moves by lr, so absolute values add up, and the bias moves too.": (
                lambda features, n_steps, lr: n_steps * lr * np.sqrt((features**2).sum(axis=1))
            ),
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
            (np.array([0.5, 0.9]), np.array([10, 9])),
        ],
        reference=_choose,
        mistakes={
            "The most confident of all may have collapsed. Look at n_found first.": (
                lambda confidence, n_found: int(confidence.argmax())
            ),
            "You took the first that finds the most clusters. Among those, take the most confident.": (
                lambda confidence, n_found: int(n_found.argmax())
            ),
            "A product lets confidence make up for a lost cluster. The number of clusters comes first, at any price.": (
                lambda confidence, n_found: int((confidence * n_found).argmax())
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
