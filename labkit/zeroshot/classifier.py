"""Zero-shot classification: prompts become a linear classifier in the space that images and texts share.

The weight of a class is the mean of the normalized embeddings of its sentences, normalized again; an image belongs to
the class whose weight it is most similar to (Radford et al., Learning Transferable Visual Models From Natural Language
Supervision, ICML 2021, section 3.1.4). A coarse class, such as *animal*, has no one look: there every member has a
weight of its own, and the class the probabilities of its members together. No label is used; the prompts are all that
is known of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from labkit._inputs import finite_matrix, is_number, is_whole, plain_array
from labkit._scales import moderate_rows, unit_rows
from labkit.errors import BackboneError, DataError, FitError, quote
from labkit.spaces.backbones import Backbone
from labkit.spaces.cache import feature_paths, keep_anywhere, kept_anywhere
from labkit.zeroshot.prompts import Prompts

LARGEST_SCALE = 1e30  # or its inverse: products with cosines stay within float32


def text_classifier(backbone: Backbone, prompts: Prompts, *, cache: bool = True) -> np.ndarray:
    """The weights of a zero-shot classifier, one unit vector a class: (C, d) float32.

    The mean over all names of a class, be they synonyms or members; `ZeroShot.from_prompts` gives members weights of
    their own.
    Kept under a key made of the backbone's weights and all sentences, so they are computed once.

    Args:
        backbone: with a text tower ("pocket-clip", "open_clip:…").
        prompts: from `load_prompts`, or `Prompts.from_words(words)`.
        cache: read and write the cache ($LABKIT_CACHE, else the user's cache folder).

    Raises:
        BackboneError: it is no backbone, or has no text tower.
        DataError: there are no classes, or the cache cannot be written.
    """
    _check_texts(backbone, prompts)
    texts = [prompts.texts(i) for i in range(len(prompts.classes))]
    if not texts or not all(texts):
        raise DataError("the prompts have no classes, or a class without a sentence. Give every class a word.")
    key = {
        "texts": texts,
        "rows": len(texts),
        "width": backbone.dim,
        "backbone": backbone.fingerprint,
        "forward": str(backbone.dtype),
        "dtype": "float32",
    }
    paths = feature_paths(backbone, "texts", "classes", key) if cache else []
    weights = kept_anywhere(paths, key)
    if weights is None:
        embeddings = backbone.encode_text([text for of_class in texts for text in of_class]).cpu().numpy()
        ends = np.cumsum([len(of_class) for of_class in texts])
        weights = unit_rows(np.stack([part.mean(0) for part in np.split(embeddings, ends[:-1])]))
        keep_anywhere(paths, weights, key)
    return weights


def _check_texts(backbone: object, prompts: object) -> None:
    if not hasattr(backbone, "encode_text"):
        raise BackboneError(f'the backbone is {quote(backbone)}. Expected one: load_backbone("pocket-clip").')
    if not isinstance(prompts, Prompts):
        raise DataError(f"prompts is {quote(prompts)}. Expected what Prompts.from_words or load_prompts gives.")


class ZeroShot(ClassifierMixin, BaseEstimator):
    """A classifier made of texts, for features of the same backbone.

    The probability of a class is the softmax over classes of `logit_scale` times the cosine similarity of the image
    and the class's weight. Where classes have several weights, one a member, the softmax is over all of these, and the
    probability of a class is the sum over its members.

    With `center`, `fit` looks at features of the target's images, without labels; the mean image is then taken off
    every image, and the mean weight off every weight, before the cosine. What all images of a dataset share (they
    are small and gray, or just images and not texts) so favors no class. It helps where that is much, and assumes
    that the images it saw are a fair sample of the classes. Cosines grow, so the same scale gives more extreme
    probabilities. It is a choice and not the default: zero-shot in the strict sense sees no image of the target.

    Args:
        weights: from `text_classifier`, (C, d); or one for each member of the classes, (V, d).
        logit_scale: the inverse temperature, such as `backbone.logit_scale`.
        class_of: the class that each weight belongs to, (V,) of 0 to C − 1; None where each is a class of its own.
        class_names: names of the classes, (C,), to read predictions with; None where they have none.
        center: see above; "auto" centers where that makes the answers for the images that `fit` saw more even among
            the classes (the entropy of how often each is said). That assumes classes that are about equally frequent.

    Attributes:
        classes_: numbers of the classes, (C,) int64: 0 … C − 1; what `predict` gives.
        mean_: the mean of the normalized features that `fit` saw, (d,).
        centered_: whether the predictions are centered.
    """

    def __init__(
        self,
        weights: ArrayLike,
        logit_scale: float = 100.0,
        *,
        class_of: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        center: bool | str = False,
    ) -> None:
        self.weights = weights
        self.logit_scale = logit_scale
        self.class_of = class_of
        self.class_names = class_names
        self.center = center

    @classmethod
    def from_prompts(
        cls, backbone: Backbone, prompts: Prompts, *, center: bool | str = False, cache: bool = True
    ) -> ZeroShot:
        """The classifier of a backbone with a text tower, for the classes of the prompts, at the backbone's scale.

        Raises:
            BackboneError, DataError: as `text_classifier`.
        """
        _check_texts(backbone, prompts)
        if prompts.relation == "synonyms":
            weights = text_classifier(backbone, prompts, cache=cache)
            return cls(weights, backbone.logit_scale, class_names=list(prompts.classes), center=center)
        members = [word for words in prompts.names for word in words]
        weights = text_classifier(
            backbone, Prompts(members, [[word] for word in members], prompts.templates), cache=cache
        )
        class_of = np.repeat(np.arange(len(prompts.classes)), [len(words) for words in prompts.names])
        names = list(prompts.classes)
        return cls(weights, backbone.logit_scale, class_of=class_of, class_names=names, center=center)

    @property
    def classes_(self) -> np.ndarray:
        return np.arange(len(self.weights) if self.class_of is None else int(np.max(self.class_of)) + 1)  # type: ignore[arg-type]

    def fit(self, X: ArrayLike, y: object = None) -> ZeroShot:
        """Learn the mean image, and whether to center where that is "auto"; needed only with `center`.

        Args:
            X: features of the target's images, (n, d).
            y: ignored; there for scikit-learn's pipelines.

        Raises:
            FitError: the features are not those of the classifier's backbone, or not finite; or a setting is none of
                its values.
        """
        features, weights = map(unit_rows, self._read(X))
        self.mean_ = features.mean(0)
        self.centered_ = bool(self.center)
        if self.center == "auto":
            answers = [self._of_units(features, weights, centered).argmax(1) for centered in (False, True)]
            strict, centered = (entr(np.bincount(said) / len(said)).sum() for said in answers)
            self.centered_ = bool(centered > strict)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Class of each image, (n,) int64, for its features (n, d)."""
        return self.logits(X).argmax(1)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probability of each class, (n, C), for features (n, d)."""
        return softmax(self.logits(X), axis=1)

    def top_k(self, X: ArrayLike, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable classes of each image, best first: their numbers (n, k) int64 and probabilities (n, k).

        Raises:
            FitError: k is not a number of classes.
        """
        probs = self.predict_proba(X)
        if not is_whole(k, 1, probs.shape[1]):
            raise FitError(
                f"k is {quote(k)}. Expected a whole number from 1 to the number of classes, {probs.shape[1]}."
            )
        best = np.argsort(-probs, axis=1, kind="stable")[:, :k]
        return best, np.take_along_axis(probs, best, axis=1)

    def logits(self, X: ArrayLike) -> np.ndarray:
        """`logit_scale` times the cosine similarity of each image with each class, (n, C).

        Of a class with several weights: the logarithm of the sum of the exponentials of these.

        Raises:
            FitError: the features are not those of the classifier's backbone, not finite, or `center` was not fitted.
        """
        features, weights = map(unit_rows, self._read(X))
        if self.center and not hasattr(self, "mean_"):
            raise FitError(
                f"center={self.center!r} needs the mean image. Call fit(features) with the target's features first."
            )
        if self.center and self.mean_.shape != weights.shape[1:]:
            raise FitError(
                f"fit saw features of {len(self.mean_)} numbers. Expected {weights.shape[1]}: call it again."
            )
        return self._of_units(features, weights, bool(self.center) and self.centered_)

    def _of_units(self, features: np.ndarray, weights: np.ndarray, centered: bool) -> np.ndarray:
        """The logits of normalized features (n, d), for normalized weights."""
        if centered:
            features, weights = unit_rows(features - self.mean_), unit_rows(weights - weights.mean(0))
        cosines = self.logit_scale * features @ weights.T
        if self.class_of is None:
            return cosines
        class_of = np.asarray(self.class_of)
        return np.stack([logsumexp(cosines[:, class_of == c], axis=1) for c in range(class_of.max() + 1)], 1)

    def _read(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) and weights (C, d), checked, their rows of ordinary size."""
        self._check_settings()
        expected = "Expected features (n, d) and weights (C, d) of finite numbers."
        weights = moderate_rows(finite_matrix("weights", self.weights, expected))  # lengths do not matter
        features = moderate_rows(finite_matrix("X", X, expected))
        if features.shape[1] != weights.shape[1]:
            raise FitError(
                f"the features have {features.shape[1]} numbers each, but the weights {weights.shape[1]}. Expected "
                "both from the same backbone."
            )
        if self.class_of is not None:
            expected = f"Expected the number of a class for each of the {len(weights)} weights, and no number left out."
            given = plain_array("class_of", self.class_of, expected)
            whole = given.dtype.kind in "iu" and given.shape == weights.shape[:1]
            if not whole or not np.array_equal(np.unique(given), np.arange(len(np.unique(given)))):
                raise FitError(f"class_of is {quote(self.class_of)}. {expected}")
        return features, weights

    def _check_settings(self) -> None:
        if not isinstance(self.center, bool) and not (isinstance(self.center, str) and self.center == "auto"):
            raise FitError(f'center is {quote(self.center)}. Expected True, False or "auto".')
        if not is_number(self.logit_scale, 1 / LARGEST_SCALE, LARGEST_SCALE):
            raise FitError(
                f"logit_scale is {quote(self.logit_scale)}. Expected a number from {1 / LARGEST_SCALE:.0e} to "
                f"{LARGEST_SCALE:.0e}, such as backbone.logit_scale."
            )
