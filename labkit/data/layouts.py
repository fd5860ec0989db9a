"""Layouts: files on the disk, as their authors lay them out, become images with class numbers (see `layout_kinds`)."""

from __future__ import annotations

import bisect
import csv
import io
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from labkit._files import open_regular
from labkit.data.draws import draw_rows, takes_all
from labkit.data.file_list import FileList
from labkit.data.folders import JUNK
from labkit.data.hdf5 import read_hdf5
from labkit.data.images import ImageDataset
from labkit.data.layout_kinds import Clevr, Folders, Hdf5, Kitti, Layout, Lists, Table, Videos
from labkit.data.schema import Manifest
from labkit.data.videos import VIDEOS, MiddleFrames
from labkit.errors import DataError, quote, shorten, shown

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
VEHICLES = ("Car", "Van", "Truck")  # of KITTI, whose distance counts
NEAR = (0.0, 8.0, 20.0)  # meters, up to which a class goes
DISTANCES = ("no_vehicle", "below_8", "below_20", "above_20")
MOST_TEXT = 1 << 30  # bytes of one list; CLEVR's scenes are a third of that

Found = Iterator[tuple[str, int]]  # a path below the root, and a class number


def read_layout(manifest: Manifest, layout: Layout, root: Path, split: str) -> ImageDataset:
    """The images of one split that lie in a folder as the layout says, and that the draw of the manifest leaves in it.

    Nothing is decoded. Opening takes time and memory linear in the number of files: about 50 bytes each.

    Raises:
        DataError: a folder, list or file is missing, or a label is none of the manifest.
    """
    numbers = ClassNumbers(manifest, layout)
    draw = getattr(manifest.source, "draw", None)
    dataset = _read(manifest, layout, root, split, numbers)
    if draw is not None:
        _expect_total(manifest, draw, len(dataset))
        dataset = dataset.subset(draw_rows(draw, dataset.labels, "train" if split == "train" else "test"))  # type: ignore[arg-type]
    return dataset


def _expect_total(manifest: Manifest, draw: Any, n_found: int) -> None:
    """Where a draw leaves no image out, one that is missing shows at once: else others would be drawn in its class."""
    total = sum(split.size for split in manifest.splits.values())
    if takes_all(draw) and n_found != total and all(split.exact for split in manifest.splits.values()):
        raise DataError(
            f"{manifest.id} has {n_found} images to draw its splits from, but its manifest promises {total}. Fetch the "
            "dataset again, or correct the sizes in the manifest."
        )


def layout_paths(layout: Layout, root: Path) -> list[Path]:
    """The files and folders that a layout needs; where all are there, the data is there or was begun to be."""
    inner = layout.layout if isinstance(layout, Videos) else layout
    fields = {
        Folders: ("train", "test"),
        Lists: ("images", "train", "test"),
        Table: ("images", "train", "test"),
        Hdf5: ("train", "test", "train_labels", "test_labels"),
        Kitti: ("images", "labels"),
        Clevr: ("images", "scenes"),
    }[type(inner)]
    given = [getattr(inner, field) for field in fields]
    return [root / path for value in given for path in ([value] if isinstance(value, str) else value)]


class ClassNumbers:
    """The class number for what stands for a class in the data: its name in the layout, or the class itself."""

    def __init__(self, manifest: Manifest, layout: Layout) -> None:
        names = getattr(layout.layout if isinstance(layout, Videos) else layout, "names", None)
        self._id, self._names = manifest.id, names or manifest.classes
        self._plainly = (lambda text: text) if names else _plain
        self._numbers = {self._plainly(name): i for i, name in enumerate(self._names)}

    def get(self, text: str) -> int:
        """The number, or -1 where the text stands for no class."""
        return self._numbers.get(self._plainly(text), -1)

    def expect(self, text: str, where: str) -> int:
        """The number.

        Raises:
            DataError: the text stands for no class.
        """
        number = self.get(text)
        if number < 0:
            raise DataError(
                f"{where} has the label {quote(text)}, which is no class of {self._id}. Expected "
                f"{', '.join(self._names):.200}. Fetch it again where it is not complete, or correct the manifest."
            )
        return number


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _read(manifest: Manifest, layout: Layout, root: Path, split: str, numbers: ClassNumbers) -> ImageDataset:
    classes = manifest.classes
    if isinstance(layout, Hdf5):
        return read_hdf5(layout, root, split, classes)
    if isinstance(layout, Table) and layout.pixels is not None:
        return _pixels(layout, layout.pixels, root, split, numbers, classes)
    if isinstance(layout, Videos):
        files, labels = _files(layout.layout, root, split, numbers, VIDEOS)
        return ImageDataset(labels, classes, files=files, decode=MiddleFrames(files), root=root)
    files, labels = _files(layout, root, split, numbers, IMAGES)
    return ImageDataset(labels, classes, files=files, root=root)


def _files(
    layout: Any, root: Path, split: str, numbers: ClassNumbers, endings: tuple[str, ...]
) -> tuple[FileList, np.ndarray]:
    readers: dict[type, Callable[[], Found]] = {
        Folders: lambda: _folders(getattr(layout, split), root, numbers, endings),
        Lists: lambda: _lists(layout, root, split, numbers),
        Table: lambda: _table(layout, root, split, numbers),
        Kitti: lambda: _kitti(layout, root, numbers),
        Clevr: lambda: _clevr(layout, root, numbers),
    }
    labels = array("q")

    def names() -> Iterator[str]:
        for name, label in readers[type(layout)]():
            labels.append(label)
            yield name

    try:
        files = FileList(root, names())
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the data in {shown(root)} cannot be read ({type(error).__name__}: {shorten(str(error), 200)}). The "
            "download is not complete, or the files are not those that the manifest describes: fetch them again."
        ) from error
    if not isinstance(layout, Folders | Kitti):  # which list what is there
        files.expect_all()
    return files, np.frombuffer(labels, dtype=np.int64).copy() if labels else np.zeros(0, dtype=np.int64)


# -------------------------------------------------------------------------------------------------------------- folders


def _folders(folders: Sequence[str], root: Path, numbers: ClassNumbers, endings: tuple[str, ...]) -> Found:
    for folder in folders:
        base = root / folder
        with os.scandir(base) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and _counts(entry.name))
        unknown = []
        for name in classes:
            label = numbers.get(name)
            if label >= 0:
                start = f"{folder}/{name}" if folder else name
                yield from ((path, label) for path in _below(base / name, start, endings))
            elif next(_below(base / name, name, endings), None) is not None:
                unknown.append(name)
        if unknown:
            numbers.expect(unknown[0], shown(base))


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in JUNK


def _below(folder: Path, start: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Files in a folder and those below it, in the order of ImageFolder; links are followed, as there."""
    seen: set[tuple[int, int]] = set()
    found: list[tuple[str, list[str]]] = []
    for path, below, names in os.walk(folder, followlinks=True):
        stat = os.stat(path)  # noqa: PTH116
        if (stat.st_dev, stat.st_ino) in seen:  # a link that leads back
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        found.append((path, names))
    for path, names in sorted(found):
        within = Path(path).relative_to(folder).as_posix()
        prefix = start if within == "." else f"{start}/{within}"
        yield from (f"{prefix}/{name}" for name in sorted(names) if name.lower().endswith(endings))


# ----------------------------------------------------------------------------------------------------- lists and tables


def _lists(layout: Lists, root: Path, split: str, numbers: ClassNumbers) -> Found:
    for name in getattr(layout, split):
        for line in _text(root / name).splitlines():
            if not line.strip():
                continue
            if layout.label == "rest":
                image, _, label = line.strip().partition(" ")
            else:
                image = re.sub(r"\s+\d+\s*$", "", line.strip())  # a class number may follow
                label = PurePosixPath(image.lstrip("/")).parent.as_posix()
            yield _path(layout.images, image + layout.suffix), numbers.expect(label.strip(), shown(root / name))


def _path(folder: str, name: str) -> str:
    """The path of an image below the root, which a list must not lead out of."""
    pure = PurePosixPath(name.replace("\\", "/").lstrip("/"))
    if ".." in pure.parts or not pure.name:
        raise ValueError(f"a list names {quote(name)}, which is no file in the folder of the images")
    return (PurePosixPath(folder) / pure).as_posix()


def _text(path: Path) -> str:
    with open_regular(path) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise ValueError(f"{shown(path)} has more than {MOST_TEXT:,} bytes")
    return content.decode("utf-8-sig")


def _rows(layout: Table, root: Path, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of all tables of a split, each with where it is."""
    wanted = layout.where.get(split, {})
    for name in getattr(layout, split):
        with open_regular(root / name) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as lines:
            rows = map(json.loads, filter(str.strip, lines)) if name.endswith(".jsonl") else csv.DictReader(lines)
            for given in rows:
                row = {str(key).strip(): value for key, value in given.items()}
                if all(str(row[column]).strip() == value for column, value in wanted.items()):
                    yield row, shown(root / name)


def _table(layout: Table, root: Path, split: str, numbers: ClassNumbers) -> Found:
    for row, where in _rows(layout, root, split):
        yield _path(layout.images, row[layout.image or ""]), numbers.expect(str(row[layout.label]).strip(), where)


def _pixels(
    layout: Table, column: str, root: Path, split: str, numbers: ClassNumbers, classes: list[str]
) -> ImageDataset:
    images: list[np.ndarray] = []
    labels: list[int] = []
    try:
        for row, where in _rows(layout, root, split):
            levels = np.frombuffer(bytes(map(int, row[column].split())), dtype=np.uint8)
            side = math.isqrt(len(levels))
            if not side:
                raise ValueError(f"row {len(labels)} has no levels")
            images.append(levels.reshape(side, side))
            labels.append(numbers.expect(str(row[layout.label]).strip(), where))
        pixels = np.stack(images) if images else np.zeros((0, 1, 1), dtype=np.uint8)
    except Exception as error:  # of text, of CSV, of numbers
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the tables in {shown(root)} cannot be read ({type(error).__name__}: {shorten(str(error), 200)}). Fetch "
            "them again."
        ) from error
    return ImageDataset(np.array(labels, dtype=np.int64), classes, array=pixels)


# ---------------------------------------------------------------------------------------------------------- annotations


def _kitti(layout: Kitti, root: Path, numbers: ClassNumbers) -> Found:
    images, texts = (
        sorted(name for name in os.listdir(root / folder) if _counts(name))  # noqa: PTH208
        for folder in (layout.images, layout.labels)
    )
    if [Path(name).stem for name in images] != [Path(name).stem for name in texts]:
        raise ValueError(f"there are {len(images)} images and {len(texts)} labels, which do not have the same names")
    for image, text in zip(images, texts, strict=True):
        objects = [line.split() for line in _text(root / layout.labels / text).splitlines() if line.strip()]
        nearest = min((float(o[13]) for o in objects if o[0] in VEHICLES), default=-math.inf)
        label = DISTANCES[bisect.bisect_left(NEAR, nearest)]
        yield _path(layout.images, image), numbers.expect(label, shown(root / layout.labels / text))


def _clevr(layout: Clevr, root: Path, numbers: ClassNumbers) -> Found:
    """Scene by scene, since all of them at once would take gigabytes."""
    text, decoder = _text(root / layout.scenes), json.JSONDecoder()
    start = re.search(r'"scenes"\s*:\s*\[\s*', text)
    if start is None:
        raise ValueError("there are no scenes in it")
    at, between = start.end(), re.compile(r"\s*([,\]])\s*")
    more = not text.startswith("]", at)
    while more:
        scene, at = decoder.raw_decode(text, at)
        count = str(len(scene["objects"]))
        yield _path(layout.images, scene["image_filename"]), numbers.expect(count, shown(root / layout.scenes))
        end = between.match(text, at)
        if end is None:
            raise ValueError("it ends within the scenes")
        more, at = end.group(1) == ",", end.end()
