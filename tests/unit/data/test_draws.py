# ruff: noqa: NPY002 (these are the calls of the authors)
"""Draws: the same rows as the authors' scripts draw, written down here again from what those do."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from labkit.data.draws import draw_rows, list_digest
from labkit.data.layout_kinds import PerClass, Permutation, Sample, SamplePerClass, ShufflePerClass
from labkit.errors import DataError


@pytest.fixture(autouse=True)
def nobody_else_draws() -> None:
    """Every test starts from a global state, which must be the same afterwards: see the last test."""
    np.random.seed(0)
    random.seed(0)


def unequal(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def test_eurosat_as_the_authors_draw_it() -> None:
    targets = unequal([3000, 3000, 3000, 2500, 2500, 2000, 2500, 2500, 3000, 3000])
    train, test = [], []
    for target in np.unique(targets):
        np.random.seed(42)
        drawn = np.random.choice(np.where(targets == target)[0], size=1500, replace=False)
        train.extend(drawn[:1000])
        test.extend(drawn[1000:])
    draw = PerClass(kind="per-class", seed=42, n=1500, train=1000, test=500)
    assert draw_rows(draw, targets, "train").tolist() == train
    assert draw_rows(draw, targets, "test").tolist() == test
    assert len(train) == 10000
    assert len(test) == 5000


def test_caltech101_as_the_authors_draw_it() -> None:
    targets = unequal([31 + (37 * k) % 400 for k in range(102)])
    subset = []
    for target in np.unique(targets):
        np.random.seed(42)
        subset.extend(np.random.choice(np.where(targets == target)[0], size=30, replace=False))
    rest = set(range(len(targets))) - set(subset)
    draw = PerClass(kind="per-class", seed=42, n=30, train=30, test="rest")
    assert draw_rows(draw, targets, "train").tolist() == subset
    assert draw_rows(draw, targets, "test").tolist() == sorted(rest)


def test_resisc45_as_the_authors_draw_it() -> None:
    files = {label: sorted(f"{label}_{i:03d}.jpg" for i in range(1, 701)) for label in ("airplane", "airport", "beach")}
    expected: dict[str, list[str]] = {"train": [], "test": []}
    generator = random.Random(42)
    for names in files.values():
        shuffled = list(names)
        generator.shuffle(shuffled)
        n_train, n_test = int(0.8 * len(names)), int(0.2 * len(names))
        expected["train"] += shuffled[:n_train]
        expected["test"] += shuffled[n_train : n_train + n_test]
    every = [name for names in files.values() for name in names]
    draw = ShufflePerClass(kind="shuffle-per-class", seed=42, train=0.8, test=0.2)
    for split in ("train", "test"):
        assert [every[row] for row in draw_rows(draw, unequal([700] * 3), split)] == expected[split]
    assert len(expected["test"]) == 3 * 140


def test_clevr_as_the_authors_draw_it() -> None:
    scenes = [{"image_filename": f"CLEVR_train_{i:06d}.png"} for i in range(70000)]
    random.seed(42)
    selected = random.sample(scenes, 2500)
    random.seed(0)
    draw = Sample(kind="sample", seed=42, train=2000, test=500)
    assert [scenes[row] for row in draw_rows(draw, np.zeros(70000), "train")] == selected[:2000]
    assert [scenes[row] for row in draw_rows(draw, np.zeros(70000), "test")] == selected[2000:]


def test_kitti_shares_of_a_permutation() -> None:
    np.random.seed(7)
    permutation = np.random.permutation(7481)
    threshold = round(7481 * 0.8)
    np.random.seed(0)
    draw = Permutation(kind="permutation", seed=7, train=5985, test=1496)
    assert draw_rows(draw, np.zeros(7481), "train").tolist() == permutation[:threshold].tolist()
    assert draw_rows(draw, np.zeros(7481), "test").tolist() == permutation[threshold:].tolist()


def test_birdsnap_five_of_each_class() -> None:
    files = {f"bird {k}": [f"{i}.jpg" for i in range(20 + k)] for k in range(4)}
    generator = random.Random(0)
    in_test = [(bird, name) for bird, names in files.items() for name in generator.sample(names, 5)]
    every = [(bird, name) for bird, names in files.items() for name in names]
    draw, labels = SamplePerClass(kind="sample-per-class", seed=0, test=5), unequal([20, 21, 22, 23])
    assert [every[row] for row in draw_rows(draw, labels, "test")] == sorted(in_test, key=every.index)
    assert {every[row] for row in draw_rows(draw, labels, "train")} == set(every) - set(in_test)


def test_classes_are_drawn_in_the_order_of_the_data_not_of_their_numbers() -> None:
    draw = ShufflePerClass(kind="shuffle-per-class", seed=42, train=0.5, test=0.5)
    numbers = np.array([5] * 10 + [0] * 10 + [3] * 10)
    sorted_numbers = np.array([0] * 10 + [1] * 10 + [2] * 10)
    assert draw_rows(draw, numbers, "train").tolist() == draw_rows(draw, sorted_numbers, "train").tolist()


def test_without_a_draw_every_row_is_there() -> None:
    assert draw_rows(None, [3, 3, 1], "test").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (PerClass(kind="per-class", seed=1, n=5, train=3, test=2), "4 images of a class, and .* takes 5"),
        (SamplePerClass(kind="sample-per-class", seed=1, test=5), "4 images of a class, and .* takes 5"),
        (Sample(kind="sample", seed=1, train=8, test=3), "9 images, and .* takes 11"),
        (Permutation(kind="permutation", seed=1, train=8, test=2), "9 images, and .* takes 10"),
    ],
)
def test_too_few_images_are_an_error(draw: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_rows(draw, [0, 0, 0, 0, 0, 1, 1, 1, 1], "test")  # type: ignore[arg-type]


def test_a_digest_knows_neither_order_nor_place() -> None:
    lines = "a/1.jpg\na/2.jpg\nb/1.jpg\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert list_digest([Path("/x/b/1.jpg"), Path("/x/a/2.jpg"), Path("/x/a/1.jpg")]) == expected
    assert list_digest([Path("a/1.jpg"), Path("y/a/2.jpg"), Path("b/1.jpg")]) == expected
    assert list_digest([Path("a/1.jpg"), Path("b/1.jpg")]) != expected


def test_no_draw_disturbs_the_generators_of_the_process() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    labels = unequal([30, 40])
    for draw in (
        PerClass(kind="per-class", seed=42, n=5, train=3, test=2),
        ShufflePerClass(kind="shuffle-per-class", seed=42, train=0.5, test=0.5),
        SamplePerClass(kind="sample-per-class", seed=0, test=5),
        Sample(kind="sample", seed=42, train=8, test=3),
        Permutation(kind="permutation", seed=1, train=8, test=2),
    ):
        draw_rows(draw, labels, "train")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]
