"""Exports: the layouts as the documentation of the other tools gives them, read by a reader written from that."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.cli import main
from labkit.errors import DataError
from labkit.own.clustering import Clustering
from labkit.own.exports import export
from tests.unit.own.results import make_result

FILES = ("a.png", "deep/a.png", "deep/b.c.png", "deep/b.png", "no ending", 'new\nline,"quote".png', "-rf.png", "z.png")
LABELS = (0, 0, 0, 2, 2, 5, 5, -1)
NAMES = {0: "shoes", 2: "test tube", 5: "shoes"}
CONTENT = {name: i for i, name in enumerate(FILES)}
# in the documentation of huggingface/datasets: folders that begin or end with such a word are splits
SPLITS = {"train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"}


@pytest.fixture
def result(tmp_path: Path) -> Clustering:
    made = make_result(tmp_path / "photos", FILES, LABELS, NAMES)
    for i, path in enumerate(made.paths):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path, "PNG")
    return made


def which(path: Path) -> int:
    """The number of the image in a file."""
    with Image.open(path) as image:
        return image.getpixel((0, 0))[0]  # type: ignore[index]


def read_imagefolder(root: Path) -> dict[int, tuple[str, str]]:
    """Number: (label in the table, folder), as the documentation of `imagefolder` says: every image below the folder of
    the split, with the row of metadata.csv whose file_name is its path from there."""
    content = (root / "train" / "metadata.csv").read_text("utf-8")
    rows = {row["file_name"]: row for row in csv.DictReader(io.StringIO(content, newline=""))}
    images = {p.relative_to(root / "train").as_posix(): p for p in root.rglob("*") if p.suffix == ".png"}
    assert set(rows) == set(images)
    for name in rows:  # no folder below train may look like a split
        for part in Path(name).parent.parts:
            assert not set(re.split(r"[-._ 0-9]", part.lower())) & SPLITS, part
    return {which(path): (rows[name]["label"], Path(name).parent.name) for name, path in images.items()}


def read_fiftyone(root: Path) -> dict[int, tuple[str, float, str]]:
    """Number: (label, confidence, original), as the documentation of FiftyOneImageClassificationDataset says."""
    content = json.loads((root / "labels.json").read_text("ascii"))
    assert set(content) == {"classes", "labels"}
    images = {path.stem: path for path in (root / "data").iterdir()}
    assert len(images) == len(list((root / "data").iterdir()))  # a key stands for one image
    assert set(images) == set(content["labels"])
    return {
        which(images[key]): (content["classes"][row["label"]], row["confidence"], row["attributes"]["original"])
        for key, row in content["labels"].items()
    }


@pytest.mark.parametrize("how", ["copy", "link"])
def test_imagefolder(result: Clustering, tmp_path: Path, how: str) -> None:
    assert export(result, tmp_path / "new", "imagefolder", how) == {}
    assert read_imagefolder(tmp_path / "new") == {
        **dict.fromkeys((0, 1, 2), ("shoes", "shoes")),
        **dict.fromkeys((3, 4), ("test tube", "cluster 2")),
        **dict.fromkeys((5, 6), ("shoes 2", "shoes 2")),
    }
    assert all(p.is_symlink() == (how == "link") for p in (tmp_path / "new").rglob("*.png"))


@pytest.mark.parametrize("how", ["copy", "link"])
def test_fiftyone(result: Clustering, tmp_path: Path, how: str) -> None:
    assert export(result, tmp_path / "new", "fiftyone", how) == {}
    found = read_fiftyone(tmp_path / "new")
    assert {k: label for k, (label, _, _) in found.items()} == {
        **dict.fromkeys((0, 1, 2), "shoes"),
        **dict.fromkeys((3, 4), "test tube"),
        **dict.fromkeys((5, 6), "shoes 2"),
    }
    assert found[0][1:] == (0.5, "a.png")
    assert found[6][2] == "./-rf.png"


@pytest.mark.parametrize("layout", ["imagefolder", "fiftyone"])
def test_the_same_call_goes_on_and_another_is_refused(result: Clustering, tmp_path: Path, layout: str) -> None:
    new = tmp_path / "new"
    export(result, new, layout)
    before = {path: path.read_bytes() for path in new.rglob("*") if path.is_file()}
    gone = next(path for path in before if path.suffix == ".png")
    gone.unlink()
    (new / ".export.abcdefgh").mkdir()  # of a run that was killed
    export(result, new, layout)
    assert {path: path.read_bytes() for path in new.rglob("*") if path.is_file()} == before
    assert not (new / ".export.abcdefgh").exists()
    (new / "mine.txt").touch()
    with pytest.raises(DataError, match=r"holds other files or another export, such as mine\.txt"):
        export(result, new, layout)
    with pytest.raises(DataError, match="is not a folder"):
        export(result, new / "mine.txt", layout)
    with pytest.raises(DataError, match="find each image twice"):
        export(result, result.root / "new", layout)


@pytest.mark.parametrize("layout", ["imagefolder", "fiftyone"])
def test_what_cannot_be_exported_is_not_listed(result: Clustering, tmp_path: Path, layout: str) -> None:
    result.paths[0].unlink()
    assert list(export(result, tmp_path / "new", layout)) == [result.paths[0]]
    read = read_imagefolder if layout == "imagefolder" else read_fiftyone
    assert set(read(tmp_path / "new")) == {1, 2, 3, 4, 5, 6}
    result.images["cluster"] = -1
    with pytest.raises(DataError, match="nothing to export"):
        export(result, tmp_path / "other", layout)


def test_another_layout_is_named(result: Clustering, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="imagefolder, fiftyone"):
        export(result, tmp_path / "new", "coco")


@pytest.mark.skipif(os.name == "nt", reason="names of Windows")
def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    files = [os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png"), "con.png", "a:b.png", "=cmd().png"]
    result = make_result(tmp_path / "photos", files, [0] * 5, {0: "=x"})
    for i, path in enumerate(result.paths):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path, "PNG")
    export(result, tmp_path / "a", "imagefolder")
    assert read_imagefolder(tmp_path / "a") == dict.fromkeys(range(5), ("x", "x"))
    names = {path.name for path in (tmp_path / "a" / "train" / "x").iterdir()}
    assert names == {"\ufffd.png", "\ufffd (2).png", "_con.png", "a_b.png", "cmd().png"}
    assert {path.name for path in (tmp_path / "a" / "train").iterdir()} == {"x", "metadata.csv"}
    export(result, tmp_path / "b", "fiftyone")
    assert {label for label, _, _ in read_fiftyone(tmp_path / "b").values()} == {"x"}


def test_the_command(result: Clustering, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result.save(tmp_path / "out")
    command = ["export", str(tmp_path / "out"), "--to", str(tmp_path / "new"), "--format"]
    assert main([*command, "imagefolder", "--link"]) == 0
    assert "7 images in" in capsys.readouterr().out
    assert main([*command, "fiftyone"]) == 2
    assert "holds other files" in capsys.readouterr().err
