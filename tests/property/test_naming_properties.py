"""Naming on random probabilities: the best of all one-to-one matchings, whatever the order of clusters and words."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.zeroshot.naming import name_clusters


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Probabilities of K ≤ V ≤ 5 for 2 to 20 images; continuous, so that no two matchings tie."""
    n_words = draw(st.integers(2, 5))
    n_clusters, n = draw(st.integers(1, n_words)), draw(st.integers(2, 20))  # one image: all clusters score alike
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.dirichlet(np.ones(n_clusters), n), rng.dirichlet(np.ones(n_words), n), rng


@given(problems())
def test_no_other_matching_scores_higher(problem):
    labeling, zero_shot, _ = problem
    n_clusters, n_words = labeling.shape[1], zero_shot.shape[1]
    scores = np.array(  # by loops, from the definition
        [
            [
                sum(t * np.log(p) for t, p in zip(labeling[:, k], zero_shot[:, v], strict=True)) / labeling[:, k].sum()
                for v in range(n_words)
            ]
            for k in range(n_clusters)
        ]
    )
    names = name_clusters(labeling, zero_shot)
    np.testing.assert_allclose(names.scores, scores, rtol=1e-9)
    best = max(permutations(range(n_words), n_clusters), key=lambda m: sum(scores[k, v] for k, v in enumerate(m)))
    assert names.assignment.tolist() == list(best)


@given(problems())
def test_the_order_of_clusters_does_not_matter(problem):
    labeling, zero_shot, rng = problem
    order = rng.permutation(labeling.shape[1])
    names, shuffled = name_clusters(labeling, zero_shot), name_clusters(labeling[:, order], zero_shot)
    np.testing.assert_array_equal(shuffled.assignment, names.assignment[order])
    np.testing.assert_allclose(shuffled.scores, names.scores[order])
    np.testing.assert_allclose(shuffled.margins, names.margins[order])
    np.testing.assert_array_equal(shuffled.evidence, names.evidence[order])
    np.testing.assert_array_equal(shuffled.predict(labeling[:, order]), names.predict(labeling))


@given(problems())
def test_the_order_of_words_does_not_matter(problem):
    labeling, zero_shot, rng = problem
    order = rng.permutation(zero_shot.shape[1])
    names, shuffled = name_clusters(labeling, zero_shot), name_clusters(labeling, zero_shot[:, order])
    np.testing.assert_array_equal(order[shuffled.assignment], names.assignment)
    np.testing.assert_allclose(shuffled.margins, names.margins)


@given(problems())
def test_the_order_of_pictures_does_not_matter(problem):
    labeling, zero_shot, rng = problem
    order = rng.permutation(len(labeling))
    names, shuffled = name_clusters(labeling, zero_shot), name_clusters(labeling[order], zero_shot[order])
    np.testing.assert_array_equal(shuffled.assignment, names.assignment)
    np.testing.assert_array_equal(order[shuffled.evidence], names.evidence)


@given(problems())
def test_words_are_used_once_and_probabilities_stay_probabilities(problem):
    labeling, zero_shot, _ = problem
    names = name_clusters(labeling, zero_shot)
    assert len(set(names.assignment)) == labeling.shape[1]
    probs = names.predict_proba(labeling)
    assert probs.sum(1) == pytest.approx(np.ones(len(labeling)))
    np.testing.assert_array_equal(probs.argmax(1), names.predict(labeling))


@given(problems())
def test_words_that_nobody_says_change_nothing(problem):
    """An open vocabulary: unlikely words are left over."""
    labeling, zero_shot, _ = problem
    more = np.c_[0.5 * zero_shot, np.full((len(zero_shot), 50), 1e-12)]
    more /= more.sum(1, keepdims=True)
    np.testing.assert_array_equal(
        name_clusters(labeling, more).assignment, name_clusters(labeling, zero_shot).assignment
    )
