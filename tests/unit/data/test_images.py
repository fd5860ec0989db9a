"""ImageDataset made by hand: from files, from images in memory, subsets, and without labels."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import labkit as lk
from labkit.data.images import ImageDataset
from labkit.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
SIZES = ((4, 6), (8, 8), (5, 3))


def images() -> list[Image.Image]:
    return [Image.fromarray(PIXELS[i]).resize(size) for i, size in enumerate(SIZES)]


def files(folder: Path) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_from_files(tmp_path: Path) -> None:
    dataset = ImageDataset.from_files([str(path) for path in files(tmp_path)], ["b", "a", "b", "a", "a", "b"])
    assert (dataset.classes, dataset.labels.tolist()) == (["a", "b"], [1, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(np.asarray(dataset[2][0]), PIXELS[2])
    assert ImageDataset.from_files(files(tmp_path)).labels.tolist() == [-1] * 6


def test_from_images(tmp_path: Path) -> None:
    held = ImageDataset.from_images(PIXELS, [0, 1, 0, 1, 1, -1], classes=["a", "b"])
    assert held.labels.tolist() == [0, 1, 0, 1, 1, -1]
    several = ImageDataset.from_images(images())
    assert [several[i][0].size for i in range(3)] == list(SIZES)
    assert pickle.loads(pickle.dumps(several)).identity == several.identity
    other = images()
    other[1].putpixel((3, 3), (1, 2, 3))
    assert ImageDataset.from_images(other).identity != several.identity


def test_without_labels_only_the_images_are_left() -> None:
    dataset = ImageDataset.from_images(PIXELS, list("abcabc"))
    bare = dataset.without_labels()
    assert (bare.labels.tolist(), bare.classes, bare.names) == ([-1] * 6, [], None)
    assert bare.identity == dataset.identity


def test_features_of_a_dataset_are_those_of_its_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    pixels = lk.load_backbone("pixels")
    split = lk.load_dataset("digits", "test")
    expected = lk.extract_features(pixels, "digits", split="test")
    np.testing.assert_array_equal(lk.extract_features(pixels, split), expected)
    rows = [5, 3]
    np.testing.assert_array_equal(lk.extract_features(pixels, split.subset(rows)), expected[rows])
    with pytest.raises(DataError, match="ImageDataset has none"):
        lk.extract_features(pixels, split, split="test")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageDataset.from_files("photo.jpg"), "Expected a list of paths"),
        (lambda: ImageDataset.from_files(["a.png"], ["cat", "dog"]), "1 images and 2 labels"),
        (lambda: ImageDataset.from_files(["a.png"], [0]), "classes is missing"),
        (lambda: ImageDataset.from_files(["a.png"], ["cat"], classes=["dog"]), "'cat', which is none of classes"),
        (lambda: ImageDataset.from_images([PIXELS[0]]), "list of PIL images"),
        (lambda: ImageDataset.from_images(PIXELS.astype(float)), "uint8"),
        (lambda: ImageDataset.from_images(PIXELS, [0, 1, 2, 0, 1, 2], classes=["a"]), "class numbers go from 0 to 2"),
    ],
)
def test_what_does_not_belong_together_is_explained(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def test_contents_are_the_same_in_a_copy_with_other_times(tmp_path: Path) -> None:
    for name, gray in (("here", 0), ("copy", 0), ("others", 1)):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), gray).save(tmp_path / name / "a.png")
    here, copy, others = (ImageDataset.from_files([tmp_path / n / "a.png"]) for n in ("here", "copy", "others"))
    os.utime(tmp_path / "copy" / "a.png", (2 * 10**9, 2 * 10**9))
    assert here.contents == copy.contents != others.contents
    assert here.identity != copy.identity
