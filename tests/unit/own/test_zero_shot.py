"""`labkit zeroshot`: words for the images of a folder, as `ZeroShot` gives them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import labkit as lk
from labkit.cli import main
from labkit.errors import BackboneError, DataError
from labkit.own import zero_shot
from labkit.own.zero_shot import name_folder
from tests import tiny

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, pixels in enumerate(tiny.images(12).array):
        Image.fromarray(pixels).save(folder / f"={i:02d}\n.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def test_words_are_those_of_the_classifier(photos: Path, tmp_path: Path) -> None:
    words = ["=red", "green", "blue"]
    named = name_folder(photos, words, tmp_path / "labels.csv", backbone=tiny.NAME)
    model = lk.load_backbone(tiny.NAME)
    features = lk.extract_features(model, lk.ImageDataset.from_files(named.reading.files), cache=False)
    prompts = lk.Prompts.from_words(words, ("{}", "a photo of a {}."))
    expected = lk.ZeroShot.from_prompts(model, prompts, center="auto").fit(features).predict_proba(features)
    np.testing.assert_allclose(named.probs, expected, atol=1e-3)
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "name", "confidence"]
    assert [row["file"] for row in rows] == [f"./={i:02d}\n.png" for i in range(12)]
    shown = ["'=red", "green", "blue"]
    assert [row["name"] for row in rows] == [shown[k] for k in named.probs.argmax(1)]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(named.probs.max(1), abs=1e-4)
    assert sum(count for _, count in named.counts()) == 12


def test_the_command_says_what_it_is_worth(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["zeroshot", str(photos), "--words", "cat,dog", "--out", str(tmp_path / "l.csv"), "--backbone", tiny.NAME]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "left out: broken.jpg" in said
    assert "cat: " in said
    assert "knows photographs little" not in said
    monkeypatch.setattr(zero_shot, "BUNDLED", tiny.NAME)
    assert main(command) == 0
    assert "--backbone clip-vit-b32" in capsys.readouterr().out


def test_what_cannot_be_named_is_said_first(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two, all different"):
        name_folder(photos, ["cat", "cat"], backbone=tiny.NAME)
    with pytest.raises(BackboneError, match="knows images and no words"):
        name_folder(photos, ["cat", "dog"], backbone="pixels")
    image = photos / "=00\n.png"
    content = image.read_bytes()
    for place in (image, photos / "new.csv"):
        with pytest.raises(DataError, match="the folder of the images, where nothing is changed"):
            name_folder(photos, ["cat", "dog"], place, backbone=tiny.NAME)
    assert not (photos / "new.csv").exists()
    assert image.read_bytes() == content
    with pytest.raises(DataError, match=r"broken\.jpg"):
        name_folder(photos, ["cat", "dog"], backbone=tiny.NAME, strict=True)
