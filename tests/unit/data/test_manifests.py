"""Manifests: the shipped ones are valid and true to their sources, and a wrong one is explained."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from labkit.data.datasets import load_dataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.schema import Manifest
from labkit.errors import DataError, ManifestError

GOOD = {
    "id": "mine",
    "title": "My images",
    "task": "which of two things",
    "classes": ["cat", "dog"],
    "splits": {"train": {"size": 4, "how": "all"}},
    "source": {"kind": "torchvision", "dataset": "CIFAR10", "args": {"train": [{"train": True}]}},
    "license": "unknown",
    "citation": "unknown",
    "homepage": "unknown",
    "published": [{"method": "TURTLE", "metric": "accuracy", "value": 0.5, "source": "a paper"}],
}


def write(folder: Path, data: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def changed(keys: str, value: object) -> dict:
    """GOOD with the value at a dotted key replaced, or removed where the value is ..."""
    data = copy.deepcopy(GOOD)
    place = data
    *path, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    for key in path:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize("name", list_manifests())
def test_shipped_manifest_is_named_as_its_file_and_complete(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.id == name
    assert set(manifest.splits) == {"train", "test"}
    assert manifest.homepage.startswith("https://")


def test_all_eight_datasets_are_shipped() -> None:
    expected = {"fashion-mini", "emoji-unseen", "digits", "fashion-mnist", "cifar10", "stl10", "oxford-pets", "dtd"}
    assert expected <= set(list_manifests())


@pytest.mark.parametrize(
    ("name", "n_classes", "n_train", "n_test"),
    [
        ("fashion-mini", 10, 16000, 2000),
        ("digits", 10, 1437, 360),
        ("emoji-unseen", 14, 1041, 520),
        ("fashion-mnist", 10, 60000, 10000),
        ("cifar10", 10, 50000, 10000),
        ("stl10", 10, 5000, 8000),
        ("oxford-pets", 37, 3680, 3669),
        ("dtd", 47, 3760, 1880),
    ],
)
def test_sizes(name: str, n_classes: int, n_train: int, n_test: int) -> None:
    manifest = load_manifest(name)
    sizes = {split: manifest.splits[split].size for split in manifest.splits}
    assert (manifest.n_classes, sizes) == (n_classes, {"train": n_train, "test": n_test})


@pytest.mark.parametrize(
    ("keys", "value", "named", "cure"),
    [
        ("license", ..., "`license` is missing", "'unknown'"),
        ("licence", "MIT", "`licence`: unknown key. Did you mean 'license'?", "Allowed here: id, title"),
        ("splits.train.sise", 4, "`splits.train.sise`: unknown key. Did you mean 'size'?", "Allowed here: size, how"),
        ("splits.train.size", -4, "`splits.train.size`: got -4", "whole number from 1"),
        ("splits.train.how", ..., "`splits.train.how` is missing", "how the split is made"),
        ("splits", {}, "`splits`: got {}", "at least one split"),
        ("classes", ["cat", 7], "`classes.1`: got 7", "need quotes"),
        ("classes", ["cat", "cat"], "`classes` names cat more than once", "must differ"),
        ("classes", [], "`classes` is empty", "list the class names"),
        (
            "source.kind",
            "torchvison",
            "`source`: got {",
            "builtin, torchvision, huggingface, webdataset, archive, folder or manual",
        ),
        ("source.kind", ..., "`source`: got {", "a mapping with kind"),
        ("source", None, "`source`: got None", "a mapping with kind"),
        ("source.datset", "CIFAR10", "`source.datset`: unknown key. Did you mean 'dataset'?", "dataset, args"),
        ("source.args", {"train": {"train": True}}, "`source.args.train`: got {'train': True}", "one item a call"),
        ("source.args", {"test": [{}]}, "`source.args` is for test, but `splits` has train", "make them agree"),
        ("published.0.value", 57.3, "`published.0.value`: got 57.3", "written 0.573"),
        ("published.0.metric", "acc", "`published.0.metric`: got 'acc'", "mean_per_class"),
        ("sha256", {"a.png": "12"}, "`sha256.a.png`: got '12'", "64 digits"),
        ("id", "My Set", "`id`: got 'My Set'", "a-z, 0-9"),
        ("prompts", 3, "`prompts`: got 3", "relative to this file, or null"),
    ],
)
def test_error_names_file_key_and_cure(tmp_path: Path, keys: str, value: object, named: str, cure: str) -> None:
    path = write(tmp_path, changed(keys, value))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert cure in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    data = changed("license", ...)
    del data["title"]
    with pytest.raises(ManifestError, match=r"(?s)`title` is missing.*`license` is missing"):
        load_manifest(write(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id: [", "is not valid YAML"),
        ("id: a\nid: b\n", "'id' is given twice"),
        ("splits: {train: {size: 1}, train: {size: 2}}", "'train' is given twice"),
        ("", "holds NoneType, expected a mapping with the keys id, title"),
        ("- a\n", "holds list"),
        ("1: a\n", "`1`: got"),
        ("splits: {1: {size: 1, how: x}}\n", "`splits.1"),
    ],
)
def test_text_that_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not valid YAML"):
        load_manifest(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "huggingface", "repo": "me/mine", "image": "image", "splits": {"train": "train"}},
        {"kind": "builtin", "builder": "digits"},
    ],
)
def test_checksums_that_nothing_would_check_are_refused(tmp_path: Path, source: dict) -> None:
    data = GOOD | {"source": source}
    load_manifest(write(tmp_path, data))
    with pytest.raises(ManifestError, match=r"`sha256`.*remove it"):
        load_manifest(write(tmp_path, data | {"sha256": {"a.png": "0" * 64}}))


def test_unknown_name_offers_the_closest() -> None:
    with pytest.raises(ManifestError, match=r"no dataset 'fashion_mini'. Did you mean 'fashion-mini'\?"):
        load_manifest("fashion_mini")


def test_folder_path_is_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / name / f"{i}.png")
    path = write(tmp_path, GOOD | {"source": {"kind": "folder", "path": "pictures"}})
    monkeypatch.chdir("/")
    assert load_dataset(path, "train").labels.tolist() == [0, 0, 1, 1]


def test_a_name_wins_over_a_folder_but_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert load_manifest("digits").splits["train"].size == 1437
    assert load_manifest("./digits").splits["train"].size == 1
    assert load_manifest(Path("digits")).splits["train"].size == 1


def test_manual_source_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    source = {"kind": "manual", "path": "mine", "instructions": "Ask the owner for mine.zip and unpack it there."}
    manifest = load_manifest(write(tmp_path, GOOD | {"source": source}))
    with pytest.raises(DataError, match=r"are not in .*mine\. Ask the owner for mine\.zip"):
        load_dataset(manifest, "train")
    for i, name in enumerate(["cat", "cat", "dog", "dog"]):
        (tmp_path / "data" / "mine" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / "mine" / name / f"{i}.png")
    assert load_dataset(manifest, "train").labels.tolist() == [0, 0, 1, 1]


def test_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_manifest("digits").id = "other"  # type: ignore[misc]


def test_importing_and_reading_manifests_needs_no_torch() -> None:
    code = (
        "import sys; from labkit.data.manifests import load_manifest; load_manifest('dtd'); "
        "print(sorted({'torch', 'torchvision', 'sklearn', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_manifest_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match="titel"):
        Manifest(**GOOD, titel="x")
