"""Datasets: a manifest and a split become images with class numbers, checked against what the manifest promises."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import inspect
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labkit._files import file_sha256, open_regular
from labkit.errors import DataError
from labkit.folders import data_dir, read_image
from labkit.manifests import Builtin, HuggingFace, Manifest, Torchvision, load_manifest

POCKET_DATA = Path(__file__).parent / "pocket" / "data"  # the datasets that ship
TILE = {"fashion-mini": 28, "emoji-unseen": 64}  # side in pixels of an image in their mosaics
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts the files
SAMPLE = 4096  # bytes that are read at three places of a file, to tell it from others
FASHION_FILES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with class numbers: `ds[i]` is (PIL image, int), decoded when it is asked for.

    Attributes:
        labels: (n,) int64, -1 where unknown.
        classes: names of the class numbers.
        array: all images, uint8 (n, h, w) grey or (n, h, w, 3) RGB, where they are held in memory; else None.
        files: the image files in the order of the samples, where there is one a sample; else None.
        names: what each image shows, finer than its class, where the data tells; else None.
        root: the folder that the files lie in; None is the deepest that holds all of them.
    """

    labels: np.ndarray
    classes: list[str]
    array: np.ndarray | None = None
    files: list[Path] | None = None
    decode: Callable[[int], Image.Image] | None = None  # where there is neither; must survive pickle, for workers
    names: list[str] | None = None
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """One image and its class number.

        Raises:
            DataError: the image is missing, truncated or not an image.
        """
        i = range(len(self))[index]  # IndexError beyond the end; counts negative numbers from there
        return self._image(i), int(self.labels[i])

    @functools.cached_property
    def identity(self) -> str:
        """A SHA-256 that tells these images from all others, in this order; their labels have no part in it.

        Of all pixels where they are in memory; of files by path below `root`, size, time and a sample of the content;
        else of the pixels of 32 images.

        Raises:
            DataError: a file is missing, or an image cannot be read.
        """
        digest = hashlib.sha256(str(len(self)).encode())
        if self.array is not None:
            digest.update(str(self.array.shape).encode())
            digest.update(np.ascontiguousarray(self.array).data)
        elif self.files is not None:
            root = self.root or os.path.commonpath([path.parent for path in self.files])
            for path in self.files:
                digest.update(_file_identity(path, root))
        else:
            for i in np.unique(np.linspace(0, len(self) - 1, 32).round().astype(int)).tolist():
                image = self._image(i)
                digest.update(f"{i} {image.mode} {image.size}".encode())
                digest.update(image.tobytes())
        return digest.hexdigest()

    def subset(self, rows: Sequence[int]) -> ImageDataset:
        """Only these images, in this order; files are not read.

        Raises:
            DataError: a row is beyond the end.
        """
        chosen = np.arange(len(self))
        try:
            chosen = chosen[np.asarray(rows, dtype=np.int64)]
        except IndexError as error:
            raise DataError(
                f"{error}: the dataset has {len(self)} images. Expected rows from 0 to {len(self) - 1}."
            ) from error
        return ImageDataset(
            self.labels[chosen],
            self.classes,
            array=None if self.array is None else self.array[chosen],
            files=None if self.files is None else [self.files[i] for i in chosen],
            decode=None if self.decode is None else ChosenImages(self.decode, chosen.tolist()),
            names=None if self.names is None else [self.names[i] for i in chosen],
            root=self.root,
        )

    def _image(self, i: int) -> Image.Image:
        if self.array is not None:
            return Image.fromarray(self.array[i])
        if self.files is not None:
            return read_image(self.files[i])
        assert self.decode is not None
        try:
            return self.decode(i)
        except Exception as error:  # whatever the library that owns the data raises
            raise DataError(
                f"image {i} cannot be read ({error}). Delete the damaged file and fetch it again."
            ) from error


def _file_identity(path: Path, root: str | os.PathLike[str]) -> bytes:
    """Path below the root, size, time, and a sample of the content: its first, middle and last 4 KiB."""
    try:
        with open_regular(path) as file:
            stat = os.fstat(file.fileno())
            sample = file.read(SAMPLE if stat.st_size > 3 * SAMPLE else 3 * SAMPLE)
            for start in (stat.st_size // 2, stat.st_size - SAMPLE) if stat.st_size > 3 * SAMPLE else ():
                file.seek(start)
                sample += file.read(SAMPLE)
    except OSError as error:
        raise DataError(f"the image {path} cannot be read ({error}). Look whether it is there.") from error
    facts = (os.fsencode(Path(os.path.relpath(path, root)).as_posix()), str(stat.st_size).encode(), str(stat.st_mtime_ns).encode())
    return b"\0".join((*facts, hashlib.sha256(sample).digest()))


@dataclass(frozen=True)
class ChosenImages:
    """Decodes image i of a subset; a class, so that worker processes can be sent it."""

    decode: Callable[[int], Image.Image]
    rows: list[int]

    def __call__(self, i: int) -> Image.Image:
        return self.decode(self.rows[i])


@dataclass(frozen=True)
class TorchvisionImages:
    """Decodes image i of a dataset of (PIL image, label) pairs; a class, so that worker processes can be sent it."""

    pairs: Any

    def __call__(self, i: int) -> Image.Image:
        return self.pairs[i][0].convert("RGB")


@dataclass(frozen=True)
class HubImages:
    """Decodes image i of a table from the Hugging Face hub; a class, so that worker processes can be sent it."""

    rows: Any
    column: str

    def __call__(self, i: int) -> Image.Image:
        return self.rows[i][self.column].convert("RGB")


def load_dataset(manifest: Manifest | str | Path, split: str = "train") -> ImageDataset:
    """The images and labels of one split of a dataset.

    Args:
        manifest: a manifest, or what `load_manifest` takes.
        split: a split of the manifest.

    Raises:
        DataError: the split or the data is missing, a file is damaged, or the data is not what the manifest promises.
    """
    manifest = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    if split not in manifest.splits:
        raise DataError(f"{manifest.id} has no split {split!r}. Expected one of {', '.join(manifest.splits)}.")
    source = manifest.source
    if isinstance(source, Builtin):
        dataset = BUILDERS[source.builder](manifest, split)
    elif isinstance(source, Torchvision):
        dataset = _torchvision(manifest, source.dataset, source.args[split])
        _check_files(data_dir(), manifest.sha256)
    elif isinstance(source, HuggingFace):
        dataset = _huggingface(manifest, source, split)
    else:
        dataset = _folder(manifest, split)
        _check_files(manifest.root, manifest.sha256)
    promised, labels = manifest.splits[split].size, dataset.labels
    if len(dataset) != promised:
        raise DataError(
            f"{manifest.id} has {len(dataset)} images in split {split}, but its manifest promises {promised}. "
            f"Complete the data, or correct `splits.{split}.size` in the manifest."
        )
    if labels.min() < -1 or labels.max() >= manifest.n_classes:
        raise DataError(
            f"{manifest.id} has class numbers from {labels.min()} to {labels.max()} in split {split}, but its manifest "
            f"has {manifest.n_classes} classes. Correct `classes` in the manifest."
        )
    return dataset


def _check_files(folder: Path, sha256: Mapping[str, str]) -> None:
    for name, expected in sha256.items():
        path = folder / name
        try:
            stat = path.stat()
            actual = _sha256_once(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise DataError(f"the file {path} is missing ({error}). Fetch the dataset again.") from error
        _compare(path, actual, expected)


@functools.cache
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)  # once a process, and again when the file has changed


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise DataError(
            f"{path} is not the file that the manifest names: its sha256 is {actual}, expected {expected}. "
            "Fetch the file again, or correct `sha256` in the manifest if you changed the data on purpose."
        )


def _mosaic(manifest: Manifest, split: str) -> ImageDataset:
    """Images that ship as one PNG a split, row by row, and an index of their labels; made by labkit/pocket/recipe."""
    builder = getattr(manifest.source, "builder", "")
    folder, side = POCKET_DATA / builder, TILE[builder]
    _check_files(folder, manifest.sha256)
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    try:
        with Image.open(folder / f"{split}.png") as image:
            mosaic = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{folder / f'{split}.png'} cannot be read ({error}). Install labkit again.") from error
    height, width, *channels = mosaic.shape
    tiles = mosaic.reshape(height // side, side, width // side, side, *channels).swapaxes(1, 2)
    array = tiles.reshape(-1, side, side, *channels)[: len(rows)]  # the last row may not be full
    labels = np.array([int(row["label"]) for row in rows], dtype=np.int64)
    names = [row["name"] for row in rows] if rows and "name" in rows[0] else None
    return ImageDataset(labels, manifest.classes, array=array, names=names)


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
    pixels = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)  # 17 levels of grey -> 0..255
    return ImageDataset(digits.target[chosen].astype(np.int64), manifest.classes, array=pixels)


def _fashion_mnist(manifest: Manifest, split: str) -> ImageDataset:
    """All of Fashion-MNIST from files on this machine; torchvision downloads them where there are none."""
    folders = [data_dir() / "fashion-mnist", data_dir() / "FashionMNIST" / "raw", DEBIAN_FASHION]
    names = [f"{FASHION_FILES[split]}-images-idx3-ubyte", f"{FASHION_FILES[split]}-labels-idx1-ubyte"]
    for folder in folders:
        if all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in names):
            images, labels = (read_idx(folder, name, manifest.sha256.get(name)) for name in names)
            return ImageDataset(labels.astype(np.int64), manifest.classes, array=images)
    return _torchvision(manifest, "FashionMNIST", [{"train": split == "train"}])


def read_idx(folder: Path, name: str, sha256: str | None = None) -> np.ndarray:
    """An array (uint8) from a file in MNIST's idx format, plain or as `name`.gz; `sha256` is of the plain content.

    Raises:
        DataError: the file is missing, truncated or has another digest.
    """
    path = folder / name
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Fetch the file again.") from error
    if sha256 is not None:
        _compare(path, hashlib.sha256(content).hexdigest(), sha256)
    n_dims = content[3] if content[:3] == b"\x00\x00\x08" else 0  # 8 = unsigned bytes, then the number of dimensions
    shape = np.frombuffer(content[4 : 4 + 4 * n_dims], dtype=">u4").astype(int)
    if not n_dims or len(content) != 4 + 4 * n_dims + shape.prod():
        raise DataError(f"{path} is not a complete idx file of bytes. Fetch the file again.")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_dims).reshape(shape).copy()


BUILDERS: dict[str, Callable[[Manifest, str], ImageDataset]] = {
    "fashion-mini": _mosaic,
    "emoji-unseen": _mosaic,
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
}


def _torchvision(manifest: Manifest, name: str, calls: list[dict[str, Any]]) -> ImageDataset:
    import torchvision.datasets
    from torch.utils.data import ConcatDataset

    factory = getattr(torchvision.datasets, name, None)
    if factory is None:
        raise DataError(f"torchvision has no dataset {name!r}. Correct `source.dataset` in the manifest {manifest.id}.")
    # torchvision downloads only what is not there
    download = {"download": True} if "download" in inspect.signature(factory).parameters else {}
    root = data_dir()
    try:
        parts = [factory(root=str(root), **download, **kwargs) for kwargs in calls]
    except Exception as error:  # no network, no such host, a damaged archive, wrong arguments: all kinds
        raise DataError(
            f"torchvision.datasets.{name} cannot be had from {root} nor downloaded ({type(error).__name__}: {error}). "
            f"Connect to the network once, or put the files (homepage: {manifest.homepage}) where torchvision looks "
            "for them (set LABKIT_DATA to that folder); if the error names an argument, correct `source.args`."
        ) from error
    named = getattr(parts[0], "classes", manifest.classes)
    if list(map(_plain, named)) != list(map(_plain, manifest.classes)):
        raise DataError(
            f"torchvision.datasets.{name} has the classes {', '.join(named):.200}, but the manifest {manifest.id} has "
            f"{', '.join(manifest.classes):.200}. Give `classes` in that order."
        )
    labels = np.concatenate([_torchvision_labels(part) for part in parts])
    arrays = [_torchvision_array(part) for part in parts]
    if all(array is not None for array in arrays):
        return ImageDataset(labels, manifest.classes, array=np.concatenate(arrays))  # type: ignore[arg-type]
    joined: ConcatDataset[Any] = ConcatDataset(parts)
    return ImageDataset(labels, manifest.classes, decode=TorchvisionImages(joined))


def _torchvision_labels(part: Any) -> np.ndarray:
    for attribute in ("targets", "labels", "_labels"):  # the names that torchvision uses
        if getattr(part, attribute, None) is not None:
            return np.asarray(getattr(part, attribute)).astype(np.int64)
    return np.array([part[i][1] for i in range(len(part))], dtype=np.int64)


def _torchvision_array(part: Any) -> np.ndarray | None:
    """All images of a torchvision dataset as (n, h, w) or (n, h, w, 3) uint8, where it holds them in memory."""
    if not hasattr(part, "data"):
        return None
    array = np.asarray(part.data)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return None
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] == 3 else array  # STL10 is (n, 3, h, w)


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _huggingface(manifest: Manifest, source: HuggingFace, split: str) -> ImageDataset:
    try:
        import datasets  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise DataError(
            f"{manifest.id} comes from the Hugging Face hub and needs the library `datasets`. "
            "Install it: pip install datasets"
        ) from error
    try:
        rows = datasets.load_dataset(source.repo, source.config, split=source.splits[split], revision=source.revision)
        labels = np.full(len(rows), -1) if source.label is None else np.array(rows[source.label])
    except Exception as error:  # offline, no such repository, split or column
        raise DataError(
            f"{source.repo} cannot be loaded from the Hugging Face hub ({type(error).__name__}: {error}). Connect to "
            f"the network once, or correct `source` in the manifest {manifest.id}."
        ) from error
    return ImageDataset(labels.astype(np.int64), manifest.classes, decode=HubImages(rows, source.image))


def _folder(manifest: Manifest, split: str) -> ImageDataset:
    found = manifest.scan()
    if split not in found:
        raise DataError(f"{manifest.root} has no folder {split}/. Expected folders {', '.join(manifest.splits)}.")
    unknown = {name for _, name in found[split] if name is not None} - set(manifest.classes)
    if unknown and manifest.classes:
        raise DataError(
            f"{manifest.root} has folders that are no class of {manifest.id}: {', '.join(sorted(unknown))}. "
            f"Expected {', '.join(manifest.classes):.200}."
        )
    numbers = {name: i for i, name in enumerate(manifest.classes)}
    labels = np.array([numbers.get(name or "", -1) for _, name in found[split]], dtype=np.int64)
    return ImageDataset(labels, manifest.classes, files=[path for path, _ in found[split]], root=manifest.root)
