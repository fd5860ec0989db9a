"""Webdataset tars: any image from any thread or process, and a tar that is cut off anywhere is an error."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import labkit.data.webdataset
from labkit.data.datasets import load_dataset
from labkit.data.folders import data_dir
from labkit.data.images import ImageDataset
from labkit.data.presence import presence
from labkit.data.schema import Manifest
from labkit.data.tar_members import tar_members
from labkit.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_data_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: False)


def manifest(sizes: tuple[int, int] = (5, 2), **source: Any) -> Manifest:
    splits = {"train": "train", "test": "test"}
    return Manifest.model_validate(
        {
            "id": "mine",
            "title": "Mine",
            "task": "any",
            "classes": ["a", "b", "c"],
            "splits": {name: {"size": size, "how": "x"} for name, size in zip(("train", "test"), sizes, strict=True)},
            "source": {"kind": "webdataset", "repo": "clip-benchmark/wds_mine", "splits": splits} | source,
            "note": "It moved to Mars.",
            **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
        }
    )


def encoded(level: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (level, level, level)).save(buffer, {"jpg": "JPEG"}.get(kind, kind), lossless=True)
    return buffer.getvalue()


def tar(samples: list[tuple[int, int, str]], start: int = 0) -> bytes:
    """Samples are (level, class number, ending)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i, (level, label, kind) in enumerate(samples, start):
            for name, content in ((f"s{i:07d}.cls", str(label).encode()), (f"s{i:07d}.{kind}", encoded(level, kind))):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


SHARDS = {
    "train/0.tar": tar([(10, 0, "webp"), (20, 2, "png"), (30, 1, "jpg")]),
    "train/1.tar": tar([(40, 1, "webp"), (50, 0, "webp")], 3),
    "test/0.tar": tar([(60, 2, "webp"), (70, 2, "webp")]),
}
LEVELS = [10, 20, 30, 40, 50]


def write(files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """A snapshot as huggingface_hub keeps it: links to blobs, and a ref to the commit."""
    repo = data_dir() / "hub" / "datasets--clip-benchmark--wds_mine"
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    root = repo / "snapshots" / commit
    for name, content in files.items():
        blob = repo / "blobs" / name.replace("/", "-")
        blob.write_bytes(content)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(blob)
    return root


def whole(**changes: bytes) -> dict[str, bytes]:
    texts = {"train/nshards.txt": b"2\n", "test/nshards.txt": b"1", "classnames.txt": b"A\nB\nC\n"}
    return texts | SHARDS | {name.replace("__", "."): content for name, content in changes.items()}


class Pixels(Dataset):
    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> int:
        return int(np.asarray(self.images[i][0]).mean().round())


def test_all_images_with_their_class_numbers() -> None:
    write(whole())
    train = load_dataset(manifest())
    assert train.labels.tolist() == [0, 2, 1, 1, 0]
    assert [Pixels(train)[i] for i in range(5)] == LEVELS
    assert [image.mode for image, _ in train] == ["RGB"] * 5
    assert load_dataset(manifest(), "test").labels.tolist() == [2, 2]
    assert presence(manifest()).state == "here"


def test_several_folders_make_a_split_and_a_commit_is_found_by_its_name() -> None:
    write(whole())
    found = manifest((7, 2), splits={"train": ["train", "test"], "test": "test"}, revision=COMMIT)
    assert load_dataset(found).labels.tolist() == [0, 2, 1, 1, 0, 2, 2]
    with pytest.raises(DataError, match="cannot be fetched from the Hugging Face hub"):
        load_dataset(manifest(revision="other"))


def test_random_access_from_threads_and_processes() -> None:
    write(whole())
    train = load_dataset(manifest())
    order = np.random.default_rng(0).integers(0, 5, 100).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(Pixels(train).__getitem__, order)) == [LEVELS[i] for i in order]
    loader = DataLoader(Pixels(pickle.loads(pickle.dumps(train))), batch_size=2, num_workers=1)
    assert [level for batch in loader for level in batch.tolist()] == LEVELS
    some = train.subset([4, 1])
    assert [Pixels(some)[i] for i in (0, 1)] == [50, 20]


def test_a_jpeg_is_decoded_as_small_as_that_of_a_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    (tmp_path / "image.jpg").write_bytes(buffer.getvalue())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (("s0.jpg", buffer.getvalue()), ("s0.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    write(whole() | {"train/0.tar": packed.getvalue()})
    tars = load_dataset(manifest((3, 2)))

    class Take:
        at_least = 40

        def __call__(self, image: Image.Image) -> np.ndarray:
            return np.asarray(image)

    expected = ImageDataset.from_files([tmp_path / "image.jpg"]).use(0, Take())
    assert expected.shape == (48, 64, 3)
    np.testing.assert_array_equal(tars.use(0, Take()), expected)
    np.testing.assert_array_equal(tars.subset([1, 0]).use(1, Take()), expected)
    assert tars[0][0].size == (128, 96)


def test_the_index_is_kept_and_made_anew_for_another_tar(monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(whole())
    first = load_dataset(manifest())
    kept = list((data_dir().parent / "cache" / "tars").iterdir())
    assert len(kept) == 2
    with monkeypatch.context() as patched:
        patched.setattr(labkit.data.webdataset, "_samples", lambda shard: pytest.fail("read again"))
        assert load_dataset(manifest()).identity == first.identity
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])  # a damaged index is no index
    assert load_dataset(manifest()).labels.tolist() == first.labels.tolist()
    before = first.identity
    (root / "train" / "1.tar").resolve().write_bytes(tar([(40, 2, "webp"), (50, 0, "webp")], 3))
    changed = load_dataset(manifest())
    assert changed.labels.tolist() == [0, 2, 1, 2, 0]
    assert changed.identity == before  # labels have no part in it
    (root / "train" / "1.tar").resolve().write_bytes(tar([(40, 2, "webp"), (55, 0, "webp")], 3))
    assert load_dataset(manifest()).identity != before


def test_a_cache_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    write(whole())
    assert len(load_dataset(manifest())) == 5


def member_ends(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [member.offset_data + -(-member.size // 512) * 512 for member in archive]


CUTS = sorted({*member_ends(SHARDS["train/0.tar"]), 0, 100, 512, 700, 1024, 1600, 2500})


@pytest.mark.parametrize("size", CUTS)
def test_a_tar_that_is_cut_off_anywhere_is_an_error_that_names_it(size: int) -> None:
    write(whole() | {"train/0.tar": SHARDS["train/0.tar"][:size]})
    with pytest.raises(DataError, match=r"the tar .*train/0\.tar cannot be read .*damaged or cut off: delete it"):
        load_dataset(manifest())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/0.tar": SHARDS["train/0.tar"][:1024] + b"x" * 512 + SHARDS["train/0.tar"][1536:]}, "holds no numbers"),
        ({"train/0.tar": b"<html>not here</html>" * 500}, "cannot be read"),
        ({"train/nshards.txt": b"two"}, r"nshards\.txt says .*two.*Expected how many tars"),
        ({"train/nshards.txt": b"0"}, "Expected how many tars"),
        ({"classnames.txt": b"A\nB\n"}, "has 2 classes, and the manifest mine has 3"),
        ({"train/1.tar": tar([(40, 3, "webp"), (50, 0, "webp")])}, "class numbers go from 0 to 3"),
        ({"train/1.tar": tar([(40, 1, "webp")])}, "has 4 images in split train, but its manifest promises 5"),
    ],
)
def test_what_is_damaged(change: dict[str, bytes], message: str) -> None:
    write(whole() | change)
    with pytest.raises(DataError, match=message):
        load_dataset(manifest())


def test_an_image_without_a_class_number() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("s0.webp")
        member.size = len(encoded(1, "webp"))
        archive.addfile(member, io.BytesIO(encoded(1, "webp")))
    write(whole() | {"train/1.tar": buffer.getvalue()})
    with pytest.raises(DataError, match=r"1\.tar cannot be read .*'/s0' has an image and no class number"):
        load_dataset(manifest())


def test_a_damaged_image_says_where_it_is() -> None:
    content = bytearray(SHARDS["train/1.tar"])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.getmembers()[3]
    content[member.offset_data : member.offset_data + member.size] = b"x" * member.size
    write(whole() | {"train/1.tar": bytes(content)})
    train = load_dataset(manifest())
    assert Pixels(train)[3] == 40
    with pytest.raises(DataError, match=r"the image 1 in .*train/1\.tar cannot be read"):
        train[4]


def test_a_tar_that_shrinks_while_it_is_read() -> None:
    root = write(whole())
    train = load_dataset(manifest())
    tar_file = (root / "train" / "1.tar").resolve()
    tar_file.write_bytes(tar_file.read_bytes()[:1000])
    with pytest.raises(DataError, match="became shorter"):
        train[4]


def test_a_download_that_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    files = whole()
    del files["train/1.tar"]
    root = write(files)
    assert presence(manifest()).state == "partly"
    assert "train/1.tar not in" in presence(manifest()).why
    asked = []

    def download(repo: str, **options: Any) -> str:
        asked.append((repo, options["allow_patterns"], Path(options["cache_dir"]), options["repo_type"]))
        return str(root)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(DataError, match=r"is not complete .*train/1\.tar is missing"):
        load_dataset(manifest())
    assert asked == [("clip-benchmark/wds_mine", ["*.txt", "train/*"], data_dir() / "hub", "dataset")]
    assert len(load_dataset(manifest(), "test")) == 2  # which is there
    assert len(asked) == 1
    write(whole())
    assert len(load_dataset(manifest())) == 5
    assert len(asked) == 1


def test_out_of_reach_and_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert presence(manifest()).state == "not here"
    with pytest.raises(DataError, match=r"wds_mine cannot be fetched .*Connect to the network once.*It moved to Mars"):
        load_dataset(manifest())


def test_a_stand_in_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("fetched"))
    found = manifest().model_copy(update={"stand_in": True})
    with pytest.raises(DataError, match="stand-in of mine is not complete"):
        load_dataset(found)


def test_the_origin_holds_what_tells_tars_apart() -> None:
    write(whole())
    origin = load_dataset(manifest()).origin
    assert "wds_mine" in origin
    assert str(len(SHARDS["train/0.tar"])) in origin
    json.dumps(origin)


# the reader of tars


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_that_the_library_finds(kind: int) -> None:
    random, buffer = np.random.default_rng(kind), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind, pax_headers={"comment": "of all"}) as archive:
        for i in range(40):
            member = tarfile.TarInfo(f"{'deep/' * int(random.integers(0, 20))}s{i:07d}.webp")
            if kind != tarfile.USTAR_FORMAT:
                member.name = f"{'é' * int(random.integers(0, 150))}{member.name}"
                member.mtime = 1.5 if kind == tarfile.PAX_FORMAT else 1  # as webdataset's own writer has it
            content = random.bytes(int(random.choice([0, 1, 511, 512, 513, 3000])))
            member.type = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE][int(random.choice([0, 0, 0, 1, 2]))]
            member.linkname = "x" * 120 if member.issym() and kind != tarfile.USTAR_FORMAT else "x"
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    assert list(tar_members(io.BytesIO(buffer.getvalue()), len(buffer.getvalue()))) == expected
    assert len(expected) > 10


def test_a_large_size_in_binary_and_one_beyond_the_end() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("big")
        member.size = 9 << 33
        archive.addfile(member, None)
    with pytest.raises(ValueError, match=r"goes on to byte 77,309,411,840 of 10,240"):
        list(tar_members(io.BytesIO(buffer.getvalue()), len(buffer.getvalue())))


def test_any_changed_byte_of_a_header_is_an_error() -> None:
    whole_tar = SHARDS["test/0.tar"]
    for at in range(0, 512, 7):
        changed = bytearray(whole_tar)
        changed[at] ^= 0x15
        with pytest.raises(ValueError, match="byte 0"):
            list(tar_members(io.BytesIO(bytes(changed)), len(changed)))
