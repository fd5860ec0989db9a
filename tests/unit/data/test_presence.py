"""Presence and stand-ins: what the disk says, without a download, and miniatures through the very same loaders."""

from __future__ import annotations

import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

import labkit.data.datasets
from labkit.data.datasets import load_dataset
from labkit.data.draws import draw_rows, list_digest
from labkit.data.folders import data_dir
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.presence import missing_library, presence
from labkit.data.schema import Manifest, Torchvision
from labkit.data.torchvision_source import TORCHVISION
from labkit.errors import DataError


@pytest.fixture(autouse=True)
def no_data_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setattr(labkit.data.datasets, "DEBIAN_FASHION", Path("/nowhere"))


def save(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (level, level, level)).save(path)
    return path


def stand_ins(splits: dict, draws: dict | None = None) -> None:
    data_dir().mkdir(parents=True, exist_ok=True)
    index = {"format": 1, "splits": splits} | ({} if draws is None else {"draws": draws})
    (data_dir() / "stand-ins.json").write_text(json.dumps(index))


# presence


@pytest.mark.parametrize("name", list_manifests())
def test_nothing_is_here_on_an_empty_machine(name: str) -> None:
    expected = "bundled" if name in ("digits", "emoji-unseen", "fashion-mini") else "not here"
    found = presence(load_manifest(name))
    assert found.state == expected
    assert found.why
    assert "\n" not in found.why
    assert not data_dir().exists()


def test_torchvision_is_here_with_its_last_file() -> None:
    manifest = load_manifest("food101")
    assert presence(manifest).state == "not here"
    names = TORCHVISION["Food101"]
    for i, name in enumerate(names):
        save(data_dir() / name / "1.png")
        assert presence(manifest).state == ("here" if i == len(names) - 1 else "partly")


def test_every_shipped_dataset_of_torchvision_has_a_place() -> None:
    shipped = [load_manifest(name).source for name in list_manifests()]
    missing = {source.dataset for source in shipped if isinstance(source, Torchvision)} - set(TORCHVISION)
    assert not missing


def test_manual_folders_and_fashion_mnist() -> None:
    manifest = load_manifest("hateful-memes")
    save(data_dir() / "hateful-memes" / "img" / "1.png")
    assert presence(manifest).state == "partly"
    assert "train.jsonl and 1 more not in" in presence(manifest).why
    for name in ("train.jsonl", "dev.jsonl"):
        (data_dir() / "hateful-memes" / name).write_text("{}")
    assert presence(manifest).state == "here"
    for part in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        assert presence(load_manifest("fashion-mnist")).state == "not here"
        path = data_dir() / "fashion-mnist" / f"{part}-idx{3 if 'images' in part else 1}-ubyte.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert presence(load_manifest("fashion-mnist")).state == "here"


def test_a_dataset_of_the_library_datasets(tmp_path: Path) -> None:
    manifest = load_manifest("digits").model_copy(
        update={
            "source": Manifest.model_validate(
                load_manifest("digits").model_dump()
                | {
                    "source": {
                        "kind": "huggingface",
                        "repo": "Me/Mine",
                        "image": "image",
                        "splits": {"train": "train", "test": "test"},
                    }
                }
            ).source
        }
    )
    assert presence(manifest).state == "not here"
    (tmp_path / "hf" / "datasets" / "me___mine").mkdir(parents=True)
    assert presence(manifest).state == "here"
    root = data_dir() / "hub" / "datasets--Me--Mine"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    (root / "snapshots" / "abc" / "data").mkdir(parents=True)
    (root / "snapshots" / "abc" / "data" / "train-00000-of-00001.parquet").write_bytes(b"x")
    (root / "snapshots" / "abc" / "data" / "test-00000-of-00002.parquet").write_bytes(b"x")
    assert presence(manifest).state == "partly"
    assert "split test not in" in presence(manifest).why


# stand-ins


def test_a_stand_in_is_told_by_its_manifest() -> None:
    before = load_manifest("eurosat")
    assert not before.stand_in
    stand_ins({"eurosat": {"train": 20, "test": 10}}, {"eurosat": {"n": 3, "train": 2, "test": 1}})
    manifest = load_manifest("eurosat")
    assert manifest.stand_in
    assert manifest.title == f"{before.title} (stand-in)"
    assert {split: of.size for split, of in manifest.splits.items()} == {"train": 20, "test": 10}
    assert manifest.published == []
    assert manifest.digest == {}
    assert manifest.sha256 == {}
    assert manifest.source.draw == before.source.draw.model_copy(update={"n": 3, "train": 2, "test": 1})  # type: ignore[union-attr]
    assert all(file.md5 is None and file.sha256 is None for file in manifest.source.files)  # type: ignore[union-attr]
    assert manifest.classes == before.classes
    assert not load_manifest("caltech101").stand_in


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 2, "splits": {"eurosat": {"train": 2, "test": 1}}}',
        '{"format": 1, "splits": {"eurosat": {"train": 2}}}',
        '{"format": 1, "splits": {"eurosat": {"train": 2, "test": 0}}}',
        '{"format": 1, "splits": {"eurosat": {"train": 2, "test": "many"}}}',
        '{"format": 1}',
    ],
)
def test_a_damaged_index_of_stand_ins(content: str) -> None:
    stand_ins({})
    (data_dir() / "stand-ins.json").write_text(content)
    with pytest.raises(DataError, match=r"stand-ins\.json cannot be read .*Write the stand-ins again"):
        load_manifest("eurosat")


def test_a_draw_that_a_stand_in_cannot_have() -> None:
    stand_ins({"eurosat": {"train": 2, "test": 1}}, {"eurosat": {"n": 1}})
    with pytest.raises(ValueError, match=r"stand-ins\.json is not a valid manifest.*\n.*`n` is 1"):
        load_manifest("eurosat")


def test_nothing_is_fetched_for_a_stand_in() -> None:
    stand_ins({"eurosat": {"train": 20, "test": 10}, "dtd": {"train": 2, "test": 1}})
    with pytest.raises(DataError, match=r"stand-in of eurosat in .* is not complete"):
        load_dataset("eurosat")
    with pytest.raises(DataError, match="Dataset not found"):
        load_dataset("dtd")


def dump(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content))


def test_a_miniature_of_cifar_is_read_in_spite_of_its_digests() -> None:
    stand_ins({"cifar10": {"train": 10, "test": 2}})
    folder, classes = data_dir() / "cifar-10-batches-py", load_manifest("cifar10").classes
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        dump(folder, name, {"data": images[2 * i : 2 * i + 2].reshape(2, -1), "labels": [i, 9 - i]})
    dump(folder, "batches.meta", {"label_names": classes})
    train = load_dataset("cifar10")
    np.testing.assert_array_equal(train.array, images[:10].transpose(0, 2, 3, 1))
    assert load_dataset("cifar10", "test").labels.tolist() == [5, 4]
    assert torchvision.datasets.CIFAR10.meta["md5"] is not None
    (data_dir() / "stand-ins.json").unlink()
    with pytest.raises(DataError):
        load_dataset("cifar10")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (data_dir() / "evil",)


def test_a_miniature_of_cifar_cannot_run_programs() -> None:
    """Digests keep torchvision from unpickling anything else; without them it must be arrays and names."""
    test_a_miniature_of_cifar_is_read_in_spite_of_its_digests()
    stand_ins({"cifar10": {"train": 10, "test": 2}})
    dump(data_dir() / "cifar-10-batches-py", "test_batch", {"data": Hostile(), "labels": []})
    with pytest.raises(DataError, match="expected arrays and names alone"):
        load_dataset("cifar10", "test")
    assert not (data_dir() / "evil").exists()


# torchvision: files and draws


def test_files_of_torchvision_are_files_and_a_draw_leaves_some() -> None:
    for name in ("AnnualCrop", "Forest"):
        for i in range(6):
            save(data_dir() / "eurosat" / "2750" / name / f"{name}_{i}.jpg", level=10 * i)
    draw = {"kind": "per-class", "seed": 42, "n": 4, "train": 3, "test": 1}
    source = {"kind": "torchvision", "dataset": "EuroSAT", "args": {"train": [{}], "test": [{}]}, "draw": draw}
    changes = {
        "source": source,
        "classes": ["Annual Crop", "Forest"],
        "splits": {"train": {"size": 6, "how": "x"}, "test": {"size": 2, "how": "x"}},
    }
    base = load_manifest("digits").model_dump(exclude={"stand_in"})
    names = ["annualcrop", "forest"]
    manifest = Manifest.model_validate(base | changes | {"classes": names})
    rows = draw_rows(manifest.source.draw, [0] * 6 + [1] * 6, "train")  # type: ignore[union-attr]
    train = load_dataset(manifest)
    every = [f"{name}_{i}.jpg" for name in ("AnnualCrop", "Forest") for i in range(6)]
    assert [path.name for path in train.files or []] == [every[row] for row in rows]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load_dataset(manifest, "test").labels.tolist() == [0, 1]
    digest = {"train": list_digest(train.files or []), "test": "0" * 64}
    checked = Manifest.model_validate(base | changes | {"classes": names, "digest": digest})
    assert len(load_dataset(checked)) == 6
    with pytest.raises(DataError, match=r"2 files of .* in split test are not those"):
        load_dataset(checked, "test")
    with pytest.raises(DataError, match="has the classes AnnualCrop, Forest"):
        load_dataset(Manifest.model_validate(base | changes))


def test_torchvision_downloads_in_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Slow(torchvision.datasets.VisionDataset):
        classes, labels = ("a",), np.zeros(2, dtype=np.int64)
        data = np.zeros((2, 4, 4), dtype=np.uint8)

        def __init__(self, root: str, download: bool = False) -> None:
            if (Path(root) / "slow").exists():
                return
            if not download:
                raise RuntimeError("not here")
            log.append("begins")
            time.sleep(0.2)
            (Path(root) / "slow").touch()
            log.append("ends")

    monkeypatch.setattr(torchvision.datasets, "EuroSAT", Slow)
    base = load_manifest("digits").model_dump(exclude={"stand_in"})
    source = {"kind": "torchvision", "dataset": "EuroSAT", "args": {"train": [{}]}}
    splits = {"train": {"size": 2, "how": "x"}}
    manifest = Manifest.model_validate(base | {"source": source, "classes": ["a"], "splits": splits})
    with ThreadPoolExecutor(3) as pool:
        assert [len(found) for found in pool.map(load_dataset, [manifest] * 3)] == [2, 2, 2]
    assert log == ["begins", "ends"]


def test_a_half_unpacked_dataset_of_torchvision_is_not_whole() -> None:
    """Torchvision takes its list of files for the files."""
    root = data_dir() / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, i in (("train", 1), ("test", 2)):
        (root / "meta" / f"{split}.json").write_text(json.dumps({"apple_pie": [f"apple_pie/{i}", f"apple_pie/{i}0"]}))
    save(root / "images" / "apple_pie" / "1.jpg")
    manifest = load_manifest("food101").model_copy(update={"classes": ["apple pie"]})
    with pytest.raises(DataError, match=r"1 of 2 files are missing .* such as food-101/images/apple_pie/10\.jpg"):
        load_dataset(manifest)


def test_libraries_that_images_are_read_with_and_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("av", "h5py", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    manifests = map(load_manifest, list_manifests())
    found = {manifest.id: missing_library(manifest) for manifest in manifests if missing_library(manifest)}
    assert found == {"kinetics700": "av", "ucf101": "av", "pcam": "h5py", "sun397": "datasets"}
    monkeypatch.setitem(sys.modules, "av", json)  # any module will do
    assert missing_library(load_manifest("ucf101")) == ""
