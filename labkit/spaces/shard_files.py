"""Features in shards: a folder with a header and safetensors files of consecutive rows, each with digest and origin.

::

    features.json               rows, width, dtype, rows of a shard, source; once it is finished, what each shard is of
    000000000.safetensors       rows 0 to `shard` - 1
    000065536.safetensors       and so on: the name is the first row

A shard's data lie in the file as they lie in memory, so they can be mapped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit._files import atomic_write, open_regular
from labkit._inputs import is_whole
from labkit._saved import read_saved, write_saved
from labkit.errors import CheckpointError, DataError, quote, shown

HEADER = "features.json"
KIND = "shard of features"
FORMAT = 1
DTYPES = ("float16", "float32")
LONGEST_HEADER = 1 << 28  # bytes; a billion rows in shards of 4,096 have 17 million
LONGEST_SHARD_HEADER = 1 << 20


@dataclass(frozen=True)
class Layout:
    """What all shards of a folder share.

    Attributes:
        rows, width: n and d of the whole.
        dtype: "float16" or "float32".
        shard: rows of a shard; the last one may have fewer.
        source: what determines the features: digests of images and backbone. Anything that JSON holds.
        images: for each shard a digest of what its rows are of; () until all shards are there.
    """

    rows: int
    width: int
    dtype: str
    shard: int
    source: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expect_dtype(self.dtype)
        for name, least in (("rows", 0), ("width", 1), ("shard", 1)):
            if not is_whole(getattr(self, name), least, 2**62):
                raise DataError(f"{name} is {quote(getattr(self, name))}. Expected a whole number of at least {least}.")

    @property
    def n_shards(self) -> int:
        return math.ceil(self.rows / self.shard)

    def range(self, i: int) -> range:
        """Rows of shard i."""
        return range(i * self.shard, min((i + 1) * self.shard, self.rows))

    def key(self, i: int, images: str) -> dict[str, Any]:
        """What is kept in shard i, and must be found there."""
        rows = self.range(i)
        return {
            "source": dict(self.source),
            "images": images,
            "first": rows.start,
            "rows": len(rows),
            "width": self.width,
            "dtype": self.dtype,
        }

    @property
    def begun(self) -> Layout:
        """The layout before the first shard is there."""
        return replace(self, images=())


def expect_dtype(dtype: object) -> None:
    """Raise a DataError unless it is "float16" or "float32"."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DataError(f'features can be stored as "float32" or "float16", not {quote(dtype)}.')


# -------------------------------------------------------------------------------------------------------------- header


def write_header(folder: Path, layout: Layout) -> None:
    """Write the header of a folder, atomically.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps({"labkit": "features in shards", "format": FORMAT, **asdict(layout)}, indent=1)
    with atomic_write(folder / HEADER) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def finish(folder: Path, layout: Layout, images: Iterable[str]) -> None:
    """Say in the header that all shards are there, and of which images each is.

    Raises:
        OSError: it cannot be written.
    """
    finished = replace(layout, images=tuple(images))
    if read_header(folder) != finished:
        write_header(folder, finished)


def read_header(folder: Path) -> Layout | None:
    """The layout that a folder's header gives; None where there is no header.

    Raises:
        DataError: it cannot be read, is something else, or of a newer labkit.
    """
    path = folder / HEADER
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(LONGEST_HEADER))
        if found.pop("labkit") != "features in shards":
            raise ValueError("it is something else")
        if found.pop("format") != FORMAT:
            raise ValueError("another version of labkit wrote it")
        layout = Layout(**{**found, "source": dict(found["source"]), "images": tuple(map(str, found["images"]))})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{shown(path)} cannot be read ({error}). Expected the header of features in shards: choose another folder."
        ) from error
    if layout.images and len(layout.images) != layout.n_shards:
        raise DataError(f"{shown(path)} tells of {len(layout.images)} shards, not {layout.n_shards}. It is damaged.")
    return layout


# -------------------------------------------------------------------------------------------------------------- shards


def shard_path(folder: Path, layout: Layout, i: int) -> Path:
    return folder / f"{i * layout.shard:012d}.safetensors"


def write_shard(folder: Path, layout: Layout, i: int, images: str, features: np.ndarray) -> None:
    """Write shard i, atomically: features (rows of the shard, width).

    Raises:
        OSError: it cannot be written.
    """
    write_saved(shard_path(folder, layout, i), KIND, layout.key(i, images), {"features": torch.from_numpy(features)})


def check_shard(folder: Path, layout: Layout, i: int, images: str) -> None:
    """Raise a DataError unless shard i is whole, by its digest, and of these images and this source."""
    path = shard_path(folder, layout, i)
    advice = "Delete it and run the same extraction again."
    try:
        found, tensors = read_saved(path, KIND, advice)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    features = tensors.get("features", torch.empty(0))
    key = layout.key(i, images)
    is_whole_shard = features.shape == (key["rows"], layout.width) and str(features.dtype) == f"torch.{layout.dtype}"
    if found != key or not is_whole_shard:
        raise DataError(f"{shown(path)} holds features of other images or another backbone. {advice}")


def map_shard(folder: Path, layout: Layout, i: int) -> np.ndarray:
    """Shard i mapped into memory, read-only: (rows of the shard, width).

    Raises:
        DataError: the file is gone or shorter than it was.
    """
    path = shard_path(folder, layout, i)
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < LONGEST_SHARD_HEADER:
                raise ValueError("it is no safetensors file")
            start = json.loads(file.read(length))["features"]["data_offsets"][0]
            shape = (len(layout.range(i)), layout.width)
            return np.memmap(file, np.dtype(layout.dtype), "r", offset=8 + length + start, shape=shape)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{shown(path)} cannot be read ({error}). Delete it and run the same extraction again."
        ) from error


def missing_shards(folder: Path, layout: Layout) -> list[int]:
    """Shards that have no file."""
    names = {entry.name for entry in os.scandir(folder)}
    return [i for i in range(layout.n_shards) if shard_path(folder, layout, i).name not in names]
