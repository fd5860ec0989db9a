"""Label-free stopping for exercise 07.4: the rule, likely mistakes, and recorded pseudo-labels to try them on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def agreement(now: np.ndarray, before: np.ndarray) -> float:
    """The fraction of images with a pseudo-label in both epochs for which it is the same."""
    both = (now >= 0) & (before >= 0)
    return float(np.mean(now[both] == before[both]))


def stop_with(
    pseudo_labels: np.ndarray,
    entropy: list[float],
    information: list[float],
    fall: float,
    stable: float,
    *,
    agreement: Callable[[np.ndarray, np.ndarray], float] = agreement,
    against_the_one_before: bool = False,
) -> tuple[list[int], int]:
    """The safe epochs of the run, from 0 on, and how many epochs were run."""
    safe: list[int] = []
    for t in range(len(entropy)):
        if entropy[max(t - 1, 0) if against_the_one_before else 0] - entropy[t] > fall:
            return safe, t + 1
        safe.append(t)
        if t and agreement(pseudo_labels[t], pseudo_labels[t - 1]) >= stable:
            return safe, t + 1
    return safe, len(entropy)


def keep_epoch(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    """The epoch to keep and the epochs run, both from 1 on."""
    safe, run = stop_with(pseudo_labels, entropy, information, fall, stable)
    return max(safe, key=lambda t: information[t]) + 1, run


def without_guard(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    _, run = stop_with(pseudo_labels, entropy, information, fall, stable)
    return int(np.argmax(information[:run])) + 1, run


def look_ahead(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    _, run = stop_with(pseudo_labels, entropy, information, fall, stable)
    safe = [t for t in range(len(entropy)) if entropy[0] - entropy[t] <= fall]
    return max(safe, key=lambda t: information[t]) + 1, run


def last_safe(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    safe, run = stop_with(pseudo_labels, entropy, information, fall, stable)
    return safe[-1] + 1, run


def from_zero(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    kept, run = keep_epoch(pseudo_labels, entropy, information, fall, stable)
    return kept - 1, run


def step_by_step(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    safe, run = stop_with(pseudo_labels, entropy, information, fall, stable, against_the_one_before=True)
    return max(safe, key=lambda t: information[t]) + 1, run


def unknown_as_class(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    def agreement(now: np.ndarray, before: np.ndarray) -> float:
        return float(np.mean(now == before))

    safe, run = stop_with(pseudo_labels, entropy, information, fall, stable, agreement=agreement)
    return max(safe, key=lambda t: information[t]) + 1, run


def never_settled(
    pseudo_labels: np.ndarray, entropy: list[float], information: list[float], fall: float, stable: float
) -> tuple[int, int]:
    safe, run = stop_with(pseudo_labels, entropy, information, fall, stable=2.0)  # an agreement that there is not
    return max(safe, key=lambda t: information[t]) + 1, run


SETTLING = np.array([[0, 1, 2, 0, 1], [0, 1, 2, 2, -1], [0, 1, 2, 2, 1], [0, 1, 2, 2, 1], [0, 1, 2, 2, 0]])
MOVING = np.array([[0, 1, 2, 0], [1, 1, 2, 0], [1, 2, 2, 0], [1, 2, 0, 0], [1, 2, 0, 1]])
HISTORIES = [
    (SETTLING, [1.09, 1.08, 1.09, 1.09, 1.09], [0.5, 0.8, 0.7, 0.9, 1.0], 0.1, 1.0),  # settled after three epochs
    (MOVING, [1.09, 1.06, 0.80, 1.05, 1.08], [0.5, 0.6, 0.9, 0.8, 1.0], 0.1, 1.0),  # classes lost in the third
    (MOVING, [1.09, 1.03, 0.97, 0.91, 0.85], [0.5, 0.6, 0.7, 0.8, 0.9], 0.1, 1.0),  # lost little by little
    (MOVING, [1.00, 1.02, 1.04, 1.06, 1.08], [0.5, 0.9, 0.6, 0.9, 0.8], 0.1, 1.0),  # a healthy run, a tie
    (MOVING, [1.00, 1.02, 1.04, 1.06, 1.08], [0.9, 0.5, 0.6, 0.7, 0.8], 0.1, 0.75),  # stable enough after two
]
