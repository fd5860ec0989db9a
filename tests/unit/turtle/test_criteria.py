"""Criteria of many labelings at once, against scikit-learn one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score, silhouette_score

from labkit.turtle.criteria import consensus, mean_rank, pairwise_nmi, silhouette, stability, without_settings

RNG = np.random.default_rng(0)
LABELINGS = np.stack([RNG.integers(0, 4, 90), np.arange(90) % 3, np.arange(90) % 4, np.arange(90) // 60])
POINTS = RNG.normal(size=(90, 3)) + 2 * np.eye(3)[np.arange(90) % 3]


def tensors() -> torch.Tensor:
    return torch.from_numpy(LABELINGS.astype(np.int64))


def test_nmi_of_all_pairs() -> None:
    found = pairwise_nmi(tensors(), 5)
    expected = [[normalized_mutual_info_score(a, b) for b in LABELINGS] for a in LABELINGS]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nmi_of_one_cluster() -> None:
    labelings = torch.stack([torch.zeros(9, dtype=torch.int64), torch.full((9,), 2), torch.arange(9) % 3])
    np.testing.assert_allclose(pairwise_nmi(labelings, 3), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)


def test_consensus_and_stability_are_means_over_others() -> None:
    similarity = torch.tensor([[1.0, 0.5, 0.1, 0.3], [0.5, 1, 0.2, 0.4], [0.1, 0.2, 1, 0.6], [0.3, 0.4, 0.6, 1]])
    np.testing.assert_allclose(consensus(similarity), [0.3, 1.1 / 3, 0.3, 1.3 / 3], atol=1e-6)
    np.testing.assert_allclose(stability(similarity, torch.tensor([0, 0, 1, 1])), [0.5, 0.5, 0.6, 0.6], atol=1e-6)
    alone = stability(similarity, torch.tensor([0, 0, 0, 1]))
    np.testing.assert_allclose(alone[:3], [0.3, 0.35, 0.15], atol=1e-6)
    assert alone[3].isnan()
    assert consensus(similarity[:1, :1]).isnan().all()


def test_silhouette_equals_that_of_scikit_learn() -> None:
    found = silhouette(torch.from_numpy(POINTS).float(), tensors(), 5)
    np.testing.assert_allclose(found, [silhouette_score(POINTS, labels) for labels in LABELINGS], atol=1e-5)


def test_silhouette_of_single_samples_and_of_one_cluster() -> None:
    single = np.where(np.arange(90) == 7, 3, np.arange(90) % 3)
    labelings = torch.from_numpy(np.stack([single, np.zeros(90, dtype=np.int64)]))
    found = silhouette(torch.from_numpy(POINTS).float(), labelings, 4)
    assert found[0] == pytest.approx(silhouette_score(POINTS, single), abs=1e-5)
    assert found[1].isnan()


def test_what_settings_explain_is_taken_out() -> None:
    settings = [{"rate": rate, "start": start} for rate in (0.1, 0.2, 0.4) for start in ("warm", "cold") for _ in "ab"]
    explained = np.array([5 * s["rate"] + (s["start"] == "cold") for s in settings])
    luck = np.tile([1.0, -1.0], 6) * np.repeat([0.1, 0.3, 0.2, 0.5, 0.1, 0.2], 2)
    np.testing.assert_allclose(without_settings(explained + luck, settings), luck)
    assert (without_settings(explained, settings) == 0).all()
    np.testing.assert_allclose(without_settings(luck, [{}] * 12), luck - luck.mean())


def test_settings_that_not_every_run_has() -> None:
    settings = [{"rate": 0.1}, {"rate": 0.1}, {"start": "cold"}, {"start": "cold"}]
    np.testing.assert_allclose(without_settings(np.array([1.0, 2.0, 5.0, 9.0]), settings), [-0.5, 0.5, -2, 2])


def test_mean_rank_knows_no_units() -> None:
    scores = np.array([0.1, 0.4, 0.2, np.nan])
    np.testing.assert_allclose(mean_rank(scores), [0.5, 1, 0.75, 0.25])
    np.testing.assert_allclose(mean_rank(1000 * scores, -scores), [0.75, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(mean_rank(np.array([1.0, 1.0])), [0.75, 0.75])
