"""How near the estimated number of classes comes to the true one, without labels, and in how many seconds.

    python tests/benchmarks/bench_choice_count.py            # some minutes on two cores

The bundled datasets in the spaces of the README, and the CLIP features of ../shared/real (or $LABKIT_REAL) where there
are any. DTD and Caltech-101 were never used for a choice. Labels are counted after the estimates only.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator

import numpy as np
from bench_turtle import load_cases
from measure import REAL, Result, arguments, finish, made_up_features

import labkit as lk

SPACES = ("efficientnet-lite0", "pixels")
PHOTOS = {
    "food10": ("food10", "train", 0.10),
    "pets": ("oxford_pets", "test", 0.10),
    "DTD": ("dtd", "test", 0.15),
    "Caltech-101": ("caltech101", "test", 0.15),
}  # file, split, and the part by which the estimate may be off


def cases(quick: bool) -> Iterator[tuple[str, list[np.ndarray], int, float]]:
    """Name, spaces, number of classes, and by how many the estimate may be off."""
    if quick:
        yield "made up", [made_up_features(500, 20, "float32")], 10, 2
        return
    for case in load_cases(("digits", "fashion-mini"), [SPACES]):
        yield case.dataset, list(case.train), case.n_clusters, 2
    folder = REAL / "features"
    for name, (file, split, part) in PHOTOS.items():
        if (folder / f"{file}.npz").exists():
            with np.load(folder / f"{file}.npz") as arrays:
                n_classes = len(np.unique(arrays[f"{split}_labels"]))
                yield name, [arrays[f"{split}_clip_vitb32"].astype(np.float32)], n_classes, part * n_classes


def main() -> None:
    given = arguments(__doc__)
    results, covered = [], []
    for name, spaces, n_classes, allowed in cases(given.quick):
        seeds = range(1 if given.quick else min(given.rounds, 3))
        start = time.perf_counter()
        counts = [lk.estimate_n_clusters(spaces, random_state=seed) for seed in seeds]
        taken = (time.perf_counter() - start) / len(counts)
        off = statistics.mean(abs(math.log2(count.estimate / n_classes)) for count in counts)
        details = {
            "classes": n_classes,
            "estimates": [count.estimate for count in counts],
            "intervals": [count.interval for count in counts],
            "seconds": taken,
        }
        limit = math.log2(1 + allowed / n_classes)
        results.append(Result(f"number of classes of {name}: |log2(estimate / true)|", off, limit, "at most", details))
        covered += [count.interval[0] <= n_classes <= count.interval[1] for count in counts]
    results.append(Result("intervals that hold the number of classes", statistics.mean(covered), 5 / 6, "at least"))
    finish("choice_count", results, given)


if __name__ == "__main__":
    main()
