"""Features larger than memory: in shards on disk, made by any number of processes, read by rows or by blocks."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from labkit._files import user_path
from labkit._inputs import is_whole
from labkit.data.images import ImageDataset
from labkit.errors import DataError, quote, shown
from labkit.spaces.claims import LOST, Claims, Gone, claims_in, remove_claims, remove_left_claims
from labkit.spaces.encoders import Backbone
from labkit.spaces.features import batch_rows, expect_backbone, progress_bar
from labkit.spaces.shard_files import (
    HEADER,
    Layout,
    check_shard,
    expect_dtype,
    finish,
    map_shard,
    missing_shards,
    read_header,
    write_header,
    write_shard,
)
from labkit.spaces.shard_work import ShardWork, unwritable

logger = logging.getLogger(__name__)

SHARD = 65536  # rows
SHARED_WORK = "work"  # the folder in which processes agree who makes which shard; gone when all is done
POLL = 0.5  # seconds between two looks at what others have done
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def extract_shards(
    backbone: Backbone,
    dataset: ImageDataset,
    folder: str | os.PathLike[str],
    *,
    dtype: str = "float16",
    shard: int = SHARD,
    batch_size: int | None = None,
    progress: bool = False,
) -> ShardedFeatures:
    """Features of every image of a dataset, in the order of the samples, in shards that processes share out.

    Call it in as many processes as you like, on one machine or on several that share the folder, at any time: each
    takes the next shard that nobody has, and returns when all are there. Nobody coordinates them. The shard of a
    process that dies is made by another one, on the same machine at once, else after a minute. Whatever process makes a
    shard, it holds the same bits, as long as the devices are alike. Shards that are there are checked, once in all, and
    made anew where they are damaged or of other images.

    Args:
        backbone: from `load_backbone`, on the device of this process.
        dataset: the images, the same ones in all processes: files with the same paths below their root, and times.
        folder: where the shards go.
        dtype: of the features, "float16" or "float32".
        shard: rows of a shard, all that a lost process costs; memory holds three of them. In multiples of 1,024 the
            features are those of `extract_features`, bit for bit.
        batch_size: images in one forward pass; None is 32 on a CPU, else 256.
        progress: show a progress bar.

    Raises:
        DataError: an image cannot be read, a feature is not finite or too large for float16, or the folder has other
            features or cannot be written to.
    """
    if not isinstance(folder, str | os.PathLike):
        raise DataError(f"folder is {quote(folder)}. Expected the path of a folder for features in shards.")
    path = user_path(folder)
    expect_backbone(backbone)
    batch_rows(backbone, batch_size)
    try:
        work = ShardWork(backbone, dataset, path, dtype, shard)
        with progress_bar(backbone, len(dataset), progress) as bar:
            _share(work, batch_size, bar)
    except OSError as error:
        raise DataError(unwritable(path, error)) from error
    for _ in range(int(LOST)):
        if not missing_shards(path, work.layout):
            break
        time.sleep(1)  # a file system of several machines may show new files late
    return ShardedFeatures.open(path)


def _share(work: ShardWork, batch_size: int | None, bar: Any) -> None:
    """Do shards until all are done."""
    folder = work.folder / SHARED_WORK
    try:
        with claims_in(folder, work.layout.n_shards) as claims:
            _do_shards(work, claims, batch_size, bar)
            finish(work.folder, work.layout, [claims.results[i] for i in range(work.layout.n_shards)])
        remove_claims(folder)
    except Gone:  # another process was the last one
        remove_left_claims(folder)
    except OSError as error:
        if error.errno not in DENIED or not work.is_finished(bar):
            raise


def _do_shards(work: ShardWork, claims: Claims, batch_size: int | None, bar: Any) -> None:
    told: set[int] = set()
    while True:
        job = claims.take()
        if job is not None:
            for i, images in work.encode(
                itertools.chain([job], iter(claims.take, None)), batch_size=batch_size, bar=bar
            ):
                claims.settle(i, images)
                told.add(i)
        for i in claims.results.keys() - told:  # of others
            bar.update(len(work.layout.range(i)))
        told |= claims.results.keys()
        if not claims.open:
            return
        if job is None:
            time.sleep(POLL)


class ShardedFeatures:
    """Features (n, d) in a folder of shards, which are mapped into memory while rows are taken from them.

    `np.asarray` reads all of them. Memory is what the rows take that are asked for, and one shard. The first time that
    rows of a shard are taken, its digest is checked. It can be pickled, so that worker processes can be sent it.

    Attributes:
        folder: where they are.
        source: what determines them: digests of images and backbone.
        shard: rows of a shard; reading is fastest in whole shards.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self._layout = folder, layout
        self._checked: set[int] = set()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ShardedFeatures:
        """Features that `extract_shards` or `write` has finished; the folder may be read-only.

        Raises:
            DataError: there are none, or not all of them yet.
        """
        if not isinstance(folder, str | os.PathLike):
            raise DataError(f"folder is {quote(folder)}. Expected the path of a folder with features in shards.")
        path = user_path(folder)
        layout = read_header(path)
        if layout is None:
            raise DataError(
                f"{shown(path)} has no {HEADER}. Expected a folder that extract_shards or `labkit features` made."
            )
        missing = missing_shards(path, layout)
        if missing or len(layout.images) != layout.n_shards:
            raise DataError(
                f"the features in {shown(path)} are not finished: {len(missing)} of {layout.n_shards} shards are "
                "missing. Run the same extraction again, which goes on where it was."
            )
        return cls(path, layout)

    @classmethod
    def write(
        cls,
        folder: str | os.PathLike[str],
        blocks: Iterable[np.ndarray],
        *,
        dtype: str = "float16",
        shard: int = SHARD,
    ) -> ShardedFeatures:
        """Features that were computed elsewhere, in shards.

        Args:
            folder: where to; it is made.
            blocks: arrays (any number of rows, d), one after the other; at least one row in all.
            dtype: "float16" or "float32".
            shard: rows of a shard.

        Raises:
            DataError: the folder has features already or cannot be written, or blocks are of different widths, or hold
                numbers that are not finite or that the dtype cannot hold.
        """
        path = user_path(folder)
        if read_header(path) is not None:
            raise DataError(f"{shown(path)} has features already. Choose another folder.")
        expect_dtype(dtype)
        width, rows, images = 0, 0, []
        try:
            path.mkdir(parents=True, exist_ok=True)
            for features in _regroup(blocks, shard, dtype):
                width, rows = features.shape[1], rows + len(features)
                images.append(hashlib.sha256(np.ascontiguousarray(features).data).hexdigest())
                layout = Layout((len(images) - 1) * shard + len(features), width, dtype, shard, {"given": True})
                write_shard(path, layout, len(images) - 1, images[-1], features)
            if not images:
                raise DataError("blocks has no rows. Expected arrays (rows, d), at least one row in all.")
            write_header(path, Layout(rows, width, dtype, shard, {"given": True}, tuple(images)))
        except OSError as error:
            raise DataError(f"features cannot be written to {shown(path)} ({error}). Choose another folder.") from error
        return cls.open(path)

    @property
    def shape(self) -> tuple[int, int]:
        return self._layout.rows, self._layout.width

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._layout.dtype)

    @property
    def shard(self) -> int:
        return self._layout.shard

    @property
    def source(self) -> dict[str, Any]:
        return dict(self._layout.source)

    @property
    def identity(self) -> str:
        """A SHA-256 that tells these features from others: of their images and backbone, or of their content."""
        layout = self._layout
        facts = [layout.rows, layout.width, layout.dtype, sorted(layout.source.items()), layout.images]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def __len__(self) -> int:
        return self._layout.rows

    def __repr__(self) -> str:
        n, d = self.shape
        return f"<ShardedFeatures {n} x {d} {self.dtype} in {shown(self.folder)}>"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("features in shards are read into a new array: copy=False cannot be had.")
        return self._rows(0, len(self)).astype(dtype or self.dtype, copy=False)

    def read(self, rows: ArrayLike) -> np.ndarray:
        """The features of some rows, in this order: (len(rows), d) of `dtype`.

        Args:
            rows: row numbers from 0 to n - 1, in any order, more than once if you like; sorted ones are read fastest.

        Raises:
            DataError: there is no such row, or a shard is damaged.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise DataError(f"rows is {quote(rows)}. Expected row numbers, whole numbers (m,).")
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise DataError(
                f"rows go from {wanted.min()} to {wanted.max()}. Expected row numbers from 0 to {len(self) - 1}."
            )
        wanted = wanted.astype(np.int64, copy=False)
        features = np.empty((len(wanted), self.shape[1]), self.dtype)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        shards = ordered // self.shard
        starts = np.flatnonzero(np.diff(shards, prepend=-1))
        for start, end in zip(starts, np.append(starts, len(wanted))[1:], strict=True):
            i = int(shards[start])
            features[order[start:end]] = self._shard(i)[ordered[start:end] - i * self.shard]
        return features

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """All features in order, `size` rows at a time: (first row, features (size, d), the last with fewer).

        Raises:
            DataError: size is no whole number of at least 1, or a shard is damaged.
        """
        if not is_whole(size, 1):
            raise DataError(f"size is {quote(size)}. Expected a whole number of rows, at least 1.")
        return ((start, self._rows(start, min(start + size, len(self)))) for start in range(0, len(self), size))

    def _rows(self, start: int, end: int) -> np.ndarray:
        features = np.empty((end - start, self.shape[1]), self.dtype)
        for i in range(start // self.shard, -(-end // self.shard)):
            rows = self._layout.range(i)
            low, high = max(start, rows.start), min(end, rows.stop)
            features[low - start : high - start] = self._shard(i)[low - rows.start : high - rows.start]
        return features

    def _shard(self, i: int) -> np.ndarray:
        if i not in self._checked:
            check_shard(self.folder, self._layout, i, self._layout.images[i])
            self._checked.add(i)
        return map_shard(self.folder, self._layout, i)


def _regroup(blocks: Iterable[np.ndarray], shard: int, dtype: str) -> Iterator[np.ndarray]:
    """The rows of all blocks, `shard` at a time, in another dtype."""
    if not is_whole(shard, 1):
        raise DataError(f"shard is {quote(shard)}. Expected a whole number of rows, at least 1.")
    held: list[np.ndarray] = []
    n, width = 0, None
    for block in blocks:
        if not isinstance(block, np.ndarray) or block.ndim != 2 or block.dtype.kind != "f" or not block.shape[1]:
            raise DataError(f"a block is {quote(block)}. Expected an array of floats (rows, d).")
        if width not in (None, block.shape[1]):
            raise DataError(f"a block has {block.shape[1]} columns, those before have {width}. Expected as many.")
        width = block.shape[1]
        with np.errstate(over="ignore"):
            stored = block.astype(dtype)
        if not np.isfinite(stored).all():
            raise DataError(f'features are not finite, or {dtype} cannot hold them. Ask for dtype="float32".')
        while n + len(stored) >= shard:
            yield np.concatenate([*held, stored[: shard - n]])
            stored, held, n = stored[shard - n :], [], 0
        held.append(stored)
        n += len(stored)
    if n:
        yield np.concatenate(held)
