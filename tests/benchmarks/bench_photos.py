"""Folders of photographs as `labkit cluster` takes them, beside K-means: python tests/benchmarks/bench_photos.py

Accuracy in the default space, with the true number of classes and with the estimated one, of K-means (ten starts; raw
and normalized) and of TURTLE with both priors. Photographs are read from ../shared/real/photos or $LABKIT_REAL/photos,
in folders of classes, which are looked at for the accuracy only. Where they are not, this says so and measures nothing.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from bench_turtle import collapse_allowed, made_up_case
from measure import REAL, Result, arguments, finish

import labkit as lk
from labkit.own.cluster import DEFAULT_SPACES
from labkit.own.reading import read_folder

FOLDERS = {"clothing-small": "clothing-small/train", "cifar10": "cifar10/train", "caltech101": "caltech101"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")


def load(folder: Path) -> tuple[list[np.ndarray], np.ndarray] | None:
    """The default spaces of a folder, and the names of the folders that its images lie in."""
    if not folder.is_dir():
        print(f"{folder} is not here. Give the folder that holds photos/ in $LABKIT_REAL.")
        return None
    reading = read_folder(folder, [lk.load_backbone(name) for name in DEFAULT_SPACES], progress=True)
    return list(reading.features.values()), np.array([path.parent.name for path in reading.files])


def bench_dataset(name: str, spaces: list[np.ndarray], classes: np.ndarray, seeds: list[int]) -> list[Result]:
    labels = np.unique(classes, return_inverse=True)[1]
    numbers = {
        "true": [int(labels.max()) + 1] * len(seeds),
        "estimated": [lk.estimate_n_clusters(spaces, random_state=seed).estimate for seed in seeds],
    }
    results = []
    for which, counts in numbers.items():
        found: dict[str, list[float]] = {}
        for seed, n_clusters in zip(seeds, counts, strict=True):
            fits = {
                f"kmeans {'normalized' if way else 'raw'}": lk.KMeans(n_clusters, normalize=way, random_state=seed)
                for way in (False, True)
            }
            fits |= {
                f"turtle {prior}": lk.Turtle(n_clusters, prior=prior, random_state=seed)
                for prior in ("even", "estimated")
            }
            for method, model in fits.items():
                with collapse_allowed():
                    predicted = model.fit(spaces).predict(spaces)
                found.setdefault(method, []).append(lk.clustering_accuracy(labels, predicted))
        means = {method: statistics.mean(values) for method, values in found.items()}
        print(f"{name:15} {which:9} {counts} " + "  ".join(f"{m} {100 * v:.1f}" for m, v in means.items()), flush=True)
        best = max(value for method, value in means.items() if method.startswith("kmeans"))
        details = {"numbers": [int(count) for count in counts], "seeds": found}
        results.append(
            Result(
                f"photos: TURTLE minus best K-means, {name}, {which} number of classes",
                means["turtle estimated"] - best,
                0.0,
                details=details,
            )
        )
    return results


def main() -> None:
    given = arguments(__doc__, options)
    results = []
    if given.quick:
        case = made_up_case()
        results = bench_dataset("blobs", [case.train[0]], case.y_train, [0])
    else:
        for name, folder in FOLDERS.items():
            parts = load(REAL / "photos" / folder)
            results += bench_dataset(name, *parts, given.seeds) if parts is not None else []
    finish("photos", results, given)


if __name__ == "__main__":
    main()
