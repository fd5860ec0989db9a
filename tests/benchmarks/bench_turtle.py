"""TURTLE against a port of the published loop, against what else one would use, and how its cost grows.

    python tests/benchmarks/bench_turtle.py                     # everything; the port's accuracies take an hour once
    python tests/benchmarks/bench_turtle.py --only official     # one section: official, default, restarts, baselines,
                                                                # scaling, memory
official   seconds of an outer step of the port and of labkit with the published settings: one run alone, in float32 and
           in the dtype that "auto" takes here, and eight side by side; and whether port and labkit take the same
           trajectory in float32 from the same weights on the same batches
default    seconds of the default fit against the port's 6,000 published steps (measured time of a step, times 6,000),
           and the test accuracy of both: labkit's is the mean of 20 seeds; the port's is taken after 1,500 steps, the
           mean of 3 seeds, or of up to 15 while it is open on which side of the limit their difference lies, and kept
           in OUT/port
restarts   16 restarts against 1, and the label-free choice among them against their mean, over 20 seeds
baselines  scikit-learn's K-means with 10 starts and a linear probe on the same features
scaling    seconds as n, d, C, K or the number of restarts grows, on made-up features in half precision
memory     what a fit adds to the resident memory of a process, against the size of the features
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Result, arguments, finish, made_up_features, medians, ratio, side_by_side
from port import Port
from torch import Tensor

import labkit as lk
from labkit.devices import fast_dtype, pick_device
from labkit.errors import CollapseWarning
from labkit.turtle import TurtleSolver

DATASETS = ("fashion-mini", "digits", "emoji-unseen")
SPACES = (("efficientnet-lite0",), ("pixels",), ("pocket-clip",), ("efficientnet-lite0", "pixels"))
# EfficientNet-Lite0 as in the notebooks' pocket profile; the others that are not named here have a size of their own
IMAGE_SIZE = {"efficientnet-lite0": 96, "efficientnet-lite2": 128}
PUBLISHED_STEPS, PLATEAU_STEPS, LEAST_SEEDS, MOST_SEEDS = 6000, 1500, 3, 15
BEHIND = -0.003  # accuracy that the default may be behind the port's plateau
N_SEEDS = 20  # the mean of five fits can be two points off
MEMORY_DTYPES = ("float32", "float16", "bfloat16")
DEVICE = pick_device("auto")  # of the port and of labkit
SIDE_BY_SIDE = 8  # published runs from different starts in one product
PORT_VERSION = 1  # raise it when port.py computes something else: accuracies that were kept are then measured anew


# ---------------------------------------------------------------------------------------------------------------- data


class Case:
    """One dataset in some spaces: features and labels of both splits."""

    def __init__(self, dataset: str, names: Sequence[str], train: Sequence[np.ndarray], test: Sequence[np.ndarray],
                 y_train: np.ndarray, y_test: np.ndarray) -> None:  # fmt: skip
        self.dataset, self.names = dataset, tuple(names)
        self.train, self.test, self.y_train, self.y_test = list(train), list(test), y_train, y_test
        self.n_clusters = int(max(y_train.max(), y_test.max())) + 1

    @property
    def title(self) -> str:
        return f"{self.dataset}, {' + '.join(self.names)}"

    @property
    def tensors(self) -> list[Tensor]:
        return on_device(self.train)

    def accuracy(self, predicted: Any) -> float:
        """Of labels of the test split."""
        return lk.clustering_accuracy(self.y_test, torch.as_tensor(predicted).cpu().numpy())


def on_device(spaces: Sequence[np.ndarray]) -> list[Tensor]:
    """Features where port and solver run."""
    return [torch.from_numpy(z).to(DEVICE) for z in spaces]


def load_cases(datasets: Sequence[str], spaces: Sequence[Sequence[str]]) -> Iterator[Case]:
    """Every dataset in every choice of spaces, features from labkit's cache."""
    backbones: dict[str, Any] = {}
    for dataset in datasets:
        manifest = lk.load_manifest(dataset)
        features: dict[tuple[str, str], np.ndarray] = {}
        for names in spaces:
            for name in names:
                if name not in backbones:
                    backbones[name] = lk.load_backbone(name, image_size=IMAGE_SIZE.get(name))
                for split in ("train", "test"):
                    if (name, split) not in features:
                        features[name, split] = lk.extract_features(backbones[name], manifest, split=split)
            train, test = ([features[name, split] for name in names] for split in ("train", "test"))
            labels = (lk.load_dataset(manifest, split).labels for split in ("train", "test"))
            yield Case(dataset, names, train, test, *labels)


def made_up_case(n: int = 300, dims: Sequence[int] = (12, 7), n_clusters: int = 4, spread: float = 0.6) -> Case:
    """Blobs, for --quick and for tests: a third of them is the test split."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % n_clusters)
    centers = rng.normal(size=(n_clusters, sum(dims)))
    joined = (centers[labels] + spread * rng.normal(size=(n, sum(dims)))).astype(np.float32)
    spaces = np.split(joined, np.cumsum(dims)[:-1], axis=1)
    cut = n - n // 3
    names = [f"blobs-{d}" for d in dims]
    return Case("blobs", names, [np.ascontiguousarray(z[:cut]) for z in spaces],
                [np.ascontiguousarray(z[cut:]) for z in spaces], labels[:cut], labels[cut:])  # fmt: skip


@contextlib.contextmanager
def collapse_allowed() -> Iterator[None]:
    """A labeling of made-up features, or one that was hardly fitted, may collapse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        yield


def fit(case_or_spaces: Any, n_clusters: int | None = None, **settings: Any) -> lk.Turtle:
    """labkit's fit, default settings but for those given."""
    spaces = case_or_spaces.train if isinstance(case_or_spaces, Case) else case_or_spaces
    n_clusters = case_or_spaces.n_clusters if isinstance(case_or_spaces, Case) else n_clusters
    with collapse_allowed():
        return lk.Turtle(n_clusters, **settings).fit(spaces)


# ------------------------------------------------------------------------------------------------------------ official


def published_solver(spaces: Sequence[Tensor], n_clusters: int, seed: int = 0, n_restarts: int = 1) -> TurtleSolver:
    """labkit's solver with the settings of `Turtle.official`, which take the published trajectory."""
    settings = lk.Turtle.official(n_clusters, n_restarts=n_restarts).get_params()
    names = (
        "n_restarts", "entropy_weight", "n_inner_steps", "outer_lr", "inner_lr", "inner_start", "batch_size",
    )  # fmt: skip
    generator = torch.Generator(spaces[0].device).manual_seed(seed)
    return TurtleSolver(spaces, n_clusters, generator, **{name: settings[name] for name in names})


def layers_of(layers: Any, first: str) -> list[dict[str, Tensor]]:
    """Layers of the solver's only restart: `first` ("direction" or "weight"), "bias" and, where there is, "gain"."""
    found = []
    for k, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        found.append({first: weight[0].clone(), "bias": bias[0].clone()})
        if layers.gains:
            found[-1]["gain"] = layers.gains[k][0].clone()
    return found


def compare_trajectories(
    spaces: Sequence[Tensor], n_clusters: int, *, steps: int = 50, batch_size: int = 10_000, every: int = 10
) -> dict[str, float]:
    """Largest absolute differences of port and labkit over some steps from the same weights, on the same batches.

    Returns:
        "loss" and "entropy" at each step; "labeling", the probabilities of all samples in every space, at each
        `every`-th; and at the end "weight" and "bias" of the task encoders and "changed", the fraction of samples
        whose cluster differs.
    """
    solver, port = published_solver(spaces, n_clusters), Port(spaces, n_clusters, batch_size=batch_size)
    port.set_encoders(layers_of(solver.encoder, "direction"))
    drawn = layers_of(solver.classifier, "weight")
    draw = solver.classifier.draw

    def draw_and_keep(generator: torch.Generator) -> None:
        draw(generator)
        drawn[:] = layers_of(solver.classifier, "weight")

    solver.classifier.draw = draw_and_keep  # type: ignore[method-assign]
    worst = dict.fromkeys(("loss", "entropy", "labeling"), 0.0)
    n, generator = len(spaces[0]), torch.Generator().manual_seed(1)
    for step in range(steps):
        rows = torch.randperm(n, generator=generator)[:batch_size].to(spaces[0].device)
        loss, entropy = solver.step([z[rows] for z in spaces])
        its_loss, its_entropy = port.step(rows, port.classifiers_of(drawn))
        worst["loss"] = max(worst["loss"], abs(loss.item() - its_loss))
        worst["entropy"] = max(worst["entropy"], abs(entropy.item() - its_entropy))
        if (step + 1) % every == 0 or step + 1 == steps:
            ours = [probs[0].T for probs in solver.task_probs(spaces)]
            theirs = port.task_probs(spaces)
            gaps = [(a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
            worst["labeling"] = max(worst["labeling"], *gaps)
    weights, biases = [], []
    for k, layer in enumerate(port.get_encoders()):
        weight = layer["gain"][:, None] * layer["direction"] / layer["direction"].norm(dim=1, keepdim=True)
        weights.append((solver.encoder.normalized_weight(k)[0] - weight).abs().max().item())
        biases.append((solver.encoder.biases[k][0] - layer["bias"]).abs().max().item())
    labels = torch.stack(ours).mean(0).argmax(1)
    changed = (labels != port.predict(spaces)).double().mean().item()
    return {**worst, "weight": max(weights), "bias": max(biases), "changed": changed}


def apart(gaps: dict[str, float]) -> float:
    """The largest of the differences that `compare_trajectories` found, but for the clusters that changed."""
    return max(gap for name, gap in gaps.items() if name != "changed")


def bench_official(case: Case, given: argparse.Namespace) -> list[Result]:
    steps = 2 if given.quick else 5
    spaces = case.tensors
    solver, port = published_solver(spaces, case.n_clusters), Port(spaces, case.n_clusters)
    several = published_solver(spaces, case.n_clusters, n_restarts=SIDE_BY_SIDE)
    dtype = fast_dtype(DEVICE)
    fast = published_solver([z.to(dtype) for z in spaces], case.n_clusters)

    def run(step: Callable[[], Any], n: int = steps) -> None:
        for _ in range(n):
            step()

    for step in (solver.step, fast.step, several.step, port.step):
        run(step, 1)
    times = side_by_side(
        given.rounds,
        port=lambda: run(port.step),
        labkit=lambda: run(solver.step),
        fast=lambda: run(fast.step),
        several=lambda: run(several.step),
    )
    details = {"milliseconds of a step": medians(times, 1000 / steps), "shape": _shape(spaces, case.n_clusters)}
    one_run = ratio(times["port"], times["labkit"])
    run_of_several = ratio([SIDE_BY_SIDE * t for t in times["port"]], times["several"])
    name = str(dtype).removeprefix("torch.")
    gaps = compare_trajectories(spaces, case.n_clusters, steps=given.trajectory or (4 if given.quick else 50))
    return [
        Result(f"official: port / labkit, one run, {case.title}", one_run, 3.0, details=details),
        Result(f"official: port / labkit in {name}, one run, {case.title}", ratio(times["port"], times["fast"]), 3.0),
        Result(f"official: port / labkit, a run of {SIDE_BY_SIDE} side by side, {case.title}", run_of_several, 3.0),
        Result(f"official: trajectories apart by, {case.title}", apart(gaps), 1e-4, "at most", gaps),
    ]


# ------------------------------------------------------------------------------------------------------------- default


def port_accuracies(case: Case, folder: Path, n_steps: int, seeds: Sequence[int]) -> list[dict[str, float]]:
    """Test and train accuracy of the port after `n_steps`, and its seconds, for each seed; kept on disk."""
    digest = hashlib.sha256()
    for array in (*case.train, *case.test, case.y_train, case.y_test):
        digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).data)
    found = []
    for seed in seeds:
        name = f"{case.dataset}-{'+'.join(case.names)}-{n_steps}-{seed}-{PORT_VERSION}-{digest.hexdigest()[:16]}.json"
        path = folder / name
        if not path.exists():
            print(f"port: {case.title}, {n_steps} steps, seed {seed} …", flush=True)
            start = time.perf_counter()
            port = Port(case.tensors, case.n_clusters, seed=seed).fit(n_steps)
            measured = {
                "test": case.accuracy(port.predict(on_device(case.test))),
                "train": lk.clustering_accuracy(case.y_train, port.predict(case.tensors).cpu().numpy()),
                "seconds": time.perf_counter() - start,
            }
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(measured) + "\n", "utf-8")
            temporary.replace(path)
        found.append(json.loads(path.read_text("utf-8")))
    return found


def port_plateau(case: Case, given: argparse.Namespace, ours: Sequence[float]) -> list[float]:
    """Test accuracies of the port at its plateau: more seeds while two standard errors cannot tell what holds."""
    if given.quick:
        return [run["test"] for run in port_accuracies(case, given.out / "port", 20, [0])]
    for n_seeds in range(LEAST_SEEDS, MOST_SEEDS + 1):
        theirs = [run["test"] for run in port_accuracies(case, given.out / "port", PLATEAU_STEPS, range(n_seeds))]
        error = math.hypot(*(statistics.stdev(values) / math.sqrt(len(values)) for values in (ours, theirs)))
        if abs(statistics.mean(ours) - statistics.mean(theirs) - BEHIND) > 2 * error:
            break
    return theirs


def bench_default(case: Case, given: argparse.Namespace) -> list[Result]:
    port_steps = 2 if given.quick else 5
    port = Port(case.tensors, case.n_clusters)
    port.step()
    settings = _settings(given)
    fits: list[lk.Turtle] = []
    times = side_by_side(
        given.rounds,
        port=lambda: port.fit(port_steps),
        labkit=lambda: fits.append(fit(case, random_state=len(fits), **settings)),
    )
    while len(fits) < (0 if given.quick else N_SEEDS):
        fits.append(fit(case, random_state=len(fits), **settings))
    ours = [case.accuracy(turtle.predict(case.test)) for turtle in fits]
    plateau = port_plateau(case, given, ours)
    theirs = statistics.mean(plateau)
    step = statistics.median(times["port"]) / port_steps
    details = {
        "port, seconds of a step": step,
        "port, seconds of 6000 steps": step * PUBLISHED_STEPS,
        "labkit, seconds of the default fit": statistics.median(times["labkit"]),
        "port, test accuracies at its plateau": plateau,
        "labkit, test accuracies": ours,
        "labkit, test accuracies of all restarts": [_of_restarts(case, turtle) for turtle in fits],
        "settings": fits[0].get_params(),
        "shape": _shape(case.tensors, case.n_clusters),
    }
    sooner = ratio([t / port_steps * PUBLISHED_STEPS for t in times["port"]], times["labkit"])
    lead = statistics.mean(ours) - theirs
    return [
        Result(f"default: port's 6000 steps / default fit, {case.title}", sooner, 50.0, details=details),
        Result(
            f"default: accuracy minus the port's plateau, {case.title}",
            lead,
            BEHIND,
            details={"labkit": statistics.mean(ours), "port": theirs},
        ),
    ]


def bench_restarts(case: Case, given: argparse.Namespace) -> list[Result]:
    settings = _settings(given)
    many: list[lk.Turtle] = []
    singles: list[lk.Turtle] = []
    times = side_by_side(
        given.rounds,
        single=lambda: singles.append(fit(case, n_restarts=1, random_state=len(singles), **settings)),
        many=lambda: many.append(fit(case, n_restarts=16, random_state=len(many), **settings)),
    )
    while len(many) < (0 if given.quick else N_SEEDS):  # more for the accuracy, less for the time
        many.append(fit(case, n_restarts=16, random_state=len(many), **settings))
    chosen = [case.accuracy(turtle.predict(case.test)) for turtle in many]
    every = [_of_restarts(case, turtle) for turtle in many]
    alone = [case.accuracy(turtle.predict(case.test)) for turtle in singles]
    mean = statistics.mean(accuracy for accuracies in every for accuracy in accuracies)
    details = {
        "seconds": medians(times),
        "chosen": chosen,
        "mean of the 16": [statistics.mean(accuracies) for accuracies in every],
        "single fits": alone,
    }
    return [
        Result(f"restarts: 16 / 1, {case.title}", ratio(times["many"], times["single"]), 4.0, "at most", details),
        Result(f"restarts: chosen minus mean of 16, {case.title}", statistics.mean(chosen) - mean, 0.0),
    ]


def _settings(given: argparse.Namespace) -> dict[str, int]:
    """Of labkit's default fit: none, but for --quick."""
    return {"n_outer_steps": 30} if given.quick else {}


def _of_restarts(case: Case, turtle: lk.Turtle) -> list[float]:
    return [case.accuracy(turtle.predict(case.test, restart=r)) for r in range(turtle.n_restarts)]


def _shape(spaces: Sequence[Tensor], n_clusters: int) -> dict[str, Any]:
    return {"n": len(spaces[0]), "d": [z.shape[1] for z in spaces], "C": n_clusters}


# ----------------------------------------------------------------------------------------------------------- baselines


def bench_baselines(case: Case, given: argparse.Namespace) -> list[Result]:
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    settings = _settings(given)

    several = len(case.names) > 1  # as in the paper: each space normalized where there are several

    def side(spaces: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([normalize(z) if several else z for z in spaces], axis=1)

    fits: dict[str, list[Any]] = {"turtle": [], "kmeans": [], "probe": []}

    def turtle() -> None:
        fits["turtle"].append(fit(case, random_state=len(fits["turtle"]), **settings))

    def kmeans() -> None:
        estimator = KMeans(case.n_clusters, n_init=10, random_state=len(fits["kmeans"]))
        fits["kmeans"].append(estimator.fit(side(case.train)))

    def probe() -> None:
        fits["probe"].append(lk.LinearProbe().fit(case.train, case.y_train))

    times = side_by_side(given.rounds, turtle=turtle, kmeans=kmeans, probe=probe)
    accuracy = {
        "turtle": [case.accuracy(f.predict(case.test)) for f in fits["turtle"]],
        "kmeans": [case.accuracy(f.predict(side(case.test))) for f in fits["kmeans"]],
        "probe": [float(np.mean(f.predict(case.test) == case.y_test)) for f in fits["probe"]],
    }
    details = {"seconds": medians(times), "test accuracy": {k: statistics.mean(v) for k, v in accuracy.items()}}
    return [
        Result(
            f"baselines: time of {title} / default fit, {case.title}",
            ratio(times[name], times["turtle"]),
            details=details,
        )
        for name, title in (("kmeans", "K-means"), ("probe", "the linear probe"))
    ]


# ------------------------------------------------------------------------------------------------------------- scaling


def bench_scaling(given: argparse.Namespace) -> list[Result]:
    quick = given.quick
    results = []
    # n: a whole fit, reading and choosing included; once with batches of 2,000 (the default) and once with all samples
    sizes = (200, 400) if quick else (20_000, 80_000, 320_000, 1_280_000)
    features = made_up_features(sizes[-1], 8 if quick else given.width, "float16")
    for title, settings in {
        "all samples a step": {"batch_size": None, "n_outer_steps": 2 if quick else 10, "n_restarts": 1},
        "batches of 2000": {"n_outer_steps": 2 if quick else 100},
        "the default fit": {"n_outer_steps": 2} if quick else {},
    }.items():
        times = {}
        for n in sizes:
            taken = side_by_side(
                given.rounds, fit=lambda s=settings, rows=features[:n]: fit([rows], 10, random_state=0, **s)
            )
            times[n] = statistics.median(taken["fit"])
        per_row = {n: t / n for n, t in times.items()}
        # of the last step up, where fixed costs matter little; below the limit is linear or better
        value = per_row[sizes[-1]] / per_row[sizes[-2]]
        details = {"seconds": times, "d": features.shape[1], "dtype": str(features.dtype), **settings}
        results.append(
            Result(f"scaling: time a row, n {sizes[-2]} to {sizes[-1]}, {title}", value, 1.15, "at most", details)
        )
    # the others: an outer step of the default solver with all rows in the batch
    n = 200 if quick else 4000
    for name, values in {
        "d": (8, 16) if quick else (64, 256, 1024, 4096),
        "C": (2, 4) if quick else (2, 10, 100, 1000),
        "K": (1, 2) if quick else (1, 2, 4, 8),
        "restarts": (1, 2) if quick else (1, 2, 4, 8, 16, 32, 64),
    }.items():
        times = {}
        for value in values:
            d, clusters = (value if name == "d" else 256), (value if name == "C" else 10)
            one = torch.from_numpy(made_up_features(n, d, "float32")).to(DEVICE, fast_dtype(DEVICE))
            solver = TurtleSolver(
                [one] + [one.roll(k, 1) for k in range(1, value if name == "K" else 1)],
                clusters,
                torch.Generator(DEVICE).manual_seed(0),
                n_restarts=value if name == "restarts" else 1,
                **{key: lk.Turtle().get_params()[key] for key in ("n_inner_steps", "inner_start")},
            )
            solver.step()
            taken = side_by_side(given.rounds, step=lambda s=solver: [s.step() for _ in range(1 if quick else 5)])
            times[value] = statistics.median(taken["step"]) / (1 if quick else 5)
        growth = times[values[-1]] / times[values[0]] / (values[-1] / values[0])
        results.append(
            Result(f"scaling: time per {name}, {values[0]} to {values[-1]}", growth, 1.15, "at most",
                   {"seconds of a step": times, "n": n})
        )  # fmt: skip
    return results


# -------------------------------------------------------------------------------------------------------------- memory


def bench_memory(given: argparse.Namespace) -> list[Result]:
    width, results = 64 if given.quick else 768, []
    # the second is ImageNet's size; about 0.1 GB does not grow with the rows
    for rows, dtype in itertools.product((20_000,) if given.quick else (200_000, 1_280_000), MEMORY_DTYPES):
        growths = []
        for _ in range(1 if given.quick else min(given.rounds, 3)):
            command = [sys.executable, str(Path(__file__).with_name("peak_memory.py")), str(rows), str(width), dtype]
            command += [] if given.quick else [str(lk.Turtle().n_outer_steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            growths.append(json.loads(done.stdout.splitlines()[-1]))
        value = statistics.median(g["growth"] / g["features"] for g in growths)
        name = f"memory: growth in a fit / features, {rows} rows in {dtype}"
        results.append(Result(name, value, 1.2, "at most", {"runs, bytes": growths}))
    return results


# ---------------------------------------------------------------------------------------------------------------- main

PER_CASE = {
    "official": bench_official,
    "default": bench_default,
    "restarts": bench_restarts,
    "baselines": bench_baselines,
}
OTHERS = {"scaling": bench_scaling, "memory": bench_memory}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=[*PER_CASE, *OTHERS], help="sections (default: all)")
    parser.add_argument("--datasets", nargs="+", default=DATASETS, metavar="ID", help=f"default: {' '.join(DATASETS)}")
    parser.add_argument("--trajectory", type=int, metavar="STEPS", help="over which trajectories are compared (50)")
    parser.add_argument("--width", type=int, default=128, help="d of the made-up features that grow in n (128)")
    parser.add_argument("--name", default="turtle", help="of the JSON file (default: turtle)")


def main() -> None:
    given = arguments(__doc__, options)
    sections = given.only or [*PER_CASE, *OTHERS]
    results: list[Result] = []
    if any(name in PER_CASE for name in sections):
        cases = iter([made_up_case()]) if given.quick else load_cases(given.datasets, SPACES)
        for case in cases:
            for name, bench in PER_CASE.items():
                if name in sections:
                    print(f"{name}: {case.title} …", file=sys.stderr, flush=True)
                    results += bench(case, given)
    for name, section in OTHERS.items():
        if name in sections:
            print(f"{name} …", file=sys.stderr, flush=True)
            results += section(given)
    finish(given.name, results, given)


if __name__ == "__main__":
    main()
