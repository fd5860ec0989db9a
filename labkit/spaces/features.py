"""Features: every image of a split through a backbone, once; kept in a content-addressed cache."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.data.datasets import load_dataset
from labkit.data.images import ImageDataset
from labkit.data.manifests import load_manifest
from labkit.data.schema import Manifest
from labkit.devices import cpu_count
from labkit.errors import DataError, quote
from labkit.spaces.backbones import Backbone, Preprocess
from labkit.spaces.cache import (
    feature_key,
    feature_paths,
    first_writable,
    keep,
    kept_anywhere,
    kept_features,
    parts_folder,
    write_features,
)

logger = logging.getLogger(__name__)

PART = 1024  # images between two saves: a killed extraction loses at most this many
BATCH = {"cpu": 32, "cuda": 256, "mps": 256}  # images in a pass; larger ones take memory and no less time on a CPU


def extract_features(
    backbone: Backbone,
    data: Manifest | ImageDataset | str | os.PathLike[str],
    *,
    split: str | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    cache: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """Features of every image of a dataset, in the order of the samples: (n, d).

    The result is kept under a key made of the identity of the images, the backbone's weights and preprocessing, and
    the dtypes, so it is computed once; an extraction that was killed resumes from its last saved part. What is kept
    already is read without a lock, also from a cache that this user may not write to; what is not kept there then goes
    to the user's own.

    Args:
        backbone: from `load_backbone`.
        data: the images: an `ImageDataset`; or a manifest, or what `load_manifest` takes, and a split of it.
        split: which of the manifest's splits, "train" unless given; an `ImageDataset` has none.
        batch_size: images in one forward pass; memory grows with it, not with n. None is 32 on a CPU, else 256.
        dtype: of the result, "float32" or "float16" (half the memory and disk).
        cache: read and write the cache ($LABKIT_CACHE, else the user's cache folder).
        progress: show a progress bar.

    Raises:
        DataError: an image cannot be read, the cache cannot be written, or a feature is not finite.
    """
    expect_backbone(backbone)
    if dtype not in ("float32", "float16"):
        raise DataError(f'features can be stored as "float32" or "float16", not {quote(dtype)}.')
    dataset, name = _read_data(data, split)
    if not cache:
        return encode_images(backbone, dataset, batch_size=batch_size, progress=progress).astype(dtype, copy=False)
    key = feature_key(backbone, dataset, dtype)
    paths = feature_paths(backbone, *name, key)
    features = kept_anywhere(paths, key)
    if features is None:
        with contextlib.ExitStack() as held:
            path = first_writable(paths, held)  # before the work
            features = kept_features(path, key)  # another process has done it while this one waited
            if features is None:
                features = _extract_in_parts(parts_folder(path), key, backbone, dataset, batch_size, progress)
                keep(path, features, key)
            shutil.rmtree(parts_folder(path), ignore_errors=True)
    return features


def _read_data(data: Any, split: str | None) -> tuple[ImageDataset, tuple[str, str]]:
    """The images, and the dataset and split that the cache keeps their features under."""
    if isinstance(data, ImageDataset):
        if split is not None:
            raise DataError(f"split is {quote(split)}, but an ImageDataset has none. Leave it out, or give a manifest.")
        return data, ("images", "all")
    if not isinstance(data, Manifest):
        if not isinstance(data, str | os.PathLike):
            raise DataError(f"data is {quote(data)}. Expected an ImageDataset, or what load_manifest gives or takes.")
        data = load_manifest(data)
    split = "train" if split is None else split
    return load_dataset(data, split), (data.id, split)


def encode_images(
    backbone: Backbone, dataset: ImageDataset, *, batch_size: int | None = None, progress: bool = False
) -> np.ndarray:
    """Features of every image of a dataset, in order, without the cache: (n, d) float32.

    Raises:
        DataError: an image cannot be read, or a feature is not finite.
    """
    expect_backbone(backbone)
    if not hasattr(dataset, "labels") or len(dataset) == 0:
        raise DataError(f"dataset is {quote(dataset)}. Expected images, at least one, such as load_dataset(manifest).")
    with progress_bar(backbone, len(dataset), progress) as bar:
        parts = encode_parts(backbone, dataset, parts_of(range(len(dataset))), batch_size=batch_size, bar=bar)
        return np.concatenate([features for _, features in parts])


def expect_backbone(backbone: object) -> None:
    if not isinstance(backbone, Backbone):
        raise DataError(f"backbone is {quote(backbone)}. Expected what load_backbone(name) gives.")


def _extract_in_parts(
    folder: Path,
    key: dict[str, Any],
    backbone: Backbone,
    dataset: ImageDataset,
    batch_size: int | None,
    progress: bool,
) -> np.ndarray:
    """All features; those of every part are kept in the folder, and taken from there where they are."""
    features = np.empty((key["rows"], key["width"]), key["dtype"])
    todo = []
    for rows in parts_of(range(len(dataset))):
        kept = kept_features(_part_path(folder, rows), _part_key(key, rows))
        if kept is None:
            todo.append(rows)
        else:
            features[rows.start : rows.stop] = kept
    with progress_bar(backbone, sum(map(len, todo)), progress) as bar:
        for rows, part in encode_parts(backbone, dataset, todo, batch_size=batch_size, bar=bar):
            features[rows.start : rows.stop] = stored(part, key["dtype"], backbone)
            write_features(_part_path(folder, rows), features[rows.start : rows.stop], _part_key(key, rows))
    return features


def _part_path(folder: Path, rows: range) -> Path:
    return folder / f"{rows.start:09d}.safetensors"


def _part_key(key: dict[str, Any], rows: range) -> dict[str, Any]:
    return key | {"first": rows.start, "rows": len(rows)}


# ------------------------------------------------------------------------------------------------------------ in parts


def parts_of(rows: range) -> Iterator[range]:
    """Consecutive rows in parts of `PART`."""
    return (rows[i : i + PART] for i in range(0, len(rows), PART))


def progress_bar(backbone: Backbone, total: int, progress: bool) -> Any:
    """A bar that counts images."""
    return tqdm(total=total, desc=f"{backbone.name} features", unit="image", disable=not progress)


def batch_rows(backbone: Backbone, batch_size: int | None) -> int:
    """Images in one forward pass.

    Raises:
        DataError: it is no whole number of at least 1.
    """
    size = BATCH.get(backbone.device.type, 32) if batch_size is None else batch_size
    if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1:
        raise DataError(f"batch_size is {quote(size)}. Expected a whole number of at least 1.")
    return int(size)


def stored(features: np.ndarray, dtype: str, backbone: Backbone) -> np.ndarray:
    """Features of `encode_parts` in the dtype in which they are kept.

    Raises:
        DataError: they are not as wide as the backbone says, or float16 cannot hold them.
    """
    if features.shape[1] != backbone.dim:
        raise DataError(f"{backbone.name} gives {features.shape[1]} features, and says that it gives {backbone.dim}.")
    with np.errstate(over="ignore"):
        features = features.astype(dtype, copy=False)
    if not np.isfinite(features).all():
        raise DataError(f'{backbone.name} gives features that float16 cannot hold. Ask for dtype="float32".')
    return features


def encode_parts(
    backbone: Backbone, dataset: ImageDataset, parts: Iterable[range], *, batch_size: int | None = None, bar: Any
) -> Iterator[tuple[range, np.ndarray]]:
    """Features of parts of a dataset, in the order of the parts: (rows, features (len(rows), d) float32).

    Args:
        parts: consecutive rows, at least one in each. No batch holds rows of two of them. The next part is asked for
            when the last batch of the one before is about to be encoded.
        batch_size: as in `extract_features`.
        bar: what `progress_bar` gives; it is told of every batch.

    Raises:
        DataError: an image cannot be read, or a feature is not finite.
    """
    size = batch_rows(backbone, batch_size)
    batches = ((part, part[i : i + size]) for part in parts for i in range(0, len(part), size))
    encoded: list[torch.Tensor] = []
    for part, rows, pixels in _load_ahead(dataset, backbone.preprocess, batches):
        encoded.append(backbone.encode_image(torch.from_numpy(pixels)))
        bar.update(len(rows))
        if rows.stop == part.stop:
            features = torch.cat(encoded).cpu().numpy()
            if not np.isfinite(features).all():
                raise DataError(
                    f"{backbone.name} gives features that are not finite for images {part.start} to {part.stop - 1}. "
                    "Look at those images, or load the backbone on a device with a wider dtype."
                )
            yield part, features
            encoded = []


def _load_ahead(
    dataset: ImageDataset, preprocess: Preprocess, batches: Iterator[tuple[range, range]]
) -> Iterator[tuple[range, range, np.ndarray]]:
    """(part, rows, preprocessed pixels uint8 (B, h, w, c)) of every batch (part, rows).

    Pixels are made by threads (PIL lets them run side by side) one batch ahead. Gray images have one channel; among
    images of more it is repeated.
    """

    def load(rows: range) -> list[np.ndarray]:
        return [dataset.use(i, preprocess) for i in rows]

    def submit(batch: tuple[range, range] | None) -> list[Future[list[np.ndarray]]]:
        rows = range(0) if batch is None else batch[1]
        chunk = min(32, -(-len(rows) // (2 * cpu_count())) or 1)
        return [pool.submit(load, rows[i : i + chunk]) for i in range(0, len(rows), chunk)]

    with ThreadPoolExecutor(cpu_count()) as pool:
        batch = next(batches, None)
        pending = submit(batch)
        while batch is not None:
            (part, rows), ready = batch, pending
            batch = next(batches, None)
            pending = submit(batch)
            images = [image for future in ready for image in future.result()]
            channels = max(image.shape[2] for image in images)
            yield part, rows, np.stack([i if i.shape[2] == channels else i.repeat(channels, axis=2) for i in images])
