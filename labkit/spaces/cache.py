"""The cache of features: content-addressed files that are checked when they are read, shared or a user's own."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit._files import cache_dir, locked_folder, own_dir, sweep
from labkit._saved import read_saved, write_saved
from labkit.data.images import ImageDataset
from labkit.errors import CheckpointError, DataError
from labkit.spaces.encoders import Backbone

logger = logging.getLogger(__name__)


def feature_key(backbone: Backbone, dataset: ImageDataset, dtype: str = "float32") -> dict[str, Any]:
    """All that determines the features of a dataset, and their shape; kept in the file and checked when it is read."""
    return {
        "images": dataset.identity,
        "rows": len(dataset),
        "width": backbone.dim,
        "backbone": backbone.fingerprint,  # weights and preprocessing
        "forward": str(backbone.dtype),
        "dtype": dtype,
    }


def file_name_of(backbone: str) -> str:
    """The name of a backbone, as a file or folder may have it."""
    return backbone.replace("/", "_").replace(":", "_")


def feature_path(backbone: Backbone, dataset: str, split: str, key: dict[str, Any]) -> Path:
    """Where the cache keeps the features of a split of a dataset of this id: the name holds a digest of the key."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir() / "features" / dataset / file_name_of(backbone.name) / f"{split}-{digest}.safetensors"


def feature_paths(backbone: Backbone, dataset: str, split: str, key: dict[str, Any]) -> list[Path]:
    """Where features are looked for, and kept where that is allowed: in the cache, then in this user's own folder.

    The two differ where a class shares a cache that only the teacher may write to.
    """
    shared = feature_path(backbone, dataset, split, key)
    try:
        own = own_dir() / shared.relative_to(cache_dir())
    except DataError:  # a user without a home
        return [shared]
    return list(dict.fromkeys([shared, own]))


def parts_folder(path: Path) -> Path:
    """The folder of the parts of an extraction; each user's own, since others could not lock it."""
    return path.with_suffix(f".parts-{getattr(os, 'getuid', int)()}")


def first_writable(paths: Sequence[Path], held: contextlib.ExitStack) -> Path:
    """The first path whose folder of parts this user may make and lock; the lock goes into `held`."""
    for path in paths:
        try:
            with _explain_unwritable(path.parent):
                held.enter_context(locked_folder(parts_folder(path), wait=True))
            return path
        except DataError as error:
            if path == paths[-1] or not _is_denied(error):
                raise
    raise AssertionError("there is always a path")


def _is_denied(error: DataError) -> bool:
    """Whether it was raised because this user may not write there."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def kept_anywhere(paths: Sequence[Path], key: dict[str, Any]) -> np.ndarray | None:
    """The features that one of these files holds; what a killed process left beside it is removed."""
    for path in paths:
        features = kept_features(path, key)
        if features is not None:
            if os.path.exists(parts_folder(path)):  # noqa: PTH110 (killed after the last step but one)
                with contextlib.suppress(OSError), locked_folder(parts_folder(path), wait=False):
                    shutil.rmtree(parts_folder(path), ignore_errors=True)
            sweep(path)
            return features
    return None


def keep_anywhere(paths: Sequence[Path], features: np.ndarray, key: dict[str, Any]) -> None:
    """Write features into the first of these files that this user may write.

    Raises:
        DataError: there is none.
    """
    for path in paths:
        try:
            return keep(path, features, key)
        except DataError as error:
            if path == paths[-1] or not _is_denied(error):
                raise


def keep(path: Path, features: np.ndarray, key: dict[str, Any]) -> None:
    """Write features, unless another user has done that meanwhile, whose file is not ours to replace."""
    try:
        write_features(path, features, key)
    except DataError:
        if kept_features(path, key) is None:
            raise


def kept_features(path: Path, key: dict[str, Any]) -> np.ndarray | None:
    """The features in a file of the cache; None where there is none, or a damaged or foreign one, which is said."""
    if not os.access(path, os.R_OK):  # also where a folder above is closed to this user
        return None
    try:
        return read_features(path, key)
    except DataError as error:
        logger.warning("%s It is computed again.", error)
        return None


def read_features(path: str | os.PathLike[str], key: dict[str, Any]) -> np.ndarray:
    """Read features (rows, width) that `write_features` wrote under this key.

    Raises:
        DataError: the file is missing, damaged, or of other images or another backbone.
    """
    try:
        found, tensors = read_saved(path, "features", "Delete it.")
    except CheckpointError as error:
        raise DataError(str(error)) from error
    features = tensors.get("features", torch.empty(0))
    is_whole = features.shape == (key["rows"], key["width"]) and str(features.dtype) == f"torch.{key['dtype']}"
    if found != key or not is_whole:
        raise DataError(f"the features in {path} are of other images or another backbone. Delete it.")
    return features.numpy()


def write_features(path: Path, features: np.ndarray, key: dict[str, Any]) -> None:
    """Write features (rows, width) and their key, atomically.

    Raises:
        DataError: the file cannot be written.
    """
    with _explain_unwritable(path.parent):
        write_saved(path, "features", key, {"features": torch.from_numpy(features)})


@contextlib.contextmanager
def _explain_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"features cannot be kept in {folder} ({error}). Set the environment variable LABKIT_CACHE to a folder "
            "that can be written and has room, or pass cache=False."
        ) from error
