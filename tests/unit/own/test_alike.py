"""Clusters that may be one class."""

from __future__ import annotations

import numpy as np

from labkit.own.alike import look_alikes


def classes(n_each: int = 120, d: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes apart, each a Gaussian."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n_each)
    return 2 * rng.normal(size=(3, d))[labels] + rng.normal(size=(3 * n_each, d)), labels


def test_a_class_that_was_split_is_named_and_classes_are_not() -> None:
    x, labels = classes()
    assert look_alikes(labels, {"a": x}, 0) == []
    axis = np.linalg.svd(x[labels == 1] - x[labels == 1].mean(0))[2][0]  # split where it is widest
    side = (x - x[labels == 1].mean(0)) @ axis > 0
    split = np.where((labels == 1) & side, 7, labels)
    assert look_alikes(split, {"a": x, "b": x[:, :20]}, 0) == [(1, 7)]


def test_random_halves_are_alike() -> None:
    x, labels = classes()
    halves = np.where((labels == 2) & (np.arange(len(labels)) % 2 == 0), 3, labels)
    assert look_alikes(halves, {"a": x}, 1) == [(2, 3)]


def test_small_clusters_and_identical_images_say_nothing_or_are_alike() -> None:
    x, labels = classes(5)
    assert look_alikes(labels, {"a": x}, 0) == []
    assert look_alikes(np.arange(40) % 2, {"a": np.ones((40, 8))}, 0) == [(0, 1)]
    assert look_alikes(np.zeros(40, int), {"a": np.ones((40, 8))}, 0) == []


def test_features_of_any_scale_say_the_same() -> None:
    x, labels = classes()
    halves = np.where((labels == 0) & (np.arange(len(labels)) % 2 == 0), 3, labels)
    assert look_alikes(halves, {"a": x}, 2) == look_alikes(halves, {"a": 1000 * x}, 2)
