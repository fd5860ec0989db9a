"""Decoding: levels, HEIC and AVIF, animations, smaller JPEGs, damage; all as files that people have."""

from __future__ import annotations

import builtins
import logging
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import labkit.data.decoding
import labkit.data.formats
import labkit.data.levels
from labkit.data.decoding import plain_image, read_image, use_image
from labkit.data.images import ImageDataset
from labkit.errors import DataError
from labkit.spaces.geometry import Geometry, Preprocess, Squash, least_side

RAMP = np.linspace(0, 1, 2400).reshape(40, 60)


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.data.levels, "_told", set())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


# levels


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_a_file_of_16(tmp_path: Path, bits: int, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    levels = RAMP * (2**bits - 1)
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / f"a.{suffix}")
    with caplog.at_level(logging.WARNING):
        found = pixels(tmp_path / f"a.{suffix}")
        pixels(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(found[..., 0], RAMP * 255, atol=1.01)
    assert found.max() == 255
    assert len(caplog.records) == (0 if bits == 16 else 1)
    assert bits == 16 or f"levels of at most {bits} bits in a file of more: {2**bits - 1:,} is white" in caplog.text


@pytest.mark.parametrize(
    ("levels", "expected", "rule"),
    [
        (RAMP * 4000 - 1000, RAMP * 255, "the lowest of an image is black and its highest white"),
        (RAMP * 100_000, RAMP * 255, "the lowest of an image is black"),
        (RAMP * 0 - 5, RAMP * 0, "the lowest of an image is black"),
        (RAMP * 0 + 70_000, RAMP * 0 + 255, "the lowest of an image is black"),
    ],
)
def test_whole_levels_of_any_range(
    tmp_path: Path, levels: np.ndarray, expected: np.ndarray, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(levels.astype(np.int32)).save(tmp_path / "ct.tif")
    np.testing.assert_allclose(pixels(tmp_path / "ct.tif")[..., 0], expected, atol=1.01)
    assert rule in caplog.text


@pytest.mark.parametrize(
    ("levels", "expected", "rule"),
    [
        (RAMP, RAMP * 255, "1 is white"),
        (RAMP * 0.5, RAMP * 127.5, "1 is white"),
        (RAMP * 30 + 280, RAMP * 255, "the lowest of an image is black"),
        (RAMP * 2 - 1, RAMP * 255, "the lowest of an image is black"),
    ],
)
def test_floating_point_levels(
    tmp_path: Path, levels: np.ndarray, expected: np.ndarray, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_allclose(pixels(tmp_path / "float.tif")[..., 0], expected, atol=1.01)
    assert rule in caplog.text


def test_levels_that_are_no_numbers() -> None:
    levels = np.array([[np.nan, np.inf, -np.inf, 10, 20]], np.float32)
    assert np.asarray(plain_image(Image.fromarray(levels))).tolist() == [[0, 255, 0, 0, 255]]
    assert np.asarray(plain_image(Image.fromarray(np.full((1, 2), np.nan, np.float32)))).tolist() == [[0, 0]]


def png_of_16_bits(levels: np.ndarray) -> bytes:
    """A PNG of colors (h, w, 3 or 4) with 16 bits a channel, which Pillow cannot write."""
    height, width, channels = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiff_of_16_bits(levels: np.ndarray, order: str) -> bytes:
    """The same as a TIFF whose bytes are in this order, "<" or ">"."""
    height, width, channels = levels.shape
    data = levels.astype(f"{order}u2").tobytes()
    n_tags = 10
    bits = 8 + 2 + 12 * n_tags + 4
    start = bits + 2 * channels
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 2), (273, start), (277, channels), (278, height)]
    tags += [(279, len(data)), (284, 1)]
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3, channels, value)
        if tag == 258
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, n_tags)
    return head + entries + bytes(4) + struct.pack(f"{order}{channels}H", *[16] * channels) + data


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["png", "png with opacity", "tiff <", "tiff >"])
def test_colors_of_16_bits_that_use_fewer(
    tmp_path: Path, kind: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labkit.data.levels, "BAND", 200)
    colors = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1] / 2], axis=2)
    levels = np.rint(colors * (2**bits - 1)).astype(np.int64)
    if kind == "png with opacity":
        levels = np.dstack([levels, np.full(RAMP.shape, 65535)])
    path = tmp_path / "a.png"
    path.write_bytes(png_of_16_bits(levels) if "png" in kind else tiff_of_16_bits(levels, kind[-1]))
    np.testing.assert_allclose(pixels(path), colors * 255, atol=1.01)


def test_opacity_of_fewer_bits_is_scaled_as_the_colors_are(tmp_path: Path) -> None:
    levels = np.full((2, 2, 4), 4095)
    levels[..., 1:3] = 0
    levels[1, :, 3] = 0
    (tmp_path / "a.png").write_bytes(png_of_16_bits(levels))
    assert pixels(tmp_path / "a.png")[:, 0].tolist() == [[255, 0, 0], [255, 255, 255]]


# formats


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "heic"])
def test_every_image_is_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif suffix == "avif":
        pytest.importorskip("PIL._avif")
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = 255, 0, 0
    upright[16:, 24:] = 0, 0, 255
    turns = Image.Transpose
    undo = {2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE}
    undo |= {6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270}
    lying = Image.fromarray(upright) if orientation == 1 else Image.fromarray(upright).transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / f"a.{suffix}", exif=exif.tobytes(), quality=100)
    found = pixels(tmp_path / f"a.{suffix}")
    assert found.shape == upright.shape
    corners = found[[4, 4, -5, -5], [4, -5, 4, -5]].astype(int)
    np.testing.assert_allclose(corners, upright[[4, 4, -5, -5], [4, -5, 4, -5]].astype(int), atol=40)


def test_heic_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", (40, 30), (10, 200, 30))
    image.save(tmp_path / "a.jpg", format="HEIF")
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg")[8, 8], (10, 200, 30), atol=8)


def test_heic_where_nobody_asked_for_it_before(tmp_path: Path) -> None:
    """In a process of its own: the reader of HEIC is loaded with the first such file, and not before."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(tmp_path / "IMG_1.HEIC")
    code = f"""
import pathlib, sys
import labkit, labkit.data.decoding
from PIL import Image
assert "pillow_heif" not in sys.modules
print(labkit.data.decoding.read_image(pathlib.Path({str(tmp_path / "IMG_1.HEIC")!r})).size)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(40, 30)"


@pytest.mark.parametrize(
    ("start", "package", "message"),
    [
        (b"\0\0\0\x18ftypheic", "pillow_heif", "it is a HEIC file, which the package pillow-heif reads"),
        (b"\0\0\0\x20ftypavif", "pillow_avif", "it is an AVIF file, which this Pillow does not read"),
    ],
)
def test_where_a_reader_is_missing_the_message_tells_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, package: str, message: str
) -> None:
    real = builtins.__import__

    def imported(name: str, *rest: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", imported)
    monkeypatch.setattr(labkit.data.formats, "_pillow_reads_avif", lambda: False)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "photo.HEIC").write_bytes(start + bytes(64))
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "photo.HEIC")
    assert 'Install it: pip install "labkit[photos]"' in str(caught.value)


def test_of_several_images_in_one_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (600, 500), (200, 30, 30)), Image.new("RGB", (600, 500), (30, 30, 200))
    for name in ("a.mpo", "a.tif", "a.gif", "a.png", "a.webp"):
        first.copy().save(tmp_path / name, save_all=True, append_images=[second.copy()])
        for at_least in (None, 100):
            image = read_image(tmp_path / name, at_least)
            np.testing.assert_allclose(np.asarray(image)[20, 20], (200, 30, 30), atol=4)
    assert read_image(tmp_path / "a.mpo", 100).size == (150, 125)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
@pytest.mark.parametrize("n_empty", [1, 3])
def test_frames_that_are_empty_are_passed_over(tmp_path: Path, suffix: str, n_empty: int) -> None:
    empty, full = Image.new("RGBA", (48, 48), (0, 0, 0, 0)), Image.new("RGBA", (48, 48), (200, 30, 30, 255))
    almost = empty.copy()
    almost.putpixel((3, 3), (0, 0, 255, 255))  # so that frames are not joined
    frames = [empty] * n_empty + [full, almost]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_allclose(pixels(tmp_path / f"a.{suffix}")[20, 20], (200, 30, 30), atol=4)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_what_is_empty_all_over_is_white(tmp_path: Path, suffix: str) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / f"a.{suffix}")
    assert pixels(tmp_path / f"a.{suffix}").min() == 255


def test_palette_with_opacity_and_cmyk(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (10, 200, 30, 255))
    image.putpixel((0, 0), (10, 200, 30, 0))
    image.quantize(4).save(tmp_path / "palette.png")
    assert pixels(tmp_path / "palette.png")[0, :2].tolist() == [[255, 255, 255], [10, 200, 30]]
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    np.testing.assert_allclose(pixels(tmp_path / "cmyk.jpg")[8, 8], (255, 0, 0), atol=4)
    assert read_image(tmp_path / "cmyk.jpg", at_least=4).size == (4, 4)


def test_text_of_any_size_beside_whole_pixels(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 1_500_000, zip=True)
    Image.new("RGB", (48, 48), (10, 200, 30)).save(tmp_path / "a.png", pnginfo=info)
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.tif"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image", b"<html>404</html>", whole[:10]):
        (tmp_path / name).write_bytes(content)
        for at_least in (None, 16):
            with pytest.raises(DataError, match=rf"{name} cannot be read") as caught:
                read_image(tmp_path / name, at_least)
            assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="cannot be read"):
            ImageDataset.from_files([tmp_path / name])[0]


def test_an_image_larger_than_its_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.ico", sizes=[(64, 64)])
    assert read_image(tmp_path / "a.ico").size == (64, 64)
    content = bytearray((tmp_path / "a.ico").read_bytes())
    content[6:8] = b"\x08\x08"  # the PNG in it stays as it is
    (tmp_path / "a.ico").write_bytes(content)
    monkeypatch.setattr(labkit.data.decoding, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="it has 64 x 64 pixels, expected at most 1,000"):
        read_image(tmp_path / "a.ico")


# smaller JPEGs


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("at_least", "size"), [(None, (1000, 800)), (801, (1000, 800)), (800, (1000, 800))])
def test_a_jpeg_is_no_smaller_than_is_needed(
    tmp_path: Path, at_least: int | None, size: tuple[int, int], progressive: bool
) -> None:
    Image.new("RGB", (1000, 800)).save(tmp_path / "a.jpg", progressive=progressive)
    assert read_image(tmp_path / "a.jpg", at_least).size == size


@pytest.mark.parametrize(
    ("at_least", "size"), [(400, (500, 400)), (399, (500, 400)), (200, (250, 200)), (100, (125, 100)), (5, (125, 100))]
)
def test_a_jpeg_is_decoded_smaller(tmp_path: Path, at_least: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1000, 800)).save(tmp_path / "a.jpg")
    Image.new("RGB", (1000, 800)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (1000, 800)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.jpg", at_least).size == size
    assert read_image(tmp_path / "turned.jpg", at_least).size == size[::-1]
    assert read_image(tmp_path / "a.png", at_least).size == (1000, 800)
    assert use_image(tmp_path / "a.jpg", lambda image: image.size, at_least) == size


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (Geometry(256, 224), 512),
        (Geometry(32, 32), 256),
        (Squash(28), 256),
        (Squash(200), 400),
        (lambda image: image, None),
    ],
)
def test_what_a_geometry_needs(geometry: Any, expected: int | None) -> None:
    assert least_side(geometry) == Preprocess(geometry).at_least == expected


def test_what_libraries_preprocessing_needs() -> None:
    from torchvision import transforms as t

    assert least_side(t.Compose([t.Resize(300), t.CenterCrop(224)])) == 600
    assert least_side(t.Compose([t.Resize((200, 300))])) == 600
    assert least_side(t.Compose([t.CenterCrop(224), t.Resize(100)])) is None  # the crop counts pixels
    assert least_side(t.Compose([t.RandomResizedCrop(100)])) is None
    assert least_side(t.Compose([])) is None


def test_a_dataset_hands_on_what_is_needed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1030, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((2400, 2060)).save(tmp_path / "a.jpg")
    dataset, seen = ImageDataset.from_files([tmp_path / "a.jpg"]), []

    def geometry(image: Image.Image) -> Image.Image:
        seen.append(image.size)
        return image

    class Needy(Preprocess):
        at_least = 500

    dataset.use(0, Needy(geometry))
    dataset.use(0, Preprocess(geometry))
    assert seen == [(600, 515), (2400, 2060)]
    small = dataset.use(0, Preprocess(Geometry(256, 224))).astype(int)
    assert np.abs(small - Preprocess(Geometry(256, 224))(dataset[0][0])).mean() < 4


# memory


def peak(path: Path, call: str) -> float:
    """Bytes that a process of its own needs at most for a call on an image, beyond what it had before (Linux)."""
    code = f"""
import re, pathlib
from PIL import Image
from torchvision.transforms import functional
from labkit.data.decoding import use_image
from labkit.spaces.geometry import Geometry, Preprocess, Squash
Image.init()
path = pathlib.Path({str(path)!r})
highest = lambda: int(re.findall("VmHWM:\\\\s+([0-9]+)", pathlib.Path("/proc/self/status").read_text())[0])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = highest()
{call}
print(1024 * (highest() - before))"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")
def test_a_line_takes_no_gigabytes(tmp_path: Path) -> None:
    Image.new("RGB", (1, 20_000)).save(tmp_path / "line.png")
    for geometry in ("Geometry(256, 224)", "Squash(64)"):
        assert peak(tmp_path / "line.png", f"use_image(path, Preprocess({geometry}))") < 60e6


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")
def test_a_photograph_takes_little_memory_where_little_is_needed(tmp_path: Path) -> None:
    gray = (np.add.outer(np.arange(3000), np.arange(4000)) % 256).astype(np.uint8)
    Image.fromarray(gray).convert("RGB").save(tmp_path / "a.jpg")
    whole = peak(tmp_path / "a.jpg", "use_image(path, Preprocess(Geometry(256, 224)), None)")
    needed = peak(tmp_path / "a.jpg", "p = Preprocess(Geometry(256, 224)); use_image(path, p, p.at_least)")
    assert needed < 30e6 < whole


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")
def test_threads_do_not_keep_what_large_images_took(tmp_path: Path) -> None:
    gray = (np.add.outer(np.arange(3000), np.arange(3000)) % 256).astype(np.uint8)
    Image.fromarray(gray).convert("RGB").save(tmp_path / "a.bmp")
    call = """
from concurrent.futures import ThreadPoolExecutor
from labkit.data import decoding
decoding.ALONE = 1
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda i: use_image(path, Preprocess(Squash(64))), range(16)))"""
    assert peak(tmp_path / "a.bmp", call) < 1.5 * 10 * gray.size


def test_room_is_shared_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.data.decoding, "ALONE", 10)
    room, held, most, lock = labkit.data.decoding._Room(), [], [], threading.Lock()

    def work(pixels: int) -> None:
        with room.take(pixels):
            with lock:
                held.append(pixels)
                most.append(sum(held) if len(held) > 1 else 0)
            time.sleep(0.01)
            with lock:
                held.remove(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (4, 5, 25, 6, 3, 11, 1, 10, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(most) == 9
    assert 0 < max(most) <= 10


@pytest.mark.timeout(20)
def test_who_looks_at_an_image_may_read_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.data.decoding, "ALONE", 10)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert use_image(tmp_path / "a.png", lambda image: read_image(tmp_path / "a.png").size) == (4, 4)


# identity


def test_features_of_an_older_way_of_decoding_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    files = ImageDataset.from_files([tmp_path / "a.png"])
    array = ImageDataset(np.zeros(1, np.int64), ["a"], array=np.zeros((1, 4, 4), np.uint8))
    before, same = files.identity, array.identity
    monkeypatch.setattr("labkit.data.images.DECODING", labkit.data.decoding.DECODING + 1)
    assert files.identity != before
    assert array.identity == same  # these pixels are as they are
