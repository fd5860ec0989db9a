"""How well later images that are unlike anything seen are told: `labkit predict` on photographs.

    python tests/benchmarks/bench_later.py              clothing and CIFAR-10, on which the settings were chosen
    python tests/benchmarks/bench_later.py --caltech    and Caltech-101, which no choice has seen

like     share of images like the fitted ones that are flagged; 5 % is stated
area     under the ROC curve: others against images like the fitted ones
others   share of images of another set, or of a class that was not fitted, that are flagged

One seed. Reads photographs of ../shared/real (or $LABKIT_REAL), with --quick and where they are not the embedded
fashion-mini. Classes serve to leave one out, and to count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from measure import REAL, Result, arguments, finish
from sklearn.metrics import roc_auc_score

import labkit as lk
from labkit.own.cluster import DEFAULT_SPACES
from labkit.own.later import UNLIKE, see

LARGEST = 2500  # images of a set; of more a random part
Numbers = tuple[float, float, float]  # like, area, others


@dataclasses.dataclass
class Photos:
    """Features of n images in every space, {name: (n, d)}, and the class of each, (n,)."""

    features: dict[str, np.ndarray]
    labels: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Photos:
        return Photos({name: given[rows] for name, given in self.features.items()}, self.labels[rows])


def read(data: str, split: str, spaces: tuple[str, ...] = DEFAULT_SPACES) -> Photos:
    """Images of a dataset or of a folder of photographs."""
    manifest = lk.load_manifest(REAL / "photos" / data if (REAL / "photos" / data).is_dir() else data)
    images = lk.load_dataset(manifest, split)
    features = {name: lk.extract_features(lk.load_backbone(name), images, progress=True) for name in spaces}
    return Photos(features, images.labels)[np.random.default_rng(0).permutation(len(images))[:LARGEST]]


def measure(fitted: Photos, like: Photos, others: Photos) -> Numbers:
    """The three numbers for later images."""
    seen = see(fitted.features, "run")
    near, far = seen.unlike(like.features), seen.unlike(others.features)
    area = roc_auc_score(np.repeat([0, 1], [len(near), len(far)]), np.concatenate([near, far]))
    return float((near > UNLIKE).mean()), float(area), float((far > UNLIKE).mean())


def without_each_class(fitted: Photos, later: Photos) -> Numbers:
    """Means over classes: each in turn is not fitted, and comes later."""
    found = [
        measure(fitted[fitted.labels != number], later[later.labels != number], later[later.labels == number])
        for number in np.intersect1d(fitted.labels, later.labels)
    ]
    like, area, others = np.mean(found, axis=0)
    return float(like), float(area), float(others)


def halves(photos: Photos) -> tuple[Photos, Photos]:
    """Two halves of images that are in random order."""
    rows = np.arange(len(photos.labels))
    return photos[rows[::2]], photos[rows[1::2]]


def results_of(name: str, numbers: Numbers) -> Iterator[Result]:
    like, area, others = numbers
    yield Result(f"{name}: like", like)
    yield Result(f"{name}: area", area)
    yield Result(f"{name}: others", others)


def main() -> None:
    given = arguments(__doc__, lambda parser: parser.add_argument("--caltech", action="store_true"))
    results: list[Result] = []
    if given.quick or not (REAL / "photos").is_dir():
        fitted, later = halves(read("fashion-mini", "train", ("pixels",)))
        results += results_of("fashion-mini without a class", without_each_class(fitted, later))
        return finish("later", results, given)
    clothing, test = read("clothing-small", "train"), read("clothing-small", "test")
    cifar = read("cifar10", "train")
    fitted, later = halves(cifar)
    results += results_of("clothing, then CIFAR-10", measure(clothing, test, cifar))
    results += results_of("CIFAR-10, then clothing", measure(fitted, later, clothing))
    results += results_of("clothing without a class", without_each_class(clothing, test))
    results += results_of("CIFAR-10 without a class", without_each_class(fitted, later))
    if given.caltech:
        caltech = read("caltech101", "train")
        fitted, later = halves(caltech)
        results += results_of("clothing, then Caltech-101", measure(clothing, test, caltech))
        results += results_of("Caltech-101, then clothing", measure(fitted, later, clothing))
        results += results_of("Caltech-101, then CIFAR-10", measure(fitted, later, cifar))
        results += results_of("Caltech-101 without a class", without_each_class(fitted, later))
    return finish("later", results, given)


if __name__ == "__main__":
    main()
