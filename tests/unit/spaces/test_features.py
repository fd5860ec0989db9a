"""Features: order, cache, resuming, damage, two writers, and errors that say what to do."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import labkit as lk
from labkit import _saved
from labkit.data.images import ImageDataset
from labkit.errors import DataError
from labkit.spaces import cache as cache_module
from labkit.spaces import features as features_module
from labkit.spaces.cache import feature_key, feature_path, read_features, write_features
from labkit.spaces.features import extract_features


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def manifest(tmp_path: Path) -> lk.Manifest:
    """A folder of 50 images; image i is gray of value i."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(50):
        Image.new("L", (12, 9), i).save(folder / f"{i:02d}.png")
    return lk.load_manifest(folder)


@pytest.fixture
def pixels() -> lk.Backbone:
    return lk.load_backbone("pixels", image_size=4, device="cpu")


def path_of(backbone: lk.Backbone, manifest: lk.Manifest, split: str = "train", dtype: str = "float32") -> Path:
    return feature_path(backbone, manifest.id, split, feature_key(backbone, lk.load_dataset(manifest), dtype))


def parts_of(backbone: lk.Backbone, manifest: lk.Manifest) -> Path:
    return path_of(backbone, manifest).with_suffix(f".parts-{os.getuid()}")


def kept(backbone: lk.Backbone, manifest: lk.Manifest) -> np.ndarray:
    """The kept features of a folder."""
    return read_features(path_of(backbone, manifest), feature_key(backbone, lk.load_dataset(manifest)))


def count_calls(backbone: lk.Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    original = type(backbone).encode_image

    def counting(self: lk.Backbone, batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(type(backbone), "encode_image", counting)
    return sizes


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many features were in each file that could be read."""
    sizes: list[int] = []
    original = cache_module.read_features

    def counting(path: Path, key: dict[str, object]) -> np.ndarray:
        features = original(path, key)
        sizes.append(len(features))
        return features

    monkeypatch.setattr(cache_module, "read_features", counting)
    return sizes


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
@pytest.mark.parametrize("part", [8, 4096])
def test_every_sample_is_in_its_place(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch, batch_size: int, part: int
) -> None:
    monkeypatch.setattr(features_module, "PART", part)
    for keep in (True, False):
        features = extract_features(pixels, manifest, batch_size=batch_size, cache=keep)
        np.testing.assert_allclose(features, np.repeat(np.arange(50)[:, None] / 255, 16, axis=1), atol=1e-6)
    assert (cache / "features").exists()


def test_the_second_time_nothing_is_computed(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract_features(pixels, manifest)
    calls = count_calls(pixels, monkeypatch)
    np.testing.assert_array_equal(extract_features(pixels, manifest), first)
    assert calls == []
    assert list(path_of(pixels, manifest).parent.iterdir()) == [path_of(pixels, manifest)]


def test_without_the_cache_nothing_is_written(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone) -> None:
    extract_features(pixels, manifest, cache=False)
    assert not cache.exists()


def test_the_key_holds_all_that_matters(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path
) -> None:
    other_size = lk.load_backbone("pixels", image_size=5, device="cpu")
    paths = {
        path_of(pixels, manifest, "train"),
        path_of(pixels, manifest, "test"),
        path_of(pixels, manifest, "train", "float16"),
        path_of(other_size, manifest, "train"),
    }
    Image.new("L", (12, 9), 77).save(tmp_path / "images" / "50.png")
    paths.add(path_of(pixels, lk.load_manifest(tmp_path / "images"), "train"))
    assert len(paths) == 5


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_noticed_and_computed_again(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    good = extract_features(pixels, manifest)
    path = path_of(pixels, manifest, "train")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"truncated": content[:-40], "flipped": content, "empty": b""}[damage])
    with pytest.raises(DataError, match=r"cannot be read|is damaged"):
        kept(pixels, manifest)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(extract_features(pixels, manifest), good)
    assert "computed again" in caplog.text
    np.testing.assert_array_equal(kept(pixels, manifest), good)


def test_an_extraction_that_failed_midway_goes_on_from_its_last_part(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "PART", 8)
    original = type(pixels).encode_image
    seen = 0

    def failing(self: lk.Backbone, batch: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(batch)
        if seen > 30:
            raise RuntimeError("power cut")
        return original(self, batch)

    monkeypatch.setattr(type(pixels), "encode_image", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        extract_features(pixels, manifest, batch_size=4)
    monkeypatch.setattr(type(pixels), "encode_image", original)
    sizes = count_calls(pixels, monkeypatch)
    read = count_reads(monkeypatch)
    features = extract_features(pixels, manifest, batch_size=4)
    assert sum(sizes) == 50 - 24  # three parts of 8 had been saved
    assert read == [8, 8, 8]  # each of them once
    np.testing.assert_allclose(features[:, 0], np.arange(50) / 255, atol=1e-6)
    np.testing.assert_array_equal(kept(pixels, manifest), features)


def test_a_part_that_is_damaged_or_of_another_size_is_computed_again(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "PART", 8)
    folder = parts_of(pixels, manifest)
    good, key = extract_features(pixels, manifest, cache=False), feature_key(pixels, lk.load_dataset(manifest))
    write_features(folder / "000000000.safetensors", good[:8], key | {"first": 0, "rows": 8})
    write_features(folder / "000000008.safetensors", good[8:13], key | {"first": 8, "rows": 8})  # too short
    (folder / "000000016.safetensors").write_bytes(b"damaged")
    sizes = count_calls(pixels, monkeypatch)
    np.testing.assert_array_equal(extract_features(pixels, manifest), good)
    assert sum(sizes) == 50 - 8
    assert not folder.exists()


def test_an_extraction_that_was_killed_before_the_final_file_ends_from_its_parts(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, key = extract_features(pixels, manifest), feature_key(pixels, lk.load_dataset(manifest))
    final = path_of(pixels, manifest)
    final.unlink()
    write_features(parts_of(pixels, manifest) / "000000000.safetensors", good, key | {"first": 0})
    calls = count_calls(pixels, monkeypatch)
    np.testing.assert_array_equal(extract_features(pixels, manifest), good)
    assert calls == []
    assert list(final.parent.iterdir()) == [final]


def test_parts_that_were_left_beside_the_final_file_go(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone) -> None:
    good, key = extract_features(pixels, manifest), feature_key(pixels, lk.load_dataset(manifest))
    write_features(parts_of(pixels, manifest) / "000000000.safetensors", good, key | {"first": 0})
    np.testing.assert_array_equal(extract_features(pixels, manifest), good)
    assert not parts_of(pixels, manifest).exists()


def test_folders_of_equal_names_sizes_and_times_have_features_of_their_own(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "images", tmp_path / "elsewhere" / "images"
    theirs.mkdir(parents=True)
    for i in range(50):
        Image.new("L", (12, 9), 255 - i).save(theirs / f"{i:02d}.bmp")
        Image.new("L", (12, 9), i).save(ours / f"{i:02d}.bmp")
        (ours / f"{i:02d}.png").unlink()
    for folder in (ours, theirs):
        for path in folder.iterdir():
            os.utime(path, (10**9, 10**9))
    assert {(path.name, path.stat().st_size) for path in ours.iterdir()} == {
        (path.name, path.stat().st_size) for path in theirs.iterdir()
    }
    first, second = (extract_features(pixels, lk.load_manifest(folder)) for folder in (ours, theirs))
    np.testing.assert_allclose(first[:, 0], np.arange(50) / 255, atol=1e-6)
    np.testing.assert_allclose(second[:, 0], 1 - np.arange(50) / 255, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [{"rows": 40}, {"width": 15}, {"images": "0" * 64}, {"backbone": "0" * 64}, {"dtype": "float16"}, {"first": 0}],
)
def test_a_whole_file_of_other_features_is_not_taken(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, other: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    good, key = extract_features(pixels, manifest), feature_key(pixels, lk.load_dataset(manifest))
    theirs = np.zeros((other.get("rows", 50), other.get("width", 16)), other.get("dtype", "float32"))  # type: ignore[arg-type]
    write_features(path_of(pixels, manifest), theirs, key | other)
    np.testing.assert_array_equal(extract_features(pixels, manifest), good)
    assert "of other images or another backbone" in caplog.text
    write_features(path_of(pixels, manifest), theirs[:5], key)  # and one whose key is a lie about its shape
    np.testing.assert_array_equal(extract_features(pixels, manifest), good)


def tree(folder: Path) -> list[tuple[str, int]]:
    """Everything below a folder, with the time at which it was changed."""
    return [(str(path), path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


OTHER_USER = """
import os, sys
import labkit as lk
backbone, manifest = lk.load_backbone("pixels", image_size=4, device="cpu"), lk.load_manifest(sys.argv[1])
lk.extract_features(backbone, manifest, cache=False)  # all that is imported on the way may belong to root alone
os.setgid(4242), os.setuid(4242)
encode, type(backbone).encode_image = type(backbone).encode_image, None  # nothing is extracted
assert len(lk.extract_features(backbone, lk.load_manifest(sys.argv[1]))) == 50
if sys.argv[2] == "closed":  # what is not there goes to this user's own folder
    type(backbone).encode_image = encode
    for encoded in (encode, None):
        type(backbone).encode_image = encoded
        assert len(lk.extract_features(backbone, lk.load_manifest(sys.argv[1]), dtype="float16")) == 50
try:
    open(os.environ["LABKIT_CACHE"] + "/mine", "w")
except PermissionError:
    sys.exit(sys.argv[2] != "closed")
os.unlink(os.environ["LABKIT_CACHE"] + "/mine")
sys.exit(sys.argv[2] != "open")
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "is_open"), [(0o755, "closed"), (0o777, "open")])
def test_another_user_reads_a_shared_cache_and_writes_nothing(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path, mode: int, is_open: str
) -> None:
    extract_features(pixels, manifest)
    for folder in [cache, *(path for path in cache.rglob("*") if path.is_dir())]:
        folder.chmod(mode)
    for folder in [tmp_path, *tmp_path.parents][:-1]:  # pytest's own are for their owner
        if folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    before = tree(cache)
    command = [sys.executable, "-c", OTHER_USER, str(tmp_path / "images"), is_open]
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", 4242, 4242)
    environment = os.environ | {"HOME": str(tmp_path / "home")}
    environment.pop("XDG_CACHE_HOME", None)
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert outcome.returncode == 0, outcome.stderr
    assert tree(cache) == before
    assert bool(list((tmp_path / "home").rglob("*.safetensors"))) == (is_open == "closed")


def test_gray_and_color_pictures_share_a_batch(cache: Path) -> None:
    backbone = lk.load_backbone("efficientnet-lite0", image_size=32, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (8, 20, 30, 3), dtype=np.uint8)
    pictures = [Image.fromarray(image[..., 0] if i % 3 else image) for i, image in enumerate(noise)]

    def features(images: list[Image.Image]) -> np.ndarray:
        dataset = ImageDataset(np.zeros(8, dtype=np.int64), ["a"], decode=lambda i: images[i])
        return extract_features(backbone, dataset, batch_size=4, cache=False)

    np.testing.assert_array_equal(features(pictures), features([image.convert("RGB") for image in pictures]))


SCRIPT = """
import sys, time
import labkit as lk, labkit.spaces.features as f
f.PART = 5
backbone = lk.load_backbone("pixels", image_size=4, device="cpu")
original = type(backbone).encode_image
def slow(self, batch):
    time.sleep(float(sys.argv[2])); print("batch", flush=True)
    return original(self, batch)
type(backbone).encode_image = slow
lk.extract_features(backbone, lk.load_manifest(sys.argv[1]), batch_size=5)
"""


def test_killed_and_with_two_writers_at_once_the_cache_stays_whole(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "PART", 5)
    start = [sys.executable, "-c", SCRIPT, str(tmp_path / "images")]
    killed = subprocess.Popen([*start, "0.2"], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    for _ in range(3):
        killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    writers = [subprocess.Popen([*start, "0.02"], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    calls = count_calls(pixels, monkeypatch)
    features = extract_features(pixels, manifest)
    assert calls == []
    np.testing.assert_allclose(features[:, 0], np.arange(50) / 255, atol=1e-6)


def test_a_cache_that_cannot_be_written_is_explained(
    manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "file"))
    calls = count_calls(pixels, monkeypatch)
    with pytest.raises(DataError, match=r"cannot be kept.*LABKIT_CACHE.*cache=False"):
        extract_features(pixels, manifest)
    assert calls == []  # said before the work, not after


def test_a_full_disk_is_explained_and_leaves_no_half_file(
    cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_saved, "save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        extract_features(pixels, manifest)
    assert list(cache.rglob("*.safetensors*")) == []


def test_features_that_are_not_finite_are_refused(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone) -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) / 0

    object.__setattr__(pixels, "model", Broken())
    with pytest.raises(DataError, match="not finite for images 0 to 49"):
        extract_features(pixels, manifest)
    assert list(cache.rglob("*.safetensors*")) == []


def test_a_truncated_image_is_named(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone, tmp_path: Path) -> None:
    path = tmp_path / "images" / "33.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"33\.png"):
        extract_features(pixels, lk.load_manifest(tmp_path / "images"))


def test_unknown_split_and_settings_are_explained(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone) -> None:
    with pytest.raises(DataError, match="train"):
        extract_features(pixels, manifest, split="dev")
    with pytest.raises(DataError, match="float16"):
        extract_features(pixels, manifest, dtype="int8")
    with pytest.raises(DataError, match="batch_size"):
        extract_features(pixels, manifest, batch_size=0)


def test_half_precision_is_the_same_to_three_digits(cache: Path, manifest: lk.Manifest, pixels: lk.Backbone) -> None:
    half = extract_features(pixels, manifest, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, extract_features(pixels, manifest), rtol=1e-3)
