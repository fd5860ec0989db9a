"""Many paths in little memory: the files of a dataset, a Path each only when it is asked for."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from labkit.errors import DataError, shorten, shown


class FileList(Sequence[Path]):
    """Paths below a root, in some order. ImageNet's 1.28 million take 50 MB; pickled, they are as small.

    Args:
        root: the folder that all lie below.
        names: their paths below it, with "/" between folders.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = Path(root)
        text, ends = bytearray(), array("q", [0])
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
        self._text = bytes(text)
        self._ends = np.frombuffer(ends, dtype=np.int64).copy()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> FileList: ...
    def __getitem__(self, index: int | slice) -> Path | FileList:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.root / self._name(range(len(self))[index])

    def __iter__(self) -> Iterator[Path]:
        return (self.root / name for name in self.names())

    def names(self) -> Iterator[str]:
        """The paths below the root."""
        return (self._name(i) for i in range(len(self)))

    def take(self, rows: np.ndarray) -> FileList:
        """Only these paths, in this order."""
        return FileList(self.root, (self._name(int(i)) for i in rows))

    def expect_all(self) -> None:
        """Raise a DataError that says how many of the files are missing, unless all are there.

        Every folder is listed once, which is much quicker than asking for every file.
        """
        listed: dict[str, frozenset[str]] = {}
        missing: list[str] = []
        for name in self.names():
            folder, _, last = name.rpartition("/")
            if folder not in listed:
                listed[folder] = _names_in(self.root / folder)
            if last not in listed[folder]:
                missing.append(name)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self)} files are missing in {shown(self.root)}, such as "
                f"{shorten(shown(missing[0]), 200)}. The download is not complete: take that folder away and "
                "fetch the dataset again."
            )

    def _name(self, i: int) -> str:
        return os.fsdecode(self._text[self._ends[i] : self._ends[i + 1]])


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (names, without a Path for each)
    except OSError:
        return frozenset()
