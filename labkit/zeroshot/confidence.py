"""How far the word of a cluster can be trusted: three quantities that need no label, and a confidence from them.

A margin over the other words says nothing where none of them fits. So each word also competes with some thousand nouns
for things that one can see, the background. Images and texts are centered first: the mean image is taken off every
image, the mean noun off every word and noun, and each is normalized again. With z_i these images, c_k = Σ_i τ_k(x_i)
z_i / Σ_i τ_k(x_i) the center of cluster k, w_v a word and b_j the nouns:

- share: the part of the cluster whose most similar word is v, Σ_i τ_k(x_i) [v = argmax_u z_i·w_u] / (1 + Σ_i τ_k(x_i));
  the 1 keeps clusters of few images modest.
- rank: log((1 + number of nouns with b_j·c_k > w_v·c_k) / (1 + number of nouns), 0 or less.
- gap: w_v·c_k − max_j b_j·c_k.

The confidence that v is the word of the class that most images of k belong to is a logistic function of these (Platt,
Probabilistic Outputs for Support Vector Machines, 1999), with constants for all models, datasets and numbers of words.
`tests/benchmarks/bench_names.py` fitted them on six developer sets: with each of these left out in turn, names of a
confidence of at least 0.8 were right in 69 to 98 of 100 cases, and the expected calibration error was 0.03 to 0.13.
It does not hold everywhere. On Caltech-101 in CLIP ViT-B/32, on which nothing was fitted, and where the vocabulary
lacked the word of most clusters, names of at least 0.8 were right in 77 of 100 cases, but those from 0.5 to 0.8 in 23
only (calibration error 0.25): words of things that are akin to the class count as wrong there, and are often given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from labkit._inputs import finite_matrix
from labkit._scales import moderate_rows, unit_rows
from labkit.errors import DataError
from labkit.zeroshot.naming import FLOOR, read_probabilities

INTERCEPT, SHARE, RANK, GAP = -3.3, 3.49, -0.44, 6.22
LEAST = 0.5  # confidence of a name that is shown: it is right more often than not
TIE = 1e-6  # cosines that differ by less are equal: the word may be one of the nouns
N_SUGGESTIONS = 3
HEAD_START = 1.0  # of everyday nouns among suggestions; 0.75 to 1.5 were as good on the developer sets


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for each of V words as the name of each of K clusters.

    Attributes:
        share: the part of the cluster that the word is the best word of, (K, V), from 0 to below 1.
        rank: logarithm of the part of the nouns that fit the cluster better, (K, V); 0 or less.
        gap: how much the word fits better than the best noun, as a difference of cosines, (K, V).
        nouns: how well each noun fits each cluster, more than it fits all images together, (K, M).
        mass: the images of each cluster, (K,): the sum of its probabilities.
    """

    share: np.ndarray
    rank: np.ndarray
    gap: np.ndarray
    nouns: np.ndarray
    mass: np.ndarray

    def confidence(self) -> np.ndarray:
        """That a word is the right name of a cluster, (K, V); NaN for clusters without images."""
        given = expit(INTERCEPT + SHARE * self.share + RANK * self.rank + GAP * self.gap)
        given[self.mass < 0.5] = np.nan
        return given

    def suggestions(self, n_common: int = 0) -> np.ndarray:
        """The nouns that fit each cluster best, best first: their numbers, (K, at most 3).

        The first `n_common` of the nouns are everyday words. They have a head start of one standard deviation over the
        nouns, for a weak model finds too many rare words that seem to fit.
        """
        score = self.nouns.copy()
        score[:, :n_common] += HEAD_START * score.std(1, keepdims=True)
        return np.argsort(-score, axis=1, kind="stable")[:, :N_SUGGESTIONS]


def name_evidence(labeling_probs: ArrayLike, features: ArrayLike, words: ArrayLike, nouns: ArrayLike) -> Evidence:
    """What speaks for each word as the name of each cluster; see the module for the equations.

    Args:
        labeling_probs: τ, the probability of each cluster for each image, (n, K).
        features: of the same images, from an image-text model, (n, d).
        words: weights of the vocabulary in the same space, (V, d), such as `text_classifier` gives; V may be less than
            K, and 0.
        nouns: weights of the background, (M, d), made with the same templates.

    Raises:
        DataError: the arrays are no probabilities, not of the same images or spaces, or not finite.
    """
    labeling = read_probabilities("labeling_probs", labeling_probs)
    expected = "Expected finite numbers, a row for each image, word or noun, from one image-text model."
    images, background = (
        moderate_rows(finite_matrix(name, given, expected, DataError)).astype(np.float64)
        for name, given in (("features", features), ("nouns", nouns))
    )
    if np.shape(words)[:1] == (0,):
        vocabulary = np.zeros((0, images.shape[1]))
    else:
        vocabulary = moderate_rows(finite_matrix("words", words, expected, DataError)).astype(np.float64)
    if len(images) != len(labeling) or not images.shape[1] == vocabulary.shape[1] == background.shape[1]:
        raise DataError(
            f"labeling_probs has shape {labeling.shape}, features {images.shape}, words {vocabulary.shape} and nouns "
            f"{background.shape}. Expected (n, K), (n, d), (V, d) and (M, d): the same images, and one model."
        )
    images, vocabulary, background = map(unit_rows, (images, vocabulary, background))
    images = unit_rows(images - images.mean(0))  # z
    middle = background.mean(0)
    vocabulary, background = unit_rows(vocabulary - middle), unit_rows(background - middle)

    mass = labeling.sum(0)  # (K,)
    center = labeling.T @ images / np.maximum(mass, FLOOR)[:, None]  # (K, d)
    fit, of_nouns = center @ vocabulary.T, center @ background.T  # (K, V), (K, M)
    share = np.zeros_like(fit)
    if len(vocabulary):
        best = (images @ vocabulary.T).argmax(1)  # (n,)
        share = np.stack([np.bincount(best, of_cluster, len(vocabulary)) for of_cluster in labeling.T])
        share /= (1 + mass)[:, None]
    ordered = np.sort(of_nouns, axis=1)
    better = np.stack(
        [len(row) - np.searchsorted(row, own + TIE, "right") for row, own in zip(ordered, fit, strict=True)]
    )
    rank = np.log((1 + better) / (1 + len(background)))
    return Evidence(share, rank, fit - ordered[:, -1:], of_nouns, mass)
