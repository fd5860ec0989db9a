"""The choice among the runs of a sweep without labels: how far each criterion's is behind the best, and what it costs.

    python tests/benchmarks/bench_choice_sweep.py                            # about ten minutes on two cores
    python tests/benchmarks/bench_choice_sweep.py --only regret --cases digits food10 --seeds 0
    python tests/benchmarks/bench_choice_sweep.py --only regret --cases dtd caltech101

regret   clustering accuracy of the best run of a default sweep minus that of the run that a criterion ranks first, on
         the samples of the sweep, for each criterion: mean over the seeds. A case "NAME@10" is long-tailed: the largest
         class has 10 times the samples of the smallest. Features of photographs are read from ../shared/real, or from
         $LABKIT_REAL; cases without their file are left out
cost     seconds of a default sweep of 36 runs against a default fit
probe    scores of the batched logistic regressions against scikit-learn's on the same folds: Spearman's correlation
         over the runs, and the largest difference

dtd and caltech101 were never looked at while the criterion, the grid and all else was chosen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from bench_turtle import Case, collapse_allowed, fit, load_cases, made_up_case
from measure import REAL, Result, arguments, finish, medians, ratio, side_by_side
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

import labkit as lk
from labkit.turtle import FeatureTransform, Sweep
from labkit.turtle.probe import cross_validated_accuracy, stratified_folds
from labkit.turtle.transform import transformed

EMBEDDED = {
    "digits": ("digits", ("hog",)),
    "digits, two spaces": ("digits", ("efficientnet-lite0", "pixels")),
    "digits, pixels": ("digits", ("pixels",)),
    "fashion-mini": ("fashion-mini", ("efficientnet-lite0", "pixels")),
    "emoji-unseen": ("emoji-unseen", ("efficientnet-lite0",)),
}
PHOTOS = {
    "food10": ("food10", ("train_clip_vitb32",), "train_labels"),
    "oxford-pets": ("oxford_pets", ("test_clip_vitb32",), "test_labels"),
    "dtd": ("dtd", ("test_clip_vitb32",), "test_labels"),
    "caltech101": ("caltech101", ("val_clip_vitb32", "val_clip_rn50"), "val_labels"),
}
DEVELOPER = [*EMBEDDED, "food10", "oxford-pets", "digits@10", "fashion-mini@10", "food10@10"]
LIMIT = 0.015  # accuracy that the default criterion may be behind the best run of its sweep


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), help="sections (default: all)")
    parser.add_argument("--cases", nargs="+", default=DEVELOPER, metavar="NAME", help=f"default: {DEVELOPER}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3], metavar="SEED")


def load(name: str) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Spaces and labels of a case; None where its file is not here."""
    base, _, imbalance = name.partition("@")
    if base in EMBEDDED:
        dataset, spaces = EMBEDDED[base]
        (case,) = load_cases([dataset], [spaces])
        features, labels = case.train, case.y_train
    else:
        file, keys, label_key = PHOTOS[base]
        path = REAL / "features" / f"{file}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            features, labels = [arrays[key].astype(np.float32) for key in keys], arrays[label_key]
    return long_tailed(features, labels, float(imbalance)) if imbalance else (features, labels)


def long_tailed(spaces: Sequence[np.ndarray], labels: np.ndarray, imbalance: float) -> tuple[list, np.ndarray]:
    """A part of the samples whose classes, in a random order, shrink geometrically."""
    rng, counts = np.random.default_rng(0), np.bincount(labels)
    shares = imbalance ** -np.linspace(0, 1, len(counts))
    sizes = np.maximum(3, np.round(counts.min() * shares)).astype(int)
    classes = rng.permutation(len(counts))
    parts = [rng.permutation(np.flatnonzero(labels == c))[:m] for c, m in zip(classes, sizes, strict=True)]
    kept = np.sort(np.concatenate(parts))
    return [space[kept] for space in spaces], labels[kept]


def swept(case: Case, seed: int, given: argparse.Namespace) -> Sweep:
    quick = {"n_outer_steps": 20} if given.quick else {}
    with collapse_allowed():
        return lk.sweep(case.train, case.n_clusters, random_state=seed, **quick)


def cases_of(given: argparse.Namespace) -> list[Case]:
    if given.quick:
        return [made_up_case()]
    loaded = {name: found for name in given.cases if (found := load(name)) is not None}
    return [Case(name, [], spaces, spaces, labels, labels) for name, (spaces, labels) in loaded.items()]


def bench_regret(given: argparse.Namespace) -> list[Result]:
    results = []
    for case in cases_of(given):
        tables = [swept(case, seed, given).regret(case.y_train) for seed in given.seeds]
        for name in sorted(tables[0].index):
            of_seeds = [float(table.loc[name, "regret"]) for table in tables]
            limit = LIMIT if name == "combined" and "@" not in case.dataset else None
            best, mean = (
                statistics.mean(float(table[column].iloc[0]) for table in tables) for column in ("best", "mean")
            )
            details = {"dataset": case.dataset, "regrets": of_seeds, "best run": best, "mean run": mean}
            title = f"sweep: regret of {name}, {case.dataset}"
            results.append(Result(title, statistics.mean(of_seeds), limit, "at most", details))
    return results


def bench_cost(given: argparse.Namespace) -> list[Result]:
    results = []
    for case in cases_of(given):
        quick = {"n_outer_steps": 20} if given.quick else {}
        times = side_by_side(
            given.rounds,
            sweep=lambda case=case: swept(case, 0, given),
            fit=lambda case=case, quick=quick: fit(case, random_state=0, **quick),
        )
        title = f"sweep: seconds of 36 runs / a default fit, {case.dataset}"
        results.append(Result(title, ratio(times["sweep"], times["fit"]), 6.0, "at most", {"seconds": medians(times)}))
    return results


def bench_probe(given: argparse.Namespace) -> list[Result]:
    results = []
    for case in cases_of(given):
        labelings = torch.from_numpy(swept(case, 0, given).labelings)
        rows = torch.randperm(labelings.shape[1], generator=torch.Generator().manual_seed(0))[:2000]
        space = torch.from_numpy(case.train[0])
        transform = FeatureTransform.from_rows(space, rows, 128, 0.5, 8.0)
        features = transformed(space, transform, rows, torch.device("cpu"), torch.float32)
        labelings, source = labelings[:, rows], torch.Generator().manual_seed(0)
        found = cross_validated_accuracy(features, labelings, case.n_clusters, generator=source).numpy()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        folds = stratified_folds(labelings, order, 10).numpy()
        expected = [one_by_one(features.numpy(), *pair) for pair in zip(labelings.numpy(), folds, strict=True)]
        correlation, apart = spearmanr(found, expected)[0], np.abs(found - expected).max()
        details = {"ours": found.tolist(), "scikit-learn": expected}
        results += [
            Result(f"probe: rank correlation with scikit-learn, {case.dataset}", correlation, 0.95, details=details),
            Result(f"probe: largest difference to scikit-learn, {case.dataset}", float(apart), 0.01, "at most"),
        ]
    return results


def one_by_one(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
    """scikit-learn's cross-validated accuracy of one labeling, without its smallest clusters."""
    kept = (np.bincount(labels) >= 10)[labels]
    scores = []
    for fold in range(10):
        seen, held_out = kept & (folds != fold), kept & (folds == fold)
        probe = LogisticRegression(C=1e-2, max_iter=500).fit(features[seen], labels[seen])
        scores.append(probe.score(features[held_out], labels[held_out]))
    return float(np.mean(scores))


SECTIONS = {"regret": bench_regret, "cost": bench_cost, "probe": bench_probe}


def main() -> None:
    given = arguments(__doc__, options)
    results = [result for name in given.only or SECTIONS for result in SECTIONS[name](given)]
    finish("choice_sweep", results, given)


if __name__ == "__main__":
    main()
