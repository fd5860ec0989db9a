"""Layouts: every layout of the papers' datasets is read as its authors mean it, and half of one is not taken for it."""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from labkit.data.datasets import load_dataset
from labkit.data.draws import list_digest
from labkit.data.file_list import FileList
from labkit.data.folders import data_dir
from labkit.data.schema import Manifest
from labkit.errors import DataError, ManifestError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the dataset."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mine").mkdir(parents=True)
    return tmp_path / "data" / "mine"


def manifest(layout: dict, classes: list[str], sizes: tuple[int, int], **changes: Any) -> Manifest:
    source = {"kind": "manual", "path": "mine", "instructions": "Fill it.", "layout": layout}
    return Manifest.model_validate(
        {
            "id": "mine",
            "title": "Mine",
            "task": "any",
            "classes": classes,
            "splits": {name: {"size": size, "how": "x"} for name, size in zip(("train", "test"), sizes, strict=True)},
            **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
            **changes,
            "source": source | changes.get("source", {}),
        }
    )


def save(path: Path, level: int = 0, size: tuple[int, int] = (5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


def names(dataset: Any) -> list[str]:
    return [path.relative_to(data_dir() / "mine").as_posix() for path in dataset.files]


# folders


FOLDERS = {"kind": "folders", "train": "train", "test": "test", "names": ["n02", "n01", "10"]}


def test_folders_are_read_in_the_order_of_imagefolder(root: Path) -> None:
    for name in ("n02/b.JPEG", "n02/a.png", "n01/sub/z.jpg", "n01/y.webp", "n01/A.jpg", "10/2.jpg", "10/10.jpg"):
        save(root / "train" / name)
    save(root / "test" / "n01" / "t.jpg")
    for junk in ("train/n01/note.txt", "train/n01/tmp", "train/.hidden", "train/__MACOSX/n01/._a.jpg"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_text("x")
    dataset = load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (7, 1)))
    (root / "train" / "__MACOSX" / "n01" / "._a.jpg").unlink()
    (root / "train" / "__MACOSX" / "n01").rmdir()
    (root / "train" / "__MACOSX").rmdir()
    oracle = torchvision.datasets.ImageFolder(str(root / "train"))
    assert [str(path) for path in dataset.files or []] == [path for path, _ in oracle.samples]
    by_folder = {"n02": 0, "n01": 1, "10": 2}
    assert dataset.labels.tolist() == [by_folder[oracle.classes[label]] for _, label in oracle.samples]
    assert load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (7, 1)), "test").labels.tolist() == [1]


def test_several_folders_are_joined_and_classes_stand_for_themselves(root: Path) -> None:
    save(root / "train" / "Air_Plane" / "1.jpg")
    save(root / "valid" / "sea-lake" / "2.jpg")
    save(root / "test" / "sea-lake" / "3.jpg")
    layout = {"kind": "folders", "train": ["train", "valid"], "test": "test"}
    dataset = load_dataset(manifest(layout, ["air plane", "Sea Lake"], (2, 1)))
    assert names(dataset) == ["train/Air_Plane/1.jpg", "valid/sea-lake/2.jpg"]
    assert dataset.labels.tolist() == [0, 1]


def test_a_folder_of_another_class_is_an_error(root: Path) -> None:
    for split in ("train", "test"):
        save(root / split / "n01" / "1.jpg")
    (root / "train" / "empty").mkdir()
    assert len(load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (1, 1)))) == 1
    save(root / "train" / "n03" / "1.jpg")
    with pytest.raises(DataError, match=r"label 'n03', which is no class of mine\. Expected n02, n01, 10"):
        load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (1, 1)))


def test_a_missing_folder_is_an_error_that_says_so(root: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*train.*not complete"):
        load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (1, 1)))
    root.rmdir()
    with pytest.raises(DataError, match=r"are not in .*mine. Fill it\. Note: moved to Mars"):
        load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (1, 1), note="moved to Mars"))


def test_links_that_lead_back_are_read_once(root: Path) -> None:
    for split in ("train", "test"):
        save(root / split / "n01" / "1.jpg")
    (root / "train" / "n01" / "again").symlink_to(root / "train" / "n01")
    assert len(load_dataset(manifest(FOLDERS, ["two", "one", "ten"], (1, 1)))) == 1


def test_a_split_that_loses_images_is_a_warning_where_that_is_expected(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "test"):
        save(root / split / "n01" / "1.jpg")
    splits = {"train": {"size": 9, "how": "x", "exact": False}, "test": {"size": 9, "how": "x"}}
    found = manifest(FOLDERS, ["two", "one", "ten"], (9, 9), splits=splits)
    assert len(load_dataset(found)) == 1
    assert "mine has 1 images in split train, but its manifest promises 9" in caplog.text
    with pytest.raises(DataError, match=r"promises 9"):
        load_dataset(found, "test")


# draws from layouts


def drawn(root: Path, **changes: Any) -> Manifest:
    layout = {"kind": "folders", "train": "all", "test": "all"}
    draw = {"kind": "per-class", "seed": 42, "n": 3, "train": 2, "test": 1}
    return manifest(layout, ["a", "b"], (4, 2), source={"draw": draw}, **changes)


def test_a_draw_tells_the_splits_apart_and_a_digest_checks_it(root: Path) -> None:
    for i in range(5):
        save(root / "all" / "a" / f"{i}.jpg")
        save(root / "all" / "b" / f"{i}.jpg")
    train, test = (load_dataset(drawn(root), split) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert not set(names(train)) & set(names(test))
    rows = np.random.RandomState(42).choice(np.arange(5), size=3, replace=False)
    assert names(train)[:2] == [f"all/a/{row}.jpg" for row in rows[:2]]
    good = {"train": list_digest(train.files or []), "test": list_digest(test.files or [])}
    load_dataset(drawn(root, digest=good))
    (root / "all" / "a" / names(train)[0].split("/")[-1]).rename(root / "all" / "a" / "renamed.jpg")
    with pytest.raises(DataError, match=r"4 files of mine in split train are not those .* digest"):
        load_dataset(drawn(root, digest=good))


def test_a_draw_from_two_places_contradicts_itself() -> None:
    with pytest.raises(ValueError, match=r"draws both from the same"):
        manifest(
            FOLDERS, ["a", "b", "c"], (1, 1), source={"draw": {"kind": "sample", "seed": 1, "train": 1, "test": 1}}
        )


# lists


SUN = {
    "kind": "lists",
    "images": "SUN397",
    "train": "Training_01.txt",
    "test": "Testing_01.txt",
    "names": ["a/abbey", "a/apartment/outdoor"],
}


def test_lists_of_sun397(root: Path) -> None:
    lines = ["/a/apartment/outdoor/sun_b.jpg", "/a/abbey/sun_a.jpg"]
    (root / "Training_01.txt").write_text("\r\n".join(lines) + "\r\n\r\n")
    (root / "Testing_01.txt").write_text(lines[1])
    for line in lines:
        save(root / "SUN397" / line[1:])
    dataset = load_dataset(manifest(SUN, ["abbey", "apartment"], (2, 1)))
    assert names(dataset) == ["SUN397/a/apartment/outdoor/sun_b.jpg", "SUN397/a/abbey/sun_a.jpg"]
    assert dataset.labels.tolist() == [1, 0]


def test_lists_whose_images_are_not_all_there(root: Path) -> None:
    """As a half-finished download leaves them."""
    for name in ("Training_01.txt", "Testing_01.txt"):
        (root / name).write_text("/a/abbey/1.jpg\n/a/abbey/2.jpg\n/a/apartment/outdoor/3.jpg\n")
    save(root / "SUN397/a/abbey/1.jpg")
    with pytest.raises(DataError, match=r"2 of 3 files are missing .* such as SUN397/a/abbey/2\.jpg.*not complete"):
        load_dataset(manifest(SUN, ["abbey", "apartment"], (3, 3)))


@pytest.mark.parametrize("line", ["../../secret.jpg", "/a/abbey/../../../secret.jpg", "a\\..\\..\\x.jpg"])
def test_lists_that_lead_out_of_the_folder(root: Path, line: str) -> None:
    save(root.parent / "secret.jpg")
    (root / "Training_01.txt").write_text(f"{line}\n")
    layout = SUN | {"names": None}
    with pytest.raises(DataError, match=r"no file in the folder|no class"):
        load_dataset(manifest(layout, [".."], (1, 1)))


def test_lists_with_the_label_after_the_name(root: Path) -> None:
    (root / "train.txt").write_text("0034309 707-320\n0034958 Boeing 737\n")
    save(root / "images" / "0034309.jpg")
    save(root / "images" / "0034958.jpg")
    layout = {"kind": "lists", "images": "images", "train": "train.txt", "test": "train.txt", "label": "rest"}
    dataset = load_dataset(manifest(layout | {"suffix": ".jpg"}, ["Boeing 737", "707 320"], (2, 2)))
    assert dataset.labels.tolist() == [1, 0]


# tables


MEMES = {"kind": "table", "train": "train.jsonl", "test": "dev.jsonl", "image": "img", "label": "label"}


def test_tables_of_hateful_memes(root: Path) -> None:
    rows = [{"id": i, "img": f"img/{i:05d}.png", "label": i % 2, "text": "ünï"} for i in range(3)]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "dev.jsonl").write_text(json.dumps(rows[1]))
    for i in range(3):
        save(root / "img" / f"{i:05d}.png", level=40 * i)
    found = manifest(MEMES | {"names": ["0", "1"]}, ["not hateful", "hateful"], (3, 1))
    dataset = load_dataset(found)
    assert dataset.labels.tolist() == [0, 1, 0]
    assert dataset[2][0].getpixel((0, 0)) == (80, 80, 80)
    assert load_dataset(found, "test").labels.tolist() == [1]
    (root / "train.jsonl").write_text('{"img": "img/00000.png", "label": 0}\n{"img": "img/000')
    with pytest.raises(DataError, match=r"JSONDecodeError.*not complete"):
        load_dataset(found)


FER = {
    "kind": "table",
    **dict.fromkeys(("train", "test"), "fer2013.csv"),
    "pixels": "pixels",
    "label": "emotion",
    "where": {"train": {"Usage": "Training"}, "test": {"Usage": "PrivateTest"}},
    "names": ["0", "6"],
}


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", "emotion, pixels, Usage"])
def test_tables_of_fer2013_hold_the_pixels(root: Path, header: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48))
    usages = ["Training", "PublicTest", "PrivateTest", "Training"]
    lines = [
        f"{label},{' '.join(map(str, image.ravel()))},{usage}"
        for label, image, usage in zip((6, 0, 0, 0), images, usages, strict=True)
    ]
    (root / "fer2013.csv").write_text("\n".join([header, *lines]))
    train, test = (load_dataset(manifest(FER, ["angry", "neutral"], (2, 1)), split) for split in ("train", "test"))
    assert train.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(train.array, images[[0, 3]])
    np.testing.assert_array_equal(test.array, images[[2]])


@pytest.mark.parametrize("pixels", ["1 2 3", "1 2 3 256", "1 2 3 x", "-1 2 3 4", ""])
def test_pixels_that_are_none(root: Path, pixels: str) -> None:
    (root / "fer2013.csv").write_text(f"emotion,pixels,Usage\n0,{pixels},Training\n")
    with pytest.raises(DataError, match=r"tables .* cannot be read"):
        load_dataset(manifest(FER, ["angry", "neutral"], (1, 1)))


# annotations


def test_kitti_distances(root: Path) -> None:
    """The nearest vehicle by its z; other objects do not count, and below includes the threshold."""
    objects = [
        ["Car 0 0 0 0 0 0 0 1 1 1 0 0 25.5 0", "Van 0 0 0 0 0 0 0 1 1 1 0 0 8.0 0"],
        ["Pedestrian 0 0 0 0 0 0 0 1 1 1 0 0 3.0 0"],
        ["Truck 0 0 0 0 0 0 0 1 1 1 0 0 20.01 0", "DontCare -1 -1 -10 0 0 0 0 -1 -1 -1 -1000 -1000 -1000 -10"],
        ["Car 0 0 0 0 0 0 0 1 1 1 0 0 19.9 0", "Tram 0 0 0 0 0 0 0 1 1 1 0 0 2.0 0"],
        [],
    ]
    (root / "training" / "label_2").mkdir(parents=True)
    for i, lines in enumerate(objects):
        (root / "training" / "label_2" / f"{i:06d}.txt").write_text("\n".join(lines))
        save(root / "training" / "image_2" / f"{i:06d}.png")
    classes = ["none", "near", "middle", "far"]
    draw = {"kind": "permutation", "seed": 3, "train": 4, "test": 1}
    found = manifest({"kind": "kitti"}, classes, (4, 1), source={"draw": draw})
    labels = np.empty(5, dtype=int)
    order = np.random.RandomState(3).permutation(5)
    for split, rows in (("train", order[:4]), ("test", order[4:])):
        labels[rows] = load_dataset(found, split).labels
    assert labels.tolist() == [1, 0, 3, 2, 0]
    (root / "training" / "image_2" / "000004.png").unlink()
    with pytest.raises(DataError, match=r"4 images and 5 labels"):
        load_dataset(found)


@pytest.mark.parametrize("indent", [None, 1])
def test_clevr_counts(root: Path, indent: int | None) -> None:
    counts = [3, 10, 4, 3]
    scenes = [{"objects": [{"x": [1]}] * n, "image_filename": f"CLEVR_{i}.png"} for i, n in enumerate(counts)]
    (root / "scenes").mkdir()
    whole = json.dumps({"info": {"split": "train"}, "scenes": scenes}, indent=indent)
    (root / "scenes" / "CLEVR_train_scenes.json").write_text(whole)
    for i in range(4):
        save(root / "images" / "train" / f"CLEVR_{i}.png")
    draw = {"kind": "sample", "seed": 42, "train": 3, "test": 1}
    found = manifest({"kind": "clevr"}, [f"{n} objects" for n in range(3, 11)], (3, 1), source={"draw": draw})
    dataset = load_dataset(found)
    assert [counts[int(name[-5])] - 3 for name in names(dataset)] == dataset.labels.tolist()
    cut = whole[: whole.rindex("CLEVR_2")]
    (root / "scenes" / "CLEVR_train_scenes.json").write_text(cut)
    with pytest.raises(DataError, match=r"cannot be read"):
        load_dataset(found)


# HDF5


PCAM = {
    "kind": "hdf5",
    "train": ["train_x.h5", "valid_x.h5"],
    "train_labels": ["train_y.h5", "valid_y.h5"],
    "test": "test_x.h5",
    "test_labels": "test_y.h5",
}


def write_pcam(root: Path) -> dict[str, np.ndarray]:
    h5py = pytest.importorskip("h5py")
    images = {}
    for seed, (split, n) in enumerate({"train": 3, "valid": 2, "test": 2}.items()):
        images[split] = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
        with h5py.File(root / f"{split}_x.h5", "w") as file:
            file["x"] = images[split]
        with h5py.File(root / f"{split}_y.h5", "w") as file:
            file["y"] = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
    return images


def test_hdf5_of_pcam(root: Path) -> None:
    images = write_pcam(root)
    found = manifest(PCAM, ["no tumor", "tumor"], (5, 2))
    dataset = load_dataset(found)
    assert dataset.labels.tolist() == [0, 1, 0, 0, 1]
    expected = np.concatenate([images["train"], images["valid"]])
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: np.asarray(dataset[i % 5][0]), range(20)))
    for i, pixels in enumerate(read):
        np.testing.assert_array_equal(pixels, expected[i % 5])
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(np.asarray(again[3][0]), expected[3])
    assert dataset.identity != load_dataset(found, "test").identity


def test_hdf5_that_is_cut_off_or_of_something_else(root: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_pcam(root)
    found = manifest(PCAM, ["no tumor", "tumor"], (5, 2))
    whole = (root / "valid_x.h5").read_bytes()
    (root / "valid_x.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"valid_x\.h5 or .*valid_y\.h5 cannot be read"):
        load_dataset(found)
    with h5py.File(root / "valid_x.h5", "w") as file:
        file["x"] = np.zeros((2, 6, 6), dtype=np.uint8)
    with pytest.raises(DataError, match=r"images \(2, 6, 6\) uint8 and 2 class numbers"):
        load_dataset(found)


# file lists


def test_a_file_list_is_the_list_of_paths(tmp_path: Path) -> None:
    given = ["b/1.jpg", "a/é.jpg", "c.jpg", os.fsdecode(b"a/\xff.jpg")]
    files = FileList(tmp_path, given)
    paths = [tmp_path / name for name in given]
    assert list(files) == paths
    assert [files[i] for i in (-1, 0, 2)] == [paths[-1], paths[0], paths[2]]
    assert list(files[1:3]) == paths[1:3]
    assert list(files.take(np.array([2, 0, 0]))) == [paths[2], paths[0], paths[0]]
    assert list(pickle.loads(pickle.dumps(files))) == paths
    with pytest.raises(IndexError):
        files[4]
    assert not FileList(tmp_path, [])


def test_a_layout_that_contradicts_itself() -> None:
    with pytest.raises(ValueError, match=r"has 3 names, and there are 2 classes"):
        manifest(FOLDERS, ["a", "b"], (1, 1))


def test_an_error_in_a_layout_names_its_key(tmp_path: Path) -> None:
    import yaml

    from labkit.data.manifests import load_manifest

    data = manifest(FOLDERS, ["a", "b", "c"], (1, 1)).model_dump(exclude_none=True)
    data.pop("stand_in")
    data["source"]["layout"] |= {"train": ["../up"], "tset": "x"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "mine.yaml")
    assert "`source.layout.train.0`: got '../up', expected the folder of the class folders" in str(caught.value)
    assert "`source.layout.tset`: unknown key. Did you mean 'test'?" in str(caught.value)
