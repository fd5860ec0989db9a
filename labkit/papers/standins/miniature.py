"""What every writer of a stand-in is given: the manifest, how many images of each class, and where to put them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data.schema import Manifest
from labkit.errors import DataError
from labkit.papers.standins.images import SIDE, file_of, pixels

# Sets with an official validation part, which the papers train on as well: its name, the split that it belongs to, and
# the images of that split which it has (every second one).
PARTS = (("train", "train", 0, 2), ("val", "train", 1, 2), ("test", "test", 0, 1))


@dataclass
class Miniature:
    """One dataset on its way to the disk.

    Attributes:
        manifest: of the real set.
        folder: a data folder that holds this set alone; paths are relative to it.
        n_train, n_test: images of each class.
        written: how many image files there are so far.
        placed: how many files of each class have a name so far.
    """

    manifest: Manifest
    folder: Path
    n_train: int
    n_test: int
    written: int = 0
    placed: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The id of the dataset."""
        return self.manifest.id

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the order of their numbers."""
        return self.manifest.classes

    def sizes(self) -> dict[str, int]:
        """The sizes of both splits, where every class has the same number of images."""
        return {"train": len(self.classes) * self.n_train, "test": len(self.classes) * self.n_test}

    def images(self, split: str, first: int = 0, step: int = 1, n: int | None = None) -> Iterator[tuple[int, int]]:
        """Class number and index of every image of a split, the classes taking turns.

        Args:
            split: "train" or "test", or any other where `n` is given.
            first, step: of the indices, where a split lies in several parts.
            n: images of each class.
        """
        for index in range(first, {"train": self.n_train, "test": self.n_test}[split] if n is None else n, step):
            for number in range(len(self.classes)):
                yield number, index

    def stack(self, images: list[tuple[int, int]], split: str, side: int = SIDE) -> np.ndarray:
        """Images of a split in one array: (n, side, side, 3) uint8."""
        arrays = [pixels(self.name, number, split, index, side) for number, index in images]
        return np.stack(arrays) if arrays else np.zeros((0, side, side, 3), np.uint8)

    def image_file(self, ending: str, number: int, split: str, index: int, side: int = SIDE) -> bytes:
        """The content of one image file, a few of them in the odd modes of the real set."""
        self.written += 1
        array = pixels(self.name, number, split, index, side)
        return file_of(array, ending, name=self.name, serial=self.written)

    def save(self, path: str, number: int, split: str, index: int, side: int = SIDE) -> None:
        """Write one image file."""
        self.write(path, self.image_file(Path(path).suffix, number, split, index, side))

    def write(self, path: str, content: bytes | str) -> None:
        """Write a file below `folder`, text as UTF-8."""
        target = self.folder / path
        if not target.parent.is_dir():  # to ask is quicker than to try, thousands of times
            target.parent.mkdir(parents=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)


def needed(module: str, name: str) -> Any:
    """A module of the extra `papers`, which writes the format of a dataset.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f'a stand-in of {name} needs {module}. Install it: pip install "labkit[papers]"') from error
