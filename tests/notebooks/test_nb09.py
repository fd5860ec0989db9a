"""Exercises of notebook 09 against independent calculations: loops, SciPy, simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest


def test_the_first_earlier_twin_by_loops(answer: Any) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2, (12, 64)).astype(bool)
    hashes[[4, 7, 9]] = hashes[[1, 4, 1]]
    hashes[7, :3] ^= True
    for most in (0, 3, 30):
        expected = []
        for i in range(12):
            twins = [j for j in range(i) if sum(a != b for a, b in zip(hashes[i], hashes[j], strict=True)) <= most]
            expected.append(twins[0] if twins else -1)
        assert answer("09.1")(hashes, most).tolist() == expected


@pytest.mark.parametrize(("n_right", "n"), [(45, 50), (50, 50), (0, 7), (1, 1), (333, 400)])
def test_wilsons_interval_is_scipys(answer: Any, n_right: int, n: int) -> None:
    exact = binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    assert answer("09.2")(n_right, n) == pytest.approx((exact.low, exact.high), abs=1e-4)


def test_the_stratified_estimate_is_unbiased_and_its_error_honest(answer: Any) -> None:
    random = np.random.default_rng(1)
    sizes, accuracy = np.array([600, 300, 100]), np.array([0.9, 0.7, 0.5])
    clusters = np.repeat([0, 1, 2], 20)
    rounds = [answer("09.3")(random.random(60) < accuracy[clusters], clusters, sizes) for _ in range(3000)]
    estimates, errors = np.transpose(rounds)
    assert estimates.mean() == pytest.approx(sizes @ accuracy / 1000, abs=0.005)
    assert np.sqrt((errors**2).mean()) == pytest.approx(estimates.std(), rel=0.05)


def test_coverage_and_accuracy_by_loops(answer: Any) -> None:
    random = np.random.default_rng(2)
    confidence, right = random.permutation(30) / 30, random.random(30) < 0.8
    coverage, accuracy = answer("09.4")(confidence, right)
    for k in range(1, 31):
        limit = sorted(confidence, reverse=True)[k - 1]
        kept = [r for c, r in zip(confidence, right, strict=True) if c >= limit]
        assert coverage[k - 1] == pytest.approx(k / 30)
        assert accuracy[k - 1] == pytest.approx(sum(kept) / len(kept))
