"""Names for the clusters of somebody's own images: a word with a calibrated confidence, or none, and suggestions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labkit.zeroshot.classifier import text_classifier
from labkit.zeroshot.confidence import LEAST, name_evidence
from labkit.zeroshot.nouns import read_nouns
from labkit.zeroshot.prompts import Prompts

if TYPE_CHECKING:
    import pandas as pd

    from labkit.spaces.backbones import Backbone

TEMPLATES = ("{}", "a photo of a {}.")  # the constants of the confidence are fitted with these


@dataclass(frozen=True, eq=False)
class FoundNames:
    """Names of K clusters.

    Attributes:
        names: K words; "" where none of the words fits well enough, or none were given. Several clusters may have the
            same word.
        confidence: that the name is the word of the class that most images of the cluster belong to, (K,); NaN for
            clusters without a name.
        suggestions: for each cluster up to three of the shipped nouns, best first: those that fit its images more than
            all images. They are ideas for a name and often wrong; none for a cluster without images.
    """

    names: list[str]
    confidence: np.ndarray
    suggestions: list[list[str]]


def name_found(
    probs: ArrayLike, backbone: Backbone, features: ArrayLike, words: Sequence[str] | None = None
) -> FoundNames:
    """Name the clusters of a labeling where a word can be trusted; see `labkit.zeroshot.confidence` for how.

    Args:
        probs: the probability of each cluster for each image, (n, K), such as `Turtle.predict_proba`.
        backbone: an image-text model.
        features: its features of the same images, (n, d).
        words: the vocabulary, as many words as you like; None to have suggestions only, from the shipped nouns.

    The first call with a backbone embeds the nouns: about three seconds of one core for Pocket CLIP, a minute or
    more for a model of the size of CLIP ViT-B/32. They are kept in the cache.

    Confidence is calibrated on other datasets, and too high where a word that is akin to the right one, which is
    missing, fits well: look at names below 0.8 before you use them. Where all images show much the
    same thing, there is little that one cluster is more than another, and fewer clusters get names.

    Raises:
        BackboneError: the backbone has no text tower.
        DataError: the arrays are not of the same images, or the words are no list of different texts.
    """
    nouns, n_everyday = read_nouns()
    background = text_classifier(backbone, Prompts.from_words(nouns, TEMPLATES))
    vocabulary = [] if words is None else Prompts.from_words(words, TEMPLATES).classes
    weights = text_classifier(backbone, Prompts.from_words(words, TEMPLATES)) if words else background[:0]
    evidence = name_evidence(probs, features, weights, background)
    n_clusters = len(evidence.mass)
    filled = evidence.mass >= 0.5
    names, confidence = [""] * n_clusters, np.full(n_clusters, np.nan)
    if vocabulary:
        given = evidence.confidence()
        for k in np.flatnonzero(filled):
            best = int(given[k].argmax())
            if given[k, best] >= LEAST:
                names[k], confidence[k] = vocabulary[best], given[k, best]
    suggestions = [
        [nouns[j] for j in row] if filled[k] else [] for k, row in enumerate(evidence.suggestions(n_everyday))
    ]
    return FoundNames(names, confidence, suggestions)


def lines(clusters: pd.DataFrame, given: bool) -> list[str]:
    """A line of text about each cluster, for the terminal.

    Args:
        clusters: those of a `Clustering`.
        given: whether there were words to choose from.
    """
    columns = ("cluster", "size", "name", "name_confidence", "suggestions")
    return [
        f"cluster {cluster} ({size:,} {'image' if size == 1 else 'images'}): {_told(name, confidence, ideas, given)}"
        for cluster, size, name, confidence, ideas in zip(*(clusters[column] for column in columns), strict=True)
    ]


def _told(name: str, confidence: float, ideas: Sequence[str], given: bool) -> str:
    if name:
        return f"{name}, confidence {confidence:.2f}" if confidence == confidence else name  # NaN: a person named it
    perhaps = f"perhaps {', '.join(ideas)}" if len(ideas) else "no name"
    return f"none of these; {perhaps}" if given else perhaps
