"""Notebook 03's exercises that are not checked by comparing numbers: a list in any order, and data for two rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from labkit.course import exercises
from labkit.course.exercises import nb03


def test_labelings_may_come_in_any_order_and_under_either_name() -> None:
    def shuffled(n: int) -> list[list[int]]:
        rows = [[0, *rest] for rest in itertools.product((0, 1), repeat=n - 1) if any(rest)]
        return [[1 - label for label in row] if i % 2 else row for i, row in enumerate(reversed(rows))]

    assert exercises.get("03.1").grade(shuffled) == "Exercise 03.1: correct"
    twice = exercises.get("03.1").grade(lambda n: shuffled(n) + shuffled(n))
    assert twice.startswith("Exercise 03.1: not yet. Every labeling is there twice")


def test_the_stripes_do_not_depend_on_the_seed() -> None:
    observed = nb03._winner(exercises.get("03.5").reference)
    assert {observed(seed) for seed in range(100, 120)} == {nb03._KMEANS_WINS}


def test_the_margin_rule_of_the_check_is_exact() -> None:
    points = np.random.default_rng(0).normal(size=(8, 2))
    labels = nb03._max_margin(points, 2)
    assert min(labels.sum(), 8 - labels.sum()) >= 2

    def margin(labels: np.ndarray) -> float:  # by brute force over many directions
        turns = np.linspace(0, 2 * np.pi, 20_000)
        along = np.c_[np.cos(turns), np.sin(turns)] @ points.T
        return float((along[:, labels == 1].min(1) - along[:, labels == 0].max(1)).max())

    others = [np.array(word) for word in itertools.product((0, 1), repeat=8) if 2 <= sum(word) <= 6]
    assert margin(labels) == pytest.approx(max(map(margin, others)), abs=1e-4)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (3, "Return a pair"),
        ((np.zeros((60, 3)), np.zeros(60)), "Return a pair"),
        ((np.full((60, 2), np.nan), np.zeros(60)), "Return a pair"),
        ((np.zeros((60, 2)), np.zeros(60)), "Use 20 to 120 different points"),
        ((np.zeros((4, 2)), np.array([0, 0, 1, 1])), "Use 20 to 120 different points"),
        ((np.zeros((60, 2)), np.repeat([0, 1], 30)), "Use 20 to 120 different points"),
        (("a", "b"), "ValueError"),
        (None, "is there a `return`?"),
    ],
)
def test_odd_datasets_are_explained(answer: object, verdict: str) -> None:
    assert verdict in exercises.get("03.5").grade(lambda seed: answer)
