"""What TURTLE is measured against: K-means, which sees no label either, and a linear probe, which sees them all.

Both are scikit-learn's, and take the spaces that `Turtle` takes: one (n, d), or a list of K spaces (n, d_k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils import check_array
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn

from labkit.errors import FitError

SEARCH_DIM = 64  # principal directions in which K-means looks for its starts
PARALLEL_SIZE = 10**8  # numbers; below, K-means runs in one thread: on busy cores more of them take ten times longer


@dataclass(frozen=True)
class Baseline:
    """A fitted scikit-learn estimator and how it joins spaces: `predict(spaces)` gives labels (n,)."""

    estimator: Any
    variant: str

    def predict(self, spaces: Any) -> np.ndarray:
        """Label of each sample; spaces as they were given to the fit, of any split."""
        joined = join_spaces(spaces, self.variant)
        if joined.shape[1] != self.estimator.n_features_in_:
            raise FitError(
                f"the spaces have {joined.shape[1]} features together. Expected {self.estimator.n_features_in_}: the "
                "same spaces as in the fit."
            )
        return self.estimator.predict(joined).astype(np.int64)


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
    joined = join_spaces(spaces, variant)
    if not 2 <= n_clusters <= len(joined):
        raise FitError(f"n_clusters is {n_clusters}. Expected a whole number from 2 to n_samples = {len(joined)}.")
    search = KMeans(n_clusters, n_init=n_init, random_state=random_state)
    n_threads = 1 if joined.size < PARALLEL_SIZE else None
    if min(joined.shape) <= SEARCH_DIM:
        with threadpool_limits(n_threads):
            return Baseline(search.fit(joined), variant)
    mean = joined.mean(0)
    centred, last = joined - mean, joined.shape[1] - 1
    directions = eigh(centred.T @ centred, subset_by_index=(last - SEARCH_DIM + 1, last))[1]  # the widest; all threads
    with threadpool_limits(n_threads):
        starts = search.fit(centred @ directions).cluster_centers_ @ directions.T + mean
        del centred  # a copy of all features
        return Baseline(KMeans(n_clusters, init=starts, n_init=1).fit(joined), variant)


def linear_probe(spaces: Any, labels: ArrayLike, *, inverse_penalty: float = 1e-2) -> Baseline:
    """Logistic regression on standardised features, fitted with labels: what a linear classifier can reach here.

    It ends at a gradient of 1e-3. On the embedded datasets that is within 0.2 points of 1e-5, which takes seven times
    as long.

    Args:
        spaces: one space (n, d) or a list of K spaces (n, d_k); several are put side by side.
        labels: class of each sample, (n,).
        inverse_penalty: C of scikit-learn's LogisticRegression; smaller is a stronger L2 penalty.

    Raises:
        FitError: spaces that cannot be fitted, or labels of another length.
    """
    joined, y = join_spaces(spaces, "raw"), np.asarray(labels)
    if len(y) != len(joined):
        raise FitError(f"there are {len(y)} labels for {len(joined)} samples. Expected one for each: the same split.")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=2000, tol=1e-3))
    with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take five times longer
        return Baseline(probe.fit(joined, y), "raw")


def join_spaces(spaces: Any, variant: str = "raw") -> np.ndarray:
    """K spaces side by side, (n, Σ d_k) float32, each sample of each space scaled to length 1 where "normalized"."""
    if variant not in ("raw", "normalized"):
        raise FitError(f'variant is {variant!r}. Expected "raw" or "normalized".')
    several: Sequence[Any] = spaces if isinstance(spaces, list | tuple) else [spaces]
    try:
        arrays = [check_array(space, dtype=np.float32) for space in several]
    except ValueError as error:
        raise FitError(f"{error}\nExpected one space (n, d) or a list of spaces (n, d_k), finite.") from error
    if len({len(array) for array in arrays}) != 1:
        raise FitError(f"the spaces have {[len(a) for a in arrays]} rows. Expected the same samples in every space.")
    return np.concatenate([normalize(array) if variant == "normalized" else array for array in arrays], axis=1)
