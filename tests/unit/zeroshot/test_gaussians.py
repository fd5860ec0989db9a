"""TextGaussians: what the fit finds and keeps, what must not matter to it, and errors. The math: tests/oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import labkit as lk
from labkit.errors import BackboneError, FitError
from labkit.spaces.backbones import load_backbone
from labkit.zeroshot.classifier import ZeroShot
from labkit.zeroshot.gaussians import TextGaussians
from labkit.zeroshot.prompts import Prompts

C, D, SCALE = 6, 32, 20.0


def world(
    n: int, present: int = C, *, seed: int = 0, off: float = 0.8, gap: float = 1.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, D) of the first classes with their labels (n,), and texts (C, D) that are off and far away."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(C, D))
    texts = centers + off * rng.normal(size=(C, D)) + gap * rng.normal(size=D)
    labels = np.random.default_rng(seed + 1).integers(present, size=n)
    images = centers[labels] + rng.normal(size=(n, D)) + gap * rng.normal(size=D)
    return images, labels, texts


X, Y, TEXTS = world(300)


def right(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float((labels == predicted).mean())


def assert_sound(fitted: TextGaussians, X: np.ndarray) -> None:
    probs = fitted.predict_proba(X)
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-4)
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)
    assert np.isfinite(fitted.means_).all()
    assert (fitted.variances_ > 0).all()
    np.testing.assert_allclose([fitted.class_shares_.sum(), fitted.prior_.sum()], 1, atol=1e-4)
    assert 0 < fitted.tau_ <= 1 + 1e-6


# what it finds


def test_it_is_better_than_zero_shot_also_on_other_images() -> None:
    images, labels, texts = world(600)
    fitted = TextGaussians(texts, SCALE).fit(images[:300])
    zero_shot = ZeroShot(texts, SCALE)
    for rows in (slice(0, 300), slice(300, 600)):
        gain = right(labels[rows], fitted.predict(images[rows])) - right(labels[rows], zero_shot.predict(images[rows]))
        assert gain > 0.1
    assert fitted.labels_.dtype == fitted.predict(images).dtype == np.int64
    assert_sound(fitted, images[:300])


@pytest.mark.parametrize("present", [1, 2])
def test_where_few_classes_occur_it_is_not_below_zero_shot(present: int) -> None:
    gains = []
    for seed in range(10):
        images, labels, texts = world(64, present, seed=seed)
        ours = TextGaussians(texts, SCALE).fit(images)
        gains.append(right(labels, ours.labels_) - right(labels, ZeroShot(texts, SCALE).predict(images)))
        assert_sound(ours, images)
    assert np.mean(gains) > 0


def test_a_class_without_images_stays_at_its_text() -> None:
    images, labels, texts = world(300, 3, seed=3, off=0.1, gap=0.0)
    fitted = TextGaussians(texts, 100.0).fit(images)
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    moved = np.linalg.norm(fitted.means_ - unit, axis=1)
    assert moved[3:].max() < 0.1 * moved[:3].min()
    assert set(np.unique(fitted.labels_)) == set(np.unique(labels))


def test_a_strong_anchor_keeps_the_texts_and_a_weak_one_leaves_them() -> None:
    unit = TEXTS / np.linalg.norm(TEXTS, axis=1, keepdims=True)
    moved = [np.abs(TextGaussians(TEXTS, SCALE, anchor=a).fit(X).means_ - unit).max() for a in (1e-2, 2.0, 1e5)]
    assert moved[0] > moved[1] > 100 * moved[2]


def test_the_shares_of_unequal_classes() -> None:
    images, labels, texts = world(600, off=0.2)
    kept = np.flatnonzero((labels != 0) | (np.arange(600) % 5 == 0))
    fitted = TextGaussians(texts, SCALE).fit(images[kept])
    true = np.bincount(labels[kept], minlength=C) / len(kept)
    np.testing.assert_allclose(fitted.class_shares_, true, atol=0.05)


def test_members_of_classes() -> None:
    class_of = np.array([0, 0, 1, 1, 2, 2])
    fitted = TextGaussians(TEXTS, SCALE, class_of=class_of).fit(X)
    assert fitted.means_.shape == (C, D)
    assert fitted.predict_proba(X).shape == (300, 3)
    assert fitted.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(fitted.prior_[::2], fitted.prior_[1::2])  # even within a class
    assert right(class_of[Y], fitted.labels_) > right(class_of[Y], ZeroShot(TEXTS, SCALE, class_of=class_of).predict(X))
    assert_sound(fitted, X)


@pytest.mark.parametrize("center", [True, "auto"])
def test_centering_is_that_of_zero_shot(center: bool | str) -> None:
    fitted = TextGaussians(TEXTS, SCALE, center=center).fit(X)
    expected = ZeroShot(TEXTS, SCALE, center=center).fit(X)
    assert fitted.zero_shot_.centered_ == expected.centered_
    np.testing.assert_allclose(fitted.zero_shot_.predict_proba(X), expected.predict_proba(X))


def test_it_stops_once_stable() -> None:
    assert TextGaussians(TEXTS, SCALE, max_iter=3).fit(X).n_iter_ == 3
    fitted = TextGaussians(TEXTS, SCALE, max_iter=500).fit(X)
    assert 3 < fitted.n_iter_ < 500
    longer = TextGaussians(TEXTS, SCALE, max_iter=fitted.n_iter_ + 50).fit(X)
    np.testing.assert_array_equal(longer.labels_, fitted.labels_)


# what must not matter


def test_labels_are_not_used() -> None:
    rng = np.random.default_rng(3)
    plain, given_labels = TextGaussians(TEXTS, SCALE).fit(X), TextGaussians(TEXTS, SCALE).fit(X, rng.permutation(Y))
    np.testing.assert_array_equal(plain.means_, given_labels.means_)
    np.testing.assert_array_equal(plain.predict_proba(X), given_labels.predict_proba(X))


def test_the_order_of_images_and_of_classes_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    rows, classes = rng.permutation(len(X)), rng.permutation(C)
    probs = TextGaussians(TEXTS, SCALE).fit(X).predict_proba(X)
    np.testing.assert_allclose(TextGaussians(TEXTS, SCALE).fit(X[rows]).predict_proba(X[rows]), probs[rows], atol=1e-4)
    np.testing.assert_allclose(
        TextGaussians(TEXTS[classes], SCALE).fit(X).predict_proba(X), probs[:, classes], atol=1e-4
    )


@given(st.integers(-6, 6), st.integers(-6, 6))
@settings(max_examples=20, deadline=None)
def test_the_length_of_features_and_texts_does_not_matter(of_images: int, of_texts: int) -> None:
    lengths = 10.0**of_images * np.random.default_rng(5).uniform(0.5, 2, (len(X), 1))
    found = TextGaussians(10.0**of_texts * TEXTS, SCALE).fit(lengths * X)
    np.testing.assert_allclose(found.predict_proba(X), TextGaussians(TEXTS, SCALE).fit(X).predict_proba(X), atol=1e-3)


def test_every_image_twice_is_as_once_where_texts_count_double() -> None:
    twice = TextGaussians(TEXTS, SCALE, anchor=4.0).fit(np.repeat(X, 2, axis=0))
    once = TextGaussians(TEXTS, SCALE, anchor=2.0).fit(X)
    np.testing.assert_allclose(twice.predict_proba(X), once.predict_proba(X), atol=1e-4)


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_few_images_equal_ones_and_zeros(n: int, n_classes: int, width: int, equal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.integers(-2, 3, (n, width)).astype(float), rng.normal(size=(n_classes, width))
    if equal:
        images[:] = images[0]
        texts[0] = images[0]
    assert_sound(TextGaussians(texts, 100.0).fit(images), images)


def test_features_that_are_always_zero_change_nothing() -> None:
    padded = [np.hstack([rows, np.zeros((len(rows), D))]) for rows in (X, TEXTS)]
    found = TextGaussians(padded[1], SCALE).fit(padded[0])
    once = TextGaussians(TEXTS, SCALE).fit(X)
    assert found.tau_ == pytest.approx(once.tau_ / 2)  # a share of twice as many directions
    assert_sound(found, padded[0])


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0])
def test_a_feature_that_is_the_same_for_all_drowns_nothing(value: float) -> None:
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, TEXTS)]
    padded = [np.hstack([rows, np.full((len(rows), 1), value)]) for rows in units]
    found = TextGaussians(padded[1], SCALE * (1 + value**2)).fit(padded[0])  # by as much, cosines are smaller
    assert right(found.labels_, TextGaussians(TEXTS, SCALE).fit(X).labels_) > 0.98


@pytest.mark.parametrize("given_as", [torch.tensor, np.float32, np.ndarray.tolist, np.asfortranarray])
def test_features_of_any_type(given_as: object) -> None:
    found = TextGaussians(TEXTS, SCALE).fit(given_as(X))  # type: ignore[operator]
    assert right(found.labels_, TextGaussians(TEXTS, SCALE).fit(X).labels_) > 0.99


# from prompts, as an estimator, errors


def test_from_prompts(pocket_models: object) -> None:
    backbone = load_backbone("pocket-vit", device="cpu")
    prompts = Prompts(["pet", "thing"], [["cat", "dog"], ["cup"]], relation="members")
    ours = lk.TextGaussians.from_prompts(backbone, prompts, center=True, anchor=3.0, cache=False)
    zero_shot = ZeroShot.from_prompts(backbone, prompts, cache=False)
    np.testing.assert_array_equal(ours.weights, zero_shot.weights)
    np.testing.assert_array_equal(np.asarray(ours.class_of), [0, 0, 1])
    assert (ours.logit_scale, ours.class_names, ours.center, ours.anchor) == (
        backbone.logit_scale, ["pet", "thing"], True, 3.0,
    )  # fmt: skip
    with pytest.raises(BackboneError, match="no text tower"):
        TextGaussians.from_prompts(load_backbone("pixels", device="cpu"), prompts)


def test_it_is_a_scikit_learn_estimator() -> None:
    fitted = TextGaussians(TEXTS, SCALE, anchor=3.0).fit(X)
    copy = clone(fitted)
    assert copy.get_params()["anchor"] == 3.0
    with pytest.raises(NotFittedError, match="was not fitted"):
        copy.predict(X)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: TextGaussians(TEXTS).fit(X[:, :5]), "5 numbers each, but the weights 32"),
        (lambda: TextGaussians(TEXTS).fit(X).predict(X[:, :5]), "5 numbers each"),
        (lambda: TextGaussians(TEXTS).fit(X * np.nan), "X contains NaN"),
        (lambda: TextGaussians(TEXTS * np.inf).fit(X), "weights contains"),
        (lambda: TextGaussians(TEXTS).fit(X[:0]), "0 sample"),
        (lambda: TextGaussians(TEXTS).fit(X[0]), "Expected 2D array"),
        (lambda: TextGaussians(TEXTS).predict(X), "was not fitted"),
        (lambda: TextGaussians(TEXTS, class_of=[0, 1]).fit(X), "number of a class for each of the 6 weights"),
        (lambda: TextGaussians(TEXTS, center="always").fit(X), "center is 'always'"),
        (lambda: TextGaussians(TEXTS, -1.0).fit(X), "logit_scale is -1"),
        (lambda: TextGaussians(TEXTS, anchor=0).fit(X), r"anchor is 0\. Expected a number of images from 0\.001"),
        (lambda: TextGaussians(TEXTS, anchor=True).fit(X), "anchor is True"),
        (lambda: TextGaussians(TEXTS, anchor=float("nan")).fit(X), "anchor is nan"),
        (lambda: TextGaussians(TEXTS, max_iter=0).fit(X), "max_iter is 0.*whole number from 1"),
        (lambda: TextGaussians(TEXTS, max_iter=True).fit(X), "max_iter is True"),
    ],
)
def test_bad_input_is_named(use: object, message: str) -> None:
    with pytest.raises(FitError, match=message):
        use()  # type: ignore[operator]
