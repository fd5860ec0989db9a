"""Features: every image of a split through a backbone, once; kept in a content-addressed cache."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import shutil
from collections.abc import Iterator, Sequence
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

PART = 4096  # images between two saves: a killed extraction loses at most this many
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
    _expect_backbone(backbone)
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
    _expect_backbone(backbone)
    if not hasattr(dataset, "labels") or len(dataset) == 0:
        raise DataError(f"dataset is {quote(dataset)}. Expected images, at least one, such as load_dataset(manifest).")
    starts = range(0, len(dataset), PART)
    return np.concatenate([part for _, part in _extract(backbone, dataset, starts, batch_size, progress)])


def _expect_backbone(backbone: object) -> None:
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
    for start in range(0, len(dataset), PART):
        kept = kept_features(_part_path(folder, start), _part_key(key, start))
        if kept is None:
            todo.append(start)
        else:
            features[start : start + PART] = kept
    for start, part in _extract(backbone, dataset, todo, batch_size, progress):
        if part.shape[1] != key["width"]:
            raise DataError(f"{backbone.name} gives {part.shape[1]} features, and says that it gives {key['width']}.")
        with np.errstate(over="ignore"):
            features[start : start + PART] = part
        if not np.isfinite(features[start : start + PART]).all():
            raise DataError(f'{backbone.name} gives features that float16 cannot hold. Ask for dtype="float32".')
        write_features(_part_path(folder, start), features[start : start + PART], _part_key(key, start))
    return features


def _part_path(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.safetensors"


def _part_key(key: dict[str, Any], start: int) -> dict[str, Any]:
    return key | {"first": start, "rows": min(PART, key["rows"] - start)}


def _extract(
    backbone: Backbone, dataset: ImageDataset, starts: Sequence[int], batch_size: int | None, progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """The parts of a dataset that begin at `starts`: (start, features (up to PART, d), float32)."""
    size = BATCH.get(backbone.device.type, 32) if batch_size is None else batch_size
    if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1:
        raise DataError(f"batch_size is {quote(size)}. Expected a whole number of at least 1.")
    batches = [
        (start, range(first, min(first + size, start + PART, len(dataset))))
        for start in starts
        for first in range(start, min(start + PART, len(dataset)), size)
    ]
    loaded = _load_ahead(dataset, backbone.preprocess, [rows for _, rows in batches])
    total = sum(len(rows) for _, rows in batches)
    part: list[torch.Tensor] = []
    with tqdm(total=total, desc=f"{backbone.name} features", unit="image", disable=not progress) as bar:
        for i, ((start, rows), pixels) in enumerate(zip(batches, loaded, strict=True)):
            part.append(backbone.encode_image(torch.from_numpy(pixels)))
            bar.update(len(rows))
            if i + 1 == len(batches) or batches[i + 1][0] != start:
                features = torch.cat(part).cpu().numpy()
                if not np.isfinite(features).all():
                    raise DataError(
                        f"{backbone.name} gives features that are not finite for images "
                        f"{start} to {start + len(features) - 1}. Look at those images, or load the backbone on a "
                        "device with a wider dtype."
                    )
                yield start, features
                part = []


def _load_ahead(dataset: ImageDataset, preprocess: Preprocess, batches: Sequence[range]) -> Iterator[np.ndarray]:
    """Preprocessed batches, uint8 (B, h, w, c), made by threads (PIL lets them run side by side) one batch ahead.

    Gray images have one channel; among images of more it is repeated.
    """

    def load(rows: range) -> list[np.ndarray]:
        return [dataset.use(i, preprocess) for i in rows]

    with ThreadPoolExecutor(cpu_count()) as pool:

        def submit(rows: range) -> list[Future[list[np.ndarray]]]:
            chunk = min(32, -(-len(rows) // (2 * cpu_count())) or 1)
            return [pool.submit(load, rows[i : i + chunk]) for i in range(0, len(rows), chunk)]

        waiting = iter(batches)
        pending = submit(next(waiting, range(0)))
        while pending:
            ready, pending = pending, submit(next(waiting, range(0)))
            images = [image for future in ready for image in future.result()]
            channels = max(image.shape[2] for image in images)
            yield np.stack([i if i.shape[2] == channels else i.repeat(channels, axis=2) for i in images])
