"""Priors over the sizes of classes: shares, the divergence from them, and their estimate without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as kl
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from labkit.errors import FitError
from labkit.evaluation.metrics import clustering_accuracy
from labkit.turtle import Turtle, divergence, entropy, outer_grad_logits, power_law
from labkit.turtle.priors import consensus, separation, shares_of

SIZES = [400, 60, 40, 30, 20]


def uneven_blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_blobs(SIZES, 64, cluster_std=1.3, random_state=seed, center_box=(-3, 3))
    return x.astype(np.float32), y


@given(st.integers(1, 300), st.floats(0, 5))
def test_a_power_law_is_shares_in_falling_order(n_clusters: int, exponent: float) -> None:
    shares = power_law(n_clusters, exponent)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()
    assert shares[0] / shares[-1] == pytest.approx(n_clusters**exponent)


@pytest.mark.parametrize(("n_clusters", "exponent"), [(0, 1), (2.5, 1), (3, -1), (3, np.nan), (3, "steep")])
def test_no_power_law(n_clusters: object, exponent: object) -> None:
    with pytest.raises(FitError, match="Expected a"):
        power_law(n_clusters, exponent)  # type: ignore[arg-type]


def test_the_divergence_is_that_of_scipy_and_from_even_shares_the_missing_entropy() -> None:
    mean = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(5), 3))
    shares = power_law(5, 1.0)
    np.testing.assert_allclose(divergence(mean, torch.from_numpy(shares).log()), [kl(row, shares) for row in mean])
    even = torch.full((5,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(divergence(mean, even.log()), np.log(5) - entropy(mean))
    assert divergence(torch.eye(5, dtype=torch.float64)[:1], even.log()).item() == pytest.approx(np.log(5))


def test_even_shares_have_the_gradient_of_the_published_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64).softmax(1)
    grad = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
    even = torch.full((4,), 0.25, dtype=torch.float64).log()
    torch.testing.assert_close(outer_grad_logits(probs, grad, 10.0, even), outer_grad_logits(probs, grad, 10.0))


def test_shares_may_be_counts() -> None:
    np.testing.assert_allclose(shares_of([30, 10], 2), [0.75, 0.25])
    np.testing.assert_allclose(shares_of(torch.tensor([3.0, 1.0]), 2), [0.75, 0.25])
    assert shares_of("even", 2) is None


@pytest.mark.parametrize(
    "prior",
    ["uneven", [0.5, 0.5], [1, 0, 1], [1, -1, 1], [1, np.nan, 1], [1, 1, 1e-20], ["a", "b", "c"], np.ones((3, 1)),
     None, 3.0],
    ids=repr,
)  # fmt: skip
def test_what_is_no_prior_is_named(prior: object) -> None:
    with pytest.raises(FitError, match=r"prior.*Expected"):
        Turtle(3, prior=prior).fit(np.random.default_rng(0).normal(size=(30, 4)))  # type: ignore[arg-type]


def test_consensus_outvotes_a_labeling_that_differs() -> None:
    true = torch.arange(60) % 3
    others = [true, (true + 1) % 3, (true + 2) % 3, torch.arange(60) // 20]
    assert adjusted_rand_score(true, consensus(torch.stack(others), 3)) == 1


def test_separation_prefers_what_is_apart() -> None:
    x, y = make_blobs(200, 6, centers=4, random_state=0)
    features, labels = [torch.from_numpy(x)], torch.from_numpy(y)
    assert separation(features, labels) > separation(features, labels % 2)
    assert separation(features, labels) > separation(features, torch.arange(200) % 4)
    assert separation(features, torch.zeros(200).long()) == -np.inf


def test_estimated_shares_find_uneven_classes_that_even_ones_split() -> None:
    x, y = uneven_blobs()
    even = Turtle(5, random_state=0).fit(x)
    found = Turtle(5, prior="estimated", random_state=0).fit(x)
    assert clustering_accuracy(y, even.labels_) < 0.5
    assert clustering_accuracy(y, found.labels_) > 0.85
    np.testing.assert_allclose(np.sort(found.prior_)[::-1], np.array(SIZES) / sum(SIZES), atol=0.15)
    assert found.history_["divergence"][-1, 0] < 0.02
    np.testing.assert_allclose(
        found.history_["outer_loss"], found.history_["inner_loss"] + 10 * found.history_["divergence"], rtol=1e-5
    )


def test_even_classes_keep_the_even_fit() -> None:
    x, _ = make_blobs(300, 8, centers=4, cluster_std=0.5, random_state=0)
    even = Turtle(4, random_state=0).fit(x)
    found = Turtle(4, prior="estimated", random_state=0).fit(x)
    if np.ptp(found.prior_) == 0:
        np.testing.assert_array_equal(found.predict_proba(x), even.predict_proba(x))
    assert adjusted_rand_score(even.labels_, found.labels_) > 0.99


def test_labels_change_no_estimate() -> None:
    x, y = uneven_blobs()
    fits = [Turtle(5, prior="estimated", random_state=0).fit(x, labels) for labels in (None, y, y[::-1])]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.labels_, fits[0].labels_)
        np.testing.assert_array_equal(fit.prior_, fits[0].prior_)


def test_shares_that_are_known_are_what_clusters_get() -> None:
    x, y = uneven_blobs()
    turtle = Turtle(5, prior=SIZES, random_state=0).fit(x)
    np.testing.assert_allclose(turtle.prior_, np.array(SIZES) / sum(SIZES))
    np.testing.assert_allclose(np.bincount(turtle.labels_, minlength=5) / len(y), turtle.prior_, atol=0.1)


def test_a_prior_survives_saving(tmp_path: Path) -> None:
    x, _ = uneven_blobs()
    for prior in ("estimated", np.array(SIZES), tuple(SIZES), list(power_law(5, 1.0))):
        turtle = Turtle(5, prior=prior, n_outer_steps=40, random_state=0).fit(x)
        turtle.save(tmp_path / "turtle.safetensors")
        loaded = Turtle.load(tmp_path / "turtle.safetensors")
        np.testing.assert_array_equal(loaded.prior_, turtle.prior_)
        np.testing.assert_array_equal(loaded.predict(x), turtle.predict(x))
