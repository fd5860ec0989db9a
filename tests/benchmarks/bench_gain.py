"""What MUST gains on Pocket ViT over its zero-shot start, from the prompts, from centered zero-shot and from TURTLE's
named clusters, and what each of its parts is worth.

    python tests/benchmarks/bench_gain.py                    # all of it, about an hour on two cores; resumes
    python tests/benchmarks/bench_gain.py --only gain        # one section: gain, centered, turtle, ablation

gain       test accuracy at the last epoch minus zero-shot, and minus centered zero-shot, mean of the seeds; the seconds
           of a fit
centered    the same from the labels of centered zero-shot
turtle     the same from TURTLE's named clusters, against what these clusters score themselves
ablation   test accuracy on the first dataset with one part changed, in a third of the epochs

Labels are looked at after the fits only. What has been fitted is kept in OUT/gain, one file a fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import time
from typing import Any

import numpy as np
from bench_turtle import Case, load_cases
from measure import Result, arguments, finish

import labkit as lk
from labkit._files import atomic_write
from labkit.must import MustConfig, preset_for
from labkit.pocket.recipe.evaluate import scores
from labkit.zeroshot.naming import name_by_model

MODEL, SPACES = "pocket-vit", ("efficientnet-lite0", "pixels")
DATASETS = ("digits", "fashion-mini", "emoji-unseen")
TURTLE_DATASETS = ("digits", "fashion-mini")  # whose classes TURTLE finds in these spaces
ABLATIONS: dict[str, dict[str, Any]] = {
    "everything on": {},
    "no self-training loss": {"self_training_weight": 0.0},
    "no fairness loss": {"fairness_weight": 0.0},
    "no masked-image loss": {"masked_image_weight": 0.0},
    "no alignment loss": {"alignment_weight": 0.0},
    "no masking": {"mask_ratio": 0.0},
    "no EMA teacher": {"ema_decay": 0.0},
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), help="sections (default: all)")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS, metavar="ID")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")


def named_clusters(case: Case, seed: int) -> tuple[np.ndarray, float]:
    """TURTLE's clusters with the words of the model: a class number for each train image, and the test accuracy."""
    manifest, model = lk.load_manifest(case.dataset), lk.load_backbone(MODEL)
    turtle = lk.Turtle(case.n_clusters, random_state=seed).fit(case.train)
    labeling = turtle.predict_proba(case.train)
    features = lk.extract_features(model, manifest, split="train")
    names = name_by_model(labeling, model, features, lk.load_prompts(manifest))
    return names.predict(labeling), float(np.mean(names.predict(turtle.predict_proba(case.test)) == case.y_test))


def fitted(
    dataset: str, config: MustConfig, seed: int, given: argparse.Namespace, start: np.ndarray | None = None
) -> dict[str, float]:
    """Test accuracy at the last epoch and seconds of a fit; read from OUT/gain where this fit was made before."""
    settings = [dataset, dataclasses.asdict(config), seed, None if start is None else start.tolist(), given.quick]
    settings.append(lk.load_backbone(MODEL).fingerprint)
    path = given.out / "gain" / f"{dataset}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]}.json"
    if not path.exists():
        manifest = lk.load_manifest(dataset)
        images, test = (lk.load_dataset(manifest, split) for split in ("train", "test"))
        if given.quick:
            images, test = images.subset(range(64)), test.subset(range(64))
        begin = time.perf_counter()
        must = lk.MUST(MODEL, lk.load_prompts(manifest), config, random_state=seed)
        must.fit(images, initial_labels=None if start is None else start[: len(images)])
        seconds = time.perf_counter() - begin
        accuracy = float(np.mean(must.predict(test) == test.labels))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"accuracy": accuracy, "seconds": seconds}) + "\n", "utf-8")
    return json.loads(path.read_text("utf-8"))


def config_of(dataset: str, given: argparse.Namespace) -> MustConfig:
    config = preset_for(dataset, MODEL)
    return config.replace(epochs=1) if given.quick else config


def bench_gain(given: argparse.Namespace) -> list[Result]:
    results = []
    for dataset in given.datasets:
        begin = scores(lk.load_backbone(MODEL), dataset)
        start, centered = begin["zero_shot"], begin["auto"]
        runs = [fitted(dataset, config_of(dataset, given), seed, given) for seed in given.seeds]
        ends = [run["accuracy"] for run in runs]
        rows = {
            "zero-shot, the start": [start],
            "zero-shot, centered by its rule": [centered],
            "**MUST**, last epoch": ends,
        }
        details = {"dataset": dataset, "accuracies": rows}
        slowest, end = max(run["seconds"] for run in runs), statistics.mean(ends)
        results += [
            Result(f"MUST: accuracy minus zero-shot, {dataset}", end - start, 0.08, details=details),
            Result(f"MUST: accuracy minus centered zero-shot, {dataset}", end - centered, 0.0),
            Result(f"MUST: seconds of a fit, the slowest, {dataset}", slowest, 240.0, "at most"),
        ]
    return results


def bench_centered_start(given: argparse.Namespace) -> list[Result]:
    """From the labels of centered zero-shot, where its rule centers at all."""
    results, model = [], lk.load_backbone(MODEL)
    for dataset in given.datasets:
        manifest = lk.load_manifest(dataset)
        features = lk.extract_features(model, manifest, split="train")
        reader = lk.ZeroShot.from_prompts(model, lk.load_prompts(manifest), center="auto").fit(features)
        if not reader.centered_:
            continue
        labeling = reader.predict(features)
        ends = [fitted(dataset, config_of(dataset, given), seed, given, labeling)["accuracy"] for seed in given.seeds]
        gain = statistics.mean(ends) - scores(model, dataset)["auto"]
        details = {"dataset": dataset, "accuracies": {"**MUST** from centered zero-shot, last epoch": ends}}
        results.append(Result(f"MUST from centered zero-shot: accuracy minus it, {dataset}", gain, details=details))
    return results


def bench_turtle_start(given: argparse.Namespace) -> list[Result]:
    results = []
    for case in load_cases([dataset for dataset in given.datasets if dataset in TURTLE_DATASETS], [SPACES]):
        before, ends = [], []
        for seed in given.seeds:
            labeling, score = named_clusters(case, seed)
            before.append(score)
            ends.append(fitted(case.dataset, config_of(case.dataset, given), seed, given, labeling)["accuracy"])
        rows = {"TURTLE's named clusters": before, "**MUST** from these, last epoch": ends}
        gain = statistics.mean(ends) - statistics.mean(before)
        details = {"dataset": case.dataset, "accuracies": rows}
        results.append(
            Result(f"MUST from TURTLE: accuracy minus named clusters, {case.dataset}", gain, details=details)
        )
    return results


def bench_ablation(given: argparse.Namespace) -> list[Result]:
    dataset = given.datasets[0]
    whole = config_of(dataset, given)
    short = whole.replace(epochs=max(1, whole.epochs // 3))
    runs = [(f"{short.epochs} epochs, {name}", short.replace(**changes)) for name, changes in ABLATIONS.items()]
    # a teacher that looks back further than the short run is long is no fair opponent
    runs.append(("MUST, no EMA teacher", whole.replace(**ABLATIONS["no EMA teacher"])))
    results = []
    for name, config in runs:
        ends = [fitted(dataset, config, seed, given)["accuracy"] for seed in given.seeds]
        details = {"dataset": dataset, "accuracies": {name: ends}}
        results.append(Result(f"MUST: accuracy, {name}, {dataset}", statistics.mean(ends), details=details))
    return results


SECTIONS = {
    "gain": bench_gain,
    "centered": bench_centered_start,
    "turtle": bench_turtle_start,
    "ablation": bench_ablation,
}


def main() -> None:
    given = arguments(__doc__, options)
    results = [result for name in given.only or SECTIONS for result in SECTIONS[name](given)]
    finish("gain", results, given)


if __name__ == "__main__":
    main()
