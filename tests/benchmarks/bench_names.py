"""The confidence of names: reliability on datasets that its constants were not fitted on; and the fit of the constants.

    python tests/benchmarks/bench_names.py                                  # embedded datasets
    LABKIT_REAL=path python tests/benchmarks/bench_names.py                 # photographs and CLIP features
    LABKIT_REAL=path python tests/benchmarks/bench_names.py --fit           # the constants, and each set left out once
    LABKIT_REAL=path python tests/benchmarks/bench_names.py --datasets dtd  # which nothing was chosen on

A case is a dataset in the space of an image-text model (Pocket CLIP, or OpenAI's CLIP ViT-B/32 whose features and
vocabulary are read from ../shared/real or $LABKIT_REAL) with a word for each class; several classes may share one. Each
is clustered many times: some of its classes, 200 to 1,000 images, 0.6 to 1.5 times as many clusters as classes, by
K-means or TURTLE in several spaces, sometimes at random. Each clustering is named with several vocabularies: the words
of the classes that occur, of all, a half of these with and without the others; sometimes with words of other things.
A name is right where its word is that of the class that most images of the cluster belong to; where the vocabulary
lacks this word, no name is. Labels are looked at afterwards, and to choose the classes and words that occur.

Results: expected calibration error in ten bins, and how many of the shown names are right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_turtle import collapse_allowed
from measure import REAL, Result, arguments, finish
from sklearn.linear_model import LogisticRegression

import labkit as lk
from labkit.zeroshot import confidence
from labkit.zeroshot.nouns import read_nouns

TEMPLATES = ("{}", "a photo of a {}.")
WORDS = {
    "fashion-mini": "t-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, boot",
    "emoji-unseen": "face, person, hand, animal, plant, food, vehicle, building, weather, clock, clothing, sport, "
    "object, sign",
    "digits": "digit zero, digit one, digit two, digit three, digit four, digit five, digit six, digit seven, "
    "digit eight, digit nine",
    "clothing-small": "dress, hat, long sleeve shirt, outerwear, pants, shirt, shoes, shorts, skirt, t-shirt",
    "cifar10": "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck",
}
FOREIGN = (
    "kettle, guitar, spoon, banana, castle, violin, fountain, hammer, sofa, lamp, pizza, zebra, lighthouse, umbrella, "
    "scissors, piano, candle, mushroom, anchor, keyboard, penguin, snail, rocket, bridge, waterfall, robot, "
    "microscope, drum, cactus, ladder"
)
CATS = (
    "abyssinian, bengal, birman, bombay, british_shorthair, egyptian_mau, maine_coon, persian, ragdoll, russian_blue, "
    "siamese, sphynx"
)
SPELLED = {"french fries": "French fries", "ice cream": "icecream", "omelette": "omelet", "tacos": "taco"}
AKIN = (
    "dog|cat$|puppy|kitten|animal|hound|carnivore|burger|food|dessert|dip|sandwich|potato|egg|pastry|salad|pie|sherbert"
)
PARTS = ("share", "rank", "gap")
DEVELOPER = ("fashion-mini", "emoji-unseen", "cifar10", "digits", "food10", "oxford_pets")
REPORTED = ("clothing-small", "caltech101 photographs", "caltech101")


@dataclasses.dataclass
class Case:
    """A dataset in the space of an image-text model.

    Attributes:
        features: of the images in that space, (n, d).
        labels: classes, (n,).
        word_of: the word of each class; -1 where there is none.
        words: the weights of all words, (V, d).
        nouns: those of the background, (M, d).
        noun_of: the noun that is each word, (V,); -1 where none is.
        n_everyday: the nouns that are everyday words, the first.
        foreign: words of other things, (F, d).
        spaces: features that are clustered.
    """

    features: np.ndarray
    labels: np.ndarray
    word_of: np.ndarray
    words: np.ndarray
    nouns: np.ndarray
    noun_of: np.ndarray
    n_everyday: int
    foreign: np.ndarray
    spaces: list[np.ndarray]


def texts(words: list[str]) -> np.ndarray:
    prompts = lk.Prompts.from_words(words, TEMPLATES)
    return lk.text_classifier(lk.load_backbone("pocket-clip", device="cpu"), prompts)


def weak(dataset: str | Path, split: str, spaces: tuple[str, ...] = ("pocket-clip", "efficientnet-lite0")) -> Case:
    """A dataset of images in the space of Pocket CLIP."""
    images = lk.load_dataset(dataset, split)
    features = [lk.extract_features(lk.load_backbone(name, device="cpu"), images) for name in spaces]
    classes = [re.sub("[_-]", " ", name).lower() for name in lk.load_manifest(dataset).classes]
    given = WORDS.get(Path(dataset).name)
    words = classes if given is None else given.split(", ")
    nouns, n_everyday = read_nouns()
    noun_of = np.array([nouns.index(word) if word in nouns else -1 for word in words])
    assert images.labels is not None
    return Case(
        features[0],
        images.labels,
        np.arange(len(words)),
        texts(words),
        texts(nouns),
        noun_of,
        n_everyday,
        texts(FOREIGN.split(", ")),
        features,
    )


def strong(dataset: str, split: str) -> Case:
    """CLIP features of a dataset; words are those of the bank."""
    bank, data = np.load(REAL / "features" / "text_bank_vitb32.npz"), np.load(REAL / "features" / f"{dataset}.npz")
    known: dict[str, np.ndarray] = {}
    for source in ("o365", "oid", "lvis"):
        known |= {
            _plain(name): text.astype(np.float32)
            for name, text in zip(bank[f"{source}_names"], bank[source], strict=True)
        }
    classes = [str(name) for name in data["class_names"]]
    if dataset == "oxford_pets":  # of whose breeds the bank has none
        keys = ["cat" if name in CATS.split(", ") else "dog" for name in classes]
    else:
        keys = [_plain(SPELLED.get(name, name)) for name in classes]
    words = sorted({key for key in keys if key in known})
    word_of = np.array([words.index(key) if key in words else -1 for key in keys])
    names = list(known)
    foreign = [name for name in names if name not in words and not re.search(AKIN, name)]
    chosen = np.random.default_rng(1).permutation(foreign)[:60]
    features = data[f"{split}_clip_vitb32"].astype(np.float32)
    weights = np.stack([known[word] for word in words]) if words else np.zeros((0, features.shape[1]), np.float32)
    return Case(
        features, data[f"{split}_labels"], word_of, weights, np.stack(list(known.values())),
        np.array([names.index(word) for word in words]), 0, np.stack([known[name] for name in chosen]), [features],
    )  # fmt: skip


def _plain(name: Any) -> str:
    return re.sub(r"[^a-z]", "", re.sub(r"\(.*\)", "", str(name).lower()))


def cases() -> dict[str, Callable[[], Case]]:
    photographs = REAL / "photos"
    return {
        "fashion-mini": lambda: weak("fashion-mini", "train"),
        "emoji-unseen": lambda: weak("emoji-unseen", "train"),
        "digits": lambda: weak("digits", "train"),
        "cifar10": lambda: weak(photographs / "cifar10", "test"),
        "food10": lambda: strong("food10", "train"),
        "oxford_pets": lambda: strong("oxford_pets", "test"),
        "clothing-small": lambda: weak(photographs / "clothing-small", "train"),
        "caltech101 photographs": lambda: weak(photographs / "caltech101", "train", ("pocket-clip",)),
        "caltech101": lambda: strong("caltech101", "test"),
        "dtd": lambda: strong("dtd", "test"),
    }


def cluster(space: np.ndarray, n_clusters: int, way: str, seed: int) -> np.ndarray:
    """Probabilities (n, K)."""
    if way == "random":
        return np.eye(n_clusters)[np.random.default_rng(seed).integers(n_clusters, size=len(space))]
    if way == "turtle":
        with collapse_allowed():
            return lk.Turtle(n_clusters, n_restarts=2, random_state=seed).fit(space).predict_proba(space)
    return np.eye(n_clusters)[
        lk.KMeans(n_clusters, n_init=2, normalize=bool(seed % 2), random_state=seed).fit(space).labels_
    ]


def trials(case: Case, n: int, seed: int) -> dict[str, np.ndarray]:
    """Names of many clusters: the parts of their evidence, whether each is right, and whether it could be."""
    rng, n_classes = np.random.default_rng(seed), len(case.word_of)
    rows: list[tuple[float, ...]] = []
    hits: list[tuple[bool, bool]] = []
    for trial in range(n):
        n_chosen = min(40, int(rng.choice([n_classes, n_classes, max(2, n_classes // 2), max(3, n_classes // 4)])))
        chosen = rng.choice(n_classes, n_chosen, replace=False)
        images = np.flatnonzero(np.isin(case.labels, chosen))
        images = rng.choice(images, min(len(images), int(rng.choice([200, 500, 1000]))), replace=False)
        labels = case.labels[images]
        present = np.unique(labels)
        n_clusters = min(max(2, round(len(present) * float(rng.choice([0.6, 1, 1, 1.5])))), len(images) // 4)
        way = "turtle" if trial % 4 == 0 else "random" if trial % 10 == 3 else "kmeans"
        probs = cluster(case.spaces[rng.integers(len(case.spaces))][images], n_clusters, way, int(rng.integers(10**6)))
        counts = np.stack([np.bincount(labels[probs.argmax(1) == k], minlength=n_classes) for k in range(n_clusters)])
        truth = np.where(counts.sum(1) > 0, case.word_of[counts.argmax(1)], -3)
        own = [int(word) for word in dict.fromkeys(case.word_of[present]) if word >= 0]
        others = [word for word in range(len(case.words)) if word not in own]
        half = [int(word) for word in rng.permutation(own)[: len(own) // 2]]
        for i, words in enumerate((own, own + others, half + others, half)):
            weights = case.words[words]
            if rng.random() < 0.5 or not words:
                taken = rng.choice(len(case.foreign), int(rng.choice([3, 10, 30])), replace=False)
                weights, words = np.concatenate([weights, case.foreign[taken]]), words + [-2] * len(taken)
            evidence = confidence.name_evidence(probs, case.features[images], weights, case.nouns)
            given = np.nan_to_num(evidence.confidence(), nan=-1)
            for k in np.flatnonzero((evidence.mass >= 0.5) & (truth > -3)):
                v = given[k].argmax()
                parts = [float(getattr(evidence, part)[k, v]) for part in PARTS]
                right = words[v] >= 0 and words[v] == truth[k]
                rows.append((*parts, given[k, v], right, truth[k] in words, way == "random"))
                if i == 0 and truth[k] >= 0 and case.noun_of[truth[k]] >= 0 and way != "random":
                    best = evidence.suggestions(case.n_everyday)[k]
                    hits.append((best[0] == case.noun_of[truth[k]], case.noun_of[truth[k]] in best))
    table = dict(zip((*PARTS, "confidence", "right", "possible", "random"), np.array(rows).T, strict=True))
    return table | {"hits": np.array(hits).reshape(-1, 2)}


def report(title: str, p: np.ndarray, right: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {"names": len(p), "right": right.mean(), "ece": calibration_error(p, right)}
    for least in (0.5, 0.8):
        shown = p >= least
        found |= {
            f"share >= {least}": shown.mean(),
            f"right >= {least}": right[shown].mean() if shown.any() else np.nan,
        }
    print(f"{title:24}", "  ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)
    return found


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in ten bins of equal width."""
    bins = np.minimum((10 * p).astype(int), 9)
    return float(sum(abs((p - right)[bins == b].sum()) for b in range(10)) / len(p))


def fit(tables: dict[str, dict[str, np.ndarray]]) -> LogisticRegression:
    """A logistic regression of `PARTS`, to which each dataset contributes equally."""
    X = np.concatenate([np.stack([table[part] for part in PARTS], 1) for table in tables.values()])
    y = np.concatenate([table["right"] for table in tables.values()])
    weights = np.concatenate([np.full(len(table["right"]), 1000 / len(table["right"])) for table in tables.values()])
    return LogisticRegression(C=1.0, max_iter=5000).fit(X, y, weights)


def fit_constants(tables: dict[str, dict[str, np.ndarray]]) -> None:
    """Print the constants, and what each dataset gets from the others' constants."""
    model = fit(tables)
    print("INTERCEPT", *map(str.upper, PARTS), [round(float(x), 2) for x in (model.intercept_[0], *model.coef_[0])])
    for name, table in tables.items():
        left = fit({other: rows for other, rows in tables.items() if other != name})
        p = left.predict_proba(np.stack([table[part] for part in PARTS], 1))[:, 1]
        report(f"{name} (left out)", p, table["right"])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", nargs="+", choices=cases(), help="default: those not fitted on")
    parser.add_argument("--fit", action="store_true", help="fit the constants on the developer sets")
    parser.add_argument("--trials", type=int, default=30, help="clusterings of each dataset")
    parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    given = arguments(__doc__, options)
    chosen = given.datasets or (DEVELOPER if given.fit else REPORTED)
    if given.quick or not REAL.is_dir():
        chosen, given.trials = ("emoji-unseen", "digits"), 2 if given.quick else given.trials
    results, tables = [], {}
    for name in chosen:
        tables[name] = table = trials(cases()[name](), given.trials, given.seed)
        found = report(name, table["confidence"], table["right"])
        random = table["random"] == 1
        found["shown of random clusters"] = float((table["confidence"][random] >= confidence.LEAST).mean())
        found["no name, none possible"] = float((table["confidence"][table["possible"] == 0] < confidence.LEAST).mean())
        if len(table["hits"]):
            found["first suggestion"], found["one of the suggestions"] = map(float, table["hits"].mean(0))
        bins = np.minimum((10 * table["confidence"]).astype(int), 9)
        found["reliability"] = [
            [
                int((bins == b).sum()),
                *(round(float(table[part][bins == b].mean()), 3) for part in ("confidence", "right")),
            ]
            for b in np.unique(bins)
        ]
        print(json.dumps({key: value for key, value in found.items() if key not in ("names", "right", "ece")}))
        results.append(Result(f"names: calibration error, {name}", found["ece"], 0.15, "at most", found))
    if given.fit:
        fit_constants(tables)
    finish("names", results, given)


if __name__ == "__main__":
    main()
