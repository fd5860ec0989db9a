"""Folders of any make: which files are images, what is left out and why, which sub-folders are splits or classes."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from labkit.data.datasets import load_dataset
from labkit.data.folders import Listing, list_images, scan_folder
from labkit.data.formats import ENDINGS, ending
from labkit.data.manifests import load_manifest
from labkit.errors import DataError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes, pipes and links as Linux has them")


def save(path: Path, format: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (10, 99, 200)).save(path, format=format)
    return path


def names(listing: Listing, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in listing.files]


# which files


def test_every_image_below_a_folder_is_listed_once_and_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.jpg", "a/b/c.gif", "A.PNG", "a.png"):
        save(tmp_path / name)
    listing = list_images(tmp_path)
    assert names(listing, tmp_path) == ["A.PNG", "a/b/c.gif", "a/z.jpg", "a.png", "b.png"]
    assert (listing.left_out, listing.others) == ({}, {})


def test_endings_and_no_ending(tmp_path: Path) -> None:
    for name, format in (("a.jfif", "JPEG"), ("b.jpe", "JPEG"), ("noending", "PNG"), ("Shot at 10.21.33", "PNG")):
        save(tmp_path / name, format)
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tmp_path / "phone").write_bytes(b"\0\0\0\x20ftypheic" + bytes(64))
    (tmp_path / "README").write_text("not an image")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "notes.TXT").write_text("not an image")
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "plot.eps").write_text("%!PS")
    listing = list_images(tmp_path)
    assert names(listing, tmp_path) == ["Shot at 10.21.33", "a.jfif", "b.jpe", "noending", "phone", "photo.HEIC"]
    assert listing.others == {"": 2, ".eps": 1, ".mp4": 1, ".txt": 1}
    assert load_manifest(tmp_path).splits["train"].size == 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.gz", ".gz"),
        ("a", ""),
        ("a.", ""),
        (".jpg", ""),
        ("at 10.21.33", ""),
        ("v1.5 final", ""),
        ("a.\n", ""),
        ("a.<img src=x>", ""),
        ("a." + "x" * 200, ""),
        ("a.3gp", ".3gp"),
    ],
)
def test_what_an_ending_is(name: str, expected: str) -> None:
    assert ending(name) == expected


def test_every_ending_that_is_listed_is_one() -> None:
    assert {ending(f"x{suffix}") for suffix in ENDINGS} == ENDINGS


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("__MACOSX/a.png", "@eaDir/a.png/SYNOPHOTO.jpg", ".hidden/a.png", "._a.png", "sub/.cache/a.png"):
        save(tmp_path / name)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_images(tmp_path)
    assert (names(listing, tmp_path), listing.left_out, listing.others) == (["a.png"], {}, {})


@on_linux
def test_what_is_no_file_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "z.jpg").symlink_to("/nowhere/a.jpg")
    (tmp_path / "album").symlink_to("/nowhere/album")
    (tmp_path / "notes.txt").symlink_to("/nowhere/notes.txt")
    (tmp_path / "round.png").symlink_to("round.png")
    os.mkfifo(tmp_path / "x.jpg")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)
        server.bind("s.png")
    listing = list_images(tmp_path)
    assert names(listing, tmp_path) == ["a.png"]
    reasons = {path.name: reason for path, reason in listing.left_out.items()}
    assert set(reasons) == {"z.jpg", "album", "round.png", "x.jpg", "fifo", "zeros.png", "s.png"}
    assert reasons["z.jpg"] == "the link leads nowhere: No such file or directory"
    assert reasons["fifo"] == reasons["x.jpg"] == "it is a pipe, a socket or a device"
    assert listing.others == {".txt": 1}


@on_linux
def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "b.png")
    root = tmp_path / "root"
    save(root / "real" / "a.png")
    (root / "again").symlink_to(root)
    (root / "a link before it").symlink_to(root / "real")
    (root / "other").symlink_to(tmp_path / "elsewhere")
    (root / "up").symlink_to(tmp_path)
    listing = list_images(root)
    assert names(listing, root) == ["other/b.png", "real/a.png"]
    assert {path.name: reason for path, reason in listing.left_out.items()} == {
        "up": "the link leads to a folder that holds this one"
    }


@on_linux
def test_folders_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    closed = save(tmp_path / "closed" / "b.png").parent
    real = os.scandir

    def scandir(path: Path) -> object:  # tests may run as root, who can open all
        if path in blocked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    blocked = {closed}
    assert list_images(tmp_path).left_out == {closed: "it cannot be opened: Permission denied"}
    blocked = {tmp_path}
    with pytest.raises(DataError, match=r"cannot be read: it cannot be opened: Permission denied\. Change its rights"):
        list_images(tmp_path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", save(tmp_path / "a.png")):
        with pytest.raises(DataError, match="there is no folder"):
            list_images(path)
    (tmp_path / "empty").mkdir()
    assert list_images(tmp_path / "empty") == Listing([], {}, {})


# splits and classes


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "valid", "test"), ["train", "val", "test"]),
        (("Train", "Test"), ["train", "test"]),
        (("TRAINING", "Validation"), ["train", "val"]),
        (("training", "testing", "val"), ["train", "val", "test"]),
        (("train", "test", "__MACOSX"), ["train", "test"]),
        (("train", "test", ".cache"), ["train", "test"]),
    ],
)
def test_names_of_splits(tmp_path: Path, folders: tuple[str, ...], expected: list[str]) -> None:
    for folder in folders:
        for name in "ab":
            save(tmp_path / folder / name / "0.png")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run.txt").write_text("no image")
    manifest = load_manifest(tmp_path)
    assert (list(manifest.splits), manifest.classes) == (expected, ["a", "b"])
    for split in expected:
        assert load_dataset(manifest, split).labels.tolist() == [0, 1]


def test_splits_beside_what_is_none(tmp_path: Path) -> None:
    for folder in ("train", "test", "logs"):
        save(tmp_path / folder / "a" / "0.png")
    with pytest.raises(
        DataError, match=r"has the folders test, train, which name splits, and logs, which does not\. E"
    ):
        load_manifest(tmp_path)
    shutil.rmtree(tmp_path / "test")  # one name alone may be that of a class
    assert load_manifest(tmp_path).classes == ["logs", "train"]


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    for folder in ("train", "val", "validation"):
        save(tmp_path / folder / "a" / "0.png")
    with pytest.raises(DataError, match="the folders val and validation, which both name the split val"):
        load_manifest(tmp_path)


def test_images_beside_splits_and_beside_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("overview.png", "train/a/0.png", "train/loose.png", "test/a/0.png"):
        save(tmp_path / name)
    manifest = load_manifest(tmp_path)
    assert load_dataset(manifest, "train").labels.tolist() == [0, -1]
    assert load_dataset(manifest, "test").labels.tolist() == [0]
    assert "overview.png (it lies beside the folders of the splits)" in caplog.text


def test_splits_without_classes(tmp_path: Path) -> None:
    for name in ("train/0.png", "train/1.png", "Test/0.png"):
        save(tmp_path / name)
    manifest = load_manifest(tmp_path)
    assert {split: load_dataset(manifest, split).labels.tolist() for split in manifest.splits} == {
        "train": [-1, -1],
        "test": [-1],
    }


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    for name in ("bus/0.png", "test/0.png", "train/deeper/0.png"):
        save(tmp_path / name)
    with pytest.raises(DataError, match="and bus, which does not"):
        scan_folder(tmp_path)
    shutil.rmtree(tmp_path / "train")
    assert load_manifest(tmp_path).classes == ["bus", "test"]


@on_linux
def test_classes_whose_names_are_not_utf8(tmp_path: Path) -> None:
    for name in (b"r\xe9s", b"other"):
        save(tmp_path / os.fsdecode(name) / "0.png")
    assert load_manifest(tmp_path).classes == ["other", "r\\xe9s"]
    assert len(list_images(tmp_path).files) == 2
