"""Features in shards: reading, sharing out, resuming, damage, lost workers, and errors that say what to do."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import labkit as lk
from labkit.data.images import ImageDataset
from labkit.errors import DataError
from labkit.papers.standins import write_stand_ins
from labkit.spaces import claims as claims_module
from labkit.spaces import features as features_module
from labkit.spaces import shard_work as work_module
from labkit.spaces import shards as shards_module
from labkit.spaces.claims import Claims, Gone, claims_in, remove_claims
from labkit.spaces.shards import ShardedFeatures, extract_shards

N, SHARD = 70, 16  # four whole shards and one of six


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features_module, "PART", 8)
    monkeypatch.setattr(shards_module, "POLL", 0.02)
    monkeypatch.setattr(shards_module, "LOST", 0)


@pytest.fixture
def pixels() -> lk.Backbone:
    return lk.load_backbone("pixels", image_size=4, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> ImageDataset:
    """Files of images; image i is gray of value i."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(N):
        Image.new("L", (12, 9), i).save(folder / f"{i:02d}.png")
    return ImageDataset.from_files(sorted(folder.iterdir()))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every image value that was encoded, in order."""
    values: list[int] = []
    original = lk.Backbone.encode_image

    def watched(self: lk.Backbone, batch: torch.Tensor) -> torch.Tensor:
        values.extend(batch[:, 0, 0, 0].tolist())
        return original(self, batch)

    monkeypatch.setattr(lk.Backbone, "encode_image", watched)
    return values


def matrix(n: int = 50, d: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)


def shard_file(folder: Path, i: int) -> Path:
    return folder / f"{i * SHARD:012d}.safetensors"


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shard", [1, 7, 25, 50, 51])
def test_shards_read_like_the_array(shard: int, dtype: str, tmp_path: Path) -> None:
    given = matrix()
    features = ShardedFeatures.write(tmp_path / "out", np.split(given, [3, 3, 30]), dtype=dtype, shard=shard)
    expected = given.astype(dtype)
    assert (features.shape, features.dtype, len(features), features.ndim) == ((50, 3), np.dtype(dtype), 50, 2)
    np.testing.assert_array_equal(np.asarray(features), expected)
    assert np.asarray(features, dtype=np.float64).dtype == np.float64
    rows = np.random.default_rng(1).integers(0, 50, 120)
    for opened in (features, ShardedFeatures.open(str(tmp_path / "out")), pickle.loads(pickle.dumps(features))):
        taken = opened.read(rows)
        assert taken.dtype == dtype
        np.testing.assert_array_equal(taken, expected[rows])
        assert opened.read([]).shape == (0, 3)
        for size in (1, 8, 50, 99):
            blocks = list(opened.blocks(size))
            assert [start for start, _ in blocks] == list(range(0, 50, size))
            np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected)
            blocks[0][1][:] = 0  # what is given belongs to whoever asked
    np.testing.assert_array_equal(np.asarray(ShardedFeatures.open(tmp_path / "out")), expected)


def test_what_is_read_is_asked_for_properly(tmp_path: Path) -> None:
    features = ShardedFeatures.write(tmp_path / "out", [matrix()])
    for rows in ([50], [-1], [0.5], [[0]], ["a"], [True]):
        with pytest.raises(DataError, match="Expected row numbers"):
            features.read(rows)
    for size in (0, 1.5, True, None):
        with pytest.raises(DataError, match="Expected a whole number of rows"):
            features.blocks(size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="copy=False"):
        np.array(features, copy=False) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else features.__array__(
            copy=False
        )


def test_what_is_written_is_checked(tmp_path: Path) -> None:
    for blocks, said in (
        ([], "no rows"),
        ([matrix(), matrix(d=4)], "has 4 columns, those before have 3"),
        ([np.full((2, 3), np.nan, np.float32)], "not finite"),
        ([np.full((2, 3), 1e5, np.float32)], 'Ask for dtype="float32"'),
        ([np.zeros((2, 3), int)], "Expected an array of floats"),
    ):
        with pytest.raises(DataError, match=said):
            ShardedFeatures.write(tmp_path / "out", blocks)
        with pytest.raises(DataError, match=r"has no features\.json"):
            ShardedFeatures.open(tmp_path / "out")
    for wrong in ({"shard": 0}, {"dtype": "int8"}):
        with pytest.raises(DataError):
            ShardedFeatures.write(tmp_path / "new", [matrix()], **wrong)  # type: ignore[arg-type]
    ShardedFeatures.write(tmp_path / "out", [matrix()])
    with pytest.raises(DataError, match="has features already"):
        ShardedFeatures.write(tmp_path / "out", [matrix()])


def test_damage_is_found_by_whoever_reads(tmp_path: Path) -> None:
    for i, damage in enumerate((flip_last_byte, lambda path: os.truncate(path, path.stat().st_size - 8), Path.unlink)):
        folder = tmp_path / str(i)
        ShardedFeatures.write(folder, [matrix()], shard=SHARD)
        opened = ShardedFeatures.open(folder)
        damage(shard_file(folder, 1))
        opened.read([0, 15, 32])
        with pytest.raises(DataError, match=f"{SHARD:012d}.safetensors.* run the same extraction again"):
            opened.read([17])
    shutil.copy(shard_file(tmp_path / "0", 0), shard_file(tmp_path / "0", 1))
    with pytest.raises(DataError, match="of other images or another backbone"):
        ShardedFeatures.open(tmp_path / "0").read([17])
    with pytest.raises(DataError, match="1 of 4 shards are missing"):
        ShardedFeatures.open(tmp_path / "2")


def test_a_header_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}", '{"labkit": "features in shards", "format": 99}'):
        (tmp_path / "features.json").write_text(text, "utf-8")
        with pytest.raises(DataError, match="cannot be read"):
            ShardedFeatures.open(tmp_path)
    with pytest.raises(DataError, match="Expected the path"):
        ShardedFeatures.open(3)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- extraction


def test_they_are_the_features_of_extract_features(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, encoded: list[int]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 33), nn.GELU(), nn.Linear(33, 5))
    net = lk.Backbone.from_model(network, _transform(), device="cpu", dtype="float32")
    for backbone in (pixels, net):
        expected = lk.extract_features(backbone, images, batch_size=3)
        encoded.clear()
        out = tmp_path / backbone.name
        features = extract_shards(backbone, images, out, dtype="float32", shard=SHARD, batch_size=3)
        np.testing.assert_array_equal(np.asarray(features), expected)
        assert len(encoded) == N
        half = extract_shards(backbone, images, tmp_path / f"{backbone.name}-16", shard=SHARD, batch_size=3)
        np.testing.assert_array_equal(np.asarray(half), expected.astype(np.float16))
        assert half.identity != features.identity
        assert sorted(path.name for path in out.iterdir()) == [f"{i * SHARD:012d}.safetensors" for i in range(5)] + [
            "features.json"
        ]


def _transform() -> Any:
    from torchvision import transforms

    steps = [transforms.Resize((4, 4)), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
    return transforms.Compose(steps)


@pytest.mark.parametrize("kind", ["array", "decoded"])
def test_images_that_are_no_files(kind: str, pixels: lk.Backbone, images: ImageDataset, tmp_path: Path) -> None:
    held = [images[i][0].convert("L") for i in range(N)]
    given: Any = np.stack([np.asarray(image) for image in held]) if kind == "array" else held
    dataset = ImageDataset.from_images(given)
    features = extract_shards(pixels, dataset, tmp_path / "out", dtype="float32", shard=SHARD)
    np.testing.assert_array_equal(np.asarray(features), lk.extract_features(pixels, images))
    if kind == "array":
        given[33] = 255
        features = extract_shards(pixels, dataset, tmp_path / "out", dtype="float32", shard=SHARD)
        assert (features.read([33]) == 1).all()


def test_images_in_tars(pixels: lk.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    write_stand_ins(tmp_path / "data", ["stanford-cars"])
    dataset = lk.load_dataset("stanford-cars", "train")
    assert dataset.files is dataset.array is None
    features = extract_shards(pixels, dataset, tmp_path / "out", dtype="float32", shard=64)
    assert len(features) == len(dataset) > 3 * 64
    np.testing.assert_array_equal(np.asarray(features), features_module.encode_images(pixels, dataset))
    with pytest.raises(DataError, match="other images"):
        extract_shards(pixels, dataset.subset(range(len(dataset))[::-1]), tmp_path / "out", dtype="float32", shard=64)


def test_what_is_there_is_checked_and_not_computed_again(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, encoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    expected = np.asarray(extract_shards(pixels, images, out, shard=SHARD))
    header = (out / "features.json").read_bytes()
    other = ImageDataset.from_files(images.files[::-1])  # type: ignore[index]
    extract_shards(pixels, other, tmp_path / "other", shard=SHARD)
    encoded.clear()
    extract_shards(pixels, images, out, shard=SHARD)
    assert encoded == []
    flip_last_byte(shard_file(out, 0))
    shard_file(out, 1).write_bytes(b"")
    shutil.copy(shard_file(tmp_path / "other", 2), shard_file(out, 2))
    shard_file(out, 3).unlink()
    with caplog.at_level(logging.WARNING):
        again = extract_shards(pixels, images, out, shard=SHARD)
    assert encoded == list(range(4 * SHARD))
    assert caplog.text.count("It is computed again.") == 3
    np.testing.assert_array_equal(np.asarray(again), expected)
    assert (out / "features.json").read_bytes() == header


@pytest.mark.parametrize("changed", [33, 34])  # one of the sample that processes agree on, and one beside it
def test_an_image_that_changed_costs_its_shard(
    changed: int, pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, encoded: list[int]
) -> None:
    out = tmp_path / "out"
    before = extract_shards(pixels, images, out, shard=SHARD).identity
    encoded.clear()
    Image.new("L", (12, 9), 255).save(images.files[changed])  # type: ignore[index]
    after = extract_shards(pixels, images, out, shard=SHARD)
    assert encoded == [255 if value == changed else value for value in range(32, 48)]
    assert (after.read([changed]) == 1).all()
    assert after.identity != before


def test_an_extraction_that_failed_goes_on(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, encoded: list[int]
) -> None:
    out, path = tmp_path / "out", images.files[40]  # type: ignore[index]
    content = path.read_bytes()
    path.write_bytes(content[:40])
    with pytest.raises(DataError, match=r"40\.png cannot be read"):
        extract_shards(pixels, images, out, shard=SHARD)
    with pytest.raises(DataError, match="are not finished: 3 of 5 shards are missing"):
        ShardedFeatures.open(out)
    path.write_bytes(content)
    encoded.clear()
    features = extract_shards(pixels, images, out, shard=SHARD)
    assert encoded == list(range(2 * SHARD, N))
    np.testing.assert_array_equal(np.asarray(features), lk.extract_features(pixels, images, dtype="float16"))


def test_other_features_and_other_folders_are_left_alone(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    extract_shards(pixels, images, out, shard=SHARD)
    before = {path: path.read_bytes() for path in out.iterdir()}
    hog = lk.load_backbone("hog", device="cpu")
    shuffled = ImageDataset.from_files([*images.files[1:], images.files[0]])  # type: ignore[index,misc]
    (tmp_path / "alike").mkdir()
    for path in images.files or ():  # the same names, other content
        Image.new("L", (12, 9), 255 - int(path.stem)).save(tmp_path / "alike" / path.name)
    alike = ImageDataset.from_files(sorted((tmp_path / "alike").iterdir()))
    for backbone, dataset, options, said in (
        (pixels, alike, {"shard": SHARD}, "other images"),
        (hog, images, {"shard": SHARD}, "width 16, not 324; backbone 'pixels', not 'hog'"),
        (pixels, shuffled, {"shard": SHARD}, "other images"),
        (pixels, images.subset(range(60)), {"shard": SHARD}, "images 70, not 60"),
        (pixels, images, {"shard": 8}, "rows of a shard 16, not 8"),
        (pixels, images, {"shard": SHARD, "dtype": "float32"}, "dtype 'float16', not 'float32'"),
    ):
        with pytest.raises(DataError, match=said):
            extract_shards(backbone, dataset, out, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"holds no features but '00\.png'"):
        extract_shards(pixels, images, tmp_path / "images")
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert len(list((tmp_path / "images").iterdir())) == N


def test_bad_input_is_said_before_anything_is_written(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for arguments, options in (
        (("pixels", images, out), {}),
        ((pixels, "digits", out), {}),
        ((pixels, images.subset([]), out), {}),
        ((pixels, images, 5), {}),
        ((pixels, images, out), {"dtype": "bfloat16"}),
        ((pixels, images, out), {"shard": 0}),
        ((pixels, images, out), {"batch_size": 0}),
    ):
        with pytest.raises(DataError, match=r"Expected|can be stored as"):
            extract_shards(*arguments, **options)  # type: ignore[arg-type]
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        extract_shards(pixels, images, tmp_path / "file" / "out")


def test_features_that_float16_cannot_hold(images: ImageDataset, tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return 1e5 + pixels.flatten(1)[:, :2]

    large = lk.Backbone.from_model(Large(), _transform(), device="cpu")
    with pytest.raises(DataError, match=r"own gives features that float16 cannot hold\. Ask for dtype=\"float32\""):
        extract_shards(large, images, tmp_path / "out", shard=SHARD)
    assert np.isfinite(np.asarray(extract_shards(large, images, tmp_path / "32", dtype="float32"))).all()


def test_a_shard_is_written_while_the_next_one_is_encoded(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, met = work_module.write_shard, []

    def slow(*arguments: Any) -> None:
        end = time.monotonic() + 5
        while len(encoded) <= SHARD and time.monotonic() < end:
            time.sleep(0.01)
        met.append(len(encoded) > SHARD)
        write(*arguments)

    monkeypatch.setattr(work_module, "write_shard", slow)
    extract_shards(pixels, images, tmp_path / "out", shard=SHARD)
    assert met[0]


def test_all_images_are_identified_once(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.data import images as images_module

    seen: list[str] = []
    original = images_module.file_identity

    def watched(path: Path, *arguments: Any, **named: Any) -> bytes:
        seen.append(path.name)
        return original(path, *arguments, **named)

    monkeypatch.setattr(images_module, "file_identity", watched)
    extract_shards(pixels, images, tmp_path / "out", shard=SHARD)
    assert sorted(seen) == [f"{i:02d}.png" for i in range(N)]


def test_a_finished_folder_may_be_read_only(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    out = tmp_path / "out"
    extract_shards(pixels, images, out, shard=SHARD)
    encoded.clear()

    def denied(*arguments: Any, **named: Any) -> Any:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(shards_module, "claims_in", denied)
    monkeypatch.setattr(work_module, "write_header", denied)
    assert extract_shards(pixels, images, out, shard=SHARD).shape == (N, 16)
    flip_last_byte(shard_file(out, 1))
    with pytest.raises(DataError, match="cannot be written to"):
        extract_shards(pixels, images, out, shard=SHARD)
    assert encoded == []


def code_of_the_page() -> list[str]:
    """The Python code of docs/scale.md."""
    page = (Path(__file__).parents[3] / "docs" / "scale.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = next(text for text in code_of_the_page() if "extract_shards" in text)
    for given, here in (("imagenet", "digits"), ("clip-vit-l14", "pixels"), ("8192", "512"), ("progress=True", "")):
        assert given in example
        example = example.replace(given, here)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["features"].shape == (len(names["images"]), 784)
    assert np.abs(np.asarray(lk.ShardedFeatures.open("features/centered"), np.float64).mean(0)).max() < 1e-3


# -------------------------------------------------------------------------------------------------------------- claims


def test_two_workers_share_the_jobs(tmp_path: Path) -> None:
    with claims_in(tmp_path, 4) as first, claims_in(tmp_path, 4) as second:
        assert [first.take(), second.take(), first.take(), second.take()] == [0, 1, 2, 3]
        assert first.take() is None
        assert first.open == [0, 1, 2, 3]
        first.settle(0, "a b")
        second.settle(3, "d")
        assert second.take() is None
        assert (second.results, second.open) == ({0: "a b", 3: "d"}, [1, 2])
        remove_claims(tmp_path)
        with pytest.raises(Gone):
            first.take()
        with pytest.raises(Gone):
            first.settle(2, "c")


HOLD = """
import sys, time
from pathlib import Path
from labkit.spaces.claims import claims_in
with claims_in(Path(sys.argv[1]), 3) as claims:
    assert [claims.take(), claims.take()] == [0, 1]
    claims.settle(0, "theirs")
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_job_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with claims_in(tmp_path, 3) as claims:
            assert [claims.take(), claims.take()] == [2, None]
            assert claims.results == {0: "theirs"}
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert claims.take() == 1
            with claims_in(tmp_path, 3) as late:
                assert late.take() == 0  # done before this worker was there: to be looked at again
    finally:
        other.kill()
        other.wait()


def far_worker(folder: Path, job: int, claim: str = ".0123456789ab.abcdefgh") -> Path:
    """The claim of a worker on another machine, and its beat."""
    beat = folder / "workers" / ".0123456789ab.abcdefgh" / "beat"
    for path in (beat, folder / "claims" / f"{job:09d}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    beat.write_text("7 0", "utf-8")
    (folder / "claims" / f"{job:09d}").write_text(claim, "utf-8")
    return beat


def take_until(claims: Claims, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while (job := claims.take()) is None and time.monotonic() < end:
        time.sleep(0.01)
    return job


@pytest.mark.parametrize("claim", [".0123456789ab.abcdefgh", ""])  # killed between making the file and writing to it
def test_a_job_of_a_lost_machine_is_taken_after_a_while(
    claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "LOST", 0.5)
    far_worker(tmp_path, 0, claim)
    with claims_in(tmp_path, 1) as claims:
        begun = time.monotonic()
        assert take_until(claims, 5) == 0
        assert time.monotonic() - begun > 0.3


def test_a_job_of_a_machine_that_lives_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "LOST", 0.5)
    beat, stopped = far_worker(tmp_path, 0), threading.Event()

    def live() -> None:
        count = 0
        while not stopped.wait(0.05):
            count += 1
            beat.write_text(f"7 {count}", "utf-8")

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with claims_in(tmp_path, 1) as claims:
            assert take_until(claims, 1.2) is None
    finally:
        stopped.set()
        thread.join()


def test_workers_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT", 0.02)
    with claims_in(tmp_path, 1):
        seen, end = set(), time.monotonic() + 5
        while len(seen) < 4 and time.monotonic() < end:
            seen |= {path.read_text("utf-8") for path in tmp_path.glob("workers/.*/beat")} - {""}
        assert len(seen) >= 4
    assert list(tmp_path.glob("workers/.*")) == []


def test_an_extraction_that_another_process_ends(
    pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settle, calls = tmp_path / "out", Claims.settle, []

    def settle_late(self: Claims, job: int, result: str) -> None:
        """While the first process is about to tell of its first shard, another one starts, and does all there is."""
        calls.append(job)
        if len(calls) == 1:
            remove_claims(out / "work")
            extract_shards(pixels, images, out, shard=SHARD)
        settle(self, job, result)

    monkeypatch.setattr(Claims, "settle", settle_late)
    features = extract_shards(pixels, images, out, shard=SHARD)
    np.testing.assert_array_equal(np.asarray(features), lk.extract_features(pixels, images, dtype="float16"))
    assert sorted(path.name for path in out.iterdir())[-1] == "features.json"


@pytest.mark.parametrize("another", [False, True], ids=["nobody", "another worker"])
def test_a_worker_that_finds_the_folder_gone_leaves_nothing(
    another: bool, pixels: lk.Backbone, images: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have claimed a shard in what another one, which was the last, was just removing."""
    out = tmp_path / "out"
    extract_shards(pixels, images, out, shard=SHARD)

    def gone(folder: Path, n_jobs: int) -> Any:
        (folder / "claims").mkdir(parents=True)
        (folder / "claims" / "000000000").write_text(".me")
        (folder / "workers" / ".another").mkdir(parents=True) if another else None
        raise Gone

    monkeypatch.setattr(shards_module, "claims_in", gone)
    assert len(extract_shards(pixels, images, out, shard=SHARD)) == len(images)
    assert (out / "work").exists() == another  # who lives needs it
