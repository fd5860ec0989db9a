"""A clustering without a fit, its thumbnails and its positions: what a page of any size is tried with."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from labkit.errors import shown
from labkit.own.clustering import Clustering


def fake_clustering(root: Path, files: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> Clustering:
    """Images in the given clusters; the names are those of cluster 0, 1, 2, …"""
    labels = np.asarray(labels, dtype=np.int64)
    images = pd.DataFrame(
        {
            "file": [shown(file) for file in files],
            "cluster": labels,
            "confidence": np.linspace(0.5, 1, len(labels)),
            "name": [names[i] for i in labels],
            "flags": ["blurred" if i % 5 == 4 else "" for i in range(len(labels))],
            "found": labels,
        }
    )
    clusters = pd.DataFrame(
        {
            "cluster": np.arange(len(names)),
            "size": np.bincount(labels, minlength=len(names)),
            "name": list(names),
            "name_confidence": np.nan,
            "suggestions": [[] for _ in names],
        }
    )
    return Clustering(root, [root / file for file in files], images, clusters, {"run": "a-run", "layout": "UMAP"})


def fake_large(root: Path, n: int, n_clusters: int) -> tuple[Clustering, list[bytes], np.ndarray]:
    """n images in groups on the map, with their thumbnails and positions; the files do not exist."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_clusters, n)
    centers = rng.uniform(-0.8, 0.8, (n_clusters, 2))
    positions = np.clip(centers[labels] + rng.normal(scale=0.07, size=(n, 2)), -1, 1)
    names = ["" if i % 4 == 3 else f"things {i}" for i in range(n_clusters)]
    files = [f"folder {label}/image {i:05d}.jpg" for i, label in enumerate(labels)]
    tones = rng.integers(0, 64, n)
    return fake_clustering(root, files, labels, names), [thumbnail(int(tone)) for tone in tones], positions


@functools.cache
def thumbnail(tone: int) -> bytes:
    """A JPEG of 128 × 96 or 96 × 128 pixels, with as much detail as a small photograph."""
    rng = np.random.default_rng(tone)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image = coarse.resize((128, 96) if tone % 2 else (96, 128), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()
