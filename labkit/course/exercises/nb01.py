"""Exercises of notebook 01, zero-shot CLIP."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, softmax

from labkit.course.exercises import Exercise

# Rows of very different norms: the longest wins every plain dot product.
_IMAGES = np.array([[1.0, 0.2, 0.0], [0.0, 6.0, 1.0], [0.3, 0.1, 0.9], [2.0, 2.0, -1.0]])  # (n, d)
_TEXTS = np.array([[0.9, 0.1, 0.1], [5.0, 9.0, 4.0], [0.0, 0.2, 0.5]])  # (m, d)

# Pairs of an image and its text; some texts are nearer to another image than to their own.
_PAIR_IMAGES = np.array([[1.0, 0.1, 0.2], [0.2, 4.0, 0.4], [0.1, 0.3, 0.7], [2.0, 1.0, -1.0]])  # (B, d)
_PAIR_TEXTS = np.array([[3.0, 0.5, 0.3], [0.5, 0.6, 0.7], [0.1, -0.2, 2.0], [1.0, 0.9, 0.3]])  # (B, d)

_SENTENCES = np.array(
    [[[1.0, 0.0, 0.2], [4.0, 4.0, 0.0]], [[0.0, 0.5, 0.1], [0.0, -1.0, 6.0]], [[2.0, 1.0, 1.0], [0.1, 0.0, 0.4]]]
)  # (C, T, d)

# In the first case the most confident are wrong and the least confident right, so that both errors cancel in the mean.
_CONFIDENCE_A = np.array([0.95, 1.0, 0.91, 0.55, 0.52, 0.57, 0.33, 0.36, 0.38, 0.31])
_CORRECT_A = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=bool)
_CONFIDENCE_B = np.array([0.99, 0.97, 0.61, 0.64, 0.72, 0.78, 0.45, 0.44])
_CORRECT_B = np.array([1, 1, 1, 0, 1, 1, 0, 0], dtype=bool)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    return _unit(images) @ _unit(texts).T


def _norm_of_all(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows)


def _both_directions(logits: np.ndarray) -> np.ndarray:
    """Log-probability of each pair, image to text plus text to image, (B,)."""
    return np.diag(log_softmax(logits, axis=1)) + np.diag(log_softmax(logits, axis=0))


def _info_nce(images: np.ndarray, texts: np.ndarray, temperature: float) -> float:
    logits = _cosines(images, texts).astype(np.float64) / temperature
    return float(-_both_directions(logits).mean() / 2)


def _log_of_softmax(images: np.ndarray, texts: np.ndarray, temperature: float) -> float:
    logits = _cosines(images, texts) / temperature
    with np.errstate(divide="ignore"):
        pairs = [np.diag(np.log(softmax(logits, axis=axis))).mean() for axis in (1, 0)]
    return float(-np.mean(pairs))


def _bins(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """How many images each bin ((m−1)/M, m/M] holds, and how far its mean confidence is from its accuracy."""
    bins = np.ceil(confidence * n_bins).astype(int) - 1
    counts = np.bincount(bins, minlength=n_bins)
    return counts, np.abs(np.bincount(bins, confidence - correct, n_bins)) / np.maximum(counts, 1)


def _calibration_error(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> float:
    counts, gaps = _bins(confidence, correct, n_bins)
    return float((counts * gaps).sum() / counts.sum())


def _without_confidence_one(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> float:
    below = confidence < 1
    counts, gaps = _bins(confidence[below], correct[below], n_bins)
    return float((counts * gaps).sum() / len(confidence))


def _unweighted_bins(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> float:
    counts, gaps = _bins(confidence, correct, n_bins)
    return float(gaps[counts > 0].mean())


EXERCISES = (
    Exercise(
        id="01.1",
        title="From features to probabilities",
        cases=[(_IMAGES, _TEXTS, 14.0), (_TEXTS, _IMAGES[:2], 3.0)],
        reference=lambda images, texts, scale: softmax(scale * _cosines(images, texts), axis=1),
        mistakes={
            "These are plain dot products: features with a large norm win. L2-normalize the images and the texts.": (
                lambda images, texts, scale: softmax(scale * images @ texts.T, axis=1)
            ),
            "You L2-normalized the images, but not the texts.": (
                lambda images, texts, scale: softmax(scale * _unit(images) @ texts.T, axis=1)
            ),
            "np.linalg.norm without an axis gives one number for the whole matrix. Every row needs its own norm.": (
                lambda images, texts, scale: softmax(scale * _norm_of_all(images) @ _norm_of_all(texts).T, axis=1)
            ),
            "You normalized the columns. A row is one image or text: axis=1, with keepdims=True.": (
                lambda images, texts, scale: softmax(scale * _unit(images.T).T @ _unit(texts.T), axis=1)
            ),
            "You left out the logit scale. Cosines differ little, so every text gets nearly the same probability.": (
                lambda images, texts, scale: softmax(_cosines(images, texts), axis=1)
            ),
            "You divided by the logit scale. It is the *inverse* of the temperature: multiply.": (
                lambda images, texts, scale: softmax(_cosines(images, texts) / scale, axis=1)
            ),
            "Without an axis, softmax makes *all* entries of the matrix sum to 1. Every row should sum to 1: axis=1.": (
                lambda images, texts, scale: softmax(scale * _cosines(images, texts))
            ),
            "Your columns sum to 1. The texts compete for one image: softmax along each row, axis=1.": (
                lambda images, texts, scale: softmax(scale * _cosines(images, texts), axis=0)
            ),
            "These are the scaled cosines. One step is missing: the softmax over the texts.": (
                lambda images, texts, scale: scale * _cosines(images, texts)
            ),
        },
        hints=(
            "Three steps: L2-normalize every row, one matrix product, softmax over the texts.",
            "np.linalg.norm(images, axis=1, keepdims=True) holds the norm of every row, (n, 1). All dot products at "
            "once are one matrix product: (n, d) @ (d, m).",
            "softmax(scale * images @ texts.T, axis=1), with normalized images and texts.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="01.2",
        title="The symmetric InfoNCE loss",
        cases=[
            (_PAIR_IMAGES, _PAIR_TEXTS, 0.07),
            (_PAIR_IMAGES[:3], _PAIR_TEXTS[:3], 0.5),
            (_PAIR_IMAGES, _PAIR_TEXTS, 1e-4),
        ],
        reference=_info_nce,
        mistakes={
            "This is one direction only: which text belongs to each image. Add the softmax along each column.": (
                lambda images, texts, temperature: (
                    -np.diag(log_softmax(_cosines(images, texts) / temperature, axis=1)).mean()
                )
            ),
            "This is one direction only: which image belongs to each text. Add the softmax along each row.": (
                lambda images, texts, temperature: (
                    -np.diag(log_softmax(_cosines(images, texts) / temperature, axis=0)).mean()
                )
            ),
            "You multiplied by the temperature. Divide by it: multiplying is for the logit scale, its inverse.": (
                lambda images, texts, temperature: _info_nce(images, texts, 1 / temperature)
            ),
            "The features are not L2-normalized: these are dot products, not cosines.": (
                lambda images, texts, temperature: -_both_directions(images @ texts.T / temperature).mean() / 2
            ),
            "This is the sum over the pairs. Take the mean, or the loss grows with the batch size.": (
                lambda images, texts, temperature: len(images) * _info_nce(images, texts, temperature)
            ),
            "You added the two directions. Average them: the factor is 1/(2B).": (
                lambda images, texts, temperature: 2 * _info_nce(images, texts, temperature)
            ),
            "The sign is wrong: a loss is a *negative* log-probability.": (
                lambda images, texts, temperature: -_info_nce(images, texts, temperature)
            ),
            "You averaged over all entries of the matrix. Only the diagonal holds matching pairs: np.diag.": (
                lambda images, texts, temperature: (
                    -np.mean([log_softmax(_cosines(images, texts) / temperature, axis=axis) for axis in (1, 0)])
                )
            ),
            "At a low temperature a probability underflows to 0 and its logarithm is infinite. Use log_softmax.": (
                _log_of_softmax
            ),
        },
        hints=(
            "Cosines over the temperature are the logits, (B, B). Row i is a classification problem whose right answer "
            "is column i; so is column i, whose right answer is row i.",
            "np.diag(log_softmax(logits, axis=1)) holds log p(text i | image i), (B,).",
            "The same with axis=0 gives the other direction. The loss is minus the average of the two means.",
        ),
        difficulty=3,
        importance=5,
        minutes=10,
    ),
    Exercise(
        id="01.3",
        title="A class weight from many prompts",
        cases=[(_SENTENCES,), (_SENTENCES[:2],)],
        reference=lambda embeddings: _unit(_unit(embeddings).mean(axis=1)),
        mistakes={
            "Long embeddings count more in your mean. L2-normalize every prompt before you average.": (
                lambda embeddings: _unit(embeddings.mean(axis=1))
            ),
            "A mean of unit vectors is shorter than 1, and shorter where the prompts disagree. Normalize it again.": (
                lambda embeddings: _unit(embeddings).mean(axis=1)
            ),
            "You averaged over the classes. The prompts lie along axis 1.": (
                lambda embeddings: _unit(_unit(embeddings).mean(axis=0))
            ),
        },
        hints=(
            "Normalize, average, normalize.",
            "axis=-1 with keepdims=True gives the norms of the prompts in an array (C, T, d) as well.",
            "Average over axis 1, which leaves (C, d). Divide the rows by their norms.",
        ),
        difficulty=2,
        importance=4,
        minutes=6,
    ),
    Exercise(
        id="01.4",
        title="Expected calibration error",
        cases=[(_CONFIDENCE_A, _CORRECT_A, 10), (_CONFIDENCE_B, _CORRECT_B, 5)],
        reference=_calibration_error,
        mistakes={
            "You compared means over all images. Over- and underconfident bins cancel: compare bin by bin.": (
                lambda confidence, correct, n_bins: abs(correct.mean() - confidence.mean())
            ),
            "The mean of an empty bin is nan. Leave out bins that hold no image.": (
                lambda confidence, correct, n_bins: float("nan")
            ),
            "A confidence of exactly 1 fell out of your last bin. It belongs in it.": _without_confidence_one,
            "This is in percent. Expected a number from 0 to 1.": (
                lambda confidence, correct, n_bins: 100 * _calibration_error(confidence, correct, n_bins)
            ),
            "Every bin counts the same in your mean. Weight it by the fraction of the images that it holds.": (
                _unweighted_bins
            ),
            "You compared each image's confidence with 0 or 1. A single prediction is right or wrong; only many "
            "together can be right in 80 % of the cases. Average within the bins first.": (
                lambda confidence, correct, n_bins: np.abs(correct - confidence).mean()
            ),
        },
        hints=(
            "For each bin: the mean confidence, the accuracy, and the absolute difference of the two.",
            "np.ceil(confidence * n_bins) numbers the bins from 1 to n_bins; np.unique lists those that hold images.",
            "Sum inside.mean() * abs(correct[inside].mean() - confidence[inside].mean()) over these bins.",
        ),
        difficulty=3,
        importance=3,
        minutes=8,
    ),
)
