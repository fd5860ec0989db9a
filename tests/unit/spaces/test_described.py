"""Croissant: what we write is what the format's own library reads, without an error or a warning."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from labkit.data.croissant import describe
from labkit.data.datasets import load_dataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.errors import DataError
from labkit.spaces.backbones import load_backbone
from labkit.spaces.described import write_described
from labkit.spaces.features import extract_features

mlc = pytest.importorskip("mlcroissant", reason="needs the extra test")


def read(path: Path, caplog: pytest.LogCaptureFixture):
    """The dataset as mlcroissant reads it; errors raise there, warnings fail here."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        dataset = mlc.Dataset(jsonld=str(path))
    assert not dataset.metadata.ctx.issues.report()
    assert not [record for record in caplog.records if record.name == "absl"]
    return dataset


@pytest.mark.parametrize("name", list_manifests())
def test_every_manifest_validates(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = load_manifest(name)
    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(describe(manifest)), encoding="utf-8")
    dataset = read(path, caplog)
    assert json.loads(path.read_text())["conformsTo"].endswith("/1.1")
    assert dataset.metadata.name == manifest.id
    assert [row["classes/name"] for row in dataset.records("classes")] == manifest.classes
    sizes = {row["splits/name"]: row["splits/size"] for row in dataset.records("splits")}
    assert sizes == {split: of.size for split, of in manifest.splits.items()}


def test_samples_and_features_lie_beside_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = load_manifest("digits")
    path = write_described(manifest, tmp_path / "digits", backbones=["pixels"], device="cpu")
    dataset = read(path, caplog)
    labels = {split: load_dataset(manifest, split).labels for split in ("train", "test")}
    rows = list(dataset.records("samples"))
    for split in ("train", "test"):
        found = [row["samples/label"] for row in rows if row["samples/split"] == split.encode()]
        np.testing.assert_array_equal(found, labels[split])
    first = next(iter(dataset.records("features-pixels-test")))
    features = extract_features(load_backbone("pixels", device="cpu"), manifest, split="test", dtype="float16")
    np.testing.assert_array_equal(np.asarray(first["features-pixels-test/features"]).ravel(), features[0])
    table = pq.read_table(tmp_path / "digits" / "features" / "pixels" / "test.parquet")
    np.testing.assert_array_equal(np.stack(table["features"].to_numpy()), features)
    assert table["label"].to_pylist() == labels["test"].tolist()


def test_a_damaged_table_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_described(load_manifest("digits"), tmp_path, device="cpu")
    samples = tmp_path / "samples.parquet"
    samples.write_bytes(samples.read_bytes()[:-1] + b"?")
    with pytest.raises(Exception, match=r"Download\(samples.parquet\)"):
        next(iter(read(path, caplog).records("samples")))


def test_files_are_named_relative_to_the_folder(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "own" / name)
    write_described(load_manifest(tmp_path / "own"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "samples.parquet").to_pydict()
    assert table["file"] == ["cat/1.png", "dog/2.png", "dog/3.png"]
    assert table["label"] == [0, 1, 1]


def test_what_is_not_here_is_described_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "nothing"))
    path = write_described(load_manifest("dtd"), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["croissant.json"]
    read(path, caplog)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Give another folder"):
        write_described(load_manifest("digits"), tmp_path / "file" / "out")
