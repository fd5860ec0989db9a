"""Datasets: what ships is what was promised, own folders are read well, and damage is explained."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
import yaml
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

import labkit.data.datasets
from labkit import pocket
from labkit.data.datasets import DEBIAN_FASHION, load_dataset
from labkit.data.folders import data_dir
from labkit.data.hub_rows import HubImages
from labkit.data.images import ImageDataset
from labkit.data.manifests import load_manifest
from labkit.data.schema import Manifest
from labkit.data.torchvision_source import TorchvisionImages
from labkit.errors import DataError, ManifestError
from labkit.must.views import Views
from labkit.spaces.backbones import load_backbone
from labkit.spaces.geometry import Geometry, Preprocess

MINI_DIR, EMOJI_DIR = pocket.DATA / "fashion-mini", pocket.DATA / "emoji-unseen"
needs_source = pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="the Fashion-MNIST source files are not here")


def make_manifest(folder: Path, source: dict, classes: list[str], **sizes: int) -> Manifest:
    data = {
        "id": "mine",
        "title": "Mine",
        "task": "any",
        "classes": classes,
        "splits": {split: {"size": size, "how": "all"} for split, size in sizes.items()},
        "source": source,
        **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_manifest(folder / "mine.yaml")


def shipped(name: str, **changes: object) -> Manifest:
    """A shipped manifest with some top-level keys replaced."""
    return Manifest.model_validate(load_manifest(name).model_dump() | changes)


def save(path: Path, level: int = 0, size: tuple[int, int] = (5, 4), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level).save(path)
    return path


@pytest.fixture(autouse=True)
def no_data_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))


# what ships


@pytest.mark.parametrize(("split", "n", "per_class"), [("train", 16000, 1600), ("test", 2000, 200)])
def test_fashion_mini_is_balanced_and_not_sorted(split: str, n: int, per_class: int) -> None:
    dataset = load_dataset("fashion-mini", split)
    assert dataset.array is not None
    assert dataset.array.shape == (n, 28, 28)
    assert dataset.array.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert np.bincount(dataset.labels).tolist() == [per_class] * 10
    changes = np.count_nonzero(np.diff(dataset.labels))
    assert changes > 0.85 * n  # a random order changes class at 9 of 10 steps


def test_fashion_mini_images_agree_with_the_array() -> None:
    dataset = load_dataset("fashion-mini", "test")
    image, label = dataset[17]
    assert (image.mode, image.size, label) == ("L", (28, 28), dataset.labels[17])
    assert dataset.array is not None
    np.testing.assert_array_equal(np.asarray(image), dataset.array[17])


def test_fashion_mini_is_under_8_mb() -> None:
    assert sum(path.stat().st_size for path in MINI_DIR.iterdir()) < 8_000_000


def test_no_train_image_of_fashion_mini_is_in_test() -> None:
    train, test = (load_dataset("fashion-mini", split).array for split in ("train", "test"))
    assert train is not None
    assert test is not None
    seen = {image.tobytes() for image in train}
    assert len(seen) == 16000
    assert not [i for i, image in enumerate(test) if image.tobytes() in seen]


@needs_source
def test_recipe_reproduces_what_ships(tmp_path: Path) -> None:
    from labkit.pocket.recipe import fashion_mini

    fashion_mini.make(DEBIAN_FASHION, tmp_path)
    assert (tmp_path / "index.csv").read_bytes() == (MINI_DIR / "index.csv").read_bytes()
    for name in ("train.png", "test.png"):
        with Image.open(tmp_path / name) as made, Image.open(MINI_DIR / name) as ships:
            np.testing.assert_array_equal(np.asarray(made), np.asarray(ships))


@needs_source
def test_fashion_mini_is_where_its_index_says_in_fashion_mnist() -> None:
    full, mini = load_dataset("fashion-mnist", "test"), load_dataset("fashion-mini", "test")
    rows = [line.split(",") for line in (MINI_DIR / "index.csv").read_text().splitlines()]
    positions = [int(position) for split, position, _ in rows[1:] if split == "test"]
    assert full.array is not None
    np.testing.assert_array_equal(full.array[positions], mini.array)
    np.testing.assert_array_equal(full.labels[positions], mini.labels)


def test_recipe_refuses_other_source_files(tmp_path: Path) -> None:
    from labkit.pocket.recipe import fashion_mini

    write_idx(tmp_path / "source", n=20)
    with pytest.raises(DataError, match=r"sha256 is .*, expected c59f468a"):
        fashion_mini.make(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fashion_mini_with_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(MINI_DIR, tmp_path / "fashion-mini")
    monkeypatch.setattr(pocket, "DATA", tmp_path)
    load_dataset("fashion-mini", "test")
    index = tmp_path / "fashion-mini" / "index.csv"
    index.write_text(index.read_text().replace("test,9,", "test,8,"))
    with pytest.raises(DataError, match=r"index\.csv is not the file that the manifest names"):
        load_dataset("fashion-mini", "test")
    index.unlink()
    with pytest.raises(DataError, match=r"index\.csv is missing"):
        load_dataset("fashion-mini", "test")


def test_checksums_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset("fashion-mini", "test")
    monkeypatch.setattr(labkit.data.datasets, "file_sha256", lambda path: pytest.fail(f"{path} hashed again"))
    load_dataset("fashion-mini", "test")


def test_wrong_sha256_in_a_manifest() -> None:
    with pytest.raises(DataError, match=r"train\.png is not the file .* expected 0000"):
        load_dataset(shipped("fashion-mini", sha256={"train.png": "0" * 64}))


@pytest.mark.parametrize(("split", "n"), [("train", 1041), ("test", 520)])
def test_emoji_unseen_has_pictures_classes_and_names(split: str, n: int) -> None:
    dataset = load_dataset("emoji-unseen", split)
    assert dataset.array is not None
    assert dataset.names is not None
    assert dataset.array.shape == (n, 64, 64, 3)
    assert len(dataset.names) == n
    assert (dataset.array[:, 0, 0] > 250).all(1).mean() > 0.8  # on white
    assert (dataset.array.std((1, 2, 3)) > 1).all()  # none is empty, such as the black end of the mosaic
    image, label = dataset[3]
    np.testing.assert_array_equal(np.asarray(image), dataset.array[3])
    assert (image.mode, label) == ("RGB", dataset.labels[3])


def test_emoji_unseen_names_agree_with_classes() -> None:
    classes = {
        "grinning face": "face",
        "astronaut": "person",
        "thumbs up": "hand or body part",
        "zebra": "animal",
        "weary cat": "animal",
        "cactus": "plant",
        "pizza": "food or drink",
        "tractor": "vehicle",
        "castle": "place",
        "rainbow": "sky or weather",
        "ten o’clock": "clock",
        "t-shirt": "clothing",
        "soccer ball": "sport, game or party",
        "hammer": "object",
        "red heart": "sign",
    }
    parts = [load_dataset("emoji-unseen", split) for split in ("train", "test")]
    found = {name: p.classes[label] for p in parts for name, label in zip(p.names or [], p.labels, strict=True)}
    assert len(found) == 1561  # every name once
    assert {name: found[name] for name in classes} == classes


def test_a_third_of_each_class_of_emoji_unseen_is_in_test_and_in_train_no_more() -> None:
    train, test = (load_dataset("emoji-unseen", split) for split in ("train", "test"))
    counts = np.stack([np.bincount(part.labels, minlength=14) for part in (train, test)])
    assert np.abs(counts[1] - counts.sum(0) / 3).max() <= 0.5
    assert train.array is not None
    assert test.array is not None
    seen = {image.tobytes() for image in train.array}
    assert len(seen) == 1041
    assert not [name for name, image in zip(test.names or [], test.array, strict=True) if image.tobytes() in seen]


def test_emoji_unseen_is_under_4_mb() -> None:
    assert sum(path.stat().st_size for path in EMOJI_DIR.iterdir()) < 4_000_000


def test_the_recipe_of_emoji_unseen_from_tiny_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips", reason="drawing needs pyvips")
    from labkit.pocket.recipe import corpus, emoji_unseen

    names = ["cat-face", "red-heart", "dog", "dog-dark", "man’s shoe", "ant", "cow", "same-as-ant"]
    body = '<rect width="32" height="16" fill="#{}"/>'
    icons = {name.replace("’", "").replace(" ", "-"): {"body": body.format(f"{i}{i}0")} for i, name in enumerate(names)}
    icons["same-as-ant"] = icons["ant"]
    labels = ["Cat Face", "red heart", "dog", "man’s shoe", "ant", "cow", "same as ant"]
    rows = [{"label": name, "subgroup": 1} for name in labels] + [{"label": "regional indicator A"}]
    rows[1]["subgroup"] = 2

    def fetch(package: str, version: str, folder: Path) -> Path:
        iconify = package == "@iconify/json"
        content = {"icons": icons, "width": 32, "height": 32} if iconify else rows
        path = folder / package / ("json/fluent-emoji-flat.json" if iconify else "en/data.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")
        if not iconify:
            (folder / package / "meta").mkdir(exist_ok=True)
            groups = {"subgroups": {"1": "animal-mammal", "2": "heart", "3": "new-kind"}}
            (folder / package / "meta" / "groups.json").write_text(json.dumps(groups), "utf-8")
        return folder / package

    monkeypatch.setattr(corpus, "fetch", fetch)
    emoji_unseen.make(tmp_path, tmp_path / "out")
    index = (tmp_path / "out" / "index.csv").read_text("utf-8").splitlines()
    # "dog-dark" is no emoji, and "same as ant" is drawn like the ant
    assert index[0] == "split,label,name"
    assert sorted(line.split(",", 1)[1] for line in index[1:]) == [
        "13,red heart", "3,ant", "3,cat face", "3,cow", "3,dog", "3,man’s shoe",
    ]  # fmt: skip
    assert sum(line.startswith("test,3") for line in index) == 2  # a third of five, rounded
    in_train = [line.split(",")[2] for line in index[1:] if line.startswith("train")]
    with Image.open(tmp_path / "out" / "train.png") as image:
        assert image.size == (40 * 64, 64)
        tiles = np.asarray(image).reshape(64, 40, 64, 3).swapaxes(0, 1)
    assert tiles[0][60, 5].tolist() == [255, 255, 255]
    for tile, name in zip(tiles, in_train, strict=False):
        level = 17 * [n.replace("-face", " face").replace("-", " ") for n in names].index(name)
        assert tile[20, 5].tolist() == [level, level, 0]
    assert not tiles[len(in_train) :].any()

    rows[2]["subgroup"] = 3
    with pytest.raises(DataError, match="subgroups new-kind are in no class"):
        emoji_unseen.make(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(("n", "columns", "shape"), [(6, 3, (10, 12)), (7, 3, (15, 12)), (2, 5, (5, 20))])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_mosaic_holds_the_images_row_by_row(n: int, columns: int, shape: tuple, channels: tuple) -> None:
    from labkit.pocket.recipe.fashion_mini import mosaic

    images = np.random.default_rng(0).integers(1, 256, (n, 5, 4, *channels), dtype=np.uint8)
    joined = mosaic(images, columns)
    assert joined.shape == (*shape, *channels)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        np.testing.assert_array_equal(joined[5 * row : 5 * row + 5, 4 * column : 4 * column + 4], image)
    assert np.count_nonzero(joined) == images.size  # the rest is black


def test_digits_split_is_stratified_and_complete() -> None:
    from sklearn.datasets import load_digits

    parts = {split: load_dataset("digits", split) for split in ("train", "test")}
    assert np.bincount(parts["test"].labels).tolist() == [36] * 10
    arrays = [part.array for part in parts.values()]
    assert arrays[0] is not None
    assert arrays[0].shape == (1437, 8, 8)
    assert arrays[0].max() == 255
    together = sorted(
        (image.tobytes(), int(k)) for p in parts.values() for image, k in zip(p.array, p.labels, strict=True)
    )
    digits = load_digits()
    levels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    assert together == sorted((image.tobytes(), int(k)) for image, k in zip(levels, digits.target, strict=True))


def test_digits_split_is_fixed() -> None:
    dataset = load_dataset("digits", "test")
    assert dataset.array is not None
    content = dataset.array.tobytes() + dataset.labels.tobytes()
    assert hashlib.sha256(content).hexdigest()[:12] == "8a5f3aefa99f"


# the dataset's own behavior


def test_indexing() -> None:
    dataset = ImageDataset(np.array([0, 1, -1]), ["a", "b"], array=np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    assert np.asarray(dataset[-1][0]).tolist() == [[8, 9], [10, 11]]
    assert [label for _, label in dataset] == [0, 1, -1]  # iteration ends
    with pytest.raises(IndexError):
        dataset[3]


def test_unknown_split() -> None:
    with pytest.raises(DataError, match=r"digits has no split 'val'\. Expected one of train, test"):
        load_dataset("digits", "val")


def test_size_that_the_manifest_does_not_promise() -> None:
    sizes = {"train": {"size": 1400, "how": "x"}, "test": {"size": 360, "how": "x"}}
    manifest = shipped("digits", splits=sizes)
    assert len(load_dataset(manifest, "test")) == 360
    with pytest.raises(
        DataError, match=r"1437 images in split train, but its manifest promises 1400.*splits\.train\.size"
    ):
        load_dataset(manifest)


def test_more_class_numbers_than_classes() -> None:
    with pytest.raises(DataError, match=r"split train: class numbers go from 0 to 9, and there are 3 .*`classes`"):
        load_dataset(shipped("digits", classes=["0", "1", "2"]))


# full Fashion-MNIST


def write_idx(folder: Path, n: int, compress: bool = True, prefixes: tuple[str, ...] = ("train", "t10k")) -> np.ndarray:
    """Tiny files in the format of Fashion-MNIST; returns the images."""
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in prefixes:
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(n, dtype=np.uint8) % 10)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
            path = folder / f"{prefix}-{kind}-ubyte"
            if compress:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return images


@pytest.fixture
def tiny_fashion(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A manifest for 20 images, on a machine without Debian's package and without a network."""

    class Offline(torchvision.datasets.VisionDataset):
        def __init__(self, **kwargs: object) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(labkit.data.datasets, "DEBIAN_FASHION", Path("/nowhere"))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Offline)
    sizes = {split: {"size": 20, "how": "x"} for split in ("train", "test")}
    return shipped("fashion-mnist", splits=sizes, sha256={})


@pytest.mark.parametrize("place", ["fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_is_read_from_files_that_are_there(tiny_fashion: Manifest, place: str, compress: bool) -> None:
    images = write_idx(data_dir() / place, 20, compress)
    dataset = load_dataset(tiny_fashion)
    np.testing.assert_array_equal(dataset.array, images)
    assert dataset.labels.tolist() == [*range(10), *range(10)]


def test_fashion_mnist_missing_and_offline(tiny_fashion: Manifest) -> None:
    with pytest.raises(DataError, match=r"Network is unreachable.*https://github\.com/zalandoresearch.*LABKIT_DATA"):
        load_dataset(tiny_fashion)


def test_fashion_mnist_file_of_another_content(tiny_fashion: Manifest) -> None:
    write_idx(data_dir() / "fashion-mnist", 20)
    manifest = Manifest.model_validate(tiny_fashion.model_dump() | {"sha256": load_manifest("fashion-mnist").sha256})
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not the file that the manifest names"):
        load_dataset(manifest)


def test_fashion_mnist_truncated(tiny_fashion: Manifest) -> None:
    write_idx(data_dir() / "fashion-mnist", 20)
    path = data_dir() / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="train-images-idx3-ubyte cannot be read"):
        load_dataset(tiny_fashion)
    path.write_bytes(gzip.compress(gzip.decompress(content)[:-1]))
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not a complete idx file"):
        load_dataset(tiny_fashion)


@needs_source
def test_fashion_mnist_of_the_debian_package() -> None:
    dataset = load_dataset("fashion-mnist", "test")
    assert np.bincount(dataset.labels).tolist() == [1000] * 10


# torchvision, laid out on disk as torchvision does


CIFAR_CLASSES = ["cat", "dog"]


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10's files with 3 images a batch; returns the train images (15, 32, 32, 3)."""
    folder = data_dir() / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)

    def dump(name: str, content: dict) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name: str, i: int) -> list[str]:
        part = images[3 * i : 3 * i + 3].transpose(0, 3, 1, 2).reshape(3, -1)
        return dump(name, {"data": part, "labels": [0, 1, i % 2]})

    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [batch(f"data_batch_{i + 1}", i) for i in range(5)])
    monkeypatch.setattr(cifar, "test_list", [batch("test_batch", 5)])
    name, md5 = dump("batches.meta", {"label_names": CIFAR_CLASSES})
    monkeypatch.setattr(cifar, "meta", {"filename": name, "key": "label_names", "md5": md5})
    monkeypatch.setattr(cifar, "download", lambda self: self._check_integrity() or pytest.fail("would download"))
    return images[:15]


def cifar_manifest(folder: Path, classes: list[str] | None = None) -> Manifest:
    args = {"train": [{"train": True}], "test": [{"train": False}]}
    source = {"kind": "torchvision", "dataset": "CIFAR10", "args": args}
    return make_manifest(folder, source, classes or CIFAR_CLASSES, train=15, test=3)


def test_cifar10_from_disk(tmp_path: Path, tiny_cifar: np.ndarray) -> None:
    dataset = load_dataset(cifar_manifest(tmp_path))
    np.testing.assert_array_equal(dataset.array, tiny_cifar)
    assert dataset.labels.tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0]
    assert (dataset[4][0].mode, dataset[4][1]) == ("RGB", 1)
    assert len(load_dataset(cifar_manifest(tmp_path), "test")) == 3


def test_cifar10_with_classes_in_another_order(tmp_path: Path, tiny_cifar: np.ndarray) -> None:
    with pytest.raises(DataError, match="has the classes cat, dog, but the manifest mine has dog, cat"):
        load_dataset(cifar_manifest(tmp_path, ["dog", "cat"]))


def test_torchvision_parts_are_joined_and_decoded_lazily(tmp_path: Path) -> None:
    root = data_dir() / "dtd" / "dtd"
    (root / "labels").mkdir(parents=True)
    for i, split in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{split}.jpg" for name in ("banded", "blotchy")]
        (root / "labels" / f"{split}1.txt").write_text("".join(f"{name}\n" for name in names))
        for j, name in enumerate(names):
            save(root / "images" / name, level=100 * i + 20 * j)
    source = load_manifest("dtd").source.model_dump()
    manifest = make_manifest(tmp_path, source, ["banded", "blotchy"], train=4, test=2)
    dataset = load_dataset(manifest)
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert [image.getpixel((0, 0)) for image, _ in dataset] == [(level,) * 3 for level in (0, 20, 100, 120)]
    damaged = root / "images" / "blotchy" / "blotchy_val.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"blotchy_val\.jpg cannot be read"):
        dataset[3]


def test_torchvision_pets_from_disk(tmp_path: Path) -> None:
    root = data_dir() / "oxford-iiit-pet"
    for folder in ("annotations", "images"):
        (root / folder).mkdir(parents=True)
    for split, n in (("trainval", 3), ("test", 2)):
        lines = [
            f"{name}_{i} {k} 1 1\n" for k, name in enumerate(("Abyssinian", "american_bulldog"), 1) for i in range(n)
        ]
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
        for line in lines:
            save(root / "images" / f"{line.split()[0]}.jpg")
    source = load_manifest("oxford-pets").source.model_dump()
    manifest = make_manifest(tmp_path, source, load_manifest("oxford-pets").classes[:2], train=6, test=4)
    assert load_dataset(manifest).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load_dataset(manifest, "test").labels.tolist() == [0, 0, 1, 1]


def test_torchvision_stl10_channels_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 6), dtype=np.uint8)

    class Fake(torchvision.datasets.VisionDataset):
        data, labels, classes = images, np.array([0, 1, 0, 1], dtype=np.uint8), ("a", "b")

        def __init__(self, root: str, split: str) -> None: ...

    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    source = {"kind": "torchvision", "dataset": "STL10", "args": {"train": [{"split": "train"}]}}
    dataset = load_dataset(make_manifest(tmp_path, source, ["a", "b"], train=4))
    np.testing.assert_array_equal(np.asarray(dataset[2][0]), images[2].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("dataset", "kwargs", "message"),
    [
        ("CIFAR11", {}, "no dataset 'CIFAR11'"),
        ("CIFAR10", {"trian": True}, "trian.*correct `source.args`"),
        ("DTD", {"split": "tarin"}, "tarin.*correct `source.args`"),
    ],
)
def test_torchvision_settings_that_are_wrong(tmp_path: Path, dataset: str, kwargs: dict, message: str) -> None:
    source = {"kind": "torchvision", "dataset": dataset, "args": {"train": [kwargs]}}
    with pytest.raises(DataError, match=message):
        load_dataset(make_manifest(tmp_path, source, CIFAR_CLASSES, train=1))


def test_data_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    with pytest.raises(
        DataError, match=r"Name or service not known.*Connect to the network once.*LABKIT_DATA"
    ) as caught:
        load_dataset(cifar_manifest(tmp_path))
    assert f"so that {data_dir() / 'cifar-10-batches-py' / 'batches.meta'} is there" in str(caught.value)
    assert "source.args" not in str(caught.value)  # nothing is wrong with the manifest


# Hugging Face


HUB = {"kind": "huggingface", "repo": "me/mine", "image": "img", "label": "fine", "splits": {"train": "training"}}


def test_huggingface_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"labkit\[papers\]"):
        load_dataset(make_manifest(tmp_path, HUB, ["a", "b"], train=2))


@pytest.mark.parametrize(("label", "expected"), [("fine", [1, 0]), (None, [-1, -1])])
def test_huggingface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str | None, expected: list[int]) -> None:
    asked = []

    class Rows(list):
        def __getitem__(self, key):  # type: ignore[no-untyped-def]
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def load(*args: object, **kwargs: object) -> Rows:
        asked.append((args, kwargs))
        return Rows([{"img": Image.new("L", (2, 2), 7), "fine": k} for k in (1, 0)])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: True)
    dataset = load_dataset(make_manifest(tmp_path, HUB | {"label": label, "revision": "abc"}, ["a", "b"], train=2))
    assert asked == [(("me/mine", None), {"split": "training", "revision": "abc"})]
    assert dataset.labels.tolist() == expected
    assert dataset[0][0].getpixel((0, 0)) == (7, 7, 7)


def test_huggingface_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: True)
    with pytest.raises(DataError, match=r"me/mine cannot be loaded .*offline.*Connect to the network once"):
        load_dataset(make_manifest(tmp_path, HUB, ["a", "b"], train=2))


# folders of own images


def test_folder_of_classes_of_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "My Images!"
    files = [
        save(root / "cat" / "2023" / "may" / "b.PNG", 10),
        save(root / "cat" / "a.jpeg", 20),
        save(root / "dog" / "c.webp", 30),
    ]
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "nothing in here").mkdir()
    manifest = load_manifest(root)
    dataset = load_dataset(manifest, "train")
    assert (manifest.id, manifest.classes) == ("my-images", ["cat", "dog"])
    assert dataset.files == files
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.array is None


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.tif"):
        save(tmp_path / "flat" / name)
    manifest = load_manifest(tmp_path / "flat")
    dataset = load_dataset(manifest)
    assert manifest.n_classes == 0
    assert [path.name for path in dataset.files or []] == ["a.jpg", "b.png", "c.tif"]
    assert dataset.labels.tolist() == [-1, -1, -1]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("cat/a.png", "cat/._a.png", ".thumbs/a.png", "cat/.cache/b.png", "dog/b.png", ".c.png"):
        save(root / name)
    manifest = load_manifest(root)
    assert manifest.classes == ["cat", "dog"]
    assert manifest.splits["train"].size == 2


def test_folder_of_splits(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "test/dog/c.png"):
        save(tmp_path / "images" / name)
    manifest = load_manifest(tmp_path / "images")
    assert load_dataset(manifest, "train").labels.tolist() == [0, 1]
    assert load_dataset(manifest, "test").labels.tolist() == [1]  # the same number as in train


def test_linked_class_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png")
    save(tmp_path / "images" / "dog" / "b.png")
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "images" / "dog" / "loop").symlink_to(tmp_path / "images", target_is_directory=True)
    manifest = load_manifest(tmp_path / "images")
    assert manifest.classes == ["cat", "dog"]
    assert manifest.splits["train"].size == 2


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["cat/notes.txt"], [".hidden/a.png"]])
def test_folder_without_images(tmp_path: Path, names: list[str]) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    with pytest.raises(DataError, match=r"images holds no images\. Expected files such as \.jpg"):
        load_manifest(root)


def test_images_beside_class_folders_have_no_class(tmp_path: Path) -> None:
    for name in ("a.png", "cat/b.png", "cat/c.png"):
        save(tmp_path / "images" / name)
    manifest = load_manifest(tmp_path / "images")
    assert manifest.classes == ["cat"]
    assert load_dataset(manifest).labels.tolist() == [-1, 0, 0]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"there is no dataset .*nowhere"):
        load_manifest(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load_dataset(make_manifest(tmp_path, {"kind": "folder", "path": "nowhere"}, ["a"], train=1))


def test_folder_that_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        save(tmp_path / "images" / name)
    source = {"kind": "folder", "path": "images"}
    assert load_dataset(make_manifest(tmp_path, source, ["dog", "cat"], train=2)).labels.tolist() == [1, 0]
    assert load_dataset(make_manifest(tmp_path, source, [], train=2)).labels.tolist() == [-1, -1]
    with pytest.raises(DataError, match=r"no class of mine: dog\. Expected cat, bird"):
        load_dataset(make_manifest(tmp_path, source, ["cat", "bird"], train=2))
    with pytest.raises(DataError, match=r"has no folder test/"):
        load_dataset(make_manifest(tmp_path, source, ["cat", "dog"], train=2, test=1), "test")


def test_checksums_of_a_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "images" / "cat" / "a.png")
    manifest = load_manifest(tmp_path / "images")
    good = {"cat/a.png": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert len(load_dataset(manifest.model_copy(update={"sha256": good}))) == 1
    save(path, 9)
    with pytest.raises(DataError, match=r"a\.png is not the file that the manifest names"):
        load_dataset(manifest.model_copy(update={"sha256": good}))


def test_image_added_after_the_manifest_was_made(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    manifest = load_manifest(tmp_path / "images")
    save(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match="2 images in split train, but its manifest promises 1"):
        load_dataset(manifest)


def one_image(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> Image.Image:
    (folder / "one").mkdir()
    image.save(folder / "one" / name, **options)
    return load_dataset(folder / "one")[0][0]


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (641, 2)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    image = one_image(tmp_path, Image.new("RGB", size, (1, 2, 3)))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", size, (1, 2, 3))


@pytest.mark.parametrize(("alpha", "expected"), [(0, (255, 255, 255)), (255, (200, 0, 0)), (128, (227, 127, 127))])
def test_what_is_transparent_becomes_white(tmp_path: Path, alpha: int, expected: tuple[int, ...]) -> None:
    image = one_image(tmp_path, Image.new("RGBA", (3, 3), (200, 0, 0, alpha)))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((1, 1)), expected, atol=1)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    read = one_image(tmp_path, image, **({"transparency": 1} if transparent else {}))
    second = (255, 255, 255) if transparent else (40, 50, 60)
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), second]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 300, 30000, 65535]], dtype=np.uint16)
    image = one_image(tmp_path, Image.fromarray(levels), name)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 117, 255]


def test_cmyk_and_bilevel(tmp_path: Path) -> None:
    assert one_image(tmp_path, Image.new("CMYK", (2, 2), (0, 0, 0, 255)), "a.jpg").getpixel((0, 0)) == (0, 0, 0)
    Image.new("1", (2, 2), 1).save(tmp_path / "one" / "a.png")
    (tmp_path / "one" / "a.jpg").unlink()
    assert load_dataset(tmp_path / "one")[0][0].getpixel((0, 0)) == (255, 255, 255)


def test_photographs_are_turned_the_right_way_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees
    assert one_image(tmp_path, Image.new("RGB", (6, 4)), "a.jpg", exif=exif).size == (4, 6)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6])
def test_truncated_image_is_named(tmp_path: Path, name: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / "images" / name
    path.parent.mkdir()
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    dataset = load_dataset(tmp_path / "images")
    with pytest.raises(DataError, match=rf"images/{name} cannot be read"):
        dataset[0]


def test_images_can_be_read_by_several_threads(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / "images" / f"{i:02d}.png", level=i)
    dataset = load_dataset(tmp_path / "images")
    seen: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda i=i: seen.update({i: dataset[i][0].getpixel((0, 0))[0]})) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: i for i in range(20)}


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_dir() == tmp_path / "data"
    monkeypatch.delenv("LABKIT_DATA")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    assert data_dir() == tmp_path / "cache" / "data"


# other processes


class Everything(Dataset[list[Any]]):
    """Item i is all that a worker process may be asked to make of image i, from every kind of dataset."""

    def __init__(self, kinds: list[ImageDataset], preprocess: list[Preprocess]) -> None:
        self.kinds, self.preprocess = kinds, preprocess
        self.views = [Views(dataset, 16, seed=0) for dataset in kinds]

    def __len__(self) -> int:
        return min(map(len, self.kinds))

    def __getitem__(self, i: int) -> list[Any]:
        images = [dataset[i][0] for dataset in self.kinds]
        made = [preprocess(image) for image in images for preprocess in self.preprocess]
        return [*made, *(views[0, i] for views in self.views)]


def test_every_kind_of_dataset_works_in_spawned_worker_processes(tmp_path: Path) -> None:
    """As Windows and macOS start them, and Linux from Python 3.14 on: what they need is sent to them by pickle."""
    array = np.random.default_rng(0).integers(0, 256, (2, 20, 18, 3), dtype=np.uint8)
    for i, pixels in enumerate(array):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    labels, fake = np.zeros(2, dtype=np.int64), torchvision.datasets.FakeData(2, (3, 20, 18), random_offset=7)
    rows = [{"img": Image.fromarray(pixels)} for pixels in array]
    kinds = [
        ImageDataset(labels, ["a"], array=array),
        load_dataset(tmp_path / "photos"),
        ImageDataset(labels, ["a"], decode=TorchvisionImages(ConcatDataset([fake]))),
        ImageDataset(labels, ["a"], decode=HubImages(rows, "img")),
    ]
    preprocess = [
        load_backbone("pixels", device="cpu").preprocess,
        load_backbone("efficientnet-lite0", image_size=32, device="cpu").preprocess,
        load_backbone("efficientnet-lite0", geometry=Geometry(40, 32), device="cpu").preprocess,
        load_backbone("pocket-vit", device="cpu").preprocess,
    ]
    everything = Everything(kinds, preprocess)
    loader = DataLoader(everything, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    received = list(loader)
    assert len(received) == 2
    for i, items in enumerate(received):
        for there, here in zip(items, everything[i], strict=True):
            for a, b in zip(there, here, strict=True):
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_subset_holds_the_chosen_images_in_that_order() -> None:
    array = np.arange(4 * 9, dtype=np.uint8).reshape(4, 3, 3)
    kinds = {"array": array, "decode": lambda i: Image.fromarray(array[i])}
    for kind, images in kinds.items():
        dataset = ImageDataset(np.arange(4), ["a", "b", "c", "d"], names=list("wxyz"), **{kind: images})
        some = dataset.subset([3, 1])
        assert (some.labels.tolist(), some.names, len(some)) == ([3, 1], ["z", "x"], 2)
        assert np.array_equal(np.asarray(some[0][0]), array[3])
        with pytest.raises(DataError, match=r"has 4 images\. Expected rows from 0 to 3"):
            dataset.subset([4])
