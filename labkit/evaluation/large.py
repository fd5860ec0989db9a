"""K-means on more features than are put side by side in memory: trained on a sample, and the rest read in blocks.

The sample has 256 rows for each cluster, as FAISS advises (Johnson, Douze and Jégou, "Billion-scale similarity search
with GPUs", arXiv 1702.08734), and 65,536 at least. FAISS trains on it where it is installed (`pip install faiss-cpu`,
or faiss-gpu, which takes all GPUs), from greedy k-means++ starts in the leading principal directions; scikit-learn
otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.cluster import kmeans_plusplus

logger = logging.getLogger(__name__)

LARGE = 2**28  # numbers: 1 GiB in float32
ROWS_PER_CLUSTER, ROWS = 256, 2**16  # of the sample, at least
BLOCK = 2**24  # numbers that are computed with at a time
ITERATIONS = 25  # FAISS's own number; the last steps hardly move the centers


def is_large(named: Mapping[str, Any]) -> bool:
    """Whether spaces, by their names, hold more than `LARGE` numbers together."""
    shapes = [getattr(space, "shape", ()) for space in named.values()]
    return sum(math.prod(shape) for shape in shapes if isinstance(shape, tuple)) > LARGE


def sample_size(n: int, n_clusters: int) -> int:
    """How many of n rows K-means trains on."""
    return min(n, max(ROWS_PER_CLUSTER * n_clusters, ROWS))


def sample_rows(n: int, n_clusters: int, random: np.random.RandomState) -> np.ndarray:
    """Numbers of the rows to train on, in order: of n, those of the sample or all."""
    m = sample_size(n, n_clusters)
    return np.arange(n) if n == m else np.sort(random.choice(n, m, replace=False))


def principal_directions(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) of rows (m, d), and the k directions (d, k) of their largest variance; no copy of them is made."""
    mean = rows.mean(0)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for part in np.array_split(rows, max(1, rows.size // BLOCK)):
        centered = part - mean
        covariance += centered.T @ centered
    return mean, np.linalg.eigh(covariance)[1][:, -k:].astype(rows.dtype)


def faiss_centers(
    rows: np.ndarray, n_clusters: int, n_init: int, search_dim: int, random: np.random.RandomState
) -> np.ndarray | None:
    """Centers (C, d) of rows (m, d) float32, trained by FAISS; None where it is not installed.

    Args:
        n_init: runs in the leading principal directions, of which the best is run to the end in all of them.
        search_dim: number of these directions.
    """
    try:
        import faiss
    except ImportError:
        logger.info("K-means of %d samples by scikit-learn. FAISS is faster: pip install faiss-cpu.", len(rows))
        return None

    def train(features: np.ndarray, starts: np.ndarray) -> Any:
        run = faiss.Kmeans(
            features.shape[1],
            n_clusters,
            niter=ITERATIONS,
            seed=int(random.randint(2**31 - 1)),
            gpu=faiss.get_num_gpus() > 0,
            min_points_per_centroid=1,
            max_points_per_centroid=len(features),
        )
        run.train(features, init_centroids=np.ascontiguousarray(starts, np.float32))
        return run

    mean, directions = principal_directions(rows, min(search_dim, rows.shape[1]))
    narrow = np.ascontiguousarray(rows @ directions - mean @ directions)
    found = []
    for _ in range(n_init):
        some = narrow[random.permutation(len(narrow))[:ROWS]]
        found.append(train(narrow, kmeans_plusplus(some, n_clusters, random_state=random)[0]))
    best = min(found, key=lambda run: float(run.obj[-1]))
    return np.asarray(train(rows, best.centroids @ directions.T + mean).centroids)
