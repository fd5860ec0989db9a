"""Files and values that nobody vouches for: an answer at once, never a hang, a traceback or the machine's memory."""

from __future__ import annotations

import gzip
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import urllib.error
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torchvision.datasets
import yaml
from PIL import Image, PngImagePlugin

import labkit.data.datasets
import labkit.data.decoding
import labkit.data.folders
import labkit.data.levels
import labkit.pocket
from labkit.data.datasets import load_dataset, read_idx
from labkit.data.decoding import plain_image, read_image, use_image
from labkit.data.images import ImageDataset
from labkit.data.manifests import load_manifest
from labkit.data.schema import Manifest
from labkit.errors import (
    DataError,
    LabkitError,
    ManifestError,
    did_you_mean,
    nearest,
    quote,
    reason,
    shorten,
    shown,
    suggestion,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pipes, links, odd bytes and memory as Linux has them")


# quotes


class Evil(dict):
    def items(self):  # type: ignore[no-untyped-def]
        raise RuntimeError("no")


class Long:
    def __repr__(self) -> str:
        pytest.fail("the repr of an unknown object was built")


ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cat", "'cat'"),
        ({"train": True}, "{'train': True}"),
        ([], "[]"),
        (set(), "set()"),
        (ENDLESS, "[[[…]]]"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, …]"),
        (10**5000, "a whole number of 16610 bits"),  # Python refuses to write its digits
        (np.int64(4), "4"),
        (np.float64(0.5), "0.5"),
        (np.zeros((3, 4)), "ndarray of shape (3, 4) and type float64"),
        (Evil(a=1), "<Evil>"),
        (Long(), "<Long>"),
    ],
    ids=lambda value: type(value).__name__,  # pytest cannot write all of them
)
def test_quotes(value: object, expected: str) -> None:
    assert quote(value) == expected


@pytest.mark.parametrize("text", ["x" * 10**7, "\ud800\n\x1b[31m" * 40, "'" * 61, "\u202e" * 30, b"\xff" * 10**7])
def test_a_quote_is_short_printable_and_can_be_written(text: str | bytes) -> None:
    assert len(quote(text)) <= 60
    assert quote(text).isprintable()
    quote(text).encode()


def test_a_shortened_text_keeps_its_ends() -> None:
    assert shorten("cat") == "cat"
    assert shorten("a\nb") == "a\\nb"
    assert shorten("a" * 30 + "b" * 10**6 + "c" * 30, 21) == "aaaaaaaaaa…cccccccccc"


def test_the_nearest_of_known_names() -> None:
    known = ["cifar10", "CIFAR100", "mnist"]
    assert nearest("Cifar_100", known, most=3) == ["CIFAR100", "cifar10"]  # the nearest first, as they are written
    assert nearest("Cifar_100", known) == ["CIFAR100"]
    assert nearest("Cifar_100", known, most=3, cutoff=0.95) == []
    assert nearest("", known) == nearest("x", []) == []
    assert suggestion(["a", "b"]) == " Did you mean a or b?"
    assert did_you_mean("mnits", known) == " Did you mean 'mnist'?"
    assert did_you_mean("zebra", known) == suggestion([]) == ""


def test_the_reason_of_a_wrapped_error_is_the_innermost() -> None:
    def raised(url: str) -> Exception:
        with pytest.raises(requests.RequestException) as caught:
            requests.get(url, timeout=5)
        return caught.value

    with socket.socket() as free:  # bound and not listening: refused at once
        free.bind(("127.0.0.1", 0))
        told = reason(raised(f"http://127.0.0.1:{free.getsockname()[1]}/all.zip"))
    assert told.startswith("ConnectionError: ")
    assert "refused" in told
    assert "all.zip" not in told  # an address that the message has said
    assert "Connection(" not in told
    assert " at 0x" not in told
    lookup = urllib.error.URLError(socket.gaierror(-3, "no name"))
    assert reason(lookup) == "URLError: [Errno -3] no name"
    assert reason(RuntimeError("one\n  two")) == "RuntimeError: one two"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(OSError("x" * 10_000))) <= 300


def test_bytes_of_a_name_that_are_no_text() -> None:
    assert shown("r\udce9s") == "r\\xe9s"
    assert shown("rés") == "rés"


# YAML

GOOD = {
    "id": "mine",
    "title": "Mine",
    "task": "any",
    "classes": ["cat", "dog"],
    "splits": {"train": {"size": 2, "how": "all"}},
    "source": {"kind": "folder", "path": "pictures"},
    **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
}


def manifest_file(folder: Path, content: str | bytes | dict) -> Path:
    path = folder / "mine.yaml"
    content = yaml.safe_dump(content) if isinstance(content, dict) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BILLION_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BILLION_LAUGHS, "line 1, column 4: &a is not allowed here; write the value out"),
        ("id: *a", "line 1, column 5: *a is not allowed here"),
        ("<<: *a", "*a is not allowed here"),
        ("[" * 10**5, "more than 32 levels within each other"),
        ("a: " * 40, "mapping values are not allowed here"),
        ("size: 0x_", "line 1, column 7: the value '0x_' cannot be read; put text in quotes"),
        ("size: " + "9" * 5000, "line 1, column 7: the number '999"),
        ("size: 0x" + "f" * 5000, "has 5002 characters"),
        ("size: " + "1:" * 400_000 + "1", "has 800001 characters"),
        ("size: !!int ''", "the value '' cannot be read"),
        ("size: !!timestamp x", "the value 'x' cannot be read"),
        ("size: !!bool x", "the value 'x' cannot be read"),
        ("x: !!python/object:os.system {}", "could not determine a constructor for the tag"),
        ("x: !" + "a" * 10**5 + " b", "could not determine a constructor for the tag '!a"),
        ("? [a, b]\n: c\n? {d: e}\n: f", "found unhashable key"),
        ('x: "\\UFFFFFFFF"', "OverflowError"),
        ("%YAML 1." + "1" * 5000 + "\n--- a", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        (b"a: \xff", "byte 3 is not UTF-8"),
        (b"a: \x00", "unacceptable character #x0000"),
        (b"#" + b"a" * 10**6, "is larger than 1,000,000 bytes"),
        ("? " + "k" * 10**5 + "\n: 1", "Allowed here: id, title"),
        ("\n".join(f"k{i}: 1" for i in range(5000)), "and 4989 more."),
    ],
    ids=lambda value: "",
)
def test_yaml_that_is_a_trap(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = manifest_file(tmp_path, content)
    start = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 4000
    assert not re.search(r"(.)\1{60}", str(caught.value)), "quotes more than 60 characters"
    assert time.monotonic() - start < 5


def test_what_looks_like_a_date_is_text(tmp_path: Path) -> None:
    for text in ("2024-99-99", "2024-01-01"):
        manifest = load_manifest(manifest_file(tmp_path, yaml.safe_dump(GOOD).replace("id: mine", f"id: {text}")))
        assert manifest.id == text


@on_linux
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(ManifestError, match="there is no dataset"):
        load_manifest(tmp_path / "mine.yaml")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ManifestError, match="cannot be read: it is a pipe"):
        labkit.data.manifests.read_yaml(tmp_path / "mine.yaml", Manifest)
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"x\.jpg cannot be read .*it is a pipe"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"x\.jpg cannot be read .*it is a pipe"):
        _ = ImageDataset(np.zeros(1, np.int64), ["a"], files=[tmp_path / "x.jpg"]).identity
    os.mkfifo(tmp_path / "labels.gz")
    with pytest.raises(DataError, match=r"labels cannot be read .*it is a pipe"):
        read_idx(tmp_path, "labels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"kind": "folder", "path": "~nouser-of-that-name/x"}}, "there is no folder"),
        ({"source": {"kind": "folder", "path": "a\0b"}}, "there is no folder"),
        ({"source": {"kind": "folder", "path": "\ud800"}}, "there is no folder"),
        ({"source": {"kind": "folder", "path": "a" * 5000}}, "there is no folder"),
        ({"source": {"kind": "folder", "path": 3}}, "`source.path`: got 3, expected a folder of images"),
        ({"source": {"kind": "manual", "path": "~nouser", "instructions": "Ask."}}, "Ask."),
        ({"source": {"kind": "manual", "path": "a" * 5000, "instructions": "Ask."}}, "Ask."),
        ({"source": {"kind": "torchvision", "dataset": "utils", "args": {"train": [{}]}}}, "no dataset 'utils'"),
        ({"source": {"kind": "torchvision", "dataset": "os", "args": {"train": [{}]}}}, "no dataset 'os'"),
        (
            {"source": {"kind": "torchvision", "dataset": "wrap_dataset_for_transforms_v2", "args": {"train": [{}]}}},
            "no",
        ),
        ({"source": {"kind": "torchvision", "dataset": "CIFAR10", "args": {"train": []}}}, "at least one"),
        ({"source": {"kind": "huggingface", "repo": "/etc", "image": "a", "splits": {"train": "t"}}}, "owner/name"),
        ({"source": {"kind": "huggingface", "repo": "../x", "image": "a", "splits": {"train": "t"}}}, "owner/name"),
        (
            {"source": {"kind": "builtin", "builder": "fashion-mnist"}, "splits": {"val": {"size": 1, "how": "x"}}},
            "asks for val",
        ),
        ({"splits": {"../../x": {"size": 1, "how": "x"}}}, "expected a name of letters, digits"),
        ({"splits": {"train": {"size": 10**30, "how": "x"}}}, "there is no folder"),
        ({"id": "a" * 300}, "a short name"),
        ({"classes": ["x"] * 50_000}, "`classes` names x more than once"),
        ({"published": [{"method": "a", "metric": "nmi", "value": float("nan"), "source": "x"}]}, "a fraction"),
    ],
    ids=lambda value: "",
)
def test_odd_manifests_are_explained(tmp_path: Path, changes: dict, message: str) -> None:
    path = manifest_file(tmp_path, GOOD | changes)
    with pytest.raises(LabkitError) as caught:
        load_dataset(path, next(iter((GOOD | changes)["splits"])))
    assert message in str(caught.value)
    str(caught.value).encode()


def test_a_folder_whose_name_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "~odd").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "~odd" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("~odd")) == 1
    source = {"kind": "folder", "path": "~odd"}
    sizes = {"train": {"size": 1, "how": "x"}}
    assert len(load_dataset(manifest_file(tmp_path, GOOD | {"source": source, "splits": sizes}))) == 1


@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "\ud800", b"digits", 5, None])
def test_what_names_no_dataset(name: Any) -> None:
    with pytest.raises(ManifestError, match=r"got .* for a dataset|there is no dataset"):
        load_manifest(name)


def test_checksums_of_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "pictures" / "a.png")
    manifest = load_manifest(tmp_path / "pictures")
    for name in ("/dev/zero", "a\0b", "nowhere"):
        with pytest.raises(DataError, match="is missing"):
            load_dataset(manifest.model_copy(update={"sha256": {name: "0" * 64}}))


# datasets of other libraries


def test_the_hub_runs_no_programs_and_reads_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(
        path: str, name: str | None, *, split: str, revision: str | None, trust_remote_code: bool | None = None
    ) -> Any:
        asked.append(trust_remote_code)
        return [{"img": Image.new("L", (2, 2))}] * 2

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    source = {"kind": "huggingface", "repo": "me/mine", "image": "img", "splits": {"train": "train"}}
    manifest = load_manifest(manifest_file(tmp_path, GOOD | {"source": source}))
    assert len(load_dataset(manifest)) == 2
    assert asked == [False]
    (tmp_path / "me" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="would read instead of the Hugging Face hub"):
        load_dataset(manifest)


def test_a_dataset_of_torchvision_without_class_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Boxes(torchvision.datasets.VisionDataset):
        def __init__(self, root: str, target: Any) -> None:
            self.targets = {"text": ["a", "b"], "boxes": [[1, 2], [3, 4]], "none": [None, None]}[target]

        def __len__(self) -> int:
            return 2

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", Boxes)
    for target in ("text", "boxes", "none"):
        source = {"kind": "torchvision", "dataset": "VOCDetection", "args": {"train": [{"target": target}]}}
        manifest = load_manifest(manifest_file(tmp_path, GOOD | {"source": source}))
        with pytest.raises(DataError, match=r"no class number for each image|Expected a class number for each"):
            load_dataset(manifest)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "split,label\ntrain,x\n", "split,label\ntrain\n", "\xff", "split,label\n" + "train,0\n" * 99999],
)
def test_a_damaged_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "fashion-mini").mkdir()
    (tmp_path / "fashion-mini" / "index.csv").write_text(text, "latin-1")
    Image.new("L", (56, 28)).save(tmp_path / "fashion-mini" / "train.png")
    monkeypatch.setattr(labkit.pocket, "DATA", tmp_path)
    manifest = Manifest.model_validate(load_manifest("fashion-mini").model_dump() | {"sha256": {}})
    with pytest.raises(DataError):
        load_dataset(manifest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a complete idx file"),
        (b"\0\0\x08", "not a complete idx file"),
        (b"\0\0\x08\x01", "not a complete idx file"),
        (b"\0\0\x08\xff" + b"\1" * 1020, "not a complete idx file"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "its header says 340,282,366,604,025,813,516,997,721,482,669,850,645 bytes"),
        (b"\0\0\x08\x02\x80\0\0\0\x80\0\0\0", "its header says 4,611,686,018,427,387,916 bytes"),
        (b"\0\0\x08\x01\0\0\0\4abc", "not a complete idx file"),
        (b"\0\0\x08\x01\0\0\0\4abcde", "not a complete idx file"),
        (b"\0\0\x08\x01\0\0\0\4abcd" + b"\0" * 50_000_000, "not a complete idx file"),
    ],
    ids=lambda value: "",
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_idx_file(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    if packed:
        (tmp_path / "x.gz").write_bytes(gzip.compress(content, 1))
    else:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path, "x")


def test_images_and_labels_of_other_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    (tmp_path / "fashion-mnist").mkdir()

    def write(kind: str, *shape: int) -> None:
        content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(int(np.prod(shape)))
        (tmp_path / "fashion-mnist" / f"train-{kind}-ubyte").write_bytes(content)

    sizes = {"train": {"size": 3, "how": "x"}}
    manifest = Manifest.model_validate(load_manifest("fashion-mnist").model_dump() | {"sha256": {}, "splits": sizes})
    for images, labels in (((2, 4, 4), (3,)), ((3,), (3,)), ((3, 0, 4), (3,)), ((3, 4, 4), (3, 1))):
        write("images-idx3", *images)
        write("labels-idx1", *labels)
        with pytest.raises(DataError, match=r"Expected (one for each|pixels|a class number)"):
            load_dataset(manifest)


# folders


def save(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level, 9, 9)).save(path)
    return path


@on_linux
def test_what_is_no_image_file_is_left_out_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pictures"
    whole = save(root / "a.png")
    (root / "b.jpg").symlink_to(tmp_path / "gone" / "b.jpg")
    (root / "c.jpg").symlink_to("c.jpg")
    (root / "class").symlink_to(tmp_path / "gone")
    (root / "notes.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(root / "d.jpg")
    (root / "e.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(root)  # the name of a socket is short
        server.bind("f.png")
    dataset = load_dataset(root)
    assert dataset.files == [whole]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, "it is said once, though the folder is read twice"
    assert "6, namely b.jpg (the link leads nowhere: No such file or directory), c.jpg (the link leads" in messages[0]
    assert messages[0].endswith("and 3 more.")
    (root / "d.jpg").unlink()
    load_manifest(root)
    assert "5, namely" in caplog.records[-1].getMessage()


@on_linux
def test_a_folder_that_cannot_be_opened_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat", "dog", "fox"):
        save(tmp_path / "pictures" / name / "a.png")
    real = os.scandir

    def scandir(path: Any) -> Any:  # tests may run as root, who can open all
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    closed = {"dog"}
    assert load_manifest(tmp_path / "pictures").classes == ["cat", "fox"]
    assert "dog (it cannot be opened: Permission denied)" in caplog.text
    closed = {"cat", "dog", "fox"}
    with pytest.raises(DataError, match=r"holds no images.*Left out: cat \(it cannot be opened: Permission denied\)"):
        load_manifest(tmp_path / "pictures")


@on_linux
def test_folders_nested_deeper_than_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        Path("a").mkdir()
        os.chdir("a")
    save(Path("deep.png"))
    save(tmp_path / "a" / "b.png")
    try:
        found = labkit.data.folders.scan_folder(tmp_path)["train"]
    finally:  # pytest could not take them away
        Path("deep.png").unlink()
        (tmp_path / "a" / "b.png").unlink()
        for _ in range(1200):
            os.chdir("..")
            Path("a").rmdir()
    assert {path.name for path, _ in found} == {"b.png", "deep.png"}


ODD = os.fsdecode(b"r\xe9s")


@on_linux
def test_names_in_any_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / ODD
    for name in (ODD, "other"):
        save(root / name / os.fsdecode(b"caf\xe9.png"))
    (root / "other" / os.fsdecode(b"\xe9.png")).symlink_to("/nowhere")
    manifest = load_manifest(root)
    assert manifest.classes == ["other", "r\\xe9s"]
    assert manifest.title == "r\\xe9s"
    assert load_dataset(manifest).labels.tolist() == [0, 1]
    assert len(load_dataset(manifest).identity) == 64
    assert load_dataset(manifest)[0][0].size == (4, 4)
    caplog.text.encode()
    path = manifest_file(
        root, GOOD | {"classes": manifest.classes, "source": {"kind": "folder", "path": "."}, "prompts": "p"}
    )
    assert load_dataset(path).labels.tolist() == [0, 1]
    (root / "other" / "bad.png").write_text("no")
    with pytest.raises(DataError, match=r"r\\xe9s/other/bad\.png cannot be read"):
        load_dataset(
            manifest.model_copy(update={"splits": {"train": manifest.splits["train"].model_copy(update={"size": 3})}})
        )[0]


@on_linux
def test_two_names_that_read_alike(tmp_path: Path) -> None:
    save(tmp_path / ODD / "a.png")
    save(tmp_path / "r\\xe9s" / "a.png")
    with pytest.raises(DataError, match="two folders whose names read"):
        load_manifest(tmp_path)


# images


def test_other_formats_are_named_whatever_the_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (16, 16)).save(path, format="EPS")
    with pytest.raises(
        DataError, match=r"x\.jpg cannot be read: its format seems to be EPS, which labkit does not read"
    ):
        read_image(path)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="it is damaged or not an image"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        read_image(path)


@pytest.mark.parametrize(
    "name",
    ["AVIF", "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP"],
)
def test_formats_that_are_read_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    if name == "AVIF":
        pytest.importorskip("PIL._avif")
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / "x.jpg", format=name)
    middle = np.array(read_image(tmp_path / "x.jpg").resize((16, 16)))[8, 8]
    np.testing.assert_allclose(middle, (10, 200, 30), atol=4)


@pytest.mark.parametrize("suffix", ["tga", "vda", "sgi", "rgb", "dib", "pcx"])
def test_formats_that_only_a_name_tells(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(np.array(read_image(tmp_path / f"x.{suffix}"))[8, 8], (10, 200, 30))


def test_whatever_a_decoder_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    for error in (MemoryError(), KeyError("x"), zlib.error("y"), RecursionError(), AssertionError()):

        def load(self: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
        with pytest.raises(DataError, match=r"a\.png cannot be read"):
            read_image(tmp_path / "a.png")


def header_of_png(width: int, height: int) -> bytes:
    """A file that says this size, and has no more than that."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((12_000, 12_000), r"12,000 x 12,000 pixels, expected at most 112,000,000 in all and 65,535 a side\. Save it"),
        ((65_536, 1), "65,536 x 1 pixels"),
        ((2**31 - 1, 2**31 - 1), "cannot be read"),
        ((0, 5), "cannot be read"),
    ],
)
def test_sizes_are_bounded_before_decoding(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    (tmp_path / "a.png").write_bytes(header_of_png(*size))
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "a.png")


def test_a_file_of_many_bytes(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(labkit.data.decoding.MAX_BYTES + 1)  # takes no room
    with pytest.raises(DataError, match="more than 1,073,741,824 bytes"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_warnings_of_pillow_are_neither_exceptions_nor_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a warning from 100, an error from 200
    Image.new("RGB", (11, 11)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == (11, 11)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x0f\1\2\0\xff\xff\xff\0\xff\0\0\0"  # ends in its first tag
    Image.new("RGB", (10, 8)).save(tmp_path / "b.jpg", exif=exif)
    assert read_image(tmp_path / "b.jpg").size == (10, 8)
    Image.new("RGB", (10, 8)).save(tmp_path / "c.jpg", exif=b"Exif\0\0nonsense")
    assert read_image(tmp_path / "c.jpg").size == (10, 8)
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)  # other warnings are as they were


def test_a_png_with_more_text_than_pillow_takes(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 1_500_000, zip=True)
    info.add_itxt("more", "x" * 1_500_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    ramp.save(tmp_path / "a.png", pnginfo=info, icc_profile=bytes(2_000_000), exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(ramp)[::-1, ::-1])
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_image(tmp_path / "a.png")


def old_plain_image(image: Image.Image) -> Image.Image:
    """As it was before it had to save memory."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16"])
def test_saving_memory_changes_no_pixel(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.data.levels, "BAND", 200)  # three rows at a time, and two at the end
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 60, 4), dtype=np.uint8)
    pixels[:25, :, 3] = 255
    if mode.startswith("I"):
        image = Image.fromarray(rng.integers(0, 65_536, (50, 60)).astype(np.uint16 if mode == "I;16" else np.int32))
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(pixels[..., i]) for i in range(3)])
    else:
        base = Image.fromarray(pixels)
        image = base if mode == "RGBA" else base.convert("LA" if "A" in mode else "RGB").convert(mode)
    for transparency in (None, 7) if mode in ("P", "L") else (None,):
        if transparency is not None:
            image.info["transparency"] = transparency
        ours, theirs = plain_image(image), old_plain_image(image)
        assert ours.mode == theirs.mode
        difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
        assert difference.max() <= (1 if "A" in mode and mode != "LAB" else 0)
        assert not difference[:25].any()  # which is opaque


def peak_of_reading(path: Path) -> float:
    """Bytes that a process of its own needs at most to read an image, beyond what it had before (Linux)."""
    code = f"""
import re, pathlib
from PIL import Image
from labkit.data.decoding import read_image
Image.init()
highest = lambda: int(re.findall("VmHWM:\\\\s+([0-9]+)", pathlib.Path("/proc/self/status").read_text())[0])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = highest()
read_image(pathlib.Path({str(path)!r}))
print(1024 * (highest() - before))
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@on_linux
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "I", "CMYK", "LAB", "turned"])
def test_ten_bytes_a_pixel_are_enough(tmp_path: Path, mode: str) -> None:
    side, path, options = 3000, tmp_path / "a.tif", {}
    gray = Image.fromarray((np.add.outer(np.arange(side), np.arange(side)) % 256).astype(np.uint8))
    if mode.startswith("I"):
        image = Image.fromarray(np.asarray(gray).astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", (gray, gray, gray))
    elif mode == "turned":
        image, path, options = gray.convert("RGBA"), tmp_path / "a.png", {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
    else:
        image = gray.convert(mode)
        path, options = (
            (path, {}) if mode == "CMYK" else (tmp_path / "a.png", {"transparency": 3} if mode == "P" else {})
        )
    image.save(path, **options)
    assert peak_of_reading(path) < 10 * side**2 + 16e6


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.data.decoding, "ALONE", 15)
    path = save(tmp_path / "a.png")
    busy, most, plain = 0, 0, labkit.data.decoding.plain_image

    def slow(image: Image.Image) -> Image.Image:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.02)
        busy -= 1
        return plain(image)

    def at_once() -> int:
        nonlocal most
        most = 0
        threads = [threading.Thread(target=read_image, args=(path,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most

    monkeypatch.setattr(labkit.data.decoding, "plain_image", slow)
    assert at_once() == 1
    monkeypatch.setattr(labkit.data.decoding, "ALONE", 31)
    assert at_once() == 1
    monkeypatch.setattr(labkit.data.decoding, "ALONE", 32)  # of 16 pixels each
    assert at_once() == 2


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes of it changed, left out or put in."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        i = int(rng.integers(0, min(len(data), 200) if rng.random() < 0.7 else len(data)))
        kind = rng.integers(0, 4)
        if kind == 0:
            data[i] = rng.integers(0, 256)
        elif kind == 1:
            data[i : i + 4] = rng.choice([0, 1, 127, 128, 255]).astype(np.uint8).tobytes() * 4
        elif kind == 2:
            del data[i : i + int(rng.integers(1, 20))]
        else:
            data[i:i] = rng.bytes(int(rng.integers(1, 20)))
        data = data or bytearray(b"x")
    return bytes(data)


def samples() -> dict[str, bytes]:
    """One small file in every way that Pillow writes the formats, and in one that we do not read."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    rgb, exif = Image.fromarray(pixels[..., :3]), Image.Exif()
    exif[0x0112] = 6
    made = {"BMP": {}, "GIF": {}, "JPEG": {"exif": exif}, "PNG": {"exif": exif}, "PPM": {}, "TIFF": {"exif": exif}}
    made |= {"WEBP": {"exif": exif}, "EPS": {}, "AVIF": {}, "DDS": {}, "JPEG2000": {}, "TGA": {}, "ICO": {}}
    found: dict[str, bytes] = {}
    for name, options in made.items():
        file = io.BytesIO()
        rgb.save(file, format=name, **options)
        found[name] = file.getvalue()
    for name, image, options in (
        ("progressive", rgb, {"format": "JPEG", "progressive": True}),
        ("palette", rgb.convert("P"), {"format": "PNG", "transparency": 3}),
        ("animation", rgb, {"format": "GIF", "save_all": True, "append_images": [rgb.rotate(90)]}),
        ("packed", rgb, {"format": "TIFF", "compression": "tiff_lzw"}),
        ("levels", Image.fromarray(pixels[..., 0].astype(np.uint16)), {"format": "TIFF"}),
        ("alpha", Image.fromarray(pixels), {"format": "WEBP", "lossless": True}),
    ):
        file = io.BytesIO()
        image.save(file, **options)
        found[name] = file.getvalue()
    return found


@pytest.mark.parametrize("name", samples())
def test_damaged_images_are_read_or_explained(tmp_path: Path, name: str) -> None:
    rng, whole, path = np.random.default_rng(0), samples()[name], tmp_path / "x.png"
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        try:
            assert read_image(path).mode == "RGB"
        except DataError as error:
            str(error).encode()


def test_damaged_manifests_are_read_or_explained(tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), yaml.safe_dump(GOOD).encode()
    for _ in range(150):
        path = manifest_file(tmp_path, damaged(whole, rng))
        try:
            load_dataset(path)
        except LabkitError as error:
            str(error).encode()


# one identity of a set of images


def files_dataset(root: Path) -> ImageDataset:
    return load_dataset(root)


def test_identity_of_files_follows_content_not_place(tmp_path: Path) -> None:
    for i, name in enumerate(("cat/a.png", "dog/b.png")):
        os.utime(save(tmp_path / "one" / name, i), ns=(5, 5))
        os.utime(save(tmp_path / "two" / name, 7 - i), ns=(5, 5))
    one, two = files_dataset(tmp_path / "one"), files_dataset(tmp_path / "two")
    assert [p.stat().st_size for p in one.files or []] == [p.stat().st_size for p in two.files or []]
    assert one.identity != two.identity  # equal names, sizes and times
    assert one.subset([1, 0]).identity != one.identity
    assert one.subset([0, 1]).identity == one.identity
    assert ImageDataset(-one.labels, ["x"], files=one.files).identity == one.identity  # labels never enter
    identity = one.identity
    (tmp_path / "one").rename(tmp_path / "moved")
    assert files_dataset(tmp_path / "moved").identity == identity
    os.utime(tmp_path / "moved" / "cat" / "a.png", ns=(5, 6))
    assert files_dataset(tmp_path / "moved").identity != identity
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        _ = one.subset([0]).identity  # it is no longer there


def test_identity_of_a_large_file_samples_its_middle_and_end(tmp_path: Path) -> None:
    def identity(content: bytes) -> str:
        (tmp_path / "a.bmp").write_bytes(content)
        os.utime(tmp_path / "a.bmp", ns=(5, 5))
        return ImageDataset(np.zeros(1, np.int64), ["a"], files=[tmp_path / "a.bmp"]).identity

    seen = [identity(bytes(60_000))]
    for place in (0, 30_001, 59_999):
        content = bytearray(60_000)
        content[place] = 1
        seen.append(identity(bytes(content)))
    assert len(set(seen)) == 4


def test_identity_of_images_in_memory_and_of_decoders() -> None:
    array = np.arange(40 * 9, dtype=np.uint16).astype(np.uint8).reshape(40, 3, 3)
    labels = np.zeros(40, np.int64)
    whole = ImageDataset(labels, ["a"], array=array)
    assert whole.identity == ImageDataset(labels + 1, ["a", "b"], array=array.copy()).identity
    assert whole.identity != ImageDataset(labels, ["a"], array=array[::-1]).identity
    assert whole.identity != ImageDataset(labels, ["a"], array=array.reshape(40, 1, 9)).identity

    def decoded(change: Callable[[int], int], n: int = 40) -> str:
        return ImageDataset(labels[:n], ["a"], decode=lambda i: Image.fromarray(array[change(i)])).identity

    assert decoded(lambda i: i) == decoded(lambda i: i)
    assert len({decoded(lambda i: i), decoded(lambda i: 39 - i), decoded(lambda i: i, 39)}) == 3


@pytest.mark.parametrize("rows", [[99], ["a"], [None], [10**30], [[0, "b"]]])
def test_rows_that_no_subset_has(rows: Any) -> None:
    with pytest.raises(DataError, match="Expected rows from 0 to 1"):
        ImageDataset(np.zeros(2, np.int64), ["a"], array=np.zeros((2, 3, 3), np.uint8)).subset(rows)


def test_a_change_anywhere_in_a_small_file_is_another_identity(tmp_path: Path) -> None:
    black = np.zeros((128, 128, 3), np.uint8)
    changed = black.copy()
    changed[20:22] = 255  # in the middle of 49 KB, with the same size and time
    found = set()
    for name, pixels in (("a", black), ("b", changed)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.bmp")
        os.utime(tmp_path / name / "x.bmp", (10**9, 10**9))
        found.add(ImageDataset(np.zeros(1, int), ["a"], files=[tmp_path / name / "x.bmp"]).identity)
    assert len(found) == 2


def test_an_identity_is_that_of_the_pixels_as_they_are_now_and_of_where_they_come_from() -> None:
    dataset = ImageDataset(np.zeros(2, int), ["a"], array=np.zeros((2, 4, 4), np.uint8))
    before = dataset.identity
    dataset.array[0] = 9  # type: ignore[index]
    assert dataset.identity != before
    far = [
        ImageDataset(np.zeros(200, int), ["a"], decode=lambda i: Image.new("L", (2, 2), 7), origin=origin)
        for origin in ("revision 1", "revision 2")
    ]
    assert far[0].identity != far[1].identity
    assert ImageDataset(np.zeros(0, int), [], files=[]).identity


@pytest.mark.parametrize("rows", [[True, False], [0.5], ["0"], np.array([False, True])])
def test_a_subset_takes_row_numbers_alone(rows: Any) -> None:
    dataset = ImageDataset(np.zeros(2, int), ["a"], array=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match="Expected rows from 0 to 1"):
        dataset.subset(rows)


def test_what_a_function_makes_of_an_image_is_not_blamed_on_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    calls = []

    def fail(image: Image.Image) -> None:
        calls.append(image.size)
        raise ValueError("of mine")

    with pytest.raises(ValueError, match="of mine"):
        use_image(tmp_path / "a.png", fail)
    assert calls == [(4, 4)]


@pytest.mark.timeout(20)
def test_a_comment_without_end_is_not_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"P5\n#" + b"x" * 50_000_000)
    with pytest.raises(DataError, match="its header has no end"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.ppm").write_bytes(b"P5\n# made by hand\n2 2\n255\n" + bytes(4))
    assert read_image(tmp_path / "b.ppm").size == (2, 2)


@on_linux
def test_names_do_not_steer_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "\x1b]0;mine\x07.png").symlink_to(tmp_path / "gone")
    load_manifest(tmp_path)
    assert "\x1b" not in caplog.text
    assert "\\x1b]0;mine\\x07.png" in caplog.text
