"""TURTLE on one space and on two, against K-means on the same spaces: test accuracies on the embedded datasets.

    python tests/benchmarks/bench_spaces.py                    # about fifteen minutes on two cores
    python tests/benchmarks/bench_spaces.py --datasets digits

TURTLE: the fit chosen without labels, mean of the seeds. K-means: ten starts, on the features as they are and on
normalized ones, several spaces side by side; the better of the two *in hindsight*, which is in its favor. The claim
that two spaces beat the better one of them, and the best K-means on either or on both, is held to 5 points, for the
pair that does best (in hindsight again).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from typing import Any

from bench_turtle import DATASETS, Case, collapse_allowed, load_cases, made_up_case
from measure import Result, arguments, finish

import labkit as lk

BACKBONES = ("efficientnet-lite0", "efficientnet-lite2", "hog", "pixels", "pocket-clip", "pocket-vit")
SINGLE = [(name,) for name in BACKBONES]
PAIRS = list(itertools.combinations(BACKBONES, 2))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", nargs="+", default=DATASETS, metavar="ID", help=f"default: {' '.join(DATASETS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")


def turtle_accuracies(case: Case, seeds: list[int]) -> list[float]:
    """Of the fits of all seeds, each as it was chosen among its restarts."""
    with collapse_allowed():
        fits = [lk.Turtle(case.n_clusters, random_state=seed).fit(case.train) for seed in seeds]
    return [case.accuracy(turtle.predict(case.test)) for turtle in fits]


def kmeans_accuracies(case: Case, seeds: list[int]) -> dict[str, list[float]]:
    """Of both variants and all seeds."""

    def accuracy(seed: int, normalize: bool) -> float:
        kmeans = lk.KMeans(case.n_clusters, normalize=normalize, random_state=seed).fit(case.train)
        return case.accuracy(kmeans.predict(case.test))

    return {variant: [accuracy(seed, variant == "normalized") for seed in seeds] for variant in ("raw", "normalized")}


def bench_dataset(cases: list[Case], seeds: list[int]) -> list[Result]:
    """Results of one dataset in all its spaces: single ones first."""
    alone: dict[str, float] = {}
    kmeans_alone: dict[str, float] = {}
    results, leads = [], {}
    for case in cases:
        turtle, kmeans = turtle_accuracies(case, seeds), kmeans_accuracies(case, seeds)
        mean, best = statistics.mean(turtle), max(statistics.mean(values) for values in kmeans.values())
        details: dict[str, Any] = {"dataset": case.dataset, "spaces": case.names, "turtle": turtle, "kmeans": kmeans}
        results.append(Result(f"spaces: TURTLE minus K-means, {case.title}", mean - best, details=details))
        if len(case.names) == 1:
            alone[case.names[0]], kmeans_alone[case.names[0]] = mean, best
        else:
            over_one = mean - max(alone[name] for name in case.names)
            over_kmeans = mean - max(best, *(kmeans_alone[name] for name in case.names))
            results.append(Result(f"spaces: two minus the better one, {case.title}", over_one))
            results.append(Result(f"spaces: two minus the best K-means on one or both, {case.title}", over_kmeans))
            leads[case.title] = min(over_kmeans, over_one)
    title = max(leads, key=lambda name: leads[name])
    results.append(Result(f"spaces: lead over one space and all K-means, {title}", leads[title], 0.05, details=leads))
    return results


def main() -> None:
    given = arguments(__doc__, options)
    results = []
    if given.quick:
        both = made_up_case()
        halves = [
            Case("blobs", both.names[k : k + 1], both.train[k : k + 1], both.test[k : k + 1], both.y_train, both.y_test)
            for k in range(2)
        ]
        results = bench_dataset([*halves, both], [0])
    else:
        for dataset in given.datasets:
            results += bench_dataset(list(load_cases([dataset], [*SINGLE, *PAIRS])), given.seeds)
    finish("spaces", results, given)


if __name__ == "__main__":
    main()
