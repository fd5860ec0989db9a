"""Text-anchored Gaussians: zero-shot predictions, corrected by where the images of a dataset lie.

A mixture of Gaussians with one covariance, diagonal and shared, is fitted to unlabeled features by expectation
maximization. Two things tie it to the texts: the zero-shot probabilities of an image pull on its responsibilities
(TransCLIP: Zanella, Gérin and Ben Ayed, Boosting Vision-Language Models with Transduction, NeurIPS 2024), and each text
pulls on the mean and the variance of its Gaussian, as if some images lay there (the statistical anchor of StatA:
Zanella, Fuchs, De Vleeschouwer and Ben Ayed, Realistic Test-Time Adaptation of Vision-Language Models, CVPR 2025). So
classes without images stay at their texts, and images of few classes are not spread over all.

With q_ik the zero-shot probabilities, t_k the texts, z_ik the responsibilities and n_k = Σ_i z_ik, it minimizes

    Σ_ik z_ik [log z_ik − log q_ik − log π_k − τ log N(x_i; μ_k, v)]
        − n/V Σ_k log π_k + τ α Σ_k KL(N(t_k, v_0) ‖ N(μ_k, v))

over z (`responsibilities`) and over μ, v and π (`mean_and_variance`, `class_prior`) by turns. Two parts are ours: τ,
the share of directions along which images differ, makes up for the correlation of features, all of which a diagonal
covariance counts as independent evidence. And π, the prior of the classes, is half even: its term stands for as many
images, spread evenly over the texts, as there are real ones. There is no Laplacian term: beside π it gained little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import normalize

from labkit._inputs import LARGEST_COUNT, expect_fitted, finite_matrix, is_number, is_whole
from labkit._scales import moderate_rows
from labkit.errors import FitError, quote
from labkit.spaces.backbones import Backbone
from labkit.zeroshot.classifier import ZeroShot
from labkit.zeroshot.prompts import Prompts

ANCHORS = 1e-3, 1e6  # least and largest: between these float32 sees both the images and the texts
LEAST_VARIANCE = 1e-4  # of a direction, as a share of the mean over directions
STABLE = 1e-3  # mean change of an image's responsibilities at which the fit is done


def effective_share(residuals: np.ndarray) -> float:
    """τ: the participation ratio of the residuals' covariance, (Σ λ)² / Σ λ², over the number of features.

    Args:
        residuals: features less what is expected of them, (n, d).

    Returns:
        1 where images differ equally along all d directions, 1 / d where along one.
    """
    n, d = residuals.shape
    products = residuals.T @ residuals if d <= n else residuals @ residuals.T
    squares = float(np.square(products, dtype=np.float64).sum())
    return float(np.trace(products, dtype=np.float64)) ** 2 / squares / d if squares > 0 else 1 / d


def class_prior(resp: np.ndarray, class_of: np.ndarray) -> np.ndarray:
    """π: prior of each text, (V,), for responsibilities (n, V): half the share of its class, half even.

    The share of a class is spread evenly over its texts, so that no single text wins them all.
    """
    shares = np.bincount(class_of, resp.mean(0, dtype=np.float64))
    return (shares / np.bincount(class_of))[class_of] / 2 + 0.5 / len(class_of)


def mean_and_variance(
    features: np.ndarray, resp: np.ndarray, texts: np.ndarray, anchor: float, variance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The M-step: means μ (V, d) and variances v (d,), each text counting as much as `anchor` images.

    Args:
        features: normalized, x (n, d).
        resp: responsibilities, z (n, V).
        texts: normalized, t (V, d).
        anchor: α.
        variance: of the images that a text stands for, v_0 (d,); None to take that of the real ones about μ.
    """
    mass = resp.sum(0, dtype=np.float64)[:, None]
    sums = (resp.T @ features).astype(np.float64)
    means = (sums + anchor * texts) / (mass + anchor)
    squares = np.square(features).sum(0, dtype=np.float64)
    scatter = np.maximum(squares - 2 * (sums * means).sum(0) + (mass * means**2).sum(0), 0)
    n, n_texts = resp.shape
    if variance is None:
        return means, scatter / n
    of_texts = anchor * (n_texts * variance + np.square(texts - means).sum(0))
    found = (scatter + of_texts) / (n + anchor * n_texts)
    return means, np.maximum(found, max(LEAST_VARIANCE * found.mean(), float(np.finfo(np.float32).eps) ** 2))


def responsibilities(
    zero_shot: np.ndarray, features: np.ndarray, means: np.ndarray, variances: np.ndarray, prior: np.ndarray, tau: float
) -> np.ndarray:
    """The E-step: z_ik ∝ q_ik π_k N(x_i; μ_k, v)^τ, (n, V).

    Args:
        zero_shot: log q, (n, V).
        features, means, variances, prior, tau: as above.
    """
    precisions = 1 / variances
    constant = np.log(prior) - tau / 2 * (means**2 @ precisions)  # what all texts share cancels
    weights = tau * means * precisions
    return softmax(zero_shot + features @ weights.T.astype(features.dtype) + constant.astype(features.dtype), axis=1)


class TextGaussians(ClassifierMixin, BaseEstimator):
    """A Gaussian for each class, anchored to its text and fitted to unlabeled features of the same backbone.

    `fit` uses no labels; it takes seconds on a CPU. Predictions multiply the zero-shot probabilities with the
    likelihood of the image under each Gaussian, also for images that were not in the fit. Not all classes need occur.
    It gains most where zero-shot errs much and classes are compact. Where zero-shot hardly errs, or a class has several
    looks and few images, it can lose some points.

    Args:
        weights: from `text_classifier`, (C, d); or one for each member of the classes, (V, d).
        logit_scale: the inverse temperature of zero-shot, such as `backbone.logit_scale`.
        class_of: the class that each weight belongs to, (V,) of 0 to C − 1; None where each is a class of its own.
        class_names: names of the classes, (C,), to read predictions with; None where they have none.
        center: whether the zero-shot probabilities are centered, as in `ZeroShot`. It often helps where all classes
            occur, and fails where few do: then what is taken off is what the classes look like.
        anchor: α, the number of images that a text counts for. More is closer to the texts. This default and the next
            were chosen with labels of digits, fashion-mini, emoji-unseen, eight classes of Food-101, and Oxford Pets
            with made-up texts.
        max_iter: steps at most. They are few on purpose: with more, classes of many images take from those of few.

    Attributes:
        labels_: class of each image that `fit` saw, (n,) int64; equal to what `predict` gives for it.
        class_shares_: mean probability of each class over these images, (C,).
        means_: mean of each text's Gaussian, (V, d), among features of length 1.
        variances_: of all Gaussians along each feature, (d,).
        prior_: of each text, (V,).
        tau_: the share of directions along which images differ, which the likelihood is raised to.
        zero_shot_: the classifier of the texts, a `ZeroShot`.
        n_iter_: steps until the responsibilities were stable, or `max_iter`.
        classes_: numbers of the classes, (C,) int64: 0 … C − 1; what `predict` gives.
    """

    def __init__(
        self,
        weights: ArrayLike,
        logit_scale: float = 100.0,
        *,
        class_of: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        center: bool | str = False,
        anchor: float = 2.0,
        max_iter: int = 5,
    ) -> None:
        self.weights = weights
        self.logit_scale = logit_scale
        self.class_of = class_of
        self.class_names = class_names
        self.center = center
        self.anchor = anchor
        self.max_iter = max_iter

    @classmethod
    def from_prompts(
        cls,
        backbone: Backbone,
        prompts: Prompts,
        *,
        center: bool | str = False,
        anchor: float = 2.0,
        max_iter: int = 5,
        cache: bool = True,
    ) -> TextGaussians:
        """For the classes of the prompts, in the space of a backbone with a text tower, at the backbone's scale.

        Raises:
            BackboneError, DataError: as `text_classifier`.
        """
        given = ZeroShot.from_prompts(backbone, prompts, center=center, cache=cache)
        return cls(**given.get_params(), anchor=anchor, max_iter=max_iter)

    def fit(self, X: ArrayLike, y: object = None) -> TextGaussians:
        """Fit the Gaussians.

        Args:
            X: features of the target's images, (n, d); their length does not matter.
            y: ignored; there for scikit-learn's pipelines.

        Raises:
            FitError: the features are not those of the weights' backbone, or not finite; or a setting is none of its
                values.
        """
        if not is_number(self.anchor, *ANCHORS):
            raise FitError(
                f"anchor is {quote(self.anchor)}. Expected a number of images from {ANCHORS[0]:g} to {ANCHORS[1]:,.0f}."
            )
        if not is_whole(self.max_iter, 1):
            raise FitError(f"max_iter is {quote(self.max_iter)}. Expected a whole number from 1 to {LARGEST_COUNT:,}.")
        centered = ZeroShot(self.weights, self.logit_scale, class_of=self.class_of, center=self.center).fit(X).centered_
        self.zero_shot_ = ZeroShot(self.weights, self.logit_scale, center=centered).fit(X)
        features, texts = _units("X", X), _units("weights", self.weights)
        class_of = np.arange(len(texts)) if self.class_of is None else np.asarray(self.class_of)
        self._membership = np.eye(class_of.max() + 1, dtype=np.float32)[class_of]  # (V, C)

        zero_shot = log_softmax(self.zero_shot_.logits(X), axis=1)
        resp = np.exp(zero_shot)
        means, variance = mean_and_variance(features, resp, texts, self.anchor, None)
        self.tau_ = effective_share(features - resp @ means.astype(np.float32))
        for step in range(1, self.max_iter + 1):
            self.means_, self.variances_ = mean_and_variance(features, resp, texts, self.anchor, variance)
            self.prior_ = class_prior(resp, class_of)
            before, resp = resp, self._responsibilities(zero_shot, features)
            self.n_iter_ = step
            if np.abs(resp - before).sum(1).mean() < STABLE:
                break
        probs = resp @ self._membership
        self.classes_ = np.arange(probs.shape[1])
        self.labels_, self.class_shares_ = probs.argmax(1), probs.mean(0, dtype=np.float64)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Class of each image, (n,) int64, for its features (n, d)."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probability of each class, (n, C), for features (n, d) of the same or other images.

        Raises:
            FitError: the features are not those of the fit's backbone, not finite, or there was no fit.
        """
        expect_fitted(self, "labels_")
        zero_shot = log_softmax(self.zero_shot_.logits(X), axis=1)
        return self._responsibilities(zero_shot, _units("X", X)) @ self._membership

    def _responsibilities(self, zero_shot: np.ndarray, features: np.ndarray) -> np.ndarray:
        return responsibilities(zero_shot, features, self.means_, self.variances_, self.prior_, self.tau_)


def _units(name: str, given: ArrayLike) -> np.ndarray:
    """Rows of length 1, (n, d) float32; a row of zeros stays one."""
    return normalize(moderate_rows(finite_matrix(name, given, "Expected features (n, d).")))
