"""Images with class numbers: in memory, in files, or in what another library reads."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from labkit._files import open_regular, user_path
from labkit._inputs import plain_array
from labkit.data.decoding import DECODING, plain_image, read_image, use_image
from labkit.data.file_list import FileList
from labkit.errors import DataError, quote, shorten, shown

T = TypeVar("T")
MOST_SAMPLED = 1 << 16  # files of which the content is looked at, to tell a dataset from others
BLOCK, BLOCKS = 4096, 16  # bytes, and at how many places of a file they are read, to tell it from others


class MismatchError(DataError):
    """Images, class numbers and classes that do not belong together."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with class numbers: `ds[i]` is (PIL image, int), decoded when it is asked for.

    Attributes:
        labels: (n,) int64, -1 where unknown.
        classes: names of the class numbers.
        array: all images, uint8 (n, h, w) gray or (n, h, w, 3) RGB, where they are held in memory; else None.
        files: the image files in the order of the samples, where there is one a sample; else None. With `decode` these
            are what it decodes (videos), and tell the images from others.
        names: what each image shows, finer than its class, where the data tells; else None.
        root: the folder that the files lie in; None is the deepest that holds all of them.
        origin: says where images that only `decode` knows come from, as exactly as it is known.
    """

    labels: np.ndarray
    classes: list[str]
    array: np.ndarray | None = None
    files: Sequence[Path] | None = None
    decode: Callable[..., Image.Image] | None = None  # where there is neither; must survive pickle, for workers
    names: list[str] | None = None
    root: Path | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        labels, n_classes = np.asarray(self.labels), len(self.classes) if isinstance(self.classes, list | tuple) else -1
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise MismatchError(f"labels is {quote(self.labels)}. Expected a class number for each image, (n,).")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        if n_classes < 0:
            raise MismatchError(f"classes is {quote(self.classes)}. Expected a list of names, [] where there are none.")
        if len(labels) and (labels.min() < -1 or labels.max() >= max(n_classes, 1)):
            raise MismatchError(
                f"class numbers go from {labels.min()} to {labels.max()}, and there are {n_classes} classes. Expected "
                "the number of a class for each image, or -1 for unknown."
            )
        if self.array is not None:
            _expect_pixels(self.array)
        if self.files is not None and not isinstance(self.files, FileList):
            if not isinstance(self.files, list | tuple) or not all(isinstance(f, str | Path) for f in self.files):
                raise MismatchError(f"files is {quote(self.files)}. Expected a list of paths.")
            object.__setattr__(self, "files", [Path(path) for path in self.files])
        if self.names is not None and len(self.names) != len(labels):
            raise MismatchError(f"there are {len(self.names)} names and {len(labels)} labels. Expected one for each.")
        images = self.files if self.array is None else self.array
        if images is None and self.decode is None and len(labels):
            raise MismatchError("there are labels and no images. Expected array, files or decode.")
        if images is not None and len(images) != len(labels):
            raise MismatchError(f"there are {len(images)} images and {len(labels)} labels. Expected one for each.")

    @classmethod
    def from_files(
        cls,
        files: Sequence[str | os.PathLike[str]],
        labels: ArrayLike | Sequence[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> ImageDataset:
        """A dataset of image files, which are read when an image is asked for.

        Args:
            files: their paths, n of them.
            labels: for each a class number (−1 is unknown) or the name of its class; None where nothing is known.
            classes: names of the classes; needed with numbers, else those that occur, sorted.

        Raises:
            DataError: these do not belong together.
        """
        if isinstance(files, str | bytes) or not isinstance(files, Sequence):
            raise MismatchError(f"files is {quote(files)}. Expected a list of paths.")
        return cls(*_read_labels(labels, classes, len(files)), files=[user_path(file) for file in files])

    @classmethod
    def from_images(
        cls,
        images: np.ndarray | Sequence[Image.Image],
        labels: ArrayLike | Sequence[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> ImageDataset:
        """A dataset of images in memory.

        Args:
            images: pixels, uint8 (n, h, w) gray or (n, h, w, 3) RGB; or a list of n PIL images, of any sizes.
            labels, classes: as in `from_files`.

        Raises:
            DataError: these do not belong together.
        """
        if isinstance(images, np.ndarray):
            return cls(*_read_labels(labels, classes, len(images) if images.ndim else 0), array=images)
        if not isinstance(images, Sequence) or not all(isinstance(image, Image.Image) for image in images):
            raise MismatchError(f"images is {quote(images)}. Expected an array of uint8, or a list of PIL images.")
        held = HeldImages(list(images))
        return cls(*_read_labels(labels, classes, len(images)), decode=held, origin=held.digest())

    def without_labels(self) -> ImageDataset:
        """The same images, of which nothing else is known: labels −1, no classes and no names."""
        return dataclasses.replace(self, labels=np.full(len(self), -1), classes=[], names=None)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """One image and its class number.

        Raises:
            DataError: the image is missing, truncated or not an image.
        """
        i = range(len(self))[index]  # IndexError beyond the end; counts negative numbers from there
        return self._image(i), int(self.labels[i])

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return (self[i] for i in range(len(self)))

    @property
    def identity(self) -> str:
        """A SHA-256 that tells these images from others, in this order; their labels have no part in it.

        Of all pixels where they are in memory; of files by path below `root`, size, time and a sample of the content
        (of more than 65,536 files the content of every k-th alone); else of their origin and the pixels of 32 of them.

        Raises:
            DataError: a file is missing, or an image cannot be read.
        """
        return self._digest(times=True)

    @property
    def contents(self) -> str:
        """The same without the times of files, which a copy on another machine has others of.

        Raises:
            DataError: as `identity`.
        """
        return self._digest(times=False)

    def _digest(self, *, times: bool) -> str:
        digest = hashlib.sha256(str(len(self)).encode())
        if self.array is not None:
            digest.update(str(self.array.shape).encode())
            digest.update(np.ascontiguousarray(self.array).data)
        elif self.files:
            digest.update(f"decoding {DECODING if self.decode is None else type(self.decode).__name__}".encode())
            root = self.root or os.path.commonpath([path.absolute().parent for path in self.files])
            every = 1 + len(self) // (MOST_SAMPLED + 1)
            for i, path in enumerate(self.files):
                digest.update(file_identity(path, root, content=i % every == 0, time=times))
        elif len(self):
            digest.update(self.origin.encode())
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
            wanted = np.asarray(rows)
            if wanted.size and wanted.dtype.kind not in "iu":  # of a mask, NumPy would take rows 0 and 1
                raise TypeError("no whole numbers")
            chosen = chosen[wanted.astype(np.int64)]
        except (IndexError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"the rows are {quote(rows)}, but the dataset has {len(self)} images. Expected rows from 0 to "
                f"{len(self) - 1}."
            ) from error
        return ImageDataset(
            self.labels[chosen],
            self.classes,
            array=None if self.array is None else self.array[chosen],
            files=_take(self.files, chosen),
            decode=None if self.decode is None else ChosenImages(self.decode, chosen.tolist()),
            names=None if self.names is None else [self.names[i] for i in chosen],
            root=self.root,
            origin=self.origin,
        )

    def use(self, i: int, function: Callable[[Image.Image], T]) -> T:
        """What a function makes of image i; of a large file no other one is decoded meanwhile.

        Where the function has an attribute `at_least`, as `Preprocess` has, it is the number of pixels that the shorter
        side must keep: a larger JPEG is then decoded smaller (see `labkit.data.decoding.use_image`).

        Raises:
            DataError: the image is missing, truncated or not an image.
        """
        at_least = getattr(function, "at_least", None)
        if self.array is None and self.files is not None and self.decode is None:
            return use_image(self.files[i], function, at_least)
        return function(self._image(i, at_least))

    def _image(self, i: int, at_least: int | None = None) -> Image.Image:
        if self.array is not None:
            return Image.fromarray(self.array[i])
        if self.decode is None:
            assert self.files is not None
            return read_image(self.files[i])
        try:
            image = self.decode(i, at_least) if getattr(self.decode, "scales", False) else self.decode(i)
            if not isinstance(image, Image.Image):
                raise TypeError(f"decode gave {quote(image)}, not an image")
            return image
        except DataError:
            raise
        except Exception as error:  # whatever the library that owns the data raises
            raise DataError(
                f"image {i} cannot be read ({shorten(str(error), 200)}). Delete the damaged file and fetch it again."
            ) from error


def _read_labels(
    labels: ArrayLike | Sequence[str] | None, classes: Sequence[str] | None, n: int
) -> tuple[np.ndarray, list[str]]:
    """Class numbers (n,) and names of classes, from numbers or names."""
    names = None if classes is None else list(classes)
    if labels is None:
        return np.full(n, -1), names or []
    given = plain_array("labels", labels, "Expected a class number or a name for each image, (n,).", MismatchError)
    if given.dtype.kind not in "UT":
        if names is None:
            raise MismatchError("labels are numbers, and classes is missing. Expected the name of each class, a list.")
        return given, names
    names = sorted(set(given.tolist())) if names is None else names
    unknown = sorted(set(given.tolist()) - set(names))
    if unknown:
        raise MismatchError(f"labels has {quote(unknown[0])}, which is none of classes, {quote(names)}. Add it there.")
    return np.array([names.index(name) for name in given.tolist()], dtype=np.int64), names


def _expect_pixels(array: object) -> None:
    """Raise a MismatchError unless it is uint8 (n, h, w), or (n, h, w, 3)."""
    shape = array.shape[1:] if isinstance(array, np.ndarray) and array.dtype == np.uint8 else ()
    if 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[2:] == (3,))):
        raise MismatchError(
            f"array is {quote(array)}. Expected pixels, uint8 (n, h, w) for gray or (n, h, w, 3) for RGB."
        )


def file_identity(path: Path, root: str | os.PathLike[str], *, content: bool = True, time: bool = True) -> bytes:
    """Path below the root, size, time, and the content: all of up to 64 KiB, of more as much in sixteen places.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if content:
            with open_regular(path) as file:
                stat = os.fstat(file.fileno())
                sampled = hashlib.sha256(_sample(file, stat.st_size)).digest()
        else:
            stat, sampled = os.stat(path), b""  # noqa: PTH116 (quicker, for millions)
    except OSError as error:
        raise DataError(f"the image {shown(path)} cannot be read ({error}). Look whether it is there.") from error
    facts = (
        os.fsencode(Path(os.path.relpath(path, root)).as_posix()),
        str(stat.st_size).encode(),
        str(stat.st_mtime_ns).encode() if time else b"",
    )
    return b"\0".join((*facts, sampled))


def _sample(file: BinaryIO, size: int) -> bytes:
    if size <= BLOCK * BLOCKS:
        return file.read(BLOCK * BLOCKS)
    sample = b""
    for k in range(BLOCKS):
        file.seek(k * (size - BLOCK) // (BLOCKS - 1))
        sample += file.read(BLOCK)
    return sample


def _take(files: Sequence[Path] | None, rows: np.ndarray) -> Sequence[Path] | None:
    if isinstance(files, FileList):
        return files.take(rows)
    return None if files is None else [files[i] for i in rows]


@dataclass(frozen=True)
class HeldImages:
    """Gives image i of a list in memory; a class, so that worker processes can be sent it."""

    images: list[Image.Image]

    def __call__(self, i: int) -> Image.Image:
        return plain_image(self.images[i])

    def digest(self) -> str:
        """SHA-256 of all pixels."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.mode} {image.size}".encode())
            digest.update(image.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class ChosenImages:
    """Decodes image i of a subset; a class, so that worker processes can be sent it."""

    decode: Callable[..., Image.Image]
    rows: list[int]

    @property
    def scales(self) -> bool:
        """Whether it takes `at_least`, as `labkit.data.webdataset.TarImages` does."""
        return getattr(self.decode, "scales", False)

    def __call__(self, i: int, at_least: int | None = None) -> Image.Image:
        return self.decode(self.rows[i], at_least) if self.scales else self.decode(self.rows[i])
