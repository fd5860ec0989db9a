"""Positions of images on a map: images that are close in the feature spaces are close on it.

Of 2,000 images and more UMAP, where the package `umap-learn` is installed (`pip install labkit[map]`; McInnes, Healy
and Melville, "UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction", 2018). Else t-SNE of
scikit-learn (van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008), of at most 5,000 images, beside
which the others are placed.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence

import numpy as np

from labkit._inputs import is_whole
from labkit.errors import DataError, quote
from labkit.own.joined import joined

N_DIMENSIONS = 50  # principal components that UMAP and t-SNE see
EVENNESS = 0.5  # 0 keeps the distances of UMAP and t-SNE, with far islands in much empty space
N_LANDMARKS = 5_000  # images that t-SNE places itself
MANY = 2_000  # images, from which UMAP is used where it is installed: compiling it takes longer than t-SNE of fewer
FEWEST = 12  # images, below which two principal components are the map
NEIGHBORS = 15  # of an image, in UMAP
MIN_DIST = 0.3  # of UMAP: images beside one another rather than one on another
PERPLEXITY = 30.0  # of t-SNE, where there are enough images
METHODS = {"umap": "UMAP", "tsne": "t-SNE", "pca": "two principal components"}


def layout(features: Sequence[np.ndarray], random_state: int) -> np.ndarray:
    """Where each image is on the map.

    The spaces are L2-normalized, put beside one another and reduced to 50 principal components, which UMAP or t-SNE
    brings to two dimensions. The same features and seed give the same positions, wherever the same of the two is used.

    Args:
        features: of the images in each feature space, (n, d_s).
        random_state: seed.

    Returns:
        (n, 2) float32, centered, the longer side of their box 2.

    Raises:
        DataError: there is no space or no image, the spaces do not have the same images, or a value is not finite.
    """
    x = _checked(features)
    if not is_whole(random_state, 0, 2**32 - 1):
        raise DataError(f"random_state is {quote(random_state)}. Expected a whole number from 0 to 2**32 - 1.")
    rng = np.random.default_rng(random_state)
    components = _principal(x, random_state)  # (n, k)
    method = layout_method(len(x))
    if len(np.unique(components, axis=0)) < FEWEST:  # few images, or many that are the same
        flat = components[:, :2]
    elif method == "UMAP":
        flat = _umap(components, rng, random_state)
    else:
        flat = _tsne(components, rng, random_state)
    return _boxed(flat, rng)


def layout_method(n: int) -> str:
    """What brings n images to two dimensions on this machine: "UMAP", "t-SNE" or "two principal components"."""
    if n < FEWEST:
        return METHODS["pca"]
    return METHODS["umap" if n >= MANY and importlib.util.find_spec("umap") is not None else "tsne"]


def _checked(features: Sequence[np.ndarray]) -> np.ndarray:
    """The spaces beside one another, each L2-normalized, (n, sum of d_s) float32."""
    spaces = [np.asarray(space, dtype=np.float32) for space in features]
    shapes = [space.shape for space in spaces]
    if not spaces or any(len(shape) != 2 or 0 in shape for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise DataError(
            f"the features have the shapes {quote(shapes)}. Expected an array (n, d) for each space, with a row for "
            "each image and the same images in all."
        )
    if not all(np.isfinite(space).all() for space in spaces):
        raise DataError("the features hold values that are not finite. Expected finite ones: extract them again.")
    return joined(spaces)


def _principal(x: np.ndarray, seed: int) -> np.ndarray:
    """At most 50 principal components of x (n, d), and at least two columns."""
    from sklearn.decomposition import PCA

    n_components = min(N_DIMENSIONS, *x.shape)
    x = x - x.mean(0)
    if not np.any(np.abs(x) > 1e-6):  # all images are the same
        return np.zeros((len(x), 2), np.float32)
    components = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(x).astype(np.float32)
    return np.pad(components, ((0, 0), (0, max(0, 2 - n_components))))


def _start(components: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Two principal components of the given spread, and a little noise that parts images that are the same."""
    flat = components[:, :2] / max(float(components[:, 0].std()), 1e-12)
    return (spread * (flat + rng.normal(scale=1e-3, size=flat.shape))).astype(np.float32)


def _umap(components: np.ndarray, rng: np.random.Generator, seed: int) -> np.ndarray:
    with warnings.catch_warnings():  # of one thread, of small sets, of numba: nothing that a user could change
        warnings.simplefilter("ignore")
        from umap import UMAP

        mapper = UMAP(
            n_neighbors=min(NEIGHBORS, len(components) - 1),
            min_dist=MIN_DIST,
            init=_start(components, rng, 1.0),
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(mapper.fit_transform(components))


def _tsne(components: np.ndarray, rng: np.random.Generator, seed: int) -> np.ndarray:
    """t-SNE of the landmarks, which are all images where these are few; every other image is put beside its nearest."""
    from sklearn.manifold import TSNE

    n = len(components)
    landmarks = np.sort(rng.choice(n, min(n, N_LANDMARKS), replace=False))
    init = _start(components[landmarks], rng, 1e-4)
    perplexity = min(PERPLEXITY, (len(landmarks) - 1) / 3)
    placed = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(components[landmarks])
    if n == len(landmarks):
        return np.asarray(placed)
    return _beside(components, landmarks, placed, rng)


def _beside(components: np.ndarray, landmarks: np.ndarray, placed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image at the place of its nearest landmark, moved at random by no more than that one's nearest is away."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(components[landmarks])
    others = np.setdiff1d(np.arange(len(components)), landmarks, assume_unique=True)
    chosen = nearest.kneighbors(components[others], return_distance=False)[:, 0]  # (n - m,)
    gaps = NearestNeighbors(n_neighbors=2).fit(placed).kneighbors(placed)[0][:, 1]  # (m,)
    angle, radius = rng.uniform(0, math.tau, len(others)), np.sqrt(rng.uniform(0, 1, len(others))) * gaps[chosen]
    flat = np.empty((len(components), 2), np.float32)
    flat[landmarks] = placed
    flat[others] = placed[chosen] + np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    return flat


def _boxed(flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions centered in a box whose longer side is 2; images in one place are spread a little around it."""
    flat = flat.astype(np.float64)
    size = float(np.ptp(flat, axis=0).max()) if len(flat) else 0.0
    _, group, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    for twin in np.flatnonzero(counts > 1):
        members = np.flatnonzero(group.ravel() == twin)
        turn = np.arange(len(members)) * math.pi * (3 - math.sqrt(5))  # a sunflower: even at any number
        radius = (size / 100 or 1.0) * np.sqrt(np.arange(len(members)) / len(members))
        flat[members] += np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
    flat = _even(flat)
    low, high = flat.min(0), flat.max(0)
    return ((flat - (low + high) / 2) * (2 / max(float((high - low).max()), 1e-12))).astype(np.float32)


def _even(flat: np.ndarray) -> np.ndarray:
    """Positions with less empty space between them: on either axis the mean of the coordinate and of its rank."""
    n, size = len(flat), max(float(np.ptp(flat, axis=0).max()), 1e-12)
    ranks = np.argsort(np.argsort(flat, axis=0, kind="stable"), axis=0, kind="stable")
    return (1 - EVENNESS) * flat / size + EVENNESS * ranks * (np.ptp(flat, axis=0) / size) / max(n - 1, 1)
