"""The evidence for names: against loops written from the equations, modesty, and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labkit.errors import DataError
from labkit.zeroshot import confidence
from labkit.zeroshot.confidence import name_evidence

DIM = 16


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def case(seed: int, n: int = 40, n_clusters: int = 3, n_words: int = 4, n_nouns: int = 25) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(n_clusters), size=n),
        rng.normal(size=(n, DIM)) + 1,
        rng.normal(size=(n_words, DIM)) - 1,
        rng.normal(size=(n_nouns, DIM)) - 1,
    )


def two_kinds() -> tuple[np.ndarray, ...]:
    """Two clusters of ten images around two nouns of a hundred, and the words of these two."""
    rng = np.random.default_rng(0)
    nouns = np.concatenate([np.eye(2, DIM), rng.normal(size=(98, DIM)) / DIM**0.5])
    images = np.repeat(nouns[:2], 10, axis=0) + 0.1 * rng.normal(size=(20, DIM))
    return np.repeat(np.eye(2), 10, axis=0), images, nouns[:2], nouns


def test_against_loops() -> None:
    labeling, images, words, nouns = case(0)
    found = name_evidence(labeling, images, words, nouns)
    z = [unit(row) for row in images]
    z = [unit(row - sum(z) / len(z)) for row in z]
    b = [unit(row) for row in nouns]
    middle = sum(b) / len(b)
    b, w = [unit(row - middle) for row in b], [unit(unit(row) - middle) for row in words]
    for k in range(labeling.shape[1]):
        mass = sum(labeling[:, k])
        center = sum(labeling[i, k] * z[i] for i in range(len(z))) / mass
        fits = [row @ center for row in b]
        for v in range(len(w)):
            own = w[v] @ center
            best = [i for i in range(len(z)) if max(range(len(w)), key=lambda u: w[u] @ z[i]) == v]
            assert found.share[k, v] == pytest.approx(sum(labeling[i, k] for i in best) / (1 + mass))
            assert found.rank[k, v] == pytest.approx(math.log((1 + sum(f > own for f in fits)) / (1 + len(b))))
            assert found.gap[k, v] == pytest.approx(own - max(fits))
            score = (
                confidence.INTERCEPT
                + confidence.SHARE * found.share[k, v]
                + confidence.RANK * found.rank[k, v]
                + confidence.GAP * found.gap[k, v]
            )
            assert found.confidence()[k, v] == pytest.approx(1 / (1 + math.exp(-score)))
        np.testing.assert_allclose(found.nouns[k], fits, atol=1e-7)
        assert found.suggestions()[k].tolist() == sorted(range(len(b)), key=lambda j: -fits[j])[:3]


def test_a_word_that_fits_is_trusted_and_another_one_not() -> None:
    labeling, images, words, nouns = two_kinds()
    given = name_evidence(labeling, images, words, nouns).confidence()
    assert (given.argmax(1) == [0, 1]).all()
    assert given.max(1).min() > 0.8
    alone = name_evidence(labeling, images, words[:1], nouns).confidence()  # the only word, which all images choose
    assert alone[0, 0] > 0.8
    assert alone[1, 0] < confidence.LEAST


def test_two_clusters_can_have_one_word() -> None:
    labeling, images, words, nouns = two_kinds()
    halves = np.concatenate([labeling, np.zeros((20, 1))], axis=1)
    halves[5:10] = [0, 0, 1]
    assert name_evidence(halves, images, words, nouns).confidence().argmax(1).tolist() == [0, 1, 0]


def test_a_noun_is_not_better_than_itself() -> None:
    labeling, images, _, nouns = two_kinds()
    found = name_evidence(labeling, images, nouns, nouns)
    np.testing.assert_allclose(found.rank.min(1), np.log(1 / 101))
    np.testing.assert_allclose(found.gap.max(1), 0, atol=1e-12)


def test_few_images_are_trusted_less() -> None:
    labeling, images, words, nouns = two_kinds()
    many = name_evidence(labeling, images, words, nouns).share[0, 0]
    few = name_evidence(labeling[8:], images[8:], words, nouns).share[0, 0]
    assert many == pytest.approx(10 / 11)
    assert few == pytest.approx(2 / 3)


def test_an_empty_cluster_has_no_confidence() -> None:
    labeling, images, words, nouns = two_kinds()
    given = name_evidence(np.concatenate([labeling, np.zeros((20, 1))], axis=1), images, words, nouns).confidence()
    assert np.isnan(given[2]).all()
    assert np.isfinite(given[:2]).all()


def test_without_words_there_are_suggestions() -> None:
    labeling, images, words, nouns = two_kinds()
    found = name_evidence(labeling, images, words[:0], nouns)
    assert found.confidence().shape == (2, 0)
    assert found.suggestions()[:, 0].tolist() == [0, 1]


def test_everyday_nouns_have_a_head_start() -> None:
    labeling, images, words, nouns = case(1)
    found = name_evidence(labeling, images, words, nouns)
    order = [4, *[j for j in range(len(nouns)) if j != 4]]  # the fifth noun comes first
    moved = name_evidence(labeling, images, words, nouns[order])
    for k in range(3):
        score = [fit + (j == 4) * found.nouns[k].std() for j, fit in enumerate(found.nouns[k])]
        best = sorted(range(len(nouns)), key=lambda j: -score[j])[:3]
        assert [order[j] for j in moved.suggestions(1)[k]] == best


def test_lengths_do_not_matter() -> None:
    labeling, images, words, nouns = case(2)
    once = name_evidence(labeling, images, words, nouns).confidence()
    np.testing.assert_allclose(name_evidence(labeling, 1e30 * images, 7 * words, nouns / 9).confidence(), once)


def test_identical_images_give_numbers() -> None:
    labeling, images, words, nouns = two_kinds()
    given = name_evidence(labeling, np.ones_like(images), words, nouns).confidence()
    assert np.isfinite(given).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labeling_probs": np.ones((20, 2))}, "rows sum to 1"),
        ({"features": np.ones((19, DIM))}, r"Expected \(n, K\), \(n, d\)"),
        ({"words": np.ones((2, 3))}, r"words \(2, 3\)"),
        ({"nouns": np.ones((2, 3))}, r"nouns \(2, 3\)"),
        ({"features": np.full((20, DIM), np.nan)}, "features contains NaN"),
        ({"words": ["dog"]}, "words"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    given = dict(zip(("labeling_probs", "features", "words", "nouns"), two_kinds(), strict=True))
    with pytest.raises(DataError, match=message):
        name_evidence(**{**given, **change})
