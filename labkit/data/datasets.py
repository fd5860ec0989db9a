"""Datasets: a manifest and a split become images with class numbers, checked against what the manifest promises."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import hashlib
import json
import logging
import math
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from labkit import pocket
from labkit._files import expect_regular, file_sha256, open_regular
from labkit.data.archives import fetch_archive
from labkit.data.draws import list_digest
from labkit.data.folders import data_dir
from labkit.data.hub_rows import read_hub_rows
from labkit.data.images import ImageDataset, MismatchError
from labkit.data.layouts import read_layout
from labkit.data.manifests import load_manifest
from labkit.data.schema import Archive, Builtin, HuggingFace, Manifest, Manual, Torchvision, WebDataset
from labkit.data.torchvision_source import read_calls, read_torchvision
from labkit.data.webdataset import read_webdataset
from labkit.errors import DataError, quote, shorten, shown

logger = logging.getLogger(__name__)

TILE = {"fashion-mini": 28, "emoji-unseen": 64}  # side in pixels of an image in their mosaics
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts the files
FASHION_FILES = {"train": "train", "test": "t10k"}
MAX_IDX = 1 << 30  # bytes in one idx file; all digits of EMNIST are half of that


def load_dataset(manifest: Manifest | str | Path, split: str = "train") -> ImageDataset:
    """The images and labels of one split of a dataset.

    Args:
        manifest: a manifest, or what `load_manifest` takes.
        split: a split of the manifest.

    Raises:
        DataError: the split or the data is missing, a file is damaged, or the data is not what the manifest promises.
    """
    manifest = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    if not isinstance(split, str) or split not in manifest.splits:
        raise DataError(f"{manifest.id} has no split {quote(split)}. Expected one of {', '.join(manifest.splits)}.")
    try:
        dataset = _read(manifest, split)
        dataset = dataclasses.replace(dataset, origin=_origin(manifest, split) + dataset.origin)
    except MismatchError as error:
        raise DataError(
            f"{manifest.id}, split {split}: {error} Fetch the data again, or correct `classes` in the manifest."
        ) from error
    _expect_size(manifest, split, len(dataset))
    expected = manifest.digest.get(split)
    if expected is not None and dataset.files is not None and list_digest(dataset.files) != expected:
        raise DataError(
            f"the {len(dataset)} files of {manifest.id} in split {split} are not those that the manifest has the "
            "digest of: files are missing, added or renamed. Fetch the dataset again, or remove `digest` from the "
            "manifest."
        )
    return dataset


def _expect_size(manifest: Manifest, split: str, n_found: int) -> None:
    promised = manifest.splits[split]
    if n_found != promised.size:
        has = f"{manifest.id} has {n_found} images in split {split}, but its manifest promises {promised.size}"
        if promised.exact or not n_found:
            raise DataError(f"{has}. Complete the data, or correct `splits.{split}.size` in the manifest.")
        logger.warning("%s: the source itself loses images, so results are not comparable to the last digit.", has)


def _origin(manifest: Manifest, split: str) -> str:
    """All that a manifest states about where the images of a split come from."""
    return json.dumps([manifest.source.model_dump(), manifest.sha256, split], sort_keys=True)


def _read(manifest: Manifest, split: str) -> ImageDataset:
    source = manifest.source
    if isinstance(source, Builtin):
        if split not in FASHION_FILES:
            raise DataError(f"what labkit brings has the splits train and test, and {manifest.id} asks for {split}.")
        return BUILDERS[source.builder](manifest, split)
    if isinstance(source, HuggingFace):
        return read_hub_rows(manifest, source, split)
    if isinstance(source, WebDataset):
        return read_webdataset(manifest, source, split)
    if isinstance(source, Torchvision):
        dataset, folder = read_torchvision(manifest, source, split), data_dir()
    elif isinstance(source, Archive):
        folder = fetch_archive(manifest, source)
        dataset = read_layout(manifest, source.layout, folder, split)
    elif isinstance(source, Manual) and source.layout is not None:
        folder = manifest.expect_root()
        dataset = read_layout(manifest, source.layout, folder, split)
    else:
        dataset, folder = _folder(manifest, split), manifest.root
    _check_files(folder, manifest.sha256)
    return dataset


def _check_files(folder: Path, sha256: Mapping[str, str]) -> None:
    for name, expected in sha256.items():
        path = folder / name
        try:
            expect_regular(path)
            stat = path.stat()
            actual = _sha256_once(path, stat.st_size, stat.st_mtime_ns)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise DataError(f"the file {shown(path)} is missing ({error}). Fetch the dataset again.") from error
        _compare(path, actual, expected)


@functools.cache
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)  # once a process, and again when the file has changed


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise DataError(
            f"{shown(path)} is not the file that the manifest names: its sha256 is {actual}, expected {expected}. "
            "Fetch the file again, or correct `sha256` in the manifest if you changed the data on purpose."
        )


def _mosaic(manifest: Manifest, split: str) -> ImageDataset:
    """Images that ship as one PNG a split, row by row, and an index of their labels; made by labkit/pocket/recipe."""
    builder = getattr(manifest.source, "builder", "")
    folder, side = pocket.DATA / builder, TILE[builder]
    _check_files(folder, manifest.sha256)
    try:
        rows = [row for row in _index(folder / "index.csv") if row["split"] == split]
        labels = np.array([int(row["label"]) for row in rows], dtype=np.int64)
        names = [row["name"] for row in rows] if rows and "name" in rows[0] else None
        array = _tiles(folder / f"{split}.png", side)[: len(rows)]  # the last row may not be full
    except Exception as error:  # of text, of CSV, of PNG
        reason = shorten(str(error) or type(error).__name__, 200)
        raise DataError(f"the data in {shown(folder)} cannot be read ({reason}). Install labkit again.") from error
    return ImageDataset(labels, manifest.classes, array=array, names=names)


def _index(path: Path) -> list[dict[str, str]]:
    with open_regular(path) as file:
        return list(csv.DictReader(file.read().decode("utf-8").splitlines()))


def _tiles(path: Path, side: int) -> np.ndarray:
    """The images in a mosaic: (n, side, side) gray or (n, side, side, 3)."""
    with open_regular(path) as file, Image.open(file, formats=["PNG"]) as image:
        mosaic = np.asarray(image)
    height, width, *channels = mosaic.shape
    tiles = mosaic.reshape(height // side, side, width // side, side, *channels).swapaxes(1, 2)
    return tiles.reshape(-1, side, side, *channels)


def _digits(manifest: Manifest, split: str) -> ImageDataset:
    """scikit-learn's digits: 36 of each class, drawn with a fixed seed, are the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # RandomState, because its stream is frozen for good, while that of default_rng may change (NEP 19)
    order = np.random.RandomState(0).permutation(len(digits.target))
    in_test = np.zeros(len(order), dtype=bool)
    for number in range(10):
        in_test[order[digits.target[order] == number][:36]] = True
    chosen = in_test if split == "test" else ~in_test
    pixels = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)  # 17 levels of gray -> 0..255
    return ImageDataset(digits.target[chosen].astype(np.int64), manifest.classes, array=pixels)


def _fashion_mnist(manifest: Manifest, split: str) -> ImageDataset:
    """All of Fashion-MNIST from files on this machine; torchvision downloads them where there are none."""
    folder = find_fashion_mnist(split)
    if folder is None:
        return read_calls(manifest, "FashionMNIST", [{"train": split == "train"}])
    images, labels = (read_idx(folder, name, manifest.sha256.get(name)) for name in _idx_names(split))
    return ImageDataset(labels.astype(np.int64), manifest.classes, array=images)


def find_fashion_mnist(split: str) -> Path | None:
    """The first folder on this machine that has both files of a split of Fashion-MNIST, or None."""
    for folder in (data_dir() / "fashion-mnist", data_dir() / "FashionMNIST" / "raw", DEBIAN_FASHION):
        if all(any(os.path.exists(folder / f"{name}{end}") for end in ("", ".gz")) for name in _idx_names(split)):  # noqa: PTH110
            return folder
    return None


def _idx_names(split: str) -> list[str]:
    return [f"{FASHION_FILES[split]}-images-idx3-ubyte", f"{FASHION_FILES[split]}-labels-idx1-ubyte"]


def read_idx(folder: Path, name: str, sha256: str | None = None) -> np.ndarray:
    """An array (uint8) from a file in MNIST's idx format, plain or as `name`.gz; `sha256` is of the plain content.

    Raises:
        DataError: the file is missing, truncated, too large or has another digest.
    """
    path = folder / name
    try:
        content = _idx_content(path if path.exists() else folder / f"{name}.gz")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)} cannot be read ({error}). Fetch the file again.") from error
    if sha256 is not None:
        _compare(path, hashlib.sha256(content).hexdigest(), sha256)
    shape = _idx_shape(content)
    if not shape or len(content) != _idx_size(shape):
        raise DataError(f"{shown(path)} is not a complete idx file of bytes. Fetch the file again.")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()


def _idx_shape(content: bytes) -> tuple[int, ...]:
    """What the header of an idx file says; nothing where it is none of bytes in up to four dimensions."""
    n_dims = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0  # 8 = unsigned bytes
    lengths = content[4 : 4 + 4 * n_dims]
    return struct.unpack(f">{n_dims}I", lengths) if n_dims <= 4 and len(lengths) == 4 * n_dims else ()


def _idx_size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape) + math.prod(shape)


def _idx_content(path: Path) -> bytes:
    """What is in an idx file, unpacked; no more than its header says and one byte, so that nothing can fill memory."""
    with open_regular(path) as packed, gzip.open(packed) if path.suffix == ".gz" else packed as file:
        head = file.read(4 + 4 * 4)
        size = _idx_size(_idx_shape(head))
        if size > MAX_IDX:
            raise OSError(f"its header says {size:,} bytes, expected at most {MAX_IDX:,}")
        return head + file.read(max(0, size + 1 - len(head)))


BUILDERS: dict[str, Callable[[Manifest, str], ImageDataset]] = {
    "fashion-mini": _mosaic,
    "emoji-unseen": _mosaic,
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
}


def _folder(manifest: Manifest, split: str) -> ImageDataset:
    found = manifest.scan()
    if split not in found:
        raise DataError(
            f"{shown(manifest.root)} has no folder {split}/. Expected folders {', '.join(manifest.splits)}."
        )
    unknown = {name for _, name in found[split] if name is not None} - set(manifest.classes)
    if unknown and manifest.classes:
        raise DataError(
            f"{shown(manifest.root)} has folders that are no class of {manifest.id}: "
            f"{', '.join(sorted(unknown)):.200}. Expected {', '.join(manifest.classes):.200}."
        )
    numbers = {name: i for i, name in enumerate(manifest.classes)}
    labels = np.array([numbers.get(name or "", -1) for _, name in found[split]], dtype=np.int64)
    return ImageDataset(labels, manifest.classes, files=[path for path, _ in found[split]], root=manifest.root)
