"""The prior over the sizes of classes: even against estimated, on even and long-tailed versions of the embedded data.

    python tests/benchmarks/bench_choice.py                    # some minutes on two cores

Long-tailed with imbalance r: the classes, in random order, have n · r^(−i/(C − 1)) of the samples of the largest. Given
is clustering accuracy on the samples that were fitted, mean over seeds, which change the order of the classes and the
starts. The settings of the estimate were chosen on these datasets, on Food-10 and Pets and on photographs (see
`bench_real.py`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
from bench_turtle import DATASETS, Case, collapse_allowed, load_cases, made_up_case
from measure import Result, arguments, finish

import labkit as lk

SPACES = {"fashion-mini": ("efficientnet-lite0", "pixels"), "digits": ("efficientnet-lite0", "pixels"),
          "emoji-unseen": ("efficientnet-lite0",)}  # fmt: skip
IMBALANCES = (1, 10, 100)
LEAST_GAIN, MOST_LOSS = 0.08, -0.01  # of the estimate, at imbalance 100 and on the data as they are


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", nargs="+", default=DATASETS, metavar="ID", help=f"default: {' '.join(DATASETS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")


def long_tailed(labels: np.ndarray, imbalance: float, seed: int) -> np.ndarray:
    """Row numbers of a long-tailed part of a dataset; all of them at imbalance 1, whatever their classes' sizes."""
    if imbalance == 1:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(labels))
    largest = np.bincount(labels).max()
    kept = []
    for rank, label in enumerate(classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        kept.append(rows[: max(1, round(largest * imbalance ** (-rank / (len(classes) - 1))))])
    return np.sort(np.concatenate(kept))


def compare(spaces: Sequence[np.ndarray], labels: np.ndarray, seed: int) -> dict[str, float]:
    """Accuracies of K-means and of TURTLE with both priors."""
    n_clusters = len(np.unique(labels))
    kmeans = max(
        lk.clustering_accuracy(labels, lk.KMeans(n_clusters, normalize=way, random_state=seed).fit(spaces).labels_)
        for way in (False, True)
    )
    with collapse_allowed():
        fits = {prior: lk.Turtle(n_clusters, prior=prior, random_state=seed) for prior in ("even", "estimated")}
        found = {name: lk.clustering_accuracy(labels, one.fit(spaces).labels_) for name, one in fits.items()}
    return {"kmeans": kmeans, **found}


def bench_case(case: Case, seeds: Sequence[int]) -> list[Result]:
    results = []
    for imbalance in IMBALANCES:
        found = []
        for seed in seeds:
            rows = long_tailed(case.y_train, imbalance, seed)
            found.append(
                compare([z[rows] for z in case.train], np.unique(case.y_train[rows], return_inverse=True)[1], seed)
            )
        means = {name: statistics.mean(one[name] for one in found) for name in found[0]}
        limit = {1: MOST_LOSS, 100: LEAST_GAIN}.get(imbalance)
        title = f"choice: estimated minus even prior, {case.title}, imbalance {imbalance}"
        results.append(Result(title, means["estimated"] - means["even"], limit, details={**means, "seeds": found}))
        print(title, {name: round(100 * value, 1) for name, value in means.items()}, flush=True)
    return results


def main() -> None:
    given = arguments(__doc__, options)
    if given.quick:
        results = bench_case(made_up_case(), [0])
    else:
        cases = (case for name in given.datasets for case in load_cases([name], [SPACES[name]]))
        results = [result for case in cases for result in bench_case(case, given.seeds)]
    finish("choice", results, given)


if __name__ == "__main__":
    main()
