"""Feature spaces as tensors that share the memory of what was given, where they can; those on disk stay there.

Of memory-mapped arrays and of shards only the rows in use are in memory.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from labkit._inputs import SPACES_EXPECTED, is_sharded, real_matrix
from labkit._scales import ORDINARY
from labkit.errors import FitError

FLOATS = (np.float16, np.float32, np.float64)
TOUCHED = 2**21  # bytes that Linux maps around each row of a file that is read, at most
MAPPED = 2**28  # bytes that are mapped before they are released


class StoredSpace:
    """A space (n, d) on disk that can be read as a tensor is: `space[rows]`, `space.split(size)`, `shape`, `dtype`.

    What is read is a copy. Of a memory-mapped file the pages that were read are released at once: they stay in the
    system's cache, which any program's memory goes before, and no longer count as this process's memory.

    Args:
        source: a np.memmap, or what `is_sharded` says is one, with `read(rows)`.
    """

    device = torch.device("cpu")

    def __init__(self, source: Any) -> None:
        self.source = source
        self.shape: tuple[int, int] = tuple(source.shape)
        self.dtype = torch.from_numpy(np.empty(0, source.dtype)).dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Rows (m, d), whose numbers are (m,) or a slice; they are read in the order of the file."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return torch.from_numpy(self._read(np.arange(start, stop, step), slice(start, stop, step)))
        numbers = rows.cpu().numpy()
        order = numbers.argsort(kind="stable")
        result = np.empty((len(numbers), self.shape[1]), self.source.dtype)
        size = max(1, MAPPED // max(TOUCHED, result.itemsize * self.shape[1]))
        for start in range(0, len(order), size):
            some = order[start : start + size]
            result[some] = self._read(numbers[some])
        return torch.from_numpy(result)

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows, so many at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def any(self) -> bool:
        """Whether a number is not zero."""
        return any(bool(part.any()) for part in self.split(max(1, MAPPED // (32 * self.shape[1]))))

    def _read(self, numbers: np.ndarray, rows: slice | None = None) -> np.ndarray:
        if not isinstance(self.source, np.memmap):
            return np.asarray(self.source.read(numbers))
        result = np.array(self.source[numbers if rows is None else rows], subok=False)
        _release(self.source)
        return result


class RowRange:
    """Rows from `start` to `stop` of a space in shards, which stay there; itself what `is_sharded` says is one."""

    def __init__(self, source: Any, start: int, stop: int) -> None:
        self.source, self.start = source, start
        self.shape: tuple[int, int] = (stop - start, source.shape[1])
        self.dtype = source.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Rows (m, d), numbered from `start`."""
        return np.asarray(self.source.read(np.asarray(rows) + self.start))

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, so many at a time, each with the number of its first."""
        starts = range(0, len(self), size)
        return ((start, self.read(np.arange(start, min(start + size, len(self))))) for start in starts)


Space: TypeAlias = Tensor | StoredSpace  # what can be read by rows, in memory or on disk


def as_spaces(named: Mapping[str, Any]) -> list[Space]:
    """Spaces, by their names in messages, as tensors (n, d_k) on the CPU, or as what reads like one from disk.

    Whether all is finite is looked at later, block by block.

    Raises:
        FitError: one is no matrix of real numbers, or they differ in length.
    """
    spaces = [_stored_space(name, space) or _to_tensor(name, space) for name, space in named.items()]
    lengths = [len(space) for space in spaces]
    if len(set(lengths)) > 1:
        raise FitError(
            f"the spaces have {lengths} rows. Expected the same samples in the same order in every space: "
            "extract all of them from the same split."
        )
    return spaces


def _stored_space(name: str, given: Any) -> StoredSpace | None:
    """A space that stays on disk, or None where it is of another kind.

    Raises:
        FitError: it is no matrix of real numbers.
    """
    if is_sharded(given):
        shape, dtype = tuple(given.shape), np.dtype(given.dtype)
        if len(shape) != 2 or 0 in shape or dtype not in FLOATS:
            raise FitError(f"{name} has shape {shape} of {dtype}. {SPACES_EXPECTED}")
        return StoredSpace(given)
    if isinstance(given, np.memmap) and given.dtype in FLOATS and given.dtype.isnative:
        real_matrix(name, given, SPACES_EXPECTED)
        return StoredSpace(given)
    return None


def _to_tensor(name: str, space: Any) -> Tensor:
    array = real_matrix(name, space, SPACES_EXPECTED)
    if isinstance(space, Tensor) and space.dtype == torch.bfloat16:
        return space.detach().cpu()  # NumPy has no such type
    if array.dtype not in (np.float16, np.float32, np.float64) or not hasattr(space, "shape"):
        ordinary = max(abs(float(array.min())), abs(float(array.max()))) < ORDINARY
        array = array.astype(np.float32 if ordinary else np.float64)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # PyTorch knows no backward steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor do we write to it
        return torch.from_numpy(array)


def _release(array: np.memmap) -> None:
    """Release the pages of a mapped file; not of a private copy, which would lose what was written to it."""
    mapped: Any = getattr(array, "_mmap", None)
    if array.mode != "c" and hasattr(mapped, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
