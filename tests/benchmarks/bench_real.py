"""Real CLIP features of photographs: accuracy of K-means, TURTLE with both priors and the linear probe; seconds.

    python tests/benchmarks/bench_real.py                              # Food-10 and Pets
    python tests/benchmarks/bench_real.py --datasets dtd caltech101    # which no setting was chosen on

Fitted without labels on the larger split, scored on it and on the other one; the probe learns from the other one, so
its second number is that of its training. The features (CLIP ViT-B/32, unit length)
are read from ../shared/real/features or $LABKIT_REAL/features: NAME.npz with the arrays SPLIT_clip_vitb32 and
SPLIT_labels. Where they are not, this says so and measures nothing; `labkit.extract_features` with "clip-vit-b32" makes
such features from the datasets' images.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
from bench_turtle import collapse_allowed, made_up_case
from measure import REAL, Result, arguments, finish, medians, ratio, side_by_side
from sklearn.cluster import KMeans

import labkit as lk

SPLITS = {
    "food10": ("train", "test"),
    "oxford_pets": ("test", "val"),
    "dtd": ("test", "val"),
    "caltech101": ("test", "val"),
}
DEVELOPER = ("food10", "oxford_pets")
MOST_LOSS, MOST_SECONDS = (
    -0.01,
    2.0,
)  # of the estimated prior on even classes; of a default fit, in K-means with 10 starts


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--datasets", nargs="+", default=DEVELOPER, choices=SPLITS, help=f"default: {' '.join(DEVELOPER)}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--no-times", action="store_true", help="accuracies only")


def load(name: str) -> list[np.ndarray] | None:
    """Features and labels of the larger split, then of the other one; None where they are not here."""
    path = REAL / "features" / f"{name}.npz"
    if not path.exists():
        print(f"{path} is not here. {__doc__.split('labels.', 1)[1].strip() if __doc__ else ''}")
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[f"{split}_{what}"] for split in SPLITS[name] for what in ("clip_vitb32", "labels")]


def bench_dataset(name: str, parts: list[np.ndarray], given: argparse.Namespace) -> list[Result]:
    z, y, other_z, other_y = parts
    z, other_z = z.astype(np.float32), other_z.astype(np.float32)
    n_clusters = len(np.unique(y))
    found: dict[str, list[tuple[float, float]]] = {}

    def add(method: str, model: Any, score: Any) -> None:
        found.setdefault(method, []).append((score(y, model.predict(z)), score(other_y, model.predict(other_z))))

    for seed in given.seeds:
        for way in (False, True):
            add(
                f"kmeans {'normalized' if way else 'raw'}",
                lk.KMeans(n_clusters, normalize=way, random_state=seed).fit(z),
                lk.clustering_accuracy,
            )
        centered = lk.KMeans(n_clusters, random_state=seed).fit(z - z.mean(0))
        shifted = [lk.clustering_accuracy(t, centered.predict(x - z.mean(0))) for t, x in ((y, z), (other_y, other_z))]
        found.setdefault("kmeans centered", []).append((shifted[0], shifted[1]))
        with collapse_allowed():
            for prior in ("even", "estimated"):
                add(
                    f"turtle {prior}",
                    lk.Turtle(n_clusters, prior=prior, random_state=seed).fit(z),
                    lk.clustering_accuracy,
                )
            add(
                "turtle even, no race",
                lk.Turtle(n_clusters, race=False, random_state=seed).fit(z),
                lk.clustering_accuracy,
            )
    add("linear probe (labels)", lk.LinearProbe().fit(other_z, other_y), lk.accuracy)
    means = {m: [statistics.mean(one[k] for one in values) for k in (0, 1)] for m, values in found.items()}
    for method, (here, there) in means.items():
        print(f"{name:12} {method:24} {100 * here:5.1f} / {100 * there:5.1f}", flush=True)
    kmeans = max(value[0] for method, value in means.items() if method.startswith("kmeans"))
    details = {"accuracy": means, "seeds": found}
    results = [
        Result(
            f"real: estimated minus even prior, {name}",
            means["turtle estimated"][0] - means["turtle even"][0],
            MOST_LOSS,
            details=details,
        ),
        Result(f"real: estimated prior minus best K-means, {name}", means["turtle estimated"][0] - kmeans),
        Result(
            f"real: race minus all restarts to the end, {name}",
            means["turtle even"][0] - means["turtle even, no race"][0],
            MOST_LOSS,
        ),
    ]
    if not given.no_times:
        times = side_by_side(
            given.rounds,
            kmeans=lambda: KMeans(n_clusters, n_init=10, random_state=0).fit(z),
            turtle=lambda: lk.Turtle(n_clusters, random_state=0).fit(z),
            no_race=lambda: lk.Turtle(n_clusters, race=False, random_state=0).fit(z),
            estimated=lambda: lk.Turtle(n_clusters, prior="estimated", random_state=0).fit(z),
        )
        for method, limit in (("turtle", MOST_SECONDS), ("no_race", None), ("estimated", None)):
            seconds = ratio(times[method], times["kmeans"])
            results.append(
                Result(f"real: seconds of {method} in K-means fits, {name}", seconds, limit, "at most", medians(times))
            )
    return results


def main() -> None:
    given = arguments(__doc__, options)
    results = []
    if given.quick:
        case = made_up_case()
        given.seeds = [0]
        results = bench_dataset("blobs", [case.train[0], case.y_train, case.test[0], case.y_test], given)
    else:
        for name in given.datasets:
            parts = load(name)
            results += bench_dataset(name, parts, given) if parts is not None else []
    finish("real", results, given)


if __name__ == "__main__":
    main()
