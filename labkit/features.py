"""Features: every image of a split through a backbone, once; kept in a content-addressed cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from labkit._files import atomic_write, cache_dir
from labkit.backbones import Backbone, Preprocess
from labkit.devices import cpu_count
from labkit.errors import DataError

if TYPE_CHECKING:
    from labkit.datasets import ImageDataset
    from labkit.manifests import Manifest

logger = logging.getLogger(__name__)

PART = 4096  # images between two saves: a killed extraction loses at most this many


def extract_features(
    backbone: Backbone,
    manifest: Manifest,
    *,
    split: str = "train",
    batch_size: int = 256,
    dtype: str = "float32",
    cache: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """Features of every image of a split, in the order of the samples: (n, d).

    The result is kept under a key made of the manifest's digest, the split, the backbone's weights and preprocessing,
    and the dtypes, so it is computed once; an extraction that was killed goes on from its last saved part.

    Args:
        backbone: from `load_backbone`.
        manifest: from `load_manifest`.
        split: which of the manifest's splits.
        batch_size: images in one forward pass; memory grows with it, not with n.
        dtype: of the result, "float32" or "float16" (half the memory and disk).
        cache: read and write the cache ($LABKIT_CACHE, else the user's cache folder).
        progress: show a progress bar.

    Raises:
        DataError: an image cannot be read, the cache cannot be written, or a feature is not finite.
    """
    if dtype not in ("float32", "float16"):
        raise DataError(f'features can be stored as "float32" or "float16", not {dtype!r}.')
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, not {batch_size}.")
    dataset = manifest.images(split)
    starts = range(0, len(dataset), PART)
    if not cache:
        return encode_images(backbone, dataset, batch_size=batch_size, progress=progress).astype(dtype, copy=False)
    path = feature_path(backbone, manifest, split, dtype)
    with _explain_unwritable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)  # tells before the work whether the cache can be written
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()  # a second process waits here and then finds the work done
    try:
        return _read_or_extract(path, backbone, dataset, starts, batch_size, dtype, progress)
    finally:
        lock.release()


def encode_images(
    backbone: Backbone, dataset: ImageDataset, *, batch_size: int = 256, progress: bool = False
) -> np.ndarray:
    """What a backbone says of every image of a dataset, in order, without the cache: (n, d) float32.

    Raises:
        DataError: an image cannot be read, or a feature is not finite.
    """
    starts = range(0, len(dataset), PART)
    return np.concatenate([part for _, part in _extract(backbone, dataset, starts, batch_size, progress)])


def _read_or_extract(
    path: Path,
    backbone: Backbone,
    dataset: ImageDataset,
    starts: Sequence[int],
    batch_size: int,
    dtype: str,
    progress: bool,
) -> np.ndarray:
    """The features in `path`; where there are none, or damaged ones, they are computed part by part and kept there."""
    if path.exists():
        try:
            return read_features(path)
        except DataError as error:
            logger.warning("%s It is computed again.", error)
    folder = path.with_suffix(".parts")
    part_paths = {start: folder / f"{start:09d}.safetensors" for start in starts}
    features = np.empty((len(dataset), backbone.dim), dtype)
    todo = []
    for start, part_path in part_paths.items():
        try:
            features[start : start + PART] = read_features(part_path)
        except (DataError, ValueError):  # none yet, damaged, or of another size
            todo.append(start)
    for start, part in _extract(backbone, dataset, todo, batch_size, progress):
        features[start : start + PART] = part
        write_features(part_paths[start], features[start : start + PART])
    write_features(path, features)
    shutil.rmtree(folder, ignore_errors=True)
    return features


def feature_path(backbone: Backbone, manifest: Manifest, split: str, dtype: str = "float32") -> Path:
    """Where the cache keeps the features of a split: the name holds a digest of all that determines them."""
    key = {
        "data": manifest.digest,
        "split": split,
        "backbone": backbone.fingerprint,  # weights and preprocessing
        "forward": str(backbone.dtype),
        "dtype": dtype,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = backbone.name.replace("/", "_").replace(":", "_")
    return cache_dir() / "features" / manifest.id / folder / f"{split}-{digest}.safetensors"


def read_features(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a feature file (n, d) and check it against the digest it carries.

    Raises:
        DataError: the file is missing, truncated or changed.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            features, digest = file.get_tensor("features"), (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        raise DataError(f"the feature file {path} cannot be read ({error}). Delete it to compute it again.") from error
    if digest != _digest(features):
        raise DataError(f"the feature file {path} is damaged: its content does not match its digest. Delete it.")
    return features


def write_features(path: Path, features: np.ndarray) -> None:
    """Write a feature file (n, d) with its digest, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    with _explain_unwritable(path.parent), atomic_write(path) as temporary:
        save_file({"features": features}, temporary, metadata={"sha256": _digest(features)})


def _digest(features: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()


@contextlib.contextmanager
def _explain_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"features cannot be kept in {folder} ({error}). Set the environment variable LABKIT_CACHE to a folder "
            "that can be written and has room, or pass cache=False."
        ) from error


def _extract(
    backbone: Backbone, dataset: ImageDataset, starts: Sequence[int], batch_size: int, progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """The parts of a dataset that begin at `starts`: (start, features (up to PART, d), float32)."""
    batches = [
        (start, range(first, min(first + batch_size, start + PART, len(dataset))))
        for start in starts
        for first in range(start, min(start + PART, len(dataset)), batch_size)
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


def _load_ahead(
    dataset: ImageDataset, preprocess: Preprocess, batches: Sequence[range], chunk: int = 32
) -> Iterator[np.ndarray]:
    """Preprocessed batches, uint8 (B, h, w, c), made by threads (PIL lets them run side by side) one batch ahead.

    Grey pictures have one channel; among pictures of more it is repeated.
    """

    def load(rows: range) -> list[np.ndarray]:
        return [preprocess(dataset[i][0]) for i in rows]

    with ThreadPoolExecutor(cpu_count()) as pool:

        def submit(rows: range) -> list[Future[list[np.ndarray]]]:
            return [pool.submit(load, rows[i : i + chunk]) for i in range(0, len(rows), chunk)]

        pending = submit(batches[0]) if batches else []
        for following in [*batches[1:], range(0)]:
            ready, pending = pending, submit(following)
            images = [image for future in ready for image in future.result()]
            channels = max(image.shape[2] for image in images)
            yield np.stack([i if i.shape[2] == channels else i.repeat(channels, axis=2) for i in images])
