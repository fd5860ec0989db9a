"""Inputs on which labkit once fell short, each for its whole kind, through the command line or the call that met them.

Rows of the same list that have their tests elsewhere: other images under the same names for `labkit must`
(tests/unit/own/test_self_train.py), words that no terminal can show, words that are none, empty arguments
(tests/unit/cli/test_cli.py), a hub that is out of reach (tests/unit/cli/test_manners.py).
"""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_digits

import labkit as lk
from labkit import cli
from labkit.data.decoding import read_image
from labkit.data.folders import list_images
from labkit.errors import DataError, FitError, LabkitError
from labkit.own.clustering import load_clustering

ROOT = Path(lk.__file__).parents[1]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))


def plain(folder: Path, n: int = 8) -> Path:
    """A folder of n images, each of one color."""
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (48, 48), (30 * i % 255, 99, 255 - 30 * i % 255)).save(folder / f"{i:04d}.png")
    return folder


def clustered(folder: Path, classes: int = 2, *more: str) -> dict[str, dict[str, str]]:
    """The rows of labels.csv that `labkit cluster` writes, by file."""
    out = folder.parent / "clusters"
    given = ["cluster", str(folder), "--classes", str(classes), "--backbone", "pixels", "--restarts", "2"]
    assert cli.main([*given, "--out", str(out), *more]) == 0
    with (out / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    for row in rows.values():
        assert int(row["cluster"]) >= 0
        assert 0 <= float(row["confidence"]) <= 1
    for path in out.iterdir():  # never NaN in a file
        if path.suffix in (".csv", ".json"):
            assert not re.search(r"\bnan\b", path.read_text("utf-8").lower()), path.name
    return rows


# ---------------------------------------------------------------------------------------------------- few, or all alike


@pytest.mark.parametrize(("n", "classes"), [(4, 2), (8, 3)])
@pytest.mark.filterwarnings("default::labkit.errors.CollapseWarning")
def test_few_images_become_clusters(n: int, classes: int, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    for i, digit in enumerate(load_digits().images[:n]):
        Image.fromarray((digit * 15.9).astype(np.uint8)).save(folder / f"{i:02d}.png")
    rows = clustered(folder, classes)
    assert len(rows) == n
    assert len({row["cluster"] for row in rows.values()}) > 1


@pytest.mark.filterwarnings("default::labkit.errors.CollapseWarning")
def test_images_that_are_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "identical"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (48, 48), (90, 99, 165)).save(folder / f"{i}.png")
    rows = clustered(folder)
    assert len({row["cluster"] for row in rows.values()}) == 1
    assert "only 1 of 2 clusters have images" in capsys.readouterr().out


@pytest.mark.parametrize("n", [2, 3, 127, 128])
@pytest.mark.parametrize("d", [3, 128, 300])
@pytest.mark.filterwarnings("default::labkit.errors.CollapseWarning")
def test_covariances_of_any_rank(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, min(n, d, 2))) @ rng.normal(size=(min(n, d, 2), d))  # rank 2 at most
    turtle = lk.Turtle(2, n_restarts=2, random_state=0).fit(X.astype(np.float32))
    assert np.isfinite(turtle.predict_proba(X.astype(np.float32))).all()


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "valid", "test"), {"train", "val", "test"}),
        (("Train", "Test"), {"train", "test"}),
        (("training", "validation"), {"train", "val"}),
        (("train", "test", "__MACOSX"), {"train", "test"}),
        (("train", "test", "logs"), None),
    ],
)
def test_names_of_splits_never_become_classes(names: tuple[str, ...], splits: set[str] | None, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    for name in names:
        for c in "ab":
            (folder / name / c).mkdir(parents=True)
            Image.new("RGB", (48, 48), (200, 9, 9 * ord(c) % 255)).save(folder / name / c / "0.png")
    if splits is None:
        with pytest.raises(DataError, match="logs"):
            lk.load_manifest(folder)
    else:
        manifest = lk.load_manifest(folder)
        assert set(manifest.splits) == splits
        assert manifest.classes == ["a", "b"]
    assert len(list_images(folder).files) == 2 * len([name for name in names if name != "__MACOSX"])


def test_a_folder_of_all_kinds_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Endings, names, links, pipes, damage, sub-folders: every image that can be read has a row, all else a reason."""
    folder = plain(tmp_path / "all")
    plain(folder / "holiday", 2)  # images beside folders
    for name in (b"r\xe9s", b"other"):
        plain(folder / os.fsdecode(name), 1)
    whole = (folder / "0003.png").read_bytes()
    Image.open(folder / "0000.png").save(folder / "jpeg.jfif", "JPEG")
    odd = ["new\nline.png", '"quote", comma.png', "=1+1.png", "<img src=x>.png", "-rf.png", os.fsdecode(b"caf\xe9.png")]
    for name in ("noending", *odd):
        (folder / name).write_bytes(whole)
    bad = {
        "truncated.png": whole[: len(whole) // 2],
        "zero.png": b"",
        "text.png": b"not an image",
        "page.jpg": b"<html>",
    }
    bad["photo.HEIC"] = b"\0\0\0\x18ftypheic" + bytes(64)
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "z.jpg").symlink_to("/nowhere/a.jpg")
    os.mkfifo(folder / "x.jpg")
    (folder / "again").symlink_to(folder)
    (folder / "notes.docx").write_bytes(b"PK")
    rows = clustered(folder)
    said = capsys.readouterr().out
    named = {"jpeg.jfif", "noending", "./=1+1.png", "./-rf.png", "caf\\xe9.png", "new\nline.png", "r\\xe9s/0000.png"}
    assert named <= set(rows)
    assert len(rows) == 8 + 2 + 1 + 1 + 2 + len(odd)
    assert all(f"left out: {name}: " in said for name in (*bad, "z.jpg", "x.jpg"))
    assert "1 .docx" in said
    for page in ("clusters.html", "map.html"):
        assert b"<img src=x>" not in (tmp_path / "clusters" / page).read_bytes()
    assert cli.main(["cluster", str(folder), "--classes", "2", "--backbone", "pixels", "--strict"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in bad)


def test_a_strip_takes_no_gigabytes(tmp_path: Path) -> None:
    folder = plain(tmp_path / "strip")
    Image.new("RGB", (1, 20_000)).save(folder / "line.png")
    code = (
        "import resource, sys\n"
        "from labkit import cli\n"
        "from labkit.own import cluster\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert cli.main(['cluster', 'strip', '--classes', '2', '--restarts', '1']) == 0\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "line.png" in (tmp_path / "clusters" / "labels.csv").read_text("utf-8")
    assert int(done.stdout.splitlines()[-1]) < 1500  # MB


@pytest.mark.filterwarnings("default")
def test_levels_beyond_eight_bits_are_seen(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 2400).reshape(40, 60)
    for name, top in (("12bit", 4095), ("16bit", 65535)):
        Image.fromarray((ramp * top).astype(np.uint16)).save(tmp_path / f"{name}.tif")
    Image.fromarray((ramp * 4000 - 1000).astype(np.int32)).save(tmp_path / "ct.tif")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    for path in sorted(tmp_path.glob("*.tif")):
        gray = np.asarray(read_image(path).convert("L")).astype(int)
        assert gray.max() - gray.min() > 200, path.name
        assert (np.diff(gray.ravel()) >= 0).all(), path.name


def test_chunks_and_frames_beside_whole_pixels(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 1_500_000, zip=True)
    Image.new("RGB", (48, 48), (9, 9, 9)).save(tmp_path / "bigtext.png", pnginfo=info)
    assert np.asarray(read_image(tmp_path / "bigtext.png")).max() == 9
    frames = [Image.new("RGBA", (48, 48), (0, 0, 0, 0))] + [Image.new("RGBA", (48, 48), (200, 30, 30, 255))] * 3
    frames[0].save(tmp_path / "emptyfirst.gif", save_all=True, append_images=frames[1:], duration=50)
    red, green, _ = np.asarray(read_image(tmp_path / "emptyfirst.gif"))[24, 24]
    assert (red > 150, green < 100) == (True, True)


@pytest.fixture
def uneven(tmp_path: Path) -> tuple[Path, list[int]]:
    """Images of three colors, 180, 16 and 4 of them, and which is which."""
    folder = tmp_path / "uneven"
    folder.mkdir()
    kinds = [0] * 180 + [1] * 16 + [2] * 4
    for i, kind in enumerate(kinds):
        color = [(220, 40, 40), (40, 200, 60), (50, 60, 220)][kind]
        pixels = np.full((48, 48, 3), color) + np.random.default_rng(i).normal(0, 12, (48, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
    return folder, kinds


def test_uneven_classes_stay_whole(uneven: tuple[Path, list[int]]) -> None:
    folder, kinds = uneven
    rows = clustered(folder, 3)
    found = [int(rows[f"{i:03d}.png"]["cluster"]) for i in range(200)]
    assert lk.clustering_accuracy(kinds, found) > 0.95  # of gray values, which hardly tell red from blue


def test_a_class_that_the_default_space_splits_is_hinted_at(
    uneven: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, kinds = uneven
    out = folder.parent / "out"
    assert cli.main(["cluster", str(folder), "--classes", "3", "--out", str(out)]) == 0
    found = load_clustering(out)
    for pair in found.report["look_alikes"]:  # both are of the large class
        assert all(np.asarray(kinds)[found.members(cluster)].max() == 0 for cluster in pair)
    whole = lk.clustering_accuracy(kinds, found.labels) > 0.95
    assert whole or "look alike: if they are one class, merge them" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- calls


def test_large_class_numbers_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + 2**30, before[1]))
    try:
        assert lk.clustering_accuracy([2**29] * 2, [0, 4]) == 0.5
        assert lk.clustering_accuracy([7, 2**62], [2**61, 3]) == 1.0
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture(scope="module")
def fitted() -> tuple[lk.Turtle, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(3 * i, 1, (30, 8)) for i in range(3)]).astype(np.float32)
    return lk.Turtle(3, n_restarts=2, random_state=0).fit(X), X, np.repeat(["cat", "dog", "ox"], 30)


def test_scores_take_one_space_as_it_is(fitted: tuple[lk.Turtle, np.ndarray, np.ndarray]) -> None:
    turtle, X, y = fitted
    scores = lk.label_free_scores(turtle, X)
    assert len(scores) == 2
    np.testing.assert_array_equal(scores, lk.label_free_scores(turtle, [X]))
    assert lk.generalization_score(X, y) == lk.generalization_score([X], y)


@pytest.mark.parametrize("restart", [9, -1, 2, 0.5, "best"])
def test_a_restart_that_there_is_not(restart: Any, fitted: tuple[lk.Turtle, np.ndarray, np.ndarray]) -> None:
    turtle, X, _ = fitted
    with pytest.raises(FitError, match="Expected a whole number from 0 to 1"):
        turtle.predict(X, restart=restart)


def test_a_probe_of_labels_that_are_texts(fitted: tuple[lk.Turtle, np.ndarray, np.ndarray]) -> None:
    _, X, y = fitted
    probe = lk.LinearProbe().fit(X, y)
    assert set(probe.predict(X)) == {"cat", "dog", "ox"}
    assert probe.score(X, y) > 0.95
    assert probe.classes_.tolist() == ["cat", "dog", "ox"]


@pytest.mark.parametrize(
    "classes", [{"a", "b"}, frozenset("ab"), {"a": {"x", "y"}, "b": ["z"]}, [{"a"}, {"b"}], "ab", 3, ["a", ""]]
)
def test_words_without_an_order_are_refused(classes: Any) -> None:
    with pytest.raises(LabkitError, match="Expected"):
        lk.Prompts.from_words(classes)


def test_prompts_that_are_a_list_and_a_backbone_that_is_a_name() -> None:
    with pytest.raises(FitError, match=r"prompts is .*Expected what load_prompts or Prompts.from_words gives"):
        lk.MUST("pocket-vit", ["a", "b"]).fit(lk.load_dataset("digits"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"backbone is 'pixels'. Expected what load_backbone"):
        lk.extract_features("pixels", lk.load_manifest("digits"))  # type: ignore[arg-type]


def test_nothing_is_nan_where_numbers_are_tiny_or_huge() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1e30):
        turtle = lk.Turtle(2, n_restarts=1, random_state=0).fit((rng.normal(size=(20, 5)) * scale).astype(np.float32))
        assert not any(math.isnan(value) for value in turtle.confidence_)
