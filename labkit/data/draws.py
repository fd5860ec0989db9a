"""Draws: which rows of a dataset are in which split, exactly as the authors of TURTLE draw them, seed for seed.

Both generators are those whose streams are frozen (NumPy's legacy `RandomState`, Python's Mersenne twister), made anew
for each draw: what the process draws elsewhere neither changes a split nor is changed by it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from labkit.data.layout_kinds import Draw, PerClass, Permutation, Sample, SamplePerClass, ShufflePerClass
from labkit.errors import DataError


def draw_rows(draw: Draw, labels: ArrayLike, split: Literal["train", "test"]) -> np.ndarray:
    """The rows that a split has.

    Args:
        draw: the rule (see `labkit.data.layout_kinds`); with None every split has all rows.
        labels: (n,) the class numbers of all rows. Classes are taken in the order in which they first occur, which is
            that of their folders where these were read in order.
        split: train or test.

    Returns:
        (m,) int64 rows.

    Raises:
        DataError: there are fewer rows, or fewer of a class, than are to be drawn.
    """
    labels = np.asarray(labels)
    if draw is None:
        return np.arange(len(labels))
    if isinstance(draw, Permutation | Sample):
        _expect(len(labels), draw.train + draw.test, "images")
        if isinstance(draw, Permutation):
            order = np.random.RandomState(draw.seed).permutation(len(labels))
        else:
            order = np.array(random.Random(draw.seed).sample(range(len(labels)), draw.train + draw.test))
        return order[: draw.train] if split == "train" else order[draw.train : draw.train + draw.test]
    rows = _rows_by_class(labels)
    if isinstance(draw, PerClass):
        return _per_class(draw, rows, len(labels), split)
    generator = random.Random(draw.seed)
    chosen = [_next_class(draw, generator, of_class, split) for of_class in rows]
    return np.concatenate(chosen) if chosen else np.arange(0)


def takes_all(draw: Draw) -> bool:
    """Whether every image is in train or in test, so that there must be as many as both splits have together."""
    return isinstance(draw, SamplePerClass) or (isinstance(draw, PerClass) and draw.test == "rest")


def list_digest(files: Iterable[PurePath]) -> str:
    """SHA-256 of a list of files, whatever their order and wherever they lie: of the sorted lines "folder/name"."""
    lines = sorted(f"{file.parent.name}/{file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _rows_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each class, in order; classes as they first occur."""
    by_class = np.argsort(labels, kind="stable")
    if not len(by_class):
        return []
    parts = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    return sorted(parts, key=lambda part: int(part[0]))


def _per_class(draw: PerClass, rows: list[np.ndarray], n: int, split: str) -> np.ndarray:
    drawn = []
    for of_class in rows:
        _expect(len(of_class), draw.n, "images of a class")
        drawn.append(np.random.RandomState(draw.seed).choice(of_class, size=draw.n, replace=False))
    if split == "train":
        chosen = [part[: draw.train] for part in drawn]
    elif draw.test != "rest":
        chosen = [part[draw.n - draw.test :] for part in drawn]
    else:
        left = np.ones(n, dtype=bool)
        for part in drawn:
            left[part] = False
        return np.flatnonzero(left)
    return np.concatenate(chosen) if chosen else np.arange(0)


def _next_class(
    draw: ShufflePerClass | SamplePerClass, generator: random.Random, of_class: np.ndarray, split: str
) -> np.ndarray:
    """The rows of the next class; the generator goes on from class to class, for either split alike."""
    if isinstance(draw, ShufflePerClass):
        order = list(range(len(of_class)))
        generator.shuffle(order)
        n_train, n_test = int(draw.train * len(order)), int(draw.test * len(order))
        chosen = order[:n_train] if split == "train" else order[n_train : n_train + n_test]
        return of_class[chosen]
    _expect(len(of_class), draw.test, "images of a class")
    in_test = np.zeros(len(of_class), dtype=bool)
    in_test[generator.sample(range(len(of_class)), draw.test)] = True
    return of_class[in_test if split == "test" else ~in_test]


def _expect(there: int, wanted: int, what: str) -> None:
    if there < wanted:
        raise DataError(
            f"there are {there} {what}, and the draw of the split takes {wanted}. Fetch the whole dataset, or correct "
            "`source.draw` in the manifest."
        )
