"""TextGaussians against zero-shot, with and without centering, on whole datasets and where few classes occur.

    python tests/benchmarks/bench_text.py                    # about a minute on one core
    LABKIT_REAL=path python tests/benchmarks/bench_text.py   # also CLIP features of photographs, where they are

whole      fitted to one split, accuracy on it and on the other one, minus zero-shot
batches    fitted to 64 images of 2 to 10 random classes, whose other classes do not occur, minus zero-shot on these
           images; the same for images of one class. Means over 40 batches (20 for vocabularies above 500 texts)
time       seconds of a fit to 10,000 images of 512 features and 100 classes

Labels are looked at after the fits only, and to draw the batches.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import REAL, Result, arguments, finish

import labkit as lk

DATASETS, MODELS = ("digits", "fashion-mini", "emoji-unseen"), ("pocket-clip", "pocket-vit")
WORDS = {"french fries": "French fries", "ice cream": "icecream", "omelette": "omelet", "tacos": "taco"}  # of the bank
Estimator = lk.ZeroShot | lk.TextGaussians


@dataclasses.dataclass
class Case:
    """A dataset in the space of an image-text model.

    Attributes:
        title: dataset and model.
        texts: the settings that `ZeroShot` and `TextGaussians` share.
        splits: features and labels of the split that is fitted to, and of the other one.
    """

    title: str
    texts: dict[str, Any]
    splits: list[tuple[np.ndarray, np.ndarray]]

    @property
    def methods(self) -> dict[str, Callable[[], Estimator]]:
        return {
            "zero-shot": lambda: lk.ZeroShot(**self.texts),
            "zero-shot, center=True": lambda: lk.ZeroShot(**{**self.texts, "center": True}),
            "zero-shot, center=auto": lambda: lk.ZeroShot(**{**self.texts, "center": "auto"}),
            "TextGaussians": lambda: lk.TextGaussians(**self.texts),
            "TextGaussians, center=True": lambda: lk.TextGaussians(**{**self.texts, "center": True}),
            "TextGaussians, center=auto": lambda: lk.TextGaussians(**{**self.texts, "center": "auto"}),
        }


def embedded(dataset: str, model: str) -> Case:
    """A dataset that ships, with its own prompts."""
    backbone, splits = lk.load_backbone(model, device="cpu"), []
    for name in ("train", "test"):
        images = lk.load_dataset(dataset, name)
        assert images.labels is not None
        splits.append((lk.extract_features(backbone, images), images.labels))
    texts = lk.ZeroShot.from_prompts(backbone, lk.load_prompts(dataset)).get_params()
    return Case(f"{dataset}, {model}", texts, splits)


def photographs(folder: Path, dataset: str, names: tuple[str, str]) -> Case:
    """The classes of a dataset of photographs for which there is a text, in CLIP ViT-B/32."""
    data, bank = np.load(folder / f"{dataset}.npz"), np.load(folder / "text_bank_vitb32.npz")
    known = {}
    for source in ("o365", "oid", "lvis"):
        known.update(
            {_plain(str(name)): text for name, text in zip(bank[f"{source}_names"], bank[source], strict=True)}
        )
    words = [_plain(WORDS.get(str(name), str(name))) for name in data["class_names"]]
    classes = np.flatnonzero([word in known for word in words])
    texts = np.stack([known[words[c]] for c in classes]).astype(np.float32)
    splits = []
    for name in names:
        labels = data[f"{name}_labels"]
        rows = np.isin(labels, classes)
        features = data[f"{name}_clip_vitb32"][rows].astype(np.float32)
        splits.append((features, np.searchsorted(classes, labels[rows])))
    return Case(f"{dataset} ({len(classes)} classes), clip-vit-b32", {"weights": texts}, splits)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", re.sub(r"\(.*\)", "", name.lower()))


def accuracy(estimator: Estimator, split: tuple[np.ndarray, np.ndarray]) -> float:
    return lk.accuracy(split[1], estimator.predict(split[0]))


def bench_whole(case: Case) -> list[Result]:
    """On the split that was fitted to, and on the other one."""
    found = {}
    for name, make in case.methods.items():
        fitted = make().fit(case.splits[0][0])
        found[name] = [accuracy(fitted, split) for split in case.splits]
    best = [max(found[name][k] for name in list(found)[:3]) for k in (0, 1)]
    ours, before = found["TextGaussians"], found["zero-shot"]
    return [
        Result(f"text: minus zero-shot, the split fitted to, {case.title}", ours[0] - before[0], details=found),
        Result(f"text: minus zero-shot, the other split, {case.title}", ours[1] - before[1], details=found),
        Result(f"text: minus the best of three zero-shots, the other split, {case.title}", ours[1] - best[1]),
    ]


def bench_batches(case: Case, n_batches: int) -> list[Result]:
    """On batches of few classes."""
    features, labels = case.splits[1]
    results = []
    for least, most in ((2, 10), (1, 1)):
        rng = np.random.default_rng(0)
        found: dict[str, list[float]] = {name: [] for name in case.methods}
        for _ in range(n_batches):
            present = rng.choice(np.unique(labels), rng.integers(least, min(most, labels.max() + 1) + 1), replace=False)
            rows = np.flatnonzero(np.isin(labels, present))
            rows = rng.choice(rows, min(64, len(rows)), replace=False)
            batch = features[rows], labels[rows]
            for name, make in case.methods.items():
                found[name].append(accuracy(make().fit(batch[0]), batch))
        gains = np.subtract(found["TextGaussians"], found["zero-shot"])
        details = {name: statistics.mean(values) for name, values in found.items()}
        details |= {"standard error": float(gains.std(ddof=1) / len(gains) ** 0.5), "worst batch": float(gains.min())}
        title = f"text: minus zero-shot, batches of {f'{least} to {most} classes' if most > 1 else 'one class'}"
        results.append(Result(f"{title}, {case.title}", float(gains.mean()), -0.02, details=details))
    return results


def bench_time(rounds: int, n: int, n_classes: int) -> Result:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(n_classes, 512)).astype(np.float32)
    images = texts[rng.integers(n_classes, size=n)] + 3 * rng.normal(size=(n, 512)).astype(np.float32)
    seconds, steps = [], 0
    for _ in range(rounds):
        begin = time.perf_counter()
        steps = lk.TextGaussians(texts, 10.0).fit(images).n_iter_
        seconds.append(time.perf_counter() - begin)
    name = f"text: seconds of a fit, {n:,} x 512, {n_classes} classes"
    return Result(name, statistics.median(seconds), 5.0, "at most", {"seconds": seconds, "n_iter": steps})


def main() -> None:
    given = arguments(__doc__)
    cases = [embedded("digits", "pocket-clip")]
    if not given.quick:
        cases = [embedded(dataset, model) for dataset in DATASETS for model in MODELS]
        folder = REAL / "features"
        if folder.is_dir():
            cases += [
                photographs(folder, "food10", ("train", "test")),
                photographs(folder, "caltech101", ("val", "test")),
            ]
    results = []
    for case in cases:
        n_batches = 2 if given.quick else 20 if len(case.texts["weights"]) > 500 else 40
        results += bench_whole(case) + bench_batches(case, n_batches)
    results.append(bench_time(given.rounds, *((200, 5) if given.quick else (10_000, 100))))
    finish("text", results, given)


if __name__ == "__main__":
    main()
