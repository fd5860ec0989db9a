"""HDF5 files of images, as PatchCamelyon is handed out: an array of images and one of class numbers, in two files."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labkit._files import expect_regular
from labkit.data.images import ImageDataset, file_identity
from labkit.data.layout_kinds import Hdf5
from labkit.errors import DataError, shorten, shown


def read_hdf5(layout: Hdf5, root: Path, split: str, classes: list[str]) -> ImageDataset:
    """The images of one split; only their class numbers are read.

    Raises:
        DataError: h5py is not installed; a file is missing, cut off or holds other arrays.
    """
    images = [root / name for name in getattr(layout, split)]
    labels = [root / name for name in getattr(layout, f"{split}_labels")]
    found, sizes, origin = [], [], []
    for path, numbers_path in zip(images, labels, strict=True):
        try:
            with _open(path) as file, _open(numbers_path) as numbers_file:
                shape, kind = file[layout.image].shape, file[layout.image].dtype
                numbers = np.asarray(numbers_file[layout.label]).reshape(-1).astype(np.int64)
            if len(shape) != 4 or shape[3] != 3 or kind != np.uint8 or len(numbers) != shape[0]:
                raise ValueError(f"there are images {shape} {kind} and {len(numbers)} class numbers")
        except (OSError, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"{shown(path)} or {shown(numbers_path)} cannot be read ({shorten(str(error), 200)}). Expected arrays "
                f"{layout.image} (n, h, w, 3) of bytes and {layout.label} of n class numbers: fetch the files again."
            ) from error
        found.append(numbers)
        sizes.append(len(numbers))
        origin.append(hashlib.sha256(file_identity(path, root, time=False)).hexdigest())
    decode = Hdf5Images(images, layout.image, list(itertools.accumulate(sizes)))
    return ImageDataset(np.concatenate(found), classes, decode=decode, origin=json.dumps(origin))


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f'{shown(path)} needs the package h5py. Install it: pip install "labkit[papers]"') from error
    expect_regular(path)
    return h5py.File(path, "r")


@dataclass
class Hdf5Images:
    """Decodes image i of several files; a class, so that worker processes can be sent it. Files are opened once each.

    Attributes:
        files: their paths; key: the name of the array in each.
        ends: how many images there are up to the end of each file.
    """

    files: list[Path]
    key: str
    ends: list[int]
    _open: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    def __call__(self, i: int) -> Image.Image:
        k = bisect.bisect_right(self.ends, i)
        row = i - (self.ends[k - 1] if k else 0)
        with self._lock:
            handle = (os.getpid(), k)  # an open file must not be shared with a forked process
            if handle not in self._open:
                self._open[handle] = _open(self.files[k])
            pixels = self._open[handle][self.key][row]
        return Image.fromarray(pixels)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "key": self.key, "ends": self.ends, "_open": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
