"""What was read of the files of a folder, kept in parts that are only ever added: a run reads what no part holds yet.

A part is one safetensors file with the facts, thumbnails and features of up to 256 files, each known by its identity
(path below the folder, size, time and a sample of its content); a file that cannot be read is kept with the reason. A
part appears at once and whole; a damaged one is as none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from labkit._files import cache_dir, locked_folder, own_dir, sweep
from labkit._saved import read_saved, write_saved
from labkit.errors import CheckpointError, DataError, shown
from labkit.own.facts import Facts

logger = logging.getLogger(__name__)

VERSION = 1  # of what is made of a file; a new one makes all anew
PART = 256  # files of a part: a killed run loses at most this many
KIND = "reading"
ADVICE = "It is made again."
FACTS = "facts"  # as a column beside those of the features


@dataclass(frozen=True)
class Read:
    """What was read of one file.

    Attributes:
        size: width and height of the original in pixels, the right way up.
        format: such as "JPEG".
        facts: of the decoded image; None where they were not asked for.
    """

    size: tuple[int, int]
    format: str
    facts: Facts | None


class Found:
    """What is known of n files, filled part by part.

    Attributes:
        sizes: (n, 2) int64, width and height.
        formats: of each file.
        measures: (n, 2) float64, sharpness and contrast.
        hashes: (n, 2) uint64, perceptual hash and digest of the pixels.
        thumbnails: of each file the part that holds its JPEG, and from which byte to which.
        features: {column: (n, d) float32}.
        failed: {row: why it cannot be read}.
    """

    def __init__(self, identities: Sequence[str], widths: Mapping[str, int], settings: Mapping[str, Any]) -> None:
        n = len(identities)
        self.identities = identities
        self.settings = dict(settings)
        self.sizes = np.zeros((n, 2), np.int64)
        self.formats = [""] * n
        self.measures = np.zeros((n, 2))
        self.hashes = np.zeros((n, 2), np.uint64)
        self.thumbnails: list[tuple[Path, int, int] | None] = [None] * n
        self.features = {column: np.empty((n, width), np.float32) for column, width in widths.items()}
        self.failed: dict[int, str] = {}
        self._row_of = {identity: row for row, identity in enumerate(identities)}
        self._has = {column: np.zeros(n, bool) for column in (FACTS, *widths)}

    def missing(self, row: int) -> tuple[str, ...]:
        """The columns that no part holds of a file."""
        return () if row in self.failed else tuple(column for column, has in self._has.items() if not has[row])

    def take(self, path: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take what a part holds of these files.

        Raises:
            Exception: of any kind, where the part is not what `write_part` writes.
        """
        if settings["version"] != self.settings["version"]:
            return
        for identity, why in settings["failed"].items():
            if identity in self._row_of and settings["decoders"] == self.settings["decoders"]:
                self.failed[self._row_of[identity]] = str(why)
        pairs = [(i, self._row_of[name]) for i, name in enumerate(settings["read"]) if name in self._row_of]
        here, there = (np.array(side, np.int64) for side in (zip(*pairs, strict=True) if pairs else ((), ())))
        for column in self.features:
            if column in tensors:
                self.features[column][there] = tensors[column].numpy()[here]
                self._has[column][there] = True
        if "sizes" in tensors:
            self.sizes[there] = tensors["sizes"].numpy()[here]
            self.measures[there] = tensors["measures"].numpy()[here]
            self.hashes[there] = tensors["hashes"].numpy().view(np.uint64)[here]
            ends = tensors["ends"].tolist()
            for i, row in pairs:
                self.formats[row] = str(settings["formats"][i])
                self.thumbnails[row] = (path, ends[i - 1] if i else 0, ends[i])
            self._has[FACTS][there] = True


# ---------------------------------------------------------------------------------------------------------------- parts


def make_part(
    settings: Mapping[str, Any], read: Mapping[str, Read], features: Mapping[str, Tensor], failed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a part.

    Args:
        settings: "version" and "decoders": what else determines what is made of a file, and whether it can be read.
        read: {identity: what was read of it}, m of them; all have facts, or none has.
        features: {column: (m, d)}.
        failed: {identity: why it cannot be read}.
    """
    kept = dict(settings) | {"read": list(read), "failed": dict(failed), "formats": [r.format for r in read.values()]}
    tensors = dict(features)
    facts = [r.facts for r in read.values() if r.facts is not None]
    if facts:
        hashes = np.array([(f.hash, f.content) for f in facts], np.uint64)
        tensors |= {
            "sizes": torch.tensor([r.size for r in read.values()]),
            "measures": torch.tensor([(f.sharpness, f.contrast) for f in facts], dtype=torch.float64),
            "hashes": torch.from_numpy(hashes.view(np.int64)),
            "thumbnails": torch.frombuffer(bytearray(b"".join(f.thumbnail for f in facts)), dtype=torch.uint8),
            "ends": torch.tensor([len(f.thumbnail) for f in facts]).cumsum(0),
        }
    return kept, tensors


def write_part(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write a part under a name that tells what it is of.

    Raises:
        DataError: it cannot be written.
    """
    of = json.dumps([settings, sorted(tensors)], sort_keys=True)
    path = folder / f"{hashlib.sha256(of.encode()).hexdigest()[:32]}.safetensors"
    with explain_unwritable(folder):
        write_saved(path, KIND, settings, tensors)
    return path


def take_parts(folders: Sequence[Path], found: Found, *, mend: bool = False) -> None:
    """Take all parts that lie in these folders; a damaged one is passed over, which is said.

    Args:
        folders: some may be missing.
        found: where what they hold goes.
        mend: whether this process holds the folders, so that it may take damaged parts away.
    """
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")) if os.access(folder, os.R_OK | os.X_OK) else ():
            try:
                found.take(path, *read_saved(path, KIND, ADVICE))
                continue
            except CheckpointError as error:
                logger.warning("%s", error)
            except Exception as error:  # content that a digest of its own belongs to, and that is still no part
                logger.warning("%s is no part of a reading (%r). %s", path, error, ADVICE)
            if mend:
                with contextlib.suppress(OSError):
                    path.unlink()


# -------------------------------------------------------------------------------------------------------------- folders


def part_folders(root: Path) -> list[Path]:
    """Where the parts of a folder of images are looked for: in the cache, and in this user's own."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:24]
    bases = [cache_dir()]
    with contextlib.suppress(DataError):  # a user without a home
        bases.append(own_dir())
    return list(dict.fromkeys(base / "readings" / name for base in bases))


def tidy(folder: Path) -> None:
    """Take away what killed processes left in a folder of parts, unless another process is at work there."""
    if not os.access(folder, os.W_OK) or not any(path.name.startswith(".") for path in folder.iterdir()):
        return
    with contextlib.suppress(OSError), locked_folder(folder, wait=False):
        _sweep_all(folder)


def _sweep_all(folder: Path) -> None:
    for left in list(folder.glob(".*.????????")):  # what `atomic_write` calls its temporary folders
        sweep(folder / left.name[1:-9])


@contextlib.contextmanager
def writable_folder(folders: Sequence[Path]) -> Iterator[Path]:
    """The first of these folders that this user may write to; within the block no other process does.

    Raises:
        DataError: there is none.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            try:
                with explain_unwritable(folder):
                    _lock(folder, held)
                    _sweep_all(folder)
                break
            except DataError as error:
                if folder == folders[-1] or not _is_denied(error.__cause__):
                    raise
        yield folder


def _lock(folder: Path, held: contextlib.ExitStack) -> None:
    try:
        held.enter_context(locked_folder(folder, wait=False))
    except BlockingIOError:
        logger.warning("another process reads this folder of images: waiting for it.")
        held.enter_context(locked_folder(folder, wait=True))


def _is_denied(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def explain_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"what was read cannot be kept in {shown(folder)} ({error}). Set the environment variable LABKIT_CACHE to "
            "a folder that can be written and has room."
        ) from error


# ----------------------------------------------------------------------------------------------------------- thumbnails


class Thumbnails(Sequence[bytes]):
    """The JPEGs of n images, each read from its part when it is asked for."""

    def __init__(self, places: Sequence[tuple[Path, int, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Thumbnails(self._places[index])
        path, start, end = self._places[index]
        try:
            with safe_open(path, framework="np") as file:
                return file.get_slice("thumbnails")[start:end].tobytes()
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"a thumbnail cannot be read from {shown(path)} ({error}), which came or went meanwhile. Run it again."
            ) from error
