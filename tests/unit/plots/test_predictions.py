"""Confusion matrix and reliability diagram: their numbers."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from labkit import plots
from tests.unit.plots.examples import NAMES, Y, texts


def shown(fig: Figure) -> np.ndarray:
    """The numbers of a confusion matrix."""
    cells = np.asarray(fig.axes[0].collections[0].get_array())
    return cells.reshape(math.isqrt(cells.size), -1)


def test_confusion_matches_clusters_to_classes():
    fig = plots.confusion(Y, (Y + 1) % 3, NAMES)
    np.testing.assert_allclose(shown(fig), 100 * np.eye(3))
    assert texts(fig).count("100") == 3
    unmatched = plots.confusion(Y, (Y + 1) % 3, NAMES, matched=False)
    np.testing.assert_allclose(shown(unmatched), 100 * np.roll(np.eye(3), 1, axis=1))


def test_confusion_with_more_clusters_than_classes_and_an_absent_class():
    fig = plots.confusion([0, 0, 0, 0, 1, 1], [0, 0, 0, 3, 1, 1], NAMES)
    np.testing.assert_allclose(shown(fig), [[75, 0, 0], [0, 100, 0], [0, 0, 0]])


def test_confusion_is_in_percent_of_each_class():
    y_true = np.repeat([0, 1], [90, 10])
    y_pred = np.r_[np.repeat([0, 1], [45, 45]), np.repeat([0, 1], [1, 9])]
    percent = shown(plots.confusion(y_true, y_pred, NAMES[:2]))
    np.testing.assert_allclose(percent, [[50, 50], [10, 90]])


def test_reliability_shows_accuracy_counts_and_the_error():
    confidence, correct = np.array([0.62, 0.66, 0.68, 0.96]), np.array([True, False, False, True])
    upper, lower = plots.reliability(confidence, correct).axes
    np.testing.assert_allclose([bar.get_height() for bar in upper.patches], [100 / 3, 100])
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in upper.patches], [65, 95])
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [[100 * 1.96 / 3, 100 / 3], [96, 100]])
    np.testing.assert_allclose([bar.get_height() for bar in lower.patches], [0, 0, 0, 0, 0, 0, 75, 0, 0, 25])
    assert upper.texts[0].get_text() == "expected calibration error: 25.0 %"  # 3/4 · 32 + 1/4 · 4
    assert lower.get_xlabel() == "confidence (%)"


def test_many_classes_are_drawn_without_numbers_and_with_some_of_the_names():
    y = np.arange(100)
    fig = plots.confusion(y, y, [f"class {i}" for i in y])
    assert not fig.axes[0].texts
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels[:2] == ["class 0", "class 3"]
    assert len(labels) == 34
