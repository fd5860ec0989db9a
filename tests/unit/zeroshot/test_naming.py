"""Names for clusters: a worked example, evidence, class predictions, and errors."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.errors import DataError
from labkit.zeroshot.naming import name_clusters

# four images, two clusters, three words
LABELING = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.0, 1.0]])
ZERO_SHOT = np.array([[0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1]])


def test_worked_example() -> None:
    names = name_clusters(LABELING, ZERO_SHOT, n_evidence=2)
    assert names.assignment.tolist() == [1, 0]
    score = (0.9 * np.log(0.7) + 0.8 * np.log(0.6) + 0.3 * np.log(0.4)) / 2.0
    assert names.scores[0, 1] == pytest.approx(score)
    assert names.scores.shape == (2, 3)
    other = (0.9 * np.log(0.2) + 0.8 * np.log(0.1) + 0.3 * np.log(0.5)) / 2.0
    assert names.margins[0] == pytest.approx(score - other)
    assert names.evidence.tolist() == [[0, 1], [3, 2]]  # largest 0.9 · 0.7 and 1.0 · 0.8


def test_a_word_that_two_clusters_want_goes_where_it_is_missed_most() -> None:
    labeling = np.eye(2)
    zero_shot = np.array([[0.60, 0.39, 0.01], [0.60, 0.05, 0.35]])  # both want word 0
    names = name_clusters(labeling, zero_shot)
    assert names.assignment.tolist() == [1, 0]
    assert names.margins[0] < 0 < names.margins[1]


def test_class_predictions_are_those_of_the_named_cluster() -> None:
    names = name_clusters(LABELING, ZERO_SHOT)
    assert names.predict(LABELING).tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(names.predict_proba(LABELING)[0], [0.1, 0.9, 0.0])
    assert names.predict([[0.4, 0.6]]).tolist() == [0]
    assert names.predict(LABELING).dtype == np.int64


def test_an_empty_cluster_takes_a_word_that_is_left() -> None:
    labeling = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    zero_shot = np.array([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    names = name_clusters(labeling, zero_shot)
    assert names.assignment.tolist() == [0, 1, 2]
    assert np.isfinite(names.scores).all()


def test_a_probability_of_zero_is_no_catastrophe() -> None:
    zero_shot = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    names = name_clusters(np.array([[0.1, 0.9], [0.9, 0.1]]), zero_shot)
    assert names.assignment.tolist() == [1, 0]
    assert np.isfinite(names.scores).all()


def test_one_cluster_and_one_word() -> None:
    names = name_clusters(np.ones((3, 1)), np.ones((3, 1)))
    assert names.assignment.tolist() == [0]
    assert names.margins.tolist() == [np.inf]
    assert names.evidence.shape == (1, 3)  # no more than there are


def test_nothing_given_is_changed() -> None:
    before = LABELING.copy(), ZERO_SHOT.copy()
    name_clusters(LABELING, ZERO_SHOT)
    np.testing.assert_array_equal(LABELING, before[0])
    np.testing.assert_array_equal(ZERO_SHOT, before[1])


@pytest.mark.parametrize(
    ("labeling", "zero_shot", "message"),
    [
        (LABELING[:3], ZERO_SHOT, "labeling_probs has 3 rows and zero_shot_probs 4"),
        (LABELING, np.ones((4, 1)), "1 words for 2 clusters.*add words"),
        (LABELING * np.nan, ZERO_SHOT, "labeling_probs holds numbers that are not finite"),
        (LABELING, np.log(ZERO_SHOT), "zero_shot_probs holds numbers from .*softmax of the logits"),
        (LABELING * 2, ZERO_SHOT, "rows sum to 1 only within 1"),
        (LABELING.argmax(1), ZERO_SHOT, r"labeling_probs has shape \(4,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), r"shape \(0, 2\)"),
    ],
)
def test_bad_input_is_named(labeling: np.ndarray, zero_shot: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        name_clusters(labeling, zero_shot)


def test_another_number_of_clusters_cannot_be_predicted() -> None:
    with pytest.raises(DataError, match=r"has 3 clusters\. Expected the 2 named ones"):
        name_clusters(LABELING, ZERO_SHOT).predict(np.full((1, 3), 1 / 3))
