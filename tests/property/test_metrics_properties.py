"""Metrics on random labelings: bounds, invariances, and the best matching found by trying every one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labkit.evaluation.metrics as m

ALL = (m.clustering_accuracy, m.clustering_mean_per_class_accuracy, m.normalized_mutual_info, m.adjusted_rand_index)
label = st.integers(0, 4)
labelings = st.lists(st.tuples(label, label), min_size=1, max_size=60).map(lambda pairs: np.array(pairs).T)


@given(labelings)
def test_bounds(pair):
    for metric in ALL:
        assert (-0.5 if metric is m.adjusted_rand_index else 0.0) <= metric(*pair) <= 1.0


@given(labelings)
def test_accuracy_is_that_of_the_best_of_all_matchings(pair):
    y_true, y_pred = pair
    best = max(np.mean(np.array(names)[y_pred] == y_true) for names in permutations(range(5)))
    assert m.clustering_accuracy(y_true, y_pred) == pytest.approx(best)


@given(labelings, st.permutations(range(5)), st.permutations(range(5)))
def test_names_of_clusters_and_classes_do_not_matter(pair, cluster_names, class_names):
    y_true, y_pred = pair
    renamed = np.array(class_names)[y_true], np.array(cluster_names)[y_pred]
    for metric in (m.clustering_accuracy, m.normalized_mutual_info, m.adjusted_rand_index):
        assert metric(*renamed) == pytest.approx(metric(*pair))
    # clustering_mean_per_class_accuracy may change where two matchings tie in accuracy: only its bounds are promised


@given(st.lists(label, min_size=1, max_size=60), st.permutations(range(5)))
def test_a_renamed_copy_is_perfect(y_true, names):
    for metric in ALL:
        assert metric(y_true, np.array(names)[y_true]) == pytest.approx(1.0)


@given(labelings, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(pair, random):
    order = random.sample(range(pair.shape[1]), pair.shape[1])
    for metric in ALL:
        assert metric(*pair[:, order]) == pytest.approx(metric(*pair))


@given(labelings)
def test_the_matching_is_one_to_one(pair):
    y_true, y_pred = pair
    mapping = m.match_clusters(y_true, y_pred)
    used = mapping[mapping >= 0]
    assert len(mapping) == y_pred.max() + 1
    assert len(set(used)) == len(used) == min(len(mapping), y_true.max() + 1)


@given(labelings)
def test_mean_per_class_is_the_mean_of_each_class(pair):
    y_true, y_pred = pair
    right = m.match_clusters(y_true, y_pred)[y_pred] == y_true
    expected = np.mean([right[y_true == c].mean() for c in np.unique(y_true)])
    assert m.clustering_mean_per_class_accuracy(y_true, y_pred) == pytest.approx(expected)


@given(st.integers(1, 40), st.integers(1, 40))
def test_all_in_one_cluster_scores_the_largest_class(a, b):
    y_true = np.repeat([0, 1], [a, b])
    assert m.clustering_accuracy(y_true, np.zeros(a + b, int)) == pytest.approx(max(a, b) / (a + b))
    assert m.clustering_mean_per_class_accuracy(y_true, np.zeros(a + b, int)) == pytest.approx(0.5)
    assert m.normalized_mutual_info(y_true, np.zeros(a + b, int)) == 0.0


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_is_that_of_the_definition(predictions, n_bins):
    confidence = np.array([part / 40 for part, _ in predictions])  # many fall on the ends of bins
    correct = np.array([right for _, right in predictions])
    expected = 0.0
    for bin_number in range(1, n_bins + 1):
        low, high = (bin_number - 1) / n_bins, bin_number / n_bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (c == 0 and bin_number == 1)]
        if inside:
            gap = np.mean(correct[inside]) - np.mean(confidence[inside])
            expected += len(inside) / len(confidence) * abs(gap)
    assert m.expected_calibration_error(confidence, correct, n_bins) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_one_bin_compares_mean_confidence_with_accuracy(predictions):
    confidence, correct = map(np.array, zip(*predictions, strict=True))
    assert m.expected_calibration_error(confidence, correct, 1) == pytest.approx(
        abs(confidence.mean() - correct.mean())
    )
