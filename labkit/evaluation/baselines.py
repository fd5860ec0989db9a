"""What TURTLE is measured against: K-means, which sees no label either, and a linear probe, which sees them all.

Both wrap scikit-learn's, and take the spaces that `Turtle` takes: one (n, d), or a list of K spaces (n, d_k). More than
2^28 numbers are not put side by side in memory, neither in fits nor in predictions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from sklearn import cluster
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from labkit._inputs import (
    LARGEST_COUNT,
    SPACES_EXPECTED,
    column_names,
    expect_columns,
    expect_fitted,
    finite_matrix,
    is_number,
    is_seed,
    is_whole,
    named_spaces,
    read_classes,
    read_spaces,
)
from labkit._scales import exponent_of, exponent_of_number, largest, moderate_rows, refuse_far_rows
from labkit._stored import Space, as_spaces
from labkit.errors import FitError, quote
from labkit.evaluation import large, probe

SEARCH_DIM = 64  # principal directions in which K-means looks for its starts
PARALLEL_SIZE = 10**8  # numbers; below, K-means runs in one thread: on busy cores more of them take ten times longer
LARGEST_IN_PREDICTION = 1e30  # in the units of the fit: products with it stay within float32
LARGEST_PENALTY = 1e15  # or its inverse


class _OnSpaces(BaseEstimator):
    """What both share: spaces are put side by side, as in the fit, and an estimator of scikit-learn does the rest."""

    _normalized = False
    estimator_: Any

    def predict(self, X: Any) -> np.ndarray:
        """Label of each sample (n,), for spaces as in the fit, of any split.

        Raises:
            FitError: they are other spaces, or hold numbers that are far too large for this estimator.
        """
        expect_fitted(self, "estimator_")
        named = named_spaces(X)
        blocks = _blocks(as_spaces(named)) if large.is_large(named) else iter([read_spaces(X)])
        first = next(blocks)
        widths = tuple(array.shape[1] for array in first)
        if widths != self._widths:
            found, expected = (" + ".join(map(str, several)) for several in (widths, self._widths))
            raise FitError(
                f"the spaces have {found} features together. Expected {expected}: the same spaces as in the fit."
            )
        for (name, space), columns in zip(named.items(), self._columns, strict=True):
            expect_columns(name, column_names(space), columns)
        return np.concatenate([self._predict(arrays) for arrays in itertools.chain([first], blocks)])

    def _predict(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        joined = _join(arrays, self._normalized, self._exponents)
        if np.abs(joined).max() > LARGEST_IN_PREDICTION:
            raise FitError(
                f"the features reach {np.abs(joined).max():.0e} in the units of the fit. Expected at most "
                f"{LARGEST_IN_PREDICTION:.0e}: leave out samples that are far from all others."
            )
        try:
            labels = self.estimator_.predict(joined)
        except ValueError as error:  # a feature that hardly varied in the fit, standardized
            raise FitError(
                f"the features are too far from those of the fit to compute with. {SPACES_EXPECTED}"
            ) from error
        return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels

    def _remember(self, named: Mapping[str, Any], widths: Iterable[int], exponents: tuple[int, ...]) -> None:
        """How the spaces of a fit came, for predictions."""
        self._exponents = exponents  # of the power of two that each space is divided by; 0 where it is ordinary
        self._widths = tuple(widths)
        self._columns = tuple(map(column_names, named.values()))

    def _joined(self, X: Any, arrays: Sequence[np.ndarray], exponents: tuple[int, ...]) -> np.ndarray:
        """The spaces of a fit side by side."""
        self._remember(named_spaces(X), (array.shape[1] for array in arrays), exponents)
        if any(exponents):
            refuse_far_rows([torch.from_numpy(array.astype(np.float64)) for array in arrays])
        return _join(arrays, self._normalized, exponents)


class KMeans(ClusterMixin, _OnSpaces):
    """K-means with greedy k-means++ starts, the best of `n_init` runs.

    In wide spaces the runs search along the 64 leading principal directions, and the best of them is then run to the
    end on the features as they are: the inertia reached is the same, in a tenth of the time.

    More than 2^28 numbers (n · Σ d_k; 1 GiB in float32) are not put side by side. The centers are then those of a
    sample, 256 samples for each cluster and 65,536 at least, found by FAISS where it is installed and by scikit-learn
    otherwise (`labkit.evaluation.large`); all samples are assigned to them block by block. Features may stay on disk,
    as a np.memmap or `labkit.spaces.shards.ShardedFeatures`.

    Args:
        n_clusters: C.
        normalize: L2-normalize each sample in each space first, as the TURTLE paper does for several spaces; else the
            features go in as they are. Several spaces are put side by side.
        n_init: runs from different starts; the one with the smallest inertia is kept.
        random_state: int, NumPy RandomState or None, as in scikit-learn.

    Attributes:
        labels_: cluster of each training sample, (n,) int64.
        estimator_: scikit-learn's fitted KMeans, for the joined spaces.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        normalize: bool = False,
        n_init: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.normalize = normalize
        self.n_init = n_init
        self.random_state = random_state

    @property
    def _normalized(self) -> bool:  # type: ignore[override]
        return bool(self.normalize)

    def fit(self, X: Any, y: object = None) -> KMeans:
        """Find the clusters.

        Args:
            X: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples.
            y: ignored; there for scikit-learn's pipelines.

        Raises:
            FitError: spaces or settings that cannot be fitted.
        """
        if not isinstance(self.normalize, bool | np.bool_):
            raise FitError(f"normalize is {quote(self.normalize)}. Expected True or False.")
        named = named_spaces(X)
        if large.is_large(named):
            return self._fit_sample(named, as_spaces(named))
        arrays = read_spaces(X)
        exponents = (0,) * len(arrays)
        if not self.normalize:  # one for all: spaces count by their size
            exponents = (exponent_of_number(max(map(largest, arrays))),) * len(arrays)
        joined = self._joined(X, arrays, exponents)
        self._check_settings(len(joined))
        search = cluster.KMeans(self.n_clusters, n_init=self.n_init, random_state=self.random_state)
        self.estimator_ = _search_and_finish(search, joined)
        self.labels_ = self.estimator_.labels_.astype(np.int64)
        return self

    def _fit_sample(self, named: Mapping[str, Any], spaces: Sequence[Space]) -> KMeans:
        """Centers of a sample, and the clusters of all samples, of spaces that are not put side by side."""
        n = len(spaces[0])
        self._check_settings(n)
        random = check_random_state(self.random_state)
        rows = torch.from_numpy(large.sample_rows(n, self.n_clusters, random))
        sizes = [0.0] if self.normalize else (max(map(largest, some)) for some in _blocks(spaces, rows))
        exponents = (exponent_of_number(max(sizes)),) * len(spaces)
        self._remember(named, (space.shape[1] for space in spaces), exponents)
        if any(exponents):
            refuse_far_rows(spaces)
        joined, done = np.empty((len(rows), sum(self._widths)), np.float32), 0
        for some in _blocks(spaces, rows):
            joined[done : done + len(some[0])] = _join(some, self._normalized, exponents)
            done += len(some[0])
        centers = large.faiss_centers(joined, self.n_clusters, self.n_init, SEARCH_DIM, random)
        if centers is None:
            search = cluster.KMeans(self.n_clusters, n_init=self.n_init, random_state=random)
            self.estimator_ = _search_and_finish(search, joined)
        else:  # a last step, which makes an estimator of scikit-learn of them
            last = cluster.KMeans(self.n_clusters, init=centers, n_init=1, max_iter=1, copy_x=False)
            self.estimator_ = last.fit(joined)
        self.labels_ = np.concatenate([self._predict(some) for some in _blocks(spaces)])
        return self

    def _check_settings(self, n: int) -> None:
        if not is_whole(self.n_clusters, 2, n):
            raise FitError(
                f"n_clusters is {quote(self.n_clusters)}. Expected a whole number from 2 to n_samples = {n}."
            )
        if not is_whole(self.n_init, 1):
            raise FitError(f"n_init is {quote(self.n_init)}. Expected a whole number from 1 to {LARGEST_COUNT:,}.")
        if not is_seed(self.random_state):
            raise FitError(
                f"random_state is {quote(self.random_state)}. Expected a whole number from 0 to 2**32 - 1, or None."
            )


def _search_and_finish(search: cluster.KMeans, joined: np.ndarray) -> cluster.KMeans:
    n_threads = 1 if joined.size < PARALLEL_SIZE else None
    if min(joined.shape) <= SEARCH_DIM:
        with threadpool_limits(n_threads):
            return search.fit(joined)
    mean = joined.mean(0)
    centered, last = joined - mean, joined.shape[1] - 1
    directions = eigh(centered.T @ centered, subset_by_index=(last - SEARCH_DIM + 1, last))[
        1
    ]  # the widest; all threads
    with threadpool_limits(n_threads):
        starts = search.fit(centered @ directions).cluster_centers_ @ directions.T + mean
        del centered  # a copy of all features
        return cluster.KMeans(search.n_clusters, init=starts, n_init=1).fit(joined)


class LinearProbe(ClassifierMixin, _OnSpaces):
    """Logistic regression on standardized features, fitted with labels: what a linear classifier can reach here.

    It ends at a gradient of 1e-3. On the embedded datasets that is within 0.2 points of 1e-5, which takes seven times
    as long.

    More than 2^28 numbers (n · Σ d_k; 1 GiB in float32) are not put side by side. The same objective is then minimized
    by the same solver, with loss and gradient from PyTorch in blocks of rows, on a GPU where there is one
    (`labkit.evaluation.probe`); so it is where n · Σ d_k · C is above 2^34. Features may stay on disk, as a np.memmap
    or `labkit.spaces.shards.ShardedFeatures`. For C > 100 classes such a fit ends at a gradient of 0.1 / C.

    Args:
        inverse_penalty: C of scikit-learn's LogisticRegression; smaller is a stronger L2 penalty.

    Attributes:
        classes_: the labels that occur in the fit.
        estimator_: scikit-learn's fitted pipeline, for the joined spaces.
    """

    def __init__(self, *, inverse_penalty: float = 1e-2) -> None:
        self.inverse_penalty = inverse_penalty

    def fit(self, X: Any, y: ArrayLike) -> LinearProbe:
        """Fit with labels.

        Args:
            X: one space (n, d) or a list of K spaces (n, d_k); several are put side by side.
            y: class of each sample, (n,), whole numbers or texts; predictions are some of these.

        Raises:
            FitError: spaces or a penalty that cannot be fitted, or labels that are none, of one class or another
                length.
        """
        named = named_spaces(X)
        if large.is_large(named):
            spaces = as_spaces(named)
            return self._fit_in_blocks(named, spaces, self._read_labels(y, len(spaces[0])))
        arrays = read_spaces(X)
        labels = self._read_labels(y, len(arrays[0]))
        if probe.pays_in_blocks(sum(array.size for array in arrays), len(np.unique(labels))):
            return self._fit_in_blocks(named, as_spaces(named), labels)
        joined = self._joined(X, arrays, tuple(map(exponent_of, arrays)))
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=self.inverse_penalty, max_iter=2000, tol=1e-3))
        with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take five times longer
            self.estimator_ = pipeline.fit(joined, labels)
        self.classes_ = self.estimator_.classes_
        return self

    def _fit_in_blocks(self, named: Mapping[str, Any], spaces: Sequence[Space], labels: np.ndarray) -> LinearProbe:
        exponents = probe.exponents_of(spaces)
        self._remember(named, (space.shape[1] for space in spaces), exponents)
        if any(exponents):
            refuse_far_rows(spaces)
        self.estimator_ = probe.fit_in_blocks(spaces, exponents, labels, float(self.inverse_penalty))
        self.classes_ = self.estimator_.classes_
        return self

    def _read_labels(self, y: ArrayLike, n: int) -> np.ndarray:
        """Labels (n,) of at least two classes, once the penalty is one that can be used."""
        labels = read_classes(y, n)
        if len(np.unique(labels)) < 2:
            raise FitError(f"all labels are {quote(labels[0])}. Expected at least two classes.")
        if not is_number(self.inverse_penalty, 1 / LARGEST_PENALTY, LARGEST_PENALTY):
            raise FitError(
                f"inverse_penalty is {quote(self.inverse_penalty)}. Expected a number from {1 / LARGEST_PENALTY:.0e} "
                f"to {LARGEST_PENALTY:.0e}."
            )
        return labels


def _blocks(spaces: Sequence[Space], rows: torch.Tensor | None = None) -> Iterator[list[np.ndarray]]:
    """All rows of spaces (n, d_k), or those whose numbers are given, some at a time."""
    size = max(1, large.BLOCK // sum(space.shape[1] for space in spaces))
    for start in range(0, len(spaces[0] if rows is None else rows), size):
        some = slice(start, start + size) if rows is None else rows[start : start + size]
        yield [finite_matrix("a space", space[some], SPACES_EXPECTED) for space in spaces]


def _join(arrays: Sequence[np.ndarray], normalized: bool, exponents: tuple[int, ...]) -> np.ndarray:
    """Spaces (n, d_k) side by side in float32, divided by powers of two or L2-normalized."""
    if normalized:
        return np.concatenate([normalize(moderate_rows(array)) for array in arrays], axis=1)
    with np.errstate(over="ignore"):  # what float32 does not hold is looked for in what comes out
        parts = [
            (np.ldexp(array.astype(np.float64), -exponent) if exponent else array).astype(np.float32, copy=False)
            for array, exponent in zip(arrays, exponents, strict=True)
        ]
    return np.concatenate(parts, axis=1)
