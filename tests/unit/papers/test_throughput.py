"""What the plan makes of the rates that were measured."""

from __future__ import annotations

import pytest

from labkit.papers.throughput import GRADIENTS, Rates

RATES = Rates("a device", {}, frozenset(), k_means=1e-6, probe=1e-4, width=2304, product=1e13)
IMAGENET = (1_281_167, 1000)


@pytest.mark.parametrize(
    ("n", "n_classes", "in_blocks"),
    [(50_000, 10, False), (50_000, 100, False), (75_750, 101, True), (9296, 1000, True), (262_144, 2, True)],
)
def test_a_probe_is_priced_as_it_will_be_fitted(n: int, n_classes: int, in_blocks: bool) -> None:
    seconds = RATES.probe_seconds(n, n_classes)
    if in_blocks:
        least = GRADIENTS * 4 * n * 2304 * n_classes / 1e13  # at the full rate, with nothing to read
        assert least < seconds < 10 * least
    else:
        assert seconds == pytest.approx(1e-4 * n * n_classes)


def test_the_largest_probe_takes_what_the_docs_say() -> None:
    """docs/scale_turtle.md: half a minute on a GPU of 25 TFLOP/s, 1.6 hours on two cores of 0.1 together."""
    gpu, cores = (Rates("", {}, frozenset(), width=2304, product=rate) for rate in (25e12, 1e11))
    assert gpu.probe_seconds(*IMAGENET) == pytest.approx(24, abs=1)
    assert cores.probe_seconds(*IMAGENET) / 3600 == pytest.approx(1.65, abs=0.06)


def test_k_means_of_many_rows_is_priced_as_of_a_sample() -> None:
    assert RATES.k_means_seconds(*IMAGENET) == pytest.approx(1e-6 * 256_000 * 1000)
    assert RATES.k_means_seconds(60_000, 10) == pytest.approx(1e-6 * 60_000 * 10)
