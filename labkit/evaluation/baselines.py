"""What TURTLE is measured against: K-means, which sees no label either, and a linear probe, which sees them all.

Both are scikit-learn's, and take the spaces that `Turtle` takes: one (n, d), or a list of K spaces (n, d_k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn

from labkit._inputs import (
    LARGEST_COUNT,
    SPACES_EXPECTED,
    column_names,
    expect_columns,
    is_number,
    is_seed,
    is_whole,
    named_spaces,
    read_classes,
    read_spaces,
)
from labkit._scales import exponent_of, exponent_of_number, largest, moderate_rows, refuse_far_rows
from labkit.errors import FitError, quote

SEARCH_DIM = 64  # principal directions in which K-means looks for its starts
PARALLEL_SIZE = 10**8  # numbers; below, K-means runs in one thread: on busy cores more of them take ten times longer
LARGEST_IN_PREDICTION = 1e30  # in the units of the fit: products with it stay within float32
LARGEST_PENALTY = 1e15  # or its inverse


@dataclass(frozen=True)
class Baseline:
    """A fitted scikit-learn estimator and how it joins spaces: `predict(spaces)` gives labels (n,).

    Attributes:
        exponents: of the power of two that each space is divided by; 0 where its numbers are of ordinary size.
        widths: features of each space.
        columns: names of the features of each space that was given as a frame.
    """

    estimator: Any
    variant: str
    exponents: tuple[int, ...]
    widths: tuple[int, ...]
    columns: tuple[list[str] | None, ...]

    def predict(self, spaces: Any) -> np.ndarray:
        """Label of each sample, cluster numbers or what the probe was given; spaces as in the fit, of any split.

        Raises:
            FitError: they are other spaces, or hold numbers that are far too large for this estimator.
        """
        arrays = read_spaces(spaces)
        widths = tuple(array.shape[1] for array in arrays)
        if widths != self.widths:
            found, expected = (" + ".join(map(str, several)) for several in (widths, self.widths))
            raise FitError(
                f"the spaces have {found} features together. Expected {expected}: the same spaces as in the fit."
            )
        for (name, space), columns in zip(named_spaces(spaces).items(), self.columns, strict=True):
            expect_columns(name, column_names(space), columns)
        joined = _join(arrays, self.variant, self.exponents)
        if np.abs(joined).max() > LARGEST_IN_PREDICTION:
            raise FitError(
                f"the features reach {np.abs(joined).max():.0e} in the units of the fit. Expected at most "
                f"{LARGEST_IN_PREDICTION:.0e}: leave out samples that are far from all others."
            )
        try:
            labels = self.estimator.predict(joined)
        except ValueError as error:  # a feature that hardly varied in the fit, standardised
            raise FitError(
                f"the features are too far from those of the fit to compute with. {SPACES_EXPECTED}"
            ) from error
        return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


def kmeans(
    spaces: Any,
    n_clusters: int,
    *,
    variant: str = "raw",
    n_init: int = 10,
    random_state: int | None = None,
) -> Baseline:
    """K-means with greedy k-means++ starts, the best of `n_init` runs.

    In wide spaces the runs search along the 64 leading principal directions, and the best of them is then run to the
    end on the features as they are: the inertia reached is the same, in a tenth of the time.

    Args:
        spaces: one space (n, d) or a list of K spaces (n, d_k).
        n_clusters: C.
        variant: "raw" (features as they are) or "normalized" (each sample of each space scaled to length 1, as in the
            TURTLE paper for several spaces); several spaces are put side by side.
        n_init: runs from different starts; the one with the smallest inertia is kept.
        random_state: seed.

    Raises:
        FitError: spaces or settings that cannot be fitted.
    """
    _check_variant(variant)
    arrays = read_spaces(spaces)
    exponents = (0,) * len(arrays)
    if variant == "raw":
        exponents = (exponent_of_number(max(map(largest, arrays))),) * len(arrays)  # one: spaces count by their size
    joined, form = _joined_for_fit(arrays, variant, exponents), _form(spaces, arrays)
    if not is_whole(n_clusters, 2, len(joined)):
        raise FitError(
            f"n_clusters is {quote(n_clusters)}. Expected a whole number from 2 to n_samples = {len(joined)}."
        )
    if not is_whole(n_init, 1):
        raise FitError(f"n_init is {quote(n_init)}. Expected a whole number from 1 to {LARGEST_COUNT:,}.")
    if not is_seed(random_state):
        raise FitError(f"random_state is {quote(random_state)}. Expected a whole number from 0 to 2**32 - 1, or None.")
    search = KMeans(n_clusters, n_init=n_init, random_state=random_state)
    n_threads = 1 if joined.size < PARALLEL_SIZE else None
    if min(joined.shape) <= SEARCH_DIM:
        with threadpool_limits(n_threads):
            return Baseline(search.fit(joined), variant, exponents, *form)
    mean = joined.mean(0)
    centred, last = joined - mean, joined.shape[1] - 1
    directions = eigh(centred.T @ centred, subset_by_index=(last - SEARCH_DIM + 1, last))[1]  # the widest; all threads
    with threadpool_limits(n_threads):
        starts = search.fit(centred @ directions).cluster_centers_ @ directions.T + mean
        del centred  # a copy of all features
        final = KMeans(n_clusters, init=starts, n_init=1)
        return Baseline(final.fit(joined), variant, exponents, *form)


def linear_probe(spaces: Any, labels: ArrayLike, *, inverse_penalty: float = 1e-2) -> Baseline:
    """Logistic regression on standardised features, fitted with labels: what a linear classifier can reach here.

    It ends at a gradient of 1e-3. On the embedded datasets that is within 0.2 points of 1e-5, which takes seven times
    as long.

    Args:
        spaces: one space (n, d) or a list of K spaces (n, d_k); several are put side by side.
        labels: class of each sample, (n,), whole numbers or texts; predictions are some of these.
        inverse_penalty: C of scikit-learn's LogisticRegression; smaller is a stronger L2 penalty.

    Raises:
        FitError: spaces or a penalty that cannot be fitted, or labels that are none, of one class or another length.
    """
    arrays = read_spaces(spaces)
    exponents = tuple(map(exponent_of, arrays))
    joined, form = _joined_for_fit(arrays, "raw", exponents), _form(spaces, arrays)
    y = read_classes(labels, len(joined))
    if len(np.unique(y)) < 2:
        raise FitError(f"all labels are {quote(y[0])}. Expected at least two classes.")
    if not is_number(inverse_penalty, 1 / LARGEST_PENALTY, LARGEST_PENALTY):
        raise FitError(
            f"inverse_penalty is {quote(inverse_penalty)}. Expected a number from {1 / LARGEST_PENALTY:.0e} to "
            f"{LARGEST_PENALTY:.0e}."
        )
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=2000, tol=1e-3))
    with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take five times longer
        return Baseline(probe.fit(joined, y), "raw", exponents, *form)


def join_spaces(spaces: Any, variant: str = "raw") -> np.ndarray:
    """K spaces side by side, (n, Σ d_k) float32, each sample of each space scaled to length 1 where "normalized".

    Raises:
        FitError: spaces that are none, of unequal length, or, where "raw", that float32 cannot hold.
    """
    _check_variant(variant)
    arrays = read_spaces(spaces)
    joined = _join(arrays, variant, (0,) * len(arrays))
    lost = [k for k, array in enumerate(arrays) if 0 < largest(array) < float(np.finfo(np.float32).tiny)]
    if variant == "raw" and (lost or not np.isfinite(joined).all()):
        sizes = ", ".join(f"{largest(array):.0e}" for array in arrays)
        raise FitError(f"the largest numbers of the spaces are {sizes}. Expected what float32 holds: scale the spaces.")
    return joined


def _form(spaces: Any, arrays: Sequence[np.ndarray]) -> tuple[tuple[int, ...], tuple[list[str] | None, ...]]:
    """The width of each space, and the names of its columns."""
    columns = tuple(map(column_names, named_spaces(spaces).values()))
    return tuple(array.shape[1] for array in arrays), columns


def _check_variant(variant: object) -> None:
    if not isinstance(variant, str) or variant not in ("raw", "normalized"):
        raise FitError(f'variant is {quote(variant)}. Expected "raw" or "normalized".')


def _joined_for_fit(arrays: Sequence[np.ndarray], variant: str, exponents: tuple[int, ...]) -> np.ndarray:
    if any(exponents):
        refuse_far_rows([torch.from_numpy(array.astype(np.float64)) for array in arrays])
    return _join(arrays, variant, exponents)


def _join(arrays: Sequence[np.ndarray], variant: str, exponents: tuple[int, ...]) -> np.ndarray:
    """Spaces (n, d_k) side by side in float32, divided by powers of two or normalised."""
    if variant == "normalized":
        return np.concatenate([normalize(moderate_rows(array)) for array in arrays], axis=1)
    with np.errstate(over="ignore"):  # what float32 does not hold is looked for in what comes out
        parts = [
            (np.ldexp(array.astype(np.float64), -exponent) if exponent else array).astype(np.float32, copy=False)
            for array, exponent in zip(arrays, exponents, strict=True)
        ]
    return np.concatenate(parts, axis=1)
