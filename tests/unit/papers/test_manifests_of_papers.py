"""The manifests of the 26 datasets: sizes, classes in the loader's order, templates, and draws as the authors draw."""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets

from labkit.data.manifests import load_manifest
from labkit.data.sources import Archive
from labkit.zeroshot.prompts import load_prompts

with (Path(__file__).parent / "paper_results.csv").open(encoding="utf-8", newline="") as file:
    PAPER = {row["dataset"]: row for row in csv.DictReader(file)}
TEMPLATES = {  # of MUST's eight datasets, as many as its authors use
    "imagenet": 80, "ucf101": 48, "caltech101": 34, "dtd": 8, "gtsrb": 3, "sun397": 2, "food101": 1, "oxford-pets": 1,
}  # fmt: skip


def plain(name: str) -> str:
    return re.sub(r"[_-]", " ", name).lower()


@pytest.mark.parametrize("name", PAPER)
def test_sizes_are_the_papers(name: str) -> None:
    manifest, row = load_manifest(name), PAPER[name]
    assert manifest.n_classes == int(row["n_classes"])
    assert {split: manifest.splits[split].size for split in manifest.splits} == {
        "train": int(row["n_train"]),
        "test": int(row["n_test"]),
    }
    # where the sizes may differ, or the authors' draw cannot be had, or the first source is dead, the note says why
    if not all(split.exact for split in manifest.splits.values()):
        assert "is a warning" in (manifest.note or "")
    assert manifest.download_gb or name in ("birdsnap", "kinetics700")


@pytest.mark.parametrize("name", PAPER)
def test_prompts_name_every_class(name: str) -> None:
    manifest, prompts = load_manifest(name), load_prompts(name)
    assert prompts.classes == manifest.classes
    assert len(set(map(plain, manifest.classes))) == manifest.n_classes
    assert len(set(prompts.templates)) == len(prompts.templates) >= 1
    if name in TEMPLATES:
        assert len(prompts.templates) == TEMPLATES[name]
    for text in chain(manifest.classes, prompts.templates, *prompts.names):
        assert text == " ".join(text.split()), "spaces that show nowhere"


@pytest.mark.parametrize("dataset", ["MNIST", "Flowers102"])
def test_classes_are_torchvisions_where_it_names_them(dataset: str) -> None:
    classes = getattr(getattr(torchvision.datasets, dataset), "classes", None)
    if classes is None:
        pytest.skip("this torchvision does not name them")
    assert list(map(plain, load_manifest(dataset.lower()).classes)) == list(map(plain, classes))


@pytest.mark.parametrize("name", ["cifar100", "dtd", "food101", "fgvc-aircraft"])
def test_classes_are_sorted_where_torchvision_reads_them_sorted_from_a_file(name: str) -> None:
    classes = load_manifest(name).classes
    in_file = classes if name == "fgvc-aircraft" else [label.replace(" ", "_") for label in classes]
    assert in_file == sorted(in_file)


@pytest.mark.parametrize(
    ("name", "numbered"),
    [
        ("gtsrb", {0: "speed limit 20 km/h", 13: "yield", 14: "stop", 40: "roundabout"}),
        ("fer2013", {0: "angry", 3: "happy", 6: "neutral"}),
        ("cifar10", {0: "airplane", 9: "truck"}),
        ("flowers102", {0: "pink primrose", 53: "sunflower", 101: "blackberry lily"}),
        ("stanford-cars", {0: "AM General Hummer SUV 2000", 195: "smart fortwo Convertible 2012"}),
        ("imagenet", {0: "tench", 657: "missile", 744: "projectile", 836: "sunglass", 837: "sunglasses"}),
        ("sun397", {0: "abbey", 396: "youth hostel"}),
        ("rendered-sst2", {0: "negative", 1: "positive"}),
        ("pcam", {0: "no tumor", 1: "tumor"}),
    ],
)
def test_classes_stand_where_the_data_number_them(name: str, numbered: dict[int, str]) -> None:
    classes = load_manifest(name).classes
    assert {number: classes[number] for number in numbered} == numbered


def folders_of(name: str) -> dict[str, str]:
    """What stands for each class on the disk, with the class."""
    manifest = load_manifest(name)
    layout: Any = manifest.source.layout  # type: ignore[union-attr]
    return dict(zip(getattr(layout, "layout", layout).names, manifest.classes, strict=True))


@pytest.mark.parametrize("name", ["birdsnap", "resisc45", "kinetics700", "ucf101"])
def test_folders_are_named_as_their_classes(name: str) -> None:
    folders = folders_of(name)
    assert len(folders) == int(PAPER[name]["n_classes"])
    for folder, label in folders.items():
        assert re.sub("[ _]", "", folder) == re.sub("[ _]", "", label)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("caltech101", {"BACKGROUND_Google": "background", "Faces_easy": "centered face", "wrench": "wrench"}),
        ("country211", {"CH": "Switzerland", "AX": "Åland Islands", "CD": "DR Congo", "XK": "Kosovo"}),
        ("eurosat", {"Industrial": "industrial area", "Pasture": "pasture", "SeaLake": "sea or lake"}),
    ],
)  # fmt: skip
def test_folders_stand_for_their_classes(name: str, some: dict[str, str]) -> None:
    folders = folders_of(name)
    assert len(folders) == int(PAPER[name]["n_classes"])
    assert list(folders) == sorted(folders)  # ImageFolder numbers the same classes the same
    assert {folder: folders[folder] for folder in some} == some


@pytest.mark.parametrize("name", PAPER)
def test_downloads_can_be_checked(name: str) -> None:
    source = load_manifest(name).source
    if isinstance(source, Archive):
        unchecked = [file.url for file in source.files if not (file.sha256 or file.md5)]
        assert not unchecked or "nobody published a digest" in (load_manifest(name).note or "")


def digest(files: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(f"{file}\n" for file in files)).encode()).hexdigest()


def eurosat() -> tuple[list[str], list[str]]:
    """By the authors' rule, written with NumPy's global generator as theirs is."""
    sizes = {"Highway": 2500, "Industrial": 2500, "Pasture": 2000, "PermanentCrop": 2500, "River": 2500}
    train: list[str] = []
    test: list[str] = []
    for name in folders_of("eurosat"):
        files = sorted(f"{name}/{name}_{i}.jpg" for i in range(1, sizes.get(name, 3000) + 1))
        # positions in the whole list: `choice` draws the same ones from any list of this length
        chosen = np.random.RandomState(42).choice(len(files), size=1500, replace=False)
        train += [files[i] for i in chosen[:1000]]
        test += [files[i] for i in chosen[1000:]]
    return train, test


def resisc45() -> tuple[list[str], list[str]]:
    generator = random.Random(42)
    train: list[str] = []
    test: list[str] = []
    for name in sorted(folders_of("resisc45")):
        files = [f"{name}/{name}_{i:03}.jpg" for i in range(1, 701)]
        generator.shuffle(files)
        train += files[:560]
        test += files[560:]
    return train, test


def clevr() -> tuple[list[str], list[str]]:
    drawn = random.Random(42).sample([f"train/CLEVR_train_{i:06}.png" for i in range(70_000)], 2500)
    return drawn[:2000], drawn[2000:]


def kitti() -> tuple[list[str], list[str]]:
    files = [f"image_2/{i:06}.png" for i in np.random.RandomState(42).permutation(7481)]
    return files[:5985], files[5985:]


@pytest.mark.parametrize(
    ("name", "draw"),
    [("eurosat", eurosat), ("resisc45", resisc45), ("clevr-counts", clevr), ("kitti-distance", kitti)],
    ids=["eurosat", "resisc45", "clevr-counts", "kitti-distance"],
)
def test_digests_are_of_the_lists_that_the_authors_rules_give(
    name: str, draw: Callable[[], tuple[list[str], list[str]]]
) -> None:
    manifest = load_manifest(name)
    train, test = draw()
    assert (len(train), len(test)) == (manifest.splits["train"].size, manifest.splits["test"].size)
    assert not set(train) & set(test)
    assert manifest.digest == {"train": digest(train), "test": digest(test)}
