"""Positions on the map: the same for a seed, near for what is near, and finite whatever is given."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

from labkit.errors import DataError
from labkit.own import layout as module
from labkit.own.layout import layout, layout_method

UMAP = importlib.util.find_spec("umap") is not None
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=["tsne", pytest.param("umap", marks=pytest.mark.skipif(not UMAP, reason="no umap-learn"))])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two, whatever is installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(module, "MANY", 12)
    if request.param == "tsne":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else find(name))
    return str(request.param)


def groups(n: int, n_groups: int, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_groups
    return 4 * rng.normal(size=(n_groups, d))[labels] + rng.normal(size=(n, d)), labels


def share_of_near(positions: np.ndarray, labels: np.ndarray) -> float:
    """How often the nearest image on the map is of the same group."""
    gaps = ((positions[:, None] - positions[None]) ** 2).sum(2)
    np.fill_diagonal(gaps, np.inf)
    return float((labels[gaps.argmin(1)] == labels).mean())


def test_groups_stay_together_and_a_seed_repeats(method: str) -> None:
    x, labels = groups(150, 5)
    positions = layout([x, x[:, :7]], 3)
    assert positions.shape == (150, 2)
    assert positions.dtype == np.float32
    assert share_of_near(positions, labels) > 0.97
    np.testing.assert_array_equal(positions, layout([x, x[:, :7]], 3))
    assert layout_method(150) == {"umap": "UMAP", "tsne": "t-SNE"}[method]
    assert np.ptp(positions, axis=0).max() == pytest.approx(2)
    np.testing.assert_allclose(positions.min(0) + positions.max(0), 0, atol=1e-5)


def test_beside_landmarks_groups_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "N_LANDMARKS", 60)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    x, labels = groups(400, 4)
    positions = layout([x], 0)
    assert np.isfinite(positions).all()
    assert share_of_near(positions, labels) > 0.97
    np.testing.assert_array_equal(positions, layout([x], 0))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 20])
@pytest.mark.parametrize("kind", ["random", "identical", "zero", "three kinds", "one dimension"])
def test_few_or_equal_images_have_a_place_each(n: int, kind: str, method: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "random": rng.normal(size=(n, 8)),
        "identical": np.ones((n, 8)),
        "zero": np.zeros((n, 8)),
        "three kinds": rng.normal(size=(3, 8))[np.arange(n) % 3],
        "one dimension": rng.normal(size=(n, 1)),
    }[kind]
    positions = layout([x], 0)
    assert positions.shape == (n, 2)
    assert np.isfinite(positions).all()
    assert np.abs(positions).max() <= 1 + 1e-6
    assert len(np.unique(positions, axis=0)) == n


def test_a_space_counts_by_its_directions() -> None:
    x, _ = groups(8, 8)
    np.testing.assert_allclose(layout([x * np.arange(1, 9)[:, None]], 0), layout([x], 0), atol=1e-4)


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ([], "shapes []"),
        ([np.ones((0, 3))], "(0, 3)"),
        ([np.ones(3)], "[(3)]"),
        ([np.ones((3, 2)), np.ones((4, 2))], "(4, 2)"),
        ([np.full((3, 2), np.nan)], "not finite"),
    ],
)
def test_what_cannot_be_laid_out_is_said(features: list[np.ndarray], problem: str) -> None:
    with pytest.raises(DataError, match=re.escape(problem)):
        layout(features, 0)
    with pytest.raises(DataError, match="random_state is -1"):
        layout([np.ones((3, 2))], -1)
