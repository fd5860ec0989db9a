"""Words for found clusters, from an image-text model: which word do the images of a cluster speak for together?

A labeling finds the groups but not their names; zero-shot classification knows names but errs on single images. The
score of word v for cluster k is the mean zero-shot log-probability of v over the images of the cluster, weighted by
the labeling τ: Σ_i τ_k(x_i) log p(v | x_i) / Σ_i τ_k(x_i). The words are then given out one to one so that the sum of
the scores is largest (Kuhn, 1955: the Hungarian method). No label is used: what results is a classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from labkit._inputs import LARGEST_COUNT, is_whole, real_array
from labkit.errors import DataError, quote

if TYPE_CHECKING:
    from labkit.spaces.backbones import Backbone
    from labkit.zeroshot.prompts import Prompts

FLOOR = float(np.finfo(np.float32).tiny)  # of a probability: a softmax in float32 can be exactly 0


@dataclass(frozen=True, eq=False)
class Names:
    """Words for K clusters out of a vocabulary of V.

    Attributes:
        assignment: the word of each cluster, as its number in the vocabulary, (K,) int64; all different.
        scores: mean log-probability of each word over the images of each cluster, (K, V).
        margins: how much the word of a cluster scores above the best other word, (K,); negative where its best word
            went to a cluster that it fits better.
        evidence: the images that speak most for each name: those of largest τ · p, best first, (K, m) int64.
    """

    assignment: np.ndarray
    scores: np.ndarray
    margins: np.ndarray
    evidence: np.ndarray

    def predict(self, labeling_probs: ArrayLike) -> np.ndarray:
        """The word of each image's cluster, (n,) int64, for the labeling's probabilities (n, K) of any images.

        With the classes of a dataset as the vocabulary these are class predictions ("turtle-named" in the results).
        """
        return self.assignment[self._read(labeling_probs).argmax(1)]

    def predict_proba(self, labeling_probs: ArrayLike) -> np.ndarray:
        """Probability of each word for each image, (n, V): that of the cluster it names, else 0."""
        given = self._read(labeling_probs)
        probs = np.zeros((len(given), self.scores.shape[1]))
        probs[:, self.assignment] = given
        return probs

    def _read(self, labeling_probs: ArrayLike) -> np.ndarray:
        probs = read_probabilities("labeling_probs", labeling_probs)
        if probs.shape[1] != len(self.assignment):
            raise DataError(
                f"labeling_probs has {probs.shape[1]} clusters. Expected the {len(self.assignment)} named ones."
            )
        return probs


def name_clusters(labeling_probs: ArrayLike, zero_shot_probs: ArrayLike, *, n_evidence: int = 10) -> Names:
    """Give each cluster a word of its own.

    Args:
        labeling_probs: τ, the probability of each cluster for each image, (n, K), such as `Turtle.predict_proba`.
        zero_shot_probs: the probability of each word for the same images, (n, V) with V ≥ K, such as
            `ZeroShot.predict_proba`.
        n_evidence: m, images that are listed for each name (all of them, if there are fewer).

    A cluster without images gets a word that no other cluster needs; its scores are 0.

    Raises:
        DataError: the arrays hold no probabilities, are of different images, or there are fewer words than clusters;
            or `n_evidence` is no number of images.
    """
    if not is_whole(n_evidence, 0):
        raise DataError(f"n_evidence is {quote(n_evidence)}. Expected a whole number from 0 to {LARGEST_COUNT:,}.")
    labeling = read_probabilities("labeling_probs", labeling_probs)
    zero_shot = read_probabilities("zero_shot_probs", zero_shot_probs)
    if len(labeling) != len(zero_shot):
        raise DataError(
            f"labeling_probs has {len(labeling)} rows and zero_shot_probs {len(zero_shot)}. Expected the same images "
            "in the same order: take both from the same split."
        )
    if zero_shot.shape[1] < labeling.shape[1]:
        raise DataError(
            f"there are {zero_shot.shape[1]} words for {labeling.shape[1]} clusters. Expected at least one word for "
            "each cluster: add words, or ask for fewer clusters."
        )
    mass = labeling.sum(0)  # (K,)
    scores = labeling.T @ np.log(np.maximum(zero_shot, FLOOR)) / np.maximum(mass, FLOOR)[:, None]  # (K, V)
    _, words = linear_sum_assignment(scores, maximize=True)  # clusters come in order
    rows = np.arange(len(words))
    others = scores.copy()
    others[rows, words] = -np.inf
    margins = scores[rows, words] - others.max(1)
    agreement = labeling * zero_shot[:, words]  # (n, K)
    evidence = np.argsort(-agreement, axis=0, kind="stable")[:n_evidence].T
    return Names(words.astype(np.int64), scores, margins, evidence)


def name_by_model(labeling_probs: ArrayLike, backbone: Backbone, features: ArrayLike, prompts: Prompts) -> Names:
    """`name_clusters` by an image-text model: its features (n, d) of the images, and the words of `prompts`."""
    from labkit.zeroshot.classifier import ZeroShot

    # centered: some words fit all images of one kind a little better than the others
    zero_shot = ZeroShot.from_prompts(backbone, prompts, center=True).fit(features)
    return name_clusters(labeling_probs, zero_shot.predict_proba(features))


def read_probabilities(name: str, given: ArrayLike) -> np.ndarray:
    """An array of probabilities as float64 (n, c), or a DataError that says what is wrong."""
    expected = "Expected a row of probabilities for each image, (n, c)."
    array = real_array(name, given, expected, DataError).astype(np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} has shape {array.shape}. {expected}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds numbers that are not finite. Expected probabilities: look where they come from.")
    off = np.abs(array.sum(1) - 1).max()
    if array.min() < 0 or off > 1e-2:
        raise DataError(
            f"{name} holds numbers from {array.min():.3g} to {array.max():.3g} whose rows sum to 1 only within "
            f"{off:.3g}. Expected probabilities: predict_proba, or a softmax of the logits."
        )
    return array
