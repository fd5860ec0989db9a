"""What the plan makes of the rates that were measured."""

from __future__ import annotations

import pytest

from labkit.papers.throughput import GRADIENTS, REACHED, Rates

RATES = Rates("a device", {}, frozenset(), probe=1e-4, width=2304, product=1e13)


@pytest.mark.parametrize(
    ("n", "n_classes", "in_blocks"),
    [(50_000, 10, False), (50_000, 100, False), (75_750, 101, True), (9296, 1000, True), (262_144, 2, True)],
)
def test_a_probe_is_priced_as_it_will_be_fitted(n: int, n_classes: int, in_blocks: bool) -> None:
    seconds = RATES.probe_seconds(n, n_classes)
    if in_blocks:
        least = GRADIENTS * 4 * n * 2304 * n_classes / 1e13  # at the full rate, with nothing to read
        assert least / REACHED < seconds < 10 * least / REACHED
    else:
        assert seconds == pytest.approx(1e-4 * n * n_classes)


def test_the_largest_probe_is_minutes_on_a_gpu_and_hours_on_two_cores() -> None:
    imagenet = (1_281_167, 1000)
    assert 60 < RATES.probe_seconds(*imagenet) < 600
    assert 3600 < Rates("two cores", {}, frozenset(), width=2304, product=1e11).probe_seconds(*imagenet) < 10 * 3600
