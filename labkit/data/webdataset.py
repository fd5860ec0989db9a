"""Webdataset tars of the Hugging Face hub: an index of offsets once, then any image by its number, from any process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from labkit._files import atomic_write, cache_dir, open_regular
from labkit.data.decoding import read_bytes
from labkit.data.hub import cache_only_if_unreachable, data_hub, find_snapshot, hub_problem
from labkit.data.images import ImageDataset
from labkit.data.schema import Manifest, WebDataset
from labkit.data.tar_members import tar_members
from labkit.errors import DataError, quote, shorten, shown

IMAGES = ("jpg", "jpeg", "png", "webp")
MOST_SHARDS = 100_000
MOST_LABEL = 20  # bytes of a class number
VERSION = 1  # of the index


def read_webdataset(manifest: Manifest, source: WebDataset, split: str) -> ImageDataset:
    """The images of one split of a repository of tars on the hub, fetched where they are not there.

    The first time every tar is gone through once, from header to header; where each image is is then kept in labkit's
    cache folder (24 bytes an image).

    Raises:
        DataError: the repository is neither here nor can it be fetched, a tar is damaged or cut off, or it has other
            classes than the manifest.
    """
    root = fetch_webdataset(manifest, source, split)
    _expect_classes(manifest, root)
    shards = [shard for folder in source.splits[split] for shard in _shards(root, folder)]
    bar = tqdm(shards, desc=f"indexing {manifest.id}", leave=False, disable=len(shards) < 8)
    indexed = [_index(shard) for shard in bar]
    counts = [len(index) for index in indexed]
    table = np.concatenate(indexed) if indexed else np.zeros((0, 3), dtype=np.int64)
    decode = TarImages(shards, np.cumsum([0, *counts]), table[:, :2].copy())
    facts = [[shard.parent.name, shard.name, _facts(shard)[1]] for shard in shards]
    origin = json.dumps([facts, hashlib.sha256(table[:, :2].tobytes()).hexdigest()])
    return ImageDataset(table[:, 2].copy(), manifest.classes, decode=decode, origin=origin)


def fetch_webdataset(manifest: Manifest, source: WebDataset, split: str) -> Path:
    """The folder of a repository with all tars of one split, in the hub's own cache below the data folder.

    What is there is not asked for again; the hub is asked only for what is missing.

    Raises:
        DataError: something is missing and cannot be fetched; the message quotes `note` of the manifest.
    """
    found = here(source, [split])
    if found.root is not None and not found.missing:
        return found.root
    if manifest.stand_in:
        raise DataError(
            f"the stand-in of {manifest.id} is not complete: {found.missing[0]} is missing. Write the stand-ins again."
        )
    from huggingface_hub import snapshot_download

    wanted = ["*.txt", *(f"{folder}/*" for folder in source.splits[split])]
    try:
        with cache_only_if_unreachable():
            root = snapshot_download(
                source.repo, repo_type="dataset", revision=source.revision, allow_patterns=wanted, cache_dir=data_hub()
            )
    except Exception as error:  # offline, no such repository, no rights, no room
        note = f" Note: {manifest.note.strip()}" if manifest.note else ""
        raise DataError(
            f"{source.repo} cannot be fetched from the Hugging Face hub {hub_problem(error, manifest.id)}{note}"
        ) from error
    missing = _missing(Path(root), source.splits[split])
    if missing:
        raise DataError(
            f"{source.repo} is not complete in {shown(root)}: {missing[0]} is missing. Connect to the network and "
            "fetch it again, or correct `source.splits`."
        )
    return Path(root)


@dataclass(frozen=True)
class Snapshot:
    """What is on the disk of a repository.

    Attributes:
        root: its newest snapshot, or that of the revision; None where there is none.
        missing: files that the splits need and that are not there, by their names below the root.
    """

    root: Path | None
    missing: list[str]


def here(source: WebDataset, splits: Sequence[str]) -> Snapshot:
    """What is there of a repository, in the hub's cache below the data folder; looks at the disk only."""
    folders = [name for split in splits for name in source.splits[split]]
    root = find_snapshot(source.repo, source.revision)
    if root is None:
        return Snapshot(None, [f"{folders[0]}/nshards.txt"])
    return Snapshot(root, _missing(root, folders))


def _missing(root: Path, folders: Sequence[str]) -> list[str]:
    missing = []
    for folder in folders:
        try:
            n = _n_shards(root, folder)
        except OSError:
            missing.append(f"{folder}/nshards.txt")
            continue
        there = {path.name for path in (root / folder).iterdir() if path.exists()}  # links that lead somewhere
        missing += [f"{folder}/{i}.tar" for i in range(n) if f"{i}.tar" not in there]
    return missing


def _n_shards(root: Path, folder: str) -> int:
    path = root / folder / "nshards.txt"
    with open_regular(path) as file:
        text = file.read(100)
    if not text.strip().isdigit() or not 0 < int(text) <= MOST_SHARDS:
        raise DataError(f"{shown(path)} says {quote(text)}. Expected how many tars there are: fetch it again.")
    return int(text)


def _shards(root: Path, folder: str) -> list[Path]:
    return [root / folder / f"{i}.tar" for i in range(_n_shards(root, folder))]


def _expect_classes(manifest: Manifest, root: Path) -> None:
    """Names may be worded otherwise there, but there must be as many."""
    with contextlib.suppress(FileNotFoundError), open_regular(root / "classnames.txt") as file:
        named = [line for line in file.read(1 << 20).decode("utf-8", "replace").splitlines() if line.strip()]
        if len(named) != manifest.n_classes:
            raise DataError(
                f"{shown(root / 'classnames.txt')} has {len(named)} classes, and the manifest {manifest.id} has "
                f"{manifest.n_classes}. Fetch it again where it is not complete, or correct `classes` or `source.repo`."
            )


# ---------------------------------------------------------------------------------------------------------------- index


def _facts(shard: Path) -> tuple[str, int]:
    stat = shard.stat()
    real = os.path.realpath(shard)  # the hub's blob, which its own digest names
    return f"{VERSION} {real} {stat.st_size} {stat.st_mtime_ns}", stat.st_size


def _index(shard: Path) -> np.ndarray:
    """Where the images of a tar are: (n, 3) int64 of offset, size and class number, in the order of the tar.

    Raises:
        DataError: the tar is damaged or cut off, or an image has no class number.
    """
    name = hashlib.sha256(_facts(shard)[0].encode("utf-8", "surrogateescape")).hexdigest()
    kept = cache_dir() / "tars" / f"{name[:32]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        index = np.load(kept, allow_pickle=False)
        if index.dtype == np.int64 and index.ndim == 2 and index.shape[1] == 3:
            return index
    try:
        index = np.array(list(_samples(shard)), dtype=np.int64).reshape(-1, 3)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the tar {shown(shard)} cannot be read ({type(error).__name__}: {shorten(str(error), 200)}). It is "
            "damaged or cut off: delete it and fetch it again."
        ) from error
    with contextlib.suppress(OSError), atomic_write(kept) as path, path.open("wb") as file:
        np.save(file, index)  # where that cannot be, it costs time only
    return index


def _samples(shard: Path) -> Iterator[tuple[int, int, int]]:
    """Offset, size and class number of the images of a tar, which is read from header to header."""
    images: dict[str, tuple[int, int]] = {}
    numbers: dict[str, int] = {}
    with open_regular(shard) as file:
        for name, offset, size in tar_members(file, shard.stat().st_size):
            folder, _, last = name.rpartition("/")
            stem, _, kind = last.partition(".")
            key, kind = f"{folder}/{stem}", kind.lower()
            if kind in IMAGES:
                images.setdefault(key, (offset, size))
            elif kind == "cls":
                file.seek(offset)
                numbers[key] = int(file.read(min(size, MOST_LABEL)))
    without = [key for key in images if key not in numbers]
    if without:
        raise ValueError(f"{quote(without[0])} has an image and no class number")
    return ((*place, numbers[key]) for key, place in images.items())


@dataclass(frozen=True, eq=False)
class TarImages:
    """Decodes image i of several tars; a class, so that worker processes can be sent it. Any thread may call it.

    Attributes:
        shards: the tars; starts: (s + 1,) the number of the first image of each.
        places: (n, 2) offset and size of each image in its tar.
    """

    shards: list[Path]
    starts: np.ndarray
    places: np.ndarray
    scales: ClassVar[bool] = True

    def __call__(self, i: int, at_least: int | None = None) -> Image.Image:
        """Image i; with `at_least` a JPEG may be decoded smaller, as `labkit.data.decoding.use_image` does."""
        offset, size = (int(value) for value in self.places[i])
        k = int(np.searchsorted(self.starts, i, side="right")) - 1
        with open_regular(self.shards[k]) as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise DataError(f"the tar {shown(self.shards[k])} became shorter. Fetch it again.")
        return read_bytes(content, f"{i - int(self.starts[k])} in {shown(self.shards[k])}", at_least)
