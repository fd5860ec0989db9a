"""Photographs through the whole path, in the spaces of the profile `photos`: python tests/benchmarks/bench_world.py

Features, K-means, TURTLE, the linear probe, zero-shot and MUST on clothing-small (whose folders val and test together
are its test split) and a part of CIFAR-10: fitted on train, evaluated on test, and printed as tables in Markdown.
Photographs are read from ../shared/real/photos or $LABKIT_REAL/photos; where they are not, this says so and measures
nothing. Labels are for the linear probe and the accuracy only. MUST is one short run of one seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_turtle import collapse_allowed
from measure import REAL, Result, arguments, finish

import labkit as lk
from labkit.course.profiles import PROFILES
from labkit.must import PRESETS

FOLDERS = {
    "clothing-small": (["clothing-small/train"], ["clothing-small/val", "clothing-small/test"]),
    "cifar10": (["cifar10/train"], ["cifar10/test"]),
}
PROFILE = PROFILES["photos"]
SPACES = (*PROFILE.backbones, "hog", PROFILE.image_text)
COMBINATIONS = (*((space,) for space in SPACES), PROFILE.backbones, SPACES)
MUST = PRESETS["pocket"].replace(epochs=3, batch_size=64, ema_decay=0.4)  # as notebook 07 has it
WORDS = {"hog": "edges", "pocket-clip": "Pocket CLIP"}  # what the table calls a space


@dataclass
class World:
    """The images of a dataset and its prompts; labels are for evaluation, and for the probe."""

    name: str
    train: lk.ImageDataset
    test: lk.ImageDataset
    prompts: lk.Prompts

    def features(self, space: str) -> tuple[np.ndarray, np.ndarray]:
        """Features of train (n, d) and of test (m, d)."""
        size = PROFILE.image_size if space in PROFILE.backbones else None
        backbone = lk.load_backbone(space, image_size=size)
        train, test = (lk.extract_features(backbone, images, progress=True) for images in (self.train, self.test))
        return train, test


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--datasets", nargs="+", default=list(FOLDERS), choices=list(FOLDERS), metavar="ID")


def read(folders: list[Path], classes: list[str]) -> lk.ImageDataset:
    """The images of class folders, one folder of them after the other."""
    files = [path for folder in folders for path in sorted(folder.glob("*/*.jpg"))]
    return lk.ImageDataset.from_files(files, [classes.index(path.parent.name) for path in files], classes=classes)


def worlds(given: argparse.Namespace) -> Iterator[World]:
    if given.quick:
        train, test = (lk.load_dataset("digits", split).subset(range(200)) for split in ("train", "test"))
        yield World("digits", train, test, lk.load_prompts(lk.load_manifest("digits")))
        return
    for name in given.datasets:
        manifest = lk.load_manifest(name)
        fit_on, judge_on = ([REAL / "photos" / folder for folder in folders] for folders in FOLDERS[name])
        if not all(folder.is_dir() for folder in fit_on + judge_on):
            print(f"The photographs of {name} are not in {REAL}. Give the folder that holds photos/ in $LABKIT_REAL.")
            continue
        train, test = (read(folders, manifest.classes) for folders in (fit_on, judge_on))
        yield World(name, train, test, lk.load_prompts(manifest))


def clusterings(world: World, combination: tuple[str, ...], seeds: list[int]) -> dict[str, list[float]]:
    """Test accuracies of each method in these spaces, one for each seed; of the probe one."""
    train, test = zip(*(world.features(space) for space in combination), strict=True)
    n, truth = len(world.train.classes), world.test.labels
    found: dict[str, list[float]] = {}
    for seed in seeds:
        fits = {
            "K-means": lk.KMeans(n, normalize=len(combination) > 1, random_state=seed),
            "TURTLE, even": lk.Turtle(n, random_state=seed),
            "TURTLE, estimated": lk.Turtle(n, prior="estimated", random_state=seed),
        }
        for method, model in fits.items():
            with collapse_allowed():
                labels = model.fit(list(train)).predict(list(test))
            found.setdefault(method, []).append(lk.clustering_accuracy(truth, labels))
    probe = lk.LinearProbe().fit(list(train), world.train.labels)  # the only one that sees labels
    return found | {"linear probe": [lk.accuracy(truth, probe.predict(list(test)))]}


def by_words(world: World, given: argparse.Namespace) -> dict[str, float]:
    """Test accuracies of what needs words: zero-shot of both models, Gaussians at the texts, and MUST."""
    truth, scores = world.test.labels, {"majority class": float(np.bincount(world.test.labels).max() / len(world.test))}
    for model in (PROFILE.image_text, PROFILE.student):
        backbone, (train, test) = lk.load_backbone(model), world.features(model)
        zero_shot = lk.ZeroShot.from_prompts(backbone, world.prompts).fit(train)
        scores[f"zero-shot, {model}"] = lk.accuracy(truth, zero_shot.predict(test))
        gaussians = lk.TextGaussians.from_prompts(backbone, world.prompts).fit(train)
        scores[f"Gaussians at the texts, {model}"] = lk.accuracy(truth, gaussians.predict(test))
    config = MUST.replace(epochs=1) if given.quick else MUST
    must = lk.MUST(PROFILE.student, world.prompts, config, random_state=given.seeds[0], progress=True)
    must.fit(world.train.without_labels())
    return scores | {f"MUST, {PROFILE.student}": lk.accuracy(truth, must.predict(world.test))}


def title(combination: tuple[str, ...]) -> str:
    names = [WORDS.get(space, space.replace("efficientnet-lite", "Lite")) for space in combination]
    return "all four" if len(names) == len(SPACES) else " + ".join(names)


def percent(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def bench(world: World, given: argparse.Namespace) -> list[Result]:
    lines = [f"{world.name}: {len(world.train):,} train, {len(world.test):,} test, test accuracy in percent"]
    lines.append(
        "\n| spaces | K-means | TURTLE, even | TURTLE, estimated | linear probe, with labels |\n|---|---|---|---|---|"
    )
    results = []
    for combination in ((PROFILE.image_text,),) if given.quick else COMBINATIONS:
        found = clusterings(world, combination, given.seeds)
        lines.append(f"| {title(combination)} | {' | '.join(percent(values) for values in found.values())} |")
        print(lines[-1], flush=True)
        gain = statistics.mean(found["TURTLE, estimated"]) - statistics.mean(found["K-means"])
        name = f"world: TURTLE with estimated prior minus K-means, {world.name}, {title(combination)}"
        results.append(Result(name, gain, 0.0 if combination == PROFILE.backbones else None, details=found))
    scores = by_words(world, given)
    lines += ["", "| method, by words | test accuracy |", "|---|---|"]
    lines += [f"| {name} | {100 * value:.1f} |" for name, value in scores.items()]
    print("\n" + "\n".join(lines), flush=True)
    gain = scores[f"MUST, {PROFILE.student}"] - scores[f"zero-shot, {PROFILE.student}"]
    return [*results, Result(f"world: MUST minus zero-shot, {world.name}", gain, details=scores)]


def main() -> None:
    given = arguments(__doc__, options)
    finish("world", [result for world in worlds(given) for result in bench(world, given)], given)


if __name__ == "__main__":
    main()
