"""The audit flags what it should, says it in words, and leaves the folder as it was."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import labkit as lk
from labkit.own import audit as audits
from labkit.own.audit import audit, first_alike, flags
from labkit.own.reading import read_folder


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Sharp colored boxes, like no other scene."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(25):
        x, y = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        width, height = rng.integers(15, 120, 2)
        pixels[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    (root / "cats").mkdir(parents=True)
    for i in range(12):
        scene(i).save(root / "cats" / f"{i:02d}.png")
    return root


def test_each_flag_and_its_words(photos: Path) -> None:
    scene(3).save(photos / "cats" / "copy of 3.bmp")  # the same pixels in another format
    scene(5).resize((160, 120)).save(photos / "smaller 5.jpg", quality=70)
    scene(6).crop((4, 3, 318, 238)).save(photos / "trimmed 6.png")
    scene(30).filter(ImageFilter.GaussianBlur(6)).save(photos / "soft.png")
    scene(31, (40, 31)).save(photos / "small.png")
    Image.new("RGB", (300, 200), "white").save(photos / "white.png")
    Image.new("RGB", (300, 200), "black").save(photos / "black.png")
    read = read_folder(photos, [lk.load_backbone("pixels", device="cpu")])
    found = audit(read)
    words = [
        {path.name: flags(row) for path, row in zip(read.files, rows, strict=True)}
        for rows in (found.itertuples(), (row for _, row in found.iterrows()))
    ]
    assert words[0] == words[1]
    assert {name: said for name, said in words[0].items() if said} == {
        "copy of 3.bmp": "duplicate of cats/03.png",
        "smaller 5.jpg": "near duplicate of cats/05.png",
        "trimmed 6.png": "near duplicate of cats/06.png",
        "soft.png": "blurred",
        "small.png": "tiny",
        "white.png": "blank",
        "black.png": "blank",
    }


def test_identical_images_are_duplicates_of_the_first(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        scene(1).save(path)
    found = audit(read_folder(photos, [lk.load_backbone("pixels", device="cpu")]))
    assert found["duplicate_of"].tolist() == [-1] + [0] * 11
    assert (found["near_duplicate_of"] == -1).all()


def test_colors_alone_are_no_blank_and_pale_is_not_blurred(photos: Path) -> None:
    gray = scene(40).convert("L")
    same_gray = np.full((*np.asarray(gray).shape, 3), 90, np.uint8)
    same_gray[:, 160:] = (40, 115, 86)  # as light as the other half
    assert np.asarray(Image.fromarray(same_gray).convert("L")).std() < 1
    Image.fromarray(same_gray).save(photos / "colors.png")
    gray.point(lambda level: 120 + level // 8).save(photos / "pale.png")
    read = read_folder(photos, [])
    found = audit(read)
    for name in ("colors.png", "pale.png"):
        assert not found["blank"][read.files.index(photos / name)]
    assert not found["blurred"][read.files.index(photos / "pale.png")]


@pytest.mark.parametrize("turn", ["half", "jpeg", "bright"])
def test_what_changes_little_is_found_by_the_hash_alone(photos: Path, turn: str) -> None:
    image = scene(7)
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=40)
    changed = {
        "half": image.resize((160, 120)),
        "jpeg": Image.open(kept),
        "bright": image.point(lambda level: min(255, level * 11 // 10)),
    }[turn]
    changed.convert("RGB").save(photos / "changed.png")
    read = read_folder(photos, [])
    found = audit(read)
    assert found["like"].tolist() == [""] * 12 + ["cats/07.png"]
    assert found["near_duplicate_of"].tolist()[-1] == read.files.index(photos / "cats" / "07.png")


def test_first_alike_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "CHUNK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    vectors[5] = 0
    skip = rng.random(40) < 0.2
    expected = []
    for i in range(40):
        alike = [
            j
            for j in range(i)
            if not skip[i]
            and not skip[j]
            and vectors[i] @ vectors[j] > 0.8 * np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
        ]
        expected.append(min(alike, default=-1))
    assert first_alike(vectors, 0.8, skip=skip).tolist() == expected


def test_hashes_are_alike_up_to_four_bits(photos: Path) -> None:
    read = read_folder(photos, [])
    for bits in range(8):
        read.facts["hash"] = np.array([0xF0F0 << i for i in range(11)] + [0xF0F0 ^ ((1 << bits) - 1) << 50], np.uint64)
        far = audit(read)["near_duplicate_of"].tolist()[-1] == -1
        assert far == (bits > 4), bits


def test_twenty_thousand_images_need_no_square_of_memory() -> None:
    vectors = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    tracemalloc.start()
    found = first_alike(vectors, 0.999, skip=np.zeros(20_000, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (20_000,)
    assert peak < 150e6


def test_the_folder_is_as_it_was(photos: Path) -> None:
    (photos / "empty.png").touch()

    def listing() -> dict[str, tuple[int, bytes]]:
        files = sorted(photos.rglob("*"))
        return {str(f): (f.stat().st_mtime_ns, b"" if f.is_dir() else f.read_bytes()) for f in files}

    before = listing()
    audit(read_folder(photos, [lk.load_backbone("pixels", device="cpu")]))
    assert listing() == before
