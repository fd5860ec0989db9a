"""A small clustering of images that are made up: twelve squares in four clusters."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from labkit.errors import shown
from labkit.own.clustering import Clustering

COLORS = [(200, 40, 40), (40, 160, 60), (50, 80, 200), (210, 180, 40)]
CSV_HEADER = "file,cluster,confidence,name,flags"


def make_clustering(
    root: Path,
    labels: Sequence[int] = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3),
    *,
    names: Sequence[str] = ("red", "green", "", "yellow"),
    files: Sequence[str | bytes] | None = None,
    flags: Sequence[str] | None = None,
) -> Clustering:
    """Write a square for each label into `root`, of its cluster's color, and return their clusters."""
    root.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    given = [f"image{i:02d}.png" for i in range(n)] if files is None else files
    paths = [root / os.fsdecode(name) for name in given]
    for path, label in zip(paths, labels, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.new("RGB", (40, 30), COLORS[label % len(COLORS)]).save(file, "PNG")
    clusters = sorted(set(labels))
    name_of = {cluster: names[cluster] if cluster < len(names) else "" for cluster in clusters}
    images = pd.DataFrame(
        {
            "file": [shown(path.relative_to(root).as_posix()) for path in paths],
            "cluster": np.array(labels, dtype=np.int64),
            "confidence": np.linspace(0.99, 0.4, n),
            "name": [name_of[label] for label in labels],
            "flags": [""] * n if flags is None else list(flags),
            "found": np.array(labels, dtype=np.int64),
            "x": np.linspace(0, 1, n),
            "y": np.linspace(1, 0, n),
        }
    )
    table = pd.DataFrame(
        {
            "cluster": clusters,
            "size": [list(labels).count(cluster) for cluster in clusters],
            "name": [name_of[cluster] for cluster in clusters],
            "name_confidence": [0.9 if name_of[cluster] else np.nan for cluster in clusters],
            "suggestions": [["crimson", "brick"] if cluster == 0 else [] for cluster in clusters],
        }
    )
    report = {
        "labkit": "clusters",
        "format": 1,
        "run": "run-1",
        "root": str(root),
        "settings": {"backbones": ["pixels"]},
        "left_out": {},
        "other_endings": {},
        "review": [],
    }
    return Clustering(root, paths, images, table, report)


def make_thumbnails(clustering: Clustering) -> list[bytes]:
    """A JPEG for each image, each different."""
    thumbnails = []
    for i, label in enumerate(clustering.images["found"]):
        jpeg = io.BytesIO()
        red, green, blue = COLORS[label % len(COLORS)]
        Image.new("RGB", (32, 24), (red, green, (blue + 3 * i) % 256)).save(jpeg, "JPEG")
        thumbnails.append(jpeg.getvalue())
    return thumbnails


def make_features(clustering: Clustering) -> dict[str, np.ndarray]:
    """Two spaces in which clusters lie apart, and of each the last image is far from the others."""
    labels = clustering.images["found"].to_numpy()
    rng = np.random.default_rng(0)
    features = {}
    for name, d in (("one", 8), ("two", 5)):
        rows = np.eye(d)[labels % d] + 0.01 * rng.normal(size=(len(labels), d))
        for cluster in np.unique(labels):
            rows[np.flatnonzero(labels == cluster)[-1]] += np.eye(d)[(cluster + 1) % d] * 0.8
        features[name] = (7 * rows).astype(np.float32)
    return features
