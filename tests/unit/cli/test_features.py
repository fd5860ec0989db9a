"""`labkit features`: shards in a folder, the GPU of each process, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import labkit as lk
from labkit import cli
from labkit.cli.features import own_device


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    for i in range(9):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 20 * i).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    return tmp_path / "photos"


def test_features_of_a_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["features", str(photos), "--backbone", "pixels", "--out", str(out), "--shard", "4", "--dtype", "float32"]
    for _ in range(2):
        assert cli.main(command) == 0
        assert capsys.readouterr().out == f"9 x 784 of float32, 0.0 MB, in {out}\n"
    features = lk.ShardedFeatures.open(out)
    assert (features.shape, features.shard) == ((9, 784), 4)
    expected = lk.extract_features(lk.load_backbone("pixels"), lk.load_dataset(photos))
    np.testing.assert_array_equal(np.asarray(features), expected)


def test_one_process_of_several_speaks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["features", str(photos), "--backbone", "pixels", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_refusals(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, more, said in (
        (photos / "new", [], "lies in"),
        (photos / ".." / "photos" / "new", [], "lies in"),
        (photos, [], "holds no features but 'a'"),
        (tmp_path / "out", ["--split", "valid"], "has no split 'valid'"),
        (tmp_path / "out", ["--shard", "0"], "is not a whole number"),
        (tmp_path / "out", ["--profile", "paper"], "not allowed with"),
    ):
        given = ["features", str(photos), "--backbone", "pixels", "--out", str(out), *more]
        assert cli.main(given) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in photos.iterdir()) == ["a", "b"]


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device() == "auto"
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert own_device() == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device() == "auto"


def test_refusals_of_a_profile(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, more, said in (
        (str(photos), [], "--profile is for datasets. Expected one of birdsnap, caltech101, "),
        ("digits", ["--split", "test"], "Leave out --split and --dtype"),
        ("digits", ["--dtype", "float16"], "Leave out --split and --dtype"),
    ):
        assert cli.main(["features", data, "--profile", "pocket", "--out", str(tmp_path / "out"), *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
