"""A result of `labkit cluster` made by hand, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from labkit.own.clustering import Clustering


def make_result(root: Path, files: Sequence[str], labels: Sequence[int], names: Mapping[int, str]) -> Clustering:
    """Files with content of their own below `root`, in clusters of these names."""
    for i, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {i} ".encode() * (50 + i))
    images = pd.DataFrame(
        {
            "file": [ascii(file) for file in files],
            "cluster": np.array(labels, np.int64),
            "confidence": np.linspace(0.5, 1, len(files)),
            "name": [names.get(label, "") for label in labels],
            "flags": "",
            "found": np.maximum(labels, 0),
        }
    )
    numbers = sorted({label for label in labels if label >= 0})
    clusters = pd.DataFrame(
        {
            "cluster": numbers,
            "size": [list(labels).count(number) for number in numbers],
            "name": [names.get(number, "") for number in numbers],
            "name_confidence": [float("nan")] * len(numbers),
            "suggestions": [[] for _ in numbers],
        }
    )
    report = {"labkit": "clusters", "version": 1, "run": "a", "root": str(root)}
    return Clustering(root, [root / file for file in files], images, clusters, report)
