"""Exercises of notebook 01, zero-shot CLIP."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from labkit.course.exercises import Exercise

# Rows of very different lengths: the longest wins every plain dot product.
_PICTURES = np.array([[1.0, 0.2, 0.0], [0.0, 6.0, 1.0], [0.3, 0.1, 0.9], [2.0, 2.0, -1.0]])  # (n, d)
_TEXTS = np.array([[0.9, 0.1, 0.1], [5.0, 9.0, 4.0], [0.0, 0.2, 0.5]])  # (m, d)

_COSINES = np.array([[0.31, 0.24, 0.22], [0.18, 0.2, 0.29], [0.27, 0.26, 0.25], [-0.05, 0.1, 0.02]])  # (n, C)

_SENTENCES = np.array(
    [[[1.0, 0.0, 0.2], [4.0, 4.0, 0.0]], [[0.0, 0.5, 0.1], [0.0, -1.0, 6.0]], [[2.0, 1.0, 1.0], [0.1, 0.0, 0.4]]]
)  # (C, T, d)

# In the first case the surest are wrong and the least sure right, so that both errors cancel in the whole.
_SURE_A = np.array([0.95, 1.0, 0.91, 0.55, 0.52, 0.57, 0.33, 0.36, 0.38, 0.31])
_RIGHT_A = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=bool)
_SURE_B = np.array([0.99, 0.97, 0.61, 0.64, 0.72, 0.78, 0.45, 0.44])
_RIGHT_B = np.array([1, 1, 1, 0, 1, 1, 0, 0], dtype=bool)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _bins(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pictures each bin holds, and how far their mean confidence is from the share that is right."""
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    return counts, np.abs(np.bincount(bins, confidence - right, n_bins)) / np.maximum(counts, 1)


def _calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> float:
    counts, gaps = _bins(confidence, right, n_bins)
    return float((counts * gaps).sum() / counts.sum())


def _without_the_surest(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> float:
    below = confidence < 1
    counts, gaps = _bins(confidence[below], right[below], n_bins)
    return float((counts * gaps).sum() / len(confidence))


def _bins_count_the_same(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> float:
    counts, gaps = _bins(confidence, right, n_bins)
    return float(gaps[counts > 0].mean())


EXERCISES = (
    Exercise(
        id="01.1",
        title="Alike, whatever the length",
        cases=[(_PICTURES, _TEXTS), (_TEXTS, _PICTURES[:2])],
        reference=lambda pictures, texts: _unit(pictures) @ _unit(texts).T,
        mistakes={
            "These are plain dot products: long rows win. Divide every row by its length first.": (
                lambda pictures, texts: pictures @ texts.T
            ),
            "This is the other way round: expected a row for each picture and a column for each sentence.": (
                lambda pictures, texts: _unit(texts) @ _unit(pictures).T
            ),
            "np.linalg.norm without an axis is one number for the whole matrix. Every row has a length of its own.": (
                lambda pictures, texts: (pictures / np.linalg.norm(pictures)) @ (texts / np.linalg.norm(texts)).T
            ),
            "You brought the pictures to length 1, but not the sentences.": (
                lambda pictures, texts: _unit(pictures) @ texts.T
            ),
            "You scaled the columns. A row is one picture or sentence: take norms along axis 1, with keepdims=True.": (
                lambda pictures, texts: _unit(pictures.T).T @ _unit(texts.T)
            ),
        },
        hints=(
            "Two steps: bring every row to length 1, then take the dot product of every picture with every sentence.",
            "np.linalg.norm(pictures, axis=1, keepdims=True) holds the length of every row, (n, 1).",
            "All dot products at once are one matrix product: (n, d) @ (d, m). The second factor is texts.T.",
        ),
        difficulty=1,
        importance=5,
        minutes=5,
    ),
    Exercise(
        id="01.2",
        title="From cosines to probabilities",
        cases=[(_COSINES, 100.0), (_COSINES, 14.0)],
        reference=lambda cosines, scale: softmax(scale * cosines, axis=1),
        mistakes={
            "You left out the scale. Cosines are all alike, so every class gets nearly the same probability.": (
                lambda cosines, scale: softmax(cosines, axis=1)
            ),
            "Without an axis, softmax makes *all* numbers of the matrix add up to 1. Every row should: axis=1.": (
                lambda cosines, scale: softmax(scale * cosines)
            ),
            "You divided by the scale. It is the *inverse* of a temperature: multiply.": (
                lambda cosines, scale: softmax(cosines / scale, axis=1)
            ),
            "Your columns add up to 1. The classes compete for one picture: softmax along each row, axis 1.": (
                lambda cosines, scale: softmax(scale * cosines, axis=0)
            ),
        },
        hints=(
            "Softmax turns any numbers into probabilities: exponentials, divided by their sum.",
            "scipy.special.softmax does it along the axis that you name. What competes, pictures or classes?",
            "Multiply the cosines by the scale first: softmax(scale * ..., axis=1).",
        ),
        difficulty=1,
        importance=4,
        minutes=5,
    ),
    Exercise(
        id="01.3",
        title="One direction from many sentences",
        cases=[(_SENTENCES,), (_SENTENCES[:2],)],
        reference=lambda embeddings: _unit(_unit(embeddings).mean(axis=1)),
        mistakes={
            "Long embeddings count more in your mean. Bring every sentence to length 1 before you average.": (
                lambda embeddings: _unit(embeddings.mean(axis=1))
            ),
            "A mean of unit vectors is shorter than 1, and shorter where the sentences disagree. Normalise it again.": (
                lambda embeddings: _unit(embeddings).mean(axis=1)
            ),
            "You averaged the classes away. The sentences lie along axis 1.": (
                lambda embeddings: _unit(_unit(embeddings).mean(axis=0))
            ),
        },
        hints=(
            "Normalise, average, normalise.",
            "axis=-1 with keepdims=True gives the lengths of the sentences in an array (C, T, d) as well.",
            "The average is over axis 1, and leaves (C, d). Divide its rows by their lengths.",
        ),
        difficulty=2,
        importance=4,
        minutes=6,
    ),
    Exercise(
        id="01.4",
        title="How far is sure from right?",
        cases=[(_SURE_A, _RIGHT_A, 10), (_SURE_B, _RIGHT_B, 5)],
        reference=_calibration_error,
        mistakes={
            "You compared means of all pictures. Too sure here and too unsure there cancel: compare bin by bin.": (
                lambda confidence, right, n_bins: abs(right.mean() - confidence.mean())
            ),
            "The mean of an empty bin is not a number. Leave bins out that hold no picture.": (
                lambda confidence, right, n_bins: float("nan")
            ),
            "A confidence of exactly 1 fell out of your last bin. It belongs in it.": _without_the_surest,
            "This is in percent. Expected a number from 0 to 1.": (
                lambda confidence, right, n_bins: 100 * _calibration_error(confidence, right, n_bins)
            ),
            "Every bin counts the same in your mean. Weight it by the share of the pictures that it holds.": (
                _bins_count_the_same
            ),
            "You compared each picture's confidence with 0 or 1. One picture is right or wrong; only many can be right "
            "in 80 % of the cases. Average within the bins first.": (
                lambda confidence, right, n_bins: np.abs(right - confidence).mean()
            ),
        },
        hints=(
            "For each bin: the mean confidence, the share that is right, and the distance of the two.",
            "The bin of every picture is (confidence * n_bins).astype(int); a confidence of exactly 1 is in the last.",
            "Add up inside.mean() * abs(right[inside].mean() - confidence[inside].mean()) over the bins that hold any.",
        ),
        difficulty=3,
        importance=3,
        minutes=8,
    ),
)
