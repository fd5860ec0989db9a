"""The work on shards of features: tell which images a shard is of, look at what is there, encode what is not.

Each shard has a digest of its own images, made by whoever encodes it, so that no process reads all images beforehand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data.images import ChosenImages, ImageDataset, file_identity
from labkit.errors import DataError, quote, shown
from labkit.spaces.encoders import Backbone
from labkit.spaces.features import encode_parts, parts_of, stored
from labkit.spaces.shard_files import (
    HEADER,
    Layout,
    check_shard,
    read_header,
    shard_path,
    write_header,
    write_shard,
)

logger = logging.getLogger(__name__)

SAMPLE = 32  # images that are looked at before a process takes part


class ShardWork:
    """What is needed to make any shard of a dataset's features, in any process that has the backbone and the images.

    Attributes:
        layout: of the folder, not finished.
    """

    def __init__(self, backbone: Backbone, dataset: ImageDataset, folder: Path, dtype: str, shard: int) -> None:
        """Look at a sample of the images, and at the header in the folder, which is made where there is none.

        Raises:
            DataError: the folder has features of other images or another backbone, or something else.
            OSError: it cannot be written to.
        """
        if not isinstance(dataset, ImageDataset) or len(dataset) == 0:
            raise DataError(
                f"dataset is {quote(dataset)}. Expected images, at least one, such as load_dataset(manifest)."
            )
        self.backbone, self.folder, self._dataset = backbone, folder, dataset
        self._root = _root_of(dataset)
        source = {
            "images": _names_digest(dataset, self._root),
            "sample": _sample_digests(dataset, self._root),
            "backbone": backbone.fingerprint,
            "forward": str(backbone.dtype),
            "name": backbone.name,
        }
        self.layout = Layout(len(dataset), backbone.dim, dtype, shard, source)
        found = read_header(folder)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            _expect_empty(folder)
            write_header(folder, self.layout)
        else:
            different = _difference(found, self.layout)
            if different:
                raise DataError(
                    f"{shown(folder)} has other features: {'; '.join(different)}. Choose another folder, or the same "
                    "images and settings."
                )
            self.layout = found.begun

    def encode(self, shards: Iterable[int], *, batch_size: int | None = None, bar: Any) -> Iterator[tuple[int, str]]:
        """Make shards, unless they are there: (shard, digest of its images) of each that is on the disk, in order.

        A shard is written, and its images are digested, while the next one is encoded.

        Args:
            shards: numbers of shards. The next one is asked for before the one before it is written.
            batch_size: as in `extract_features`.
            bar: a tqdm that counts images.

        Raises:
            DataError: an image cannot be read, a feature is not finite or too large for the dtype, or there is no room.
        """
        with ThreadPoolExecutor(1) as beside:
            images: dict[int, Future[str]] = {}
            done: list[tuple[int, Future[str]]] = []
            features = np.empty(0)
            parts = self._missing_parts(shards, images, done, beside, bar)
            for rows, part in encode_parts(self.backbone, self._dataset, parts, batch_size=batch_size, bar=bar):
                i = rows.start // self.layout.shard
                whole = self.layout.range(i)
                if rows.start == whole.start:
                    features = np.empty((len(whole), self.layout.width), self.layout.dtype)
                features[rows.start - whole.start : rows.stop - whole.start] = stored(
                    part, self.layout.dtype, self.backbone
                )
                if rows.stop == whole.stop:
                    yield from _finished(done)  # no more than one is held while the next one is encoded
                    done.append((i, beside.submit(self._write, i, images.pop(i), features)))
            yield from _finished(done)

    def _missing_parts(
        self,
        shards: Iterable[int],
        images: dict[int, Future[str]],
        done: list[tuple[int, Future[str]]],
        beside: ThreadPoolExecutor,
        bar: Any,
    ) -> Iterator[range]:
        """The parts of shards that are not there; those that are there go to `done`."""
        for i in shards:
            images[i] = beside.submit(self.images_of, i)
            if self._path(i).exists() and self._is_whole(i, images[i].result()):
                done.append((i, images.pop(i)))
                bar.update(len(self.layout.range(i)))
            else:
                yield from parts_of(self.layout.range(i))

    def images_of(self, i: int) -> str:
        """The digest of the images of shard i: all pixels, or of files path, size and a sample of the content."""
        rows, dataset = self.layout.range(i), self._dataset
        part, decode = slice(rows.start, rows.stop), dataset.decode
        if dataset.files is None and decode is not None:
            decode = ChosenImages(decode, list(rows))
        return ImageDataset(
            np.full(len(rows), -1),
            [],
            array=None if dataset.array is None else dataset.array[part],
            files=None if dataset.files is None else dataset.files[part],
            decode=decode,
            root=self._root,
            origin=dataset.origin,
        ).contents

    def _path(self, i: int) -> Path:
        return shard_path(self.folder, self.layout, i)

    def _is_whole(self, i: int, images: str) -> bool:
        try:
            check_shard(self.folder, self.layout, i, images)
        except DataError as error:
            logger.warning("%s It is computed again.", error)
            return False
        return True

    def _write(self, i: int, images: Future[str], features: np.ndarray) -> str:
        try:
            found = read_header(self.folder)
            if found is not None and found.images:  # finished, and not any more
                write_header(self.folder, self.layout)
            write_shard(self.folder, self.layout, i, images.result(), features)
        except OSError as error:
            raise DataError(unwritable(self.folder, error)) from error
        return images.result()

    def is_finished(self, bar: Any) -> bool:
        """Whether all shards are there and of these images, for who may not write to the folder."""
        found = read_header(self.folder)
        if found is None or len(found.images) != found.n_shards:
            return False
        for i in range(self.layout.n_shards):
            images = self.images_of(i)
            if images != found.images[i] or not self._is_whole(i, images):
                return False
            bar.update(len(self.layout.range(i)))
        return True


def _names_digest(dataset: ImageDataset, root: Path | None) -> str:
    """A SHA-256 of how many images there are, and of the paths of files below the root."""
    digest = hashlib.sha256(str(len(dataset)).encode())
    if root is not None and dataset.files is not None:
        above = os.path.join(root, "")  # noqa: PTH118 (of a million paths pathlib would make objects)
        names = (name.removeprefix(above) for name in _absolute(dataset.files))
        while several := list(itertools.islice(names, 4096)):
            digest.update(os.fsencode("\0".join([*several, ""])))
    return digest.hexdigest()


def _sample_digests(dataset: ImageDataset, root: Path | None) -> list[str]:
    """Digests of some images, for processes to agree that theirs are the same without a look at all of them."""
    some = np.unique(np.linspace(0, len(dataset) - 1, SAMPLE).round().astype(int)).tolist()
    if dataset.array is not None:
        contents = [dataset.array[i].tobytes() for i in some]
    elif dataset.files is not None and root is not None:
        contents = [file_identity(dataset.files[i], root, time=False) for i in some]
    else:
        contents = [dataset.contents.encode()]  # of their origin, and of a sample
    return [hashlib.sha256(content).hexdigest()[:16] for content in contents]


def unwritable(folder: Path, error: OSError) -> str:
    return f"features cannot be written to {shown(folder)} ({error}). Choose a folder that can be written and has room."


def _root_of(dataset: ImageDataset) -> Path | None:
    """The folder of all files, as `ImageDataset.identity` would find it."""
    if dataset.files is None or dataset.array is not None:
        return None
    if dataset.root is not None:
        return dataset.root.absolute()
    return Path(os.path.commonpath({name.rpartition(os.sep)[0] or os.sep for name in _absolute(dataset.files)}))


def _absolute(files: Sequence[Path]) -> Iterator[str]:
    for name in map(os.fspath, files):
        yield name if os.path.isabs(name) else os.path.abspath(name)  # noqa: PTH100, PTH117 (as above)


def _finished(done: list[tuple[int, Future[str]]]) -> Iterator[tuple[int, str]]:
    while done:
        i, images = done.pop(0)
        yield i, images.result()


def _expect_empty(folder: Path) -> None:
    """Raise a DataError where a folder has something else than what another process is just beginning."""
    others = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(f".{HEADER}"))
    if others and read_header(folder) is None:
        raise DataError(f"{shown(folder)} holds no features but {quote(others[0])}. Choose a new or an empty folder.")


def _difference(found: Layout, wanted: Layout) -> list[str]:
    """What tells two layouts apart, in words. Some images may have changed since, but not most of the sample."""
    kept, asked = ({**dataclasses.asdict(layout), **layout.source} for layout in (found, wanted))
    names = {
        "rows": "images", "width": "width", "dtype": "dtype", "shard": "rows of a shard", "name": "backbone",
        "forward": "dtype of the forward pass",
    }  # fmt: skip
    told = [
        f"{name} {quote(kept.get(key))}, not {quote(asked[key])}"
        for key, name in names.items()
        if kept.get(key) != asked[key]
    ]
    sample = kept.get("sample")
    alike = [a == b for a, b in zip(sample if isinstance(sample, list) else [], asked["sample"], strict=False)]
    if kept.get("backbone") != asked["backbone"]:
        told.append("other weights or preprocessing")
    if kept.get("images") != asked["images"] or 2 * sum(alike) < len(asked["sample"]):
        told.append("other images")
    return told
