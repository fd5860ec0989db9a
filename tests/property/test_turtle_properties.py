"""Turtle on features of any kind and scale: finite labels and probabilities, or one clear FitError."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

from labkit.errors import CollapseWarning, FitError
from labkit.turtle import Turtle

KINDS = (
    "normal", "identical", "zeros", "constant features", "duplicated rows", "rank one", "mixed scales", "one huge row",
    "two values", "far from zero", "rounding noise",
)  # fmt: skip
SETTINGS = {
    "default": {},
    "official": Turtle.official(2).get_params() | {"n_restarts": 2, "device": "cpu"},
    "all directions": {"n_components": None},
    "one direction": {"n_components": 1, "whitening": 1.0},
    "plain": {"n_components": None, "whitening": 0.0},
    "as scaled": {"feature_scale": None},
    "double": {"dtype": "float64"},
    "estimated": {"prior": "estimated"},
    "single": {"dtype": "float32", "inner_start": "cold"},
}


def make_features(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    """Features (n, d) of a kind, float64, mostly near 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    if kind == "identical":
        x[:] = x[0]
    elif kind == "zeros":
        x[:] = 0
    elif kind == "constant features":
        x[:, rng.random(d) < 0.7] = rng.normal() * 1e6
    elif kind == "duplicated rows":
        x = x[rng.integers(max(1, n // 4), size=n)]
    elif kind == "rank one":
        x = x[:, :1] * rng.normal(size=d)
    elif kind == "mixed scales":
        x *= 10.0 ** rng.integers(-12, 12, size=d)
    elif kind == "one huge row":
        x[rng.integers(n)] *= 1e30
    elif kind == "two values":
        x = np.sign(x)
    elif kind == "far from zero":
        x += 1e5
    elif kind == "rounding noise":
        x = 1 + 1e-7 * x
    return x


def outcome(x: np.ndarray, clusters: int, **changes: object) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels and probabilities of a short fit, or None where it was refused; any other end is a failure."""
    options: dict = {
        "n_restarts": 2,
        "random_state": 0,
        "device": "cpu",
        **changes,
        "n_clusters": clusters,
        "n_outer_steps": 4,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CollapseWarning)
        try:
            turtle = Turtle(**options).fit(x)
        except FitError as error:
            assert "Expected" in str(error)  # noqa: PT017
            return None
        probabilities = turtle.predict_proba(x)
    np.testing.assert_array_equal(turtle.labels_, probabilities.argmax(1))
    assert all(np.isfinite(values).all() for values in turtle.history_.values())
    assert all(np.isfinite(array).all() for pair in turtle.restarts_ for array in pair)
    return turtle.labels_, probabilities


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 200),
    d=st.integers(1, 200),
    exponent=st.integers(-30, 30),
    name=st.sampled_from(sorted(SETTINGS)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
@example("normal", 8, 1280, 0, "default", np.float32, 0)  # fewer images than directions: the case of eight digits
@example("identical", 12, 1280, 0, "default", np.float32, 0)
@example("one huge row", 150, 140, 0, "default", np.float32, 0)
def test_whatever_the_features_the_outcome_is_finite_or_refused(
    kind: str, n: int, d: int, exponent: int, name: str, dtype: type, seed: int
) -> None:
    with np.errstate(over="ignore"):
        x = (make_features(kind, n, d, seed) * 10.0**exponent).astype(dtype)
    found = outcome(x, min(n, 5), **SETTINGS[name])
    as_given = SETTINGS[name].get("feature_scale", 8.0) is None  # then features may be too large by definition
    if found is None:
        assert as_given or kind == "one huge row" or not np.isfinite(x).all()
        return
    labels, probabilities = found
    assert probabilities.shape == (n, min(n, 5))
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-4)
    assert set(labels) <= set(range(min(n, 5)))


@settings(max_examples=20, deadline=None)
@given(exponent=st.integers(-100, 100), n=st.sampled_from([6, 40, 150]), d=st.sampled_from([3, 140]))
def test_a_power_of_two_changes_nothing(exponent: int, n: int, d: int) -> None:
    x = make_features("normal", n, d, 0).astype(np.float32)
    plain, scaled = (outcome(z, 4, dtype="float32") for z in (x, x * np.float32(2.0**exponent)))
    assert plain is not None
    assert scaled is not None
    np.testing.assert_array_equal(plain[0], scaled[0])
    np.testing.assert_allclose(plain[1], scaled[1], atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from([np.float32, np.float64]),
    offset=st.sampled_from([0.0, 1.0, -1e3, 1e4]),
)
def test_neither_scale_nor_offset_of_the_features_changes_the_labels(exponent: int, dtype: type, offset: float) -> None:
    x = make_blobs(80, 6, centers=3, cluster_std=0.3, random_state=0)[0].round(2)
    found = [outcome(z.astype(dtype), 3, dtype="float32") for z in (x, (x + offset) * 10.0**exponent)]
    assert found[0] is not None
    assert found[1] is not None
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.02)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_doubles_may_have_any_scale(scale: float) -> None:
    x = make_features("normal", 30, 5, 0)
    found = outcome(x * scale, 3)
    assert found is not None
    assert np.isfinite(found[1]).all()


@given(exponent=st.integers(-30, 30), factor=st.sampled_from([0.0, 1e-20, 1e3, 1e8, 1e30]))
@settings(max_examples=20, deadline=None)
def test_predictions_for_other_samples_are_finite_or_refused(exponent: int, factor: float) -> None:
    x = (make_features("normal", 30, 5, 0) * 10.0**exponent).astype(np.float64)
    turtle = Turtle(3, n_restarts=1, n_outer_steps=3, random_state=0, device="cpu").fit(x)
    try:
        probabilities = turtle.predict_proba(x * factor)
    except FitError as error:
        assert "Expected at most" in str(error)  # noqa: PT017
        assert factor > 1e20
    else:
        assert np.isfinite(probabilities).all()
