"""A folder is read in one pass, once; what cannot be read is left out with its reason, and nothing is changed."""

from __future__ import annotations

import io
import itertools
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

import labkit as lk
from labkit._files import locked_folder
from labkit._saved import write_saved
from labkit.data import decoding
from labkit.errors import DataError
from labkit.own import facts, kept, reading
from labkit.own.reading import Reading, read_folder
from labkit.spaces.backbones import Backbone
from labkit.spaces.features import encode_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def backbones() -> list[Backbone]:
    return [lk.load_backbone(name, device="cpu") for name in ("pixels", "hog")]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files are decoded, in any order."""
    seen: list[Path] = []
    use_image = decoding.use_image

    def noting(path: Path, *args: Any, **kwargs: Any) -> Any:
        seen.append(path)
        return use_image(path, *args, **kwargs)

    monkeypatch.setattr(reading, "use_image", noting)
    return seen


def photo(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def folder_of(root: Path, n: int = 10) -> Path:
    for i in range(n):
        path = root / ("a" if i % 2 else "b") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(i).save(path)
    return root


def content(given: Reading) -> dict[str, Any]:
    """All of a reading that can be compared."""
    return {
        "files": given.files,
        "facts": given.facts.to_dict("list"),
        "thumbnails": list(given.thumbnails),
        "features": {name: features.tobytes() for name, features in given.features.items()},
        "left_out": given.left_out,
        "others": given.others,
    }


def parts(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(cache.rglob("*.safetensors"))}


# ----------------------------------------------------------------------------------------------------------- what it is


def test_features_are_those_of_extract_features(tmp_path: Path, backbones: list[Backbone]) -> None:
    root = folder_of(tmp_path / "photos", 70)
    read = read_folder(root, backbones)
    assert read.files == sorted(root.rglob("*.png"))
    for backbone in backbones:
        expected = encode_images(backbone, lk.ImageDataset.from_files(read.files))
        np.testing.assert_allclose(read.features[backbone.name], expected, atol=1e-6)
        assert read.features[backbone.name].dtype == np.float32


def test_facts_are_of_the_original(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(0, (3000, 2200)).save(root / "large.jpg", exif=exif)
    photo(1, (50, 20)).save(root / "small.webp", lossless=True)
    Image.new("P", (9, 7)).save(root / "z.gif")
    read = read_folder(root, [])
    assert read.facts["width"].tolist() == [2200, 50, 9]
    assert read.facts["height"].tolist() == [3000, 20, 7]
    assert read.facts["format"].tolist() == ["JPEG", "WEBP", "GIF"]
    assert read.features == {}


def test_thumbnails_are_small_jpegs_in_order(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(5):
        Image.new("RGB", (400, 200 + i), (50 * i, 0, 0)).save(root / f"{i}.png")
    thumbnails = read_folder(root, []).thumbnails
    assert len(thumbnails) == 5
    for i, jpeg in enumerate(thumbnails):
        image = Image.open(io.BytesIO(jpeg))
        assert image.format == "JPEG"
        assert max(image.size) == 128
        assert image.getpixel((5, 5))[0] == pytest.approx(50 * i, abs=4)  # type: ignore[index]
    assert thumbnails[-1] == thumbnails[4] == list(thumbnails[3:])[1]


def test_no_more_than_a_batch_is_decoded_ahead(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 4)
    root = folder_of(tmp_path / "photos", 24)
    ahead: list[int] = []
    encode, done = reading._encode, itertools.count(1)

    def slow(*args: Any) -> Any:
        threading.Event().wait(0.05)
        ahead.append(len(decoded) - 4 * next(done))
        return encode(*args)

    monkeypatch.setattr(reading, "_encode", slow)
    read_folder(root, backbones[:1])
    assert len(decoded) == 24
    assert max(ahead) <= 4


def test_names_of_spaces_must_differ(tmp_path: Path, backbones: list[Backbone]) -> None:
    with pytest.raises(DataError, match="each name once"):
        read_folder(folder_of(tmp_path / "photos", 2), [backbones[0], backbones[0]])


def test_features_that_are_not_finite_are_named(
    tmp_path: Path, backbones: list[Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Backbone.encode_image
    monkeypatch.setattr(Backbone, "encode_image", lambda self, pixels: encode(self, pixels).log().log())
    with pytest.raises(DataError, match=r"pixels gives features that are not finite for .*000\.png"):
        read_folder(folder_of(tmp_path / "photos", 1), backbones[:1])


def test_progress_is_one_line_and_silence_is_silent(
    tmp_path: Path, backbones: list[Backbone], capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "photos", 3)
    read_folder(root, backbones[:1])
    assert capsys.readouterr() == ("", "")
    read_folder(root, backbones, progress=True)
    assert "3/3" in (said := capsys.readouterr().err)
    assert said.strip("\n").count("\n") == 0


# ------------------------------------------------------------------------------------------------------------ once only


def test_a_second_run_decodes_nothing(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path], own_cache: Path
) -> None:
    root = folder_of(tmp_path / "photos")
    first = read_folder(root, backbones)
    assert len(decoded) == 10
    before = parts(own_cache)
    second = read_folder(root, backbones)
    assert len(decoded) == 10
    assert parts(own_cache) == before
    assert content(first) == content(second)


def test_a_new_photo_costs_one_a_changed_one_too_and_a_removed_one_disappears(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path]
) -> None:
    root = folder_of(tmp_path / "photos")
    read_folder(root, backbones)
    decoded.clear()
    photo(77).save(root / "a" / "0 new.png")
    photo(78).save(root / "a" / "003.png")
    (root / "b" / "000.png").unlink()
    read = read_folder(root, backbones)
    assert sorted(decoded) == [root / "a" / "0 new.png", root / "a" / "003.png"]
    assert read.files == sorted(root.rglob("*.png"))
    assert len(read.files) == len(read.facts) == len(read.thumbnails) == 10
    for i, path in enumerate(read.files):  # all rows belong together
        image = Image.open(path)
        assert read.facts["hash"][i] == facts.perceptual_hash(image)
        np.testing.assert_allclose(read.features["pixels"][i], backbones[0].preprocess(image).ravel() / 255, rtol=1e-6)
        assert read.thumbnails[i] == facts.thumbnail(image)


def test_a_new_space_costs_a_pass_for_it_alone(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(tmp_path / "photos")
    read_folder(root, backbones[:1])
    monkeypatch.setattr(reading, "facts_of", lambda image: pytest.fail("the facts are known"))
    read = read_folder(root, backbones)
    assert len(decoded) == 20
    decoded.clear()
    assert list(read_folder(root, backbones[::-1]).features) == ["hog", "pixels"]
    assert list(read_folder(root, backbones[1:]).features) == ["hog"]
    assert not decoded
    fresh = [encode_images(backbone, lk.ImageDataset.from_files(read.files)) for backbone in backbones]
    for features, expected in zip(read.features.values(), fresh, strict=True):
        np.testing.assert_allclose(features, expected, atol=1e-6)


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign"])
def test_a_damaged_part_is_made_again(
    tmp_path: Path,
    backbones: list[Backbone],
    decoded: list[Path],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    harm: str,
) -> None:
    monkeypatch.setattr(reading, "PART", 4)
    root = folder_of(tmp_path / "photos")
    first = content(read_folder(root, backbones))
    before = parts(own_cache)
    assert len(before) == 3
    decoded.clear()
    path = sorted(own_cache.rglob("*.safetensors"))[0]
    old = path.read_bytes()
    path.write_bytes({"cut": old[:300], "flip": old[:-3] + bytes([old[-3] ^ 1]) + old[-2:], "foreign": b"x" * 99}[harm])
    with caplog.at_level(logging.WARNING):
        assert content(read_folder(root, backbones)) == first
    assert "It is made again." in caplog.text
    assert 2 <= len(decoded) <= 4
    assert parts(own_cache).keys() == before.keys()
    caplog.clear()
    assert content(read_folder(root, backbones)) == first
    assert not caplog.text


def test_a_part_with_a_digest_but_without_sense_is_passed_over(
    tmp_path: Path, backbones: list[Backbone], own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder_of(tmp_path / "photos", 3)
    first = content(read_folder(root, backbones))
    (path,) = own_cache.rglob("*.safetensors")
    write_saved(path.with_name("odd.safetensors"), kept.KIND, {"read": 3}, {"x": torch.zeros(1)})
    assert content(read_folder(root, backbones)) == first
    assert "no part of a reading" in caplog.text


def test_two_processes_at_once_read_each_file_once(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path]
) -> None:
    root = folder_of(tmp_path / "photos")
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(content(read_folder(root, backbones)))) for _ in range(3)
    ]  # locks of files hold between threads as well
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 10
    assert found[0] == found[1] == found[2]


def test_a_cache_that_may_only_be_read_serves(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(tmp_path / "photos", 4)
    read_folder(root, backbones)
    decoded.clear()
    photo(9).save(root / "new.png")
    own = tmp_path / "own"
    monkeypatch.setattr(kept, "own_dir", lambda: own)

    def refuse(folder: Path, *, wait: bool) -> Any:
        if own not in Path(folder).parents:
            raise PermissionError(13, "not yours", str(folder))
        return locked(folder, wait=wait)

    locked = locked_folder
    monkeypatch.setattr(kept, "locked_folder", refuse)
    assert len(read_folder(root, backbones).files) == 5
    assert len(read_folder(root, backbones).files) == 5
    assert decoded == [root / "new.png"]
    assert len(parts(own)) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Set the environment variable LABKIT_CACHE"):
        read_folder(folder_of(tmp_path / "photos", 2), [])


# ------------------------------------------------------------------------------------------------------------- left out


def broken(root: Path) -> list[Path]:
    (root / "a").mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    photo(1).save(whole, "PNG")
    (root / "a" / "cut.png").write_bytes(whole.getvalue()[:500])
    (root / "a" / "page.jpg").write_text("<html>404</html>")
    (root / "zero.png").write_bytes(b"")
    return [root / "a" / "cut.png", root / "a" / "page.jpg", root / "zero.png"]


def test_what_cannot_be_read_is_left_out_with_its_reason_and_not_tried_again(
    tmp_path: Path, backbones: list[Backbone], decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(tmp_path / "photos", 4)
    bad = broken(root)
    read = read_folder(root, backbones)
    assert list(read.left_out) == sorted(bad)
    assert "It is damaged or not an image" in read.left_out[bad[0]]
    assert read.left_out[bad[2]] == "the file is empty. Replace it or take it away."
    assert not any(str(root) in why for why in read.left_out.values())
    assert len(read.files) == len(read.features["hog"]) == 4
    decoded.clear()
    assert content(read_folder(root, backbones)) == content(read)
    assert not decoded
    photo(5).save(bad[0])
    assert bad[0] in read_folder(root, backbones).files
    assert decoded == [bad[0]]
    monkeypatch.setattr(reading, "_decoders", lambda: "a newer Pillow")
    decoded.clear()
    read_folder(root, backbones)
    assert sorted(decoded) == bad[1:]


def test_strict_names_all_of_them(tmp_path: Path, backbones: list[Backbone]) -> None:
    root = folder_of(tmp_path / "photos", 4)
    bad = broken(root)
    for _ in range(2):  # read, and remembered
        with pytest.raises(DataError) as caught:
            read_folder(root, backbones, strict=True)
        assert "3 files cannot be read" in str(caught.value)
        assert all(path.relative_to(root).as_posix() in str(caught.value) for path in bad)


def test_nothing_that_can_be_read_is_said(tmp_path: Path) -> None:
    broken(tmp_path / "photos")
    with pytest.raises(DataError, match="holds no image that can be read"):
        read_folder(tmp_path / "photos", [])


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_what_memory_or_a_disk_refused_is_tried_again(
    tmp_path: Path, backbones: list[Backbone], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    root = folder_of(tmp_path / "photos", 4)
    use_image = decoding.use_image

    def failing(path: Path, use: Callable[[Image.Image], Any], *args: Any, **kwargs: Any) -> Any:
        if path.name == "002.png":
            raise DataError(f"the image {path} cannot be read (…)") from error
        return use_image(path, use, *args, **kwargs)

    monkeypatch.setattr(reading, "use_image", failing)
    assert list(read_folder(root, backbones).left_out) == [root / "b" / "002.png"]
    monkeypatch.setattr(reading, "use_image", use_image)
    assert not read_folder(root, backbones).left_out


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_hostile_names(tmp_path: Path, backbones: list[Backbone]) -> None:
    root = tmp_path / "photos"
    names = [b"new\nline.png", b'"quote", comma.png', b"=1+1.png", b"<img src=x>.png", b"-rf.png", b"caf\xe9.png"]
    for i, name in enumerate([*names, "👍.png".encode()]):
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        photo(i).save(tmp_path / "one.png")
        path.write_bytes((tmp_path / "one.png").read_bytes())
    first = read_folder(root, backbones)
    assert len(first.files) == 7
    assert first.files == sorted(first.files)
    assert content(read_folder(root, backbones)) == content(first)


# --------------------------------------------------------------------------------------------------------- the measures


def oracle_hash(image: Image.Image) -> int:
    """The same from SciPy's cosine transform."""
    square = image.convert("L").resize((32, 32), Image.Resampling.BOX, reducing_gap=2.0)
    spectrum = scipy.fft.dctn(np.asarray(square, float), type=2) / 4  # SciPy's is twice the sum in each direction
    low = np.rint(spectrum[:8, :8] * 1000).flatten().tolist()
    middle = (sorted(low)[31] + sorted(low)[32]) / 2
    return sum(2**i for i in range(64) if low[i] > middle)


def test_the_perceptual_hash_is_that_of_the_oracle() -> None:
    for seed in range(20):
        image = photo(seed, (50 + seed, 40)).filter(ImageFilter.GaussianBlur(2))
        assert facts.perceptual_hash(image) == oracle_hash(image)
    assert facts.perceptual_hash(Image.new("RGB", (70, 50), "red")) == 1  # its mean, and nothing else


def test_sharpness_is_the_variance_of_the_laplacian_over_that_of_the_levels() -> None:
    levels = np.random.default_rng(0).random((9, 7))
    laplacian = convolve(levels, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), mode="nearest")
    assert facts.sharpness(levels) == pytest.approx(laplacian.var() / levels.var())
    assert facts.sharpness(np.ones((5, 5))) == 0
    assert facts.sharpness(0.1 + 0.2 * levels) == pytest.approx(facts.sharpness(levels))  # paler is no less sharp


def test_the_digest_is_of_the_pixels_and_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(0, (30, 20))
    digest = facts.content_digest(image)
    assert facts.content_digest(image.copy()) == digest
    changed = image.copy()
    changed.putpixel((29, 19), (1, 2, 3))
    turned = Image.frombytes("RGB", (20, 30), image.tobytes())
    assert len({digest, facts.content_digest(changed), facts.content_digest(turned)}) == 3
