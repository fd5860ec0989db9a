"""Metrics: worked examples, unequal numbers of classes and clusters, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from sklearn.metrics import normalized_mutual_info_score

import labkit.evaluation.metrics as m
from labkit.errors import DataError


def test_without_matching_a_permutation_of_the_classes_is_wrong() -> None:
    y_true, y_pred = [0, 0, 0, 1, 1, 2], [1, 1, 1, 0, 0, 2]
    assert m.clustering_accuracy(y_true, y_pred) == m.clustering_mean_per_class_accuracy(y_true, y_pred) == 1.0
    assert m.accuracy(y_true, y_pred) == pytest.approx(1 / 6)
    assert m.mean_per_class_accuracy(y_true, y_pred) == pytest.approx(1 / 3)


def test_mean_per_class_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.integers(0, 7, 200), rng.integers(0, 7, 200)
    assert m.accuracy(y_true, y_pred) == pytest.approx(sklearn.metrics.accuracy_score(y_true, y_pred))
    assert m.mean_per_class_accuracy(y_true, y_pred) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(y_true, y_pred)
    )


ALL = (
    m.accuracy,
    m.mean_per_class_accuracy,
    m.clustering_accuracy,
    m.clustering_mean_per_class_accuracy,
    m.normalized_mutual_info,
    m.adjusted_rand_index,
)


def test_worked_example():
    y_true = np.array([0, 0, 0, 1, 1, 2])
    y_pred = np.array([2, 2, 0, 0, 0, 1])
    assert m.match_clusters(y_true, y_pred).tolist() == [1, 2, 0]
    assert m.clustering_accuracy(y_true, y_pred) == pytest.approx(5 / 6)
    assert m.clustering_mean_per_class_accuracy(y_true, y_pred) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_the_matching_is_one_to_one_and_not_a_majority_vote():
    y_true = np.array([0] * 6 + [1] * 4)
    y_pred = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0])  # both clusters hold mostly class 0 or tie
    assert sorted(m.match_clusters(y_true, y_pred)) == [0, 1]
    assert m.clustering_accuracy(y_true, y_pred) == pytest.approx(0.5)


def test_more_clusters_than_classes():
    y_true = np.array([0, 0, 0, 1, 1])
    y_pred = np.array([0, 0, 3, 1, 1])
    mapping = m.match_clusters(y_true, y_pred)
    assert mapping.dtype == np.int64
    assert mapping.tolist() == [0, 1, -1, -1]
    assert m.clustering_accuracy(y_true, y_pred) == pytest.approx(4 / 5)


def test_more_classes_than_clusters():
    assert m.clustering_accuracy([0, 1, 2, 2], [0, 0, 0, 0]) == pytest.approx(0.5)
    assert m.clustering_mean_per_class_accuracy([0, 1, 2, 2], [0, 0, 0, 0]) == pytest.approx(1 / 3)
    assert m.match_clusters([0, 0], [1, 1], n_classes=5)[1] == 0


def test_mean_per_class_counts_small_classes_as_much_as_large_ones():
    y_true = np.repeat([0, 1], [98, 2])
    y_pred = np.r_[np.zeros(98, int), 0, 1]  # one of the two samples of the small class is missed
    assert m.clustering_accuracy(y_true, y_pred) == pytest.approx(0.99)
    assert m.clustering_mean_per_class_accuracy(y_true, y_pred) == pytest.approx(0.75)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    assert m.clustering_mean_per_class_accuracy([0, 0, 2, 2], [0, 0, 1, 1]) == 1.0


@pytest.mark.parametrize("average", ["geometric", "arithmetic"])
def test_mutual_information_has_both_averages(average):
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.integers(0, 5, 300), rng.integers(0, 7, 300) // 2
    expected = normalized_mutual_info_score(y_true, y_pred, average_method=average)
    assert m.normalized_mutual_info(y_true, y_pred, average) == pytest.approx(expected)


def test_the_default_average_is_the_papers():
    y_true, y_pred = [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]
    assert m.normalized_mutual_info(y_true, y_pred) == m.normalized_mutual_info(y_true, y_pred, "geometric")
    assert m.normalized_mutual_info(y_true, y_pred) != m.normalized_mutual_info(y_true, y_pred, "arithmetic")


@pytest.mark.parametrize("metric", ALL)
def test_plain_floats(metric):
    assert type(metric([0, 1, 1], [1, 0, 0])) is float
    assert metric([0, 1, 1], [0, 1, 1]) == 1.0


@pytest.mark.parametrize("metric", [*ALL, m.match_clusters])
@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, -1], [0, 1], "y_true holds -1.*unknown"),
        ([0, 1], [-1, 1], "y_pred holds -1"),
        ([0, 1, 1], [0, 1], "3 labels and y_pred 2"),
        ([], [], r"shape \(0,\)"),
        ([[0, 1]], [0, 1], r"y_true has shape \(1, 2\)"),
        ([0, 1], [0.2, 0.8], "y_pred holds float64"),
        (["cat", "dog"], [0, 1], "np.unique"),
    ],
)
def test_bad_labels_are_named(metric, y_true, y_pred, message):
    with pytest.raises(DataError, match=message):
        metric(y_true, y_pred)


def test_bad_settings_are_named():
    with pytest.raises(DataError, match="geometric"):
        m.normalized_mutual_info([0, 1], [0, 1], "max")
    with pytest.raises(DataError, match="at least 3"):
        m.match_clusters([0, 2], [0, 1], n_classes=2)


# calibration


def test_calibration_worked_example():
    confidence = np.array([0.05, 0.5, 0.5, 0.31, 0.9, 1.0])
    correct = np.array([False, True, False, False, True, True])
    counts, mean_confidence, right = m.calibration(confidence, correct, n_bins=2)
    assert counts.tolist() == [4, 2]
    np.testing.assert_allclose(mean_confidence, [1.36 / 4, 0.95])
    np.testing.assert_allclose(right, [0.25, 1.0])
    assert m.expected_calibration_error(confidence, correct, 2) == pytest.approx(4 / 6 * 0.09 + 2 / 6 * 0.05)


def test_bins_close_at_their_upper_end_and_may_be_empty():
    counts, confidence, right = m.calibration([0.0, 0.1, 0.3, 0.7, 0.8], np.ones(5, bool), n_bins=10)
    assert counts.tolist() == [2, 0, 1, 0, 0, 0, 1, 1, 0, 0]  # 0.3 · 10 is a little more than 3
    assert np.isnan(confidence[1])
    assert np.isnan(right[1])


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5], [True, False], r"confidence has shape \(1,\) and correct \(2,\)"),
        ([], [], r"shape \(0,\)"),
        ([[0.5]], [[True]], r"shape \(1, 1\)"),
        ([0.5], [1], "correct holds int64.*y_pred == y_true"),
        ([1.5], [True], r"numbers from 1\.5 to 1\.5"),
        ([np.nan], [True], "numbers from nan"),
    ],
)
def test_calibration_of_bad_input(confidence, correct, message):
    with pytest.raises(DataError, match=message):
        m.expected_calibration_error(np.array(confidence), np.array(correct))
    with pytest.raises(DataError, match="n_bins is 0"):
        m.calibration([0.5], [True], 0)
