"""The steps of `TextGaussians` against loops written from its objective, and the objective itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labkit.zeroshot.gaussians import (
    TextGaussians,
    class_prior,
    effective_share,
    mean_and_variance,
    responsibilities,
)

N, V, D, ALPHA, TAU = 17, 5, 6, 1.5, 0.3
CLASS_OF = np.array([0, 0, 1, 2, 2])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made_up(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (n, D), texts (V, D) and responsibilities (n, V), float64."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(V, D))
    images = texts[rng.integers(V, size=n)] + 0.7 * rng.normal(size=(n, D)) + 1
    return unit(images), unit(texts), rng.dirichlet(np.full(V, 0.5), size=n)


def log_density(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    total = 0.0
    for j in range(len(x)):
        total -= (math.log(2 * math.pi * variance[j]) + (x[j] - mean[j]) ** 2 / variance[j]) / 2
    return total


def divergence(m0: np.ndarray, v0: np.ndarray, m1: np.ndarray, v1: np.ndarray) -> float:
    """KL(N(m0, v0) ‖ N(m1, v1)) of diagonal Gaussians."""
    total = 0.0
    for j in range(len(m0)):
        total += (math.log(v1[j] / v0[j]) + (v0[j] + (m0[j] - m1[j]) ** 2) / v1[j] - 1) / 2
    return total


def test_the_e_step() -> None:
    x, texts, resp = made_up()
    log_q, prior = np.log(np.roll(resp, 1, axis=0)), np.array([0.1, 0.2, 0.4, 0.25, 0.05])
    variances = np.linspace(0.2, 1.3, D)
    found = responsibilities(log_q, x, texts, variances, prior, TAU)
    for i in range(N):
        terms = [
            math.exp(log_q[i, k]) * prior[k] * math.exp(TAU * log_density(x[i], texts[k], variances)) for k in range(V)
        ]
        np.testing.assert_allclose(found[i], np.array(terms) / sum(terms), rtol=1e-9)


def test_the_m_step() -> None:
    x, texts, resp = made_up()
    v0 = np.linspace(0.1, 0.6, D)
    means, variances = mean_and_variance(x, resp, texts, ALPHA, v0)
    numerator = np.zeros(D)
    for k in range(V):
        total, mass = ALPHA * texts[k], ALPHA
        for i in range(N):
            total, mass = total + resp[i, k] * x[i], mass + resp[i, k]
        np.testing.assert_allclose(means[k], total / mass, rtol=1e-9)
        for i in range(N):
            numerator += resp[i, k] * (x[i] - total / mass) ** 2
        numerator += ALPHA * (v0 + (texts[k] - total / mass) ** 2)
    np.testing.assert_allclose(variances, numerator / (N + ALPHA * V), rtol=1e-9)


def test_the_variance_that_a_text_stands_for() -> None:
    x, texts, resp = made_up()
    means, variance = mean_and_variance(x, resp, texts, ALPHA, None)
    expected = np.zeros(D)
    for i in range(N):
        for k in range(V):
            expected += resp[i, k] * (x[i] - means[k]) ** 2 / N
    np.testing.assert_allclose(variance, expected, rtol=1e-9)


def test_the_prior() -> None:
    _, _, resp = made_up()
    images = np.array([resp[:, c == CLASS_OF].sum() for c in range(3)])
    made_up_images = np.array([N * list(CLASS_OF).count(c) / V for c in range(3)])
    of_class = (images + made_up_images) / (2 * N)
    expected = [of_class[c] / list(CLASS_OF).count(c) for c in CLASS_OF]
    np.testing.assert_allclose(class_prior(resp, CLASS_OF), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [4, 30])
def test_the_share_of_directions(n: int) -> None:
    rows = np.random.default_rng(1).normal(size=(n, D)) * np.linspace(0.1, 2, D)
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows)
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / D
    assert effective_share(rows) == pytest.approx(expected)


def objective(
    x: np.ndarray, texts: np.ndarray, log_q: np.ndarray, resp: np.ndarray, fitted: TextGaussians, v0: np.ndarray
) -> float:
    total = 0.0
    for k in range(V):
        for i in range(len(x)):
            z = resp[i, k]
            density = log_density(x[i], fitted.means_[k], fitted.variances_)
            total += z * (math.log(z) - log_q[i, k] - math.log(fitted.prior_[k]) - fitted.tau_ * density)
        total -= len(x) / V * math.log(fitted.prior_[k])
        total += fitted.tau_ * ALPHA * divergence(texts[k], v0, fitted.means_[k], fitted.variances_)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_every_iteration_lowers_the_objective(seed: int) -> None:
    x, texts, _ = made_up(seed, n=40)
    scale = 4.0
    q = np.exp(scale * x @ texts.T)
    q /= q.sum(1, keepdims=True)
    _, v0 = mean_and_variance(x, q, texts, ALPHA, None)
    values = []
    for steps in range(1, 7):
        fitted = TextGaussians(texts, scale, class_of=CLASS_OF, anchor=ALPHA, max_iter=steps).fit(x)
        resp = responsibilities(np.log(q), x, fitted.means_, fitted.variances_, fitted.prior_, fitted.tau_)
        values.append(objective(x, texts, np.log(q), resp, fitted, v0))
    assert values[-1] < values[0]
    assert max(np.diff(values)) < 1e-4
