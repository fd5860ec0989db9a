"""Exercises of notebook 00, start here."""

from __future__ import annotations

import numpy as np

from labkit.exercises import Exercise

_PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]])  # (n, C)

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
)
