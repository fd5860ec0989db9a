"""Presence: whether a dataset is on this machine, as far as a look at the disk can tell; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit.data.archives import archive_state, file_name, holds_something
from labkit.data.datasets import find_fashion_mnist
from labkit.data.folders import data_dir
from labkit.data.hub import data_hub, find_snapshot
from labkit.data.hub_rows import parquet_files, where_rows_are
from labkit.data.layouts import layout_paths
from labkit.data.schema import Archive, Builtin, HuggingFace, Manifest, Manual, Torchvision, WebDataset
from labkit.data.torchvision_source import TORCHVISION
from labkit.data.webdataset import here
from labkit.errors import DataError, shown

State = Literal["bundled", "here", "partly", "not here"]


@dataclass(frozen=True)
class Presence:
    """Whether a dataset is on this machine.

    Attributes:
        state: "bundled" (comes with labkit or what it needs), "here", "partly" (a download or copy that is not
            complete) or "not here".
        why: one line: where it is, or what is missing.
    """

    state: State
    why: str


def presence(manifest: Manifest) -> Presence:
    """Whether a dataset is on this machine. Looks at the disk only, in milliseconds, and never downloads.

    "here" means that all files and folders are there which the source needs; that they are whole and as many as the
    manifest promises shows when the dataset is loaded.
    """
    try:
        return _look(manifest)
    except DataError as error:  # a user without a home has no folder of datasets
        return Presence("not here", str(error))


def missing_library(manifest: Manifest) -> str:
    """The library of labkit[papers] that its images are read with, where that is not installed; else ""."""
    layout = getattr(manifest.source, "layout", None)
    by_layout = {"videos": "av", "hdf5": "h5py"}.get(getattr(layout, "kind", ""), "")
    needed = "datasets" if isinstance(manifest.source, HuggingFace) else by_layout
    return needed if needed and importlib.util.find_spec(needed) is None else ""


def _look(manifest: Manifest) -> Presence:
    source = manifest.source
    if isinstance(source, Builtin):
        return _builtin(source)
    if isinstance(source, Torchvision):
        return _torchvision(source)
    if isinstance(source, WebDataset):
        found = here(source, list(manifest.splits))
        if found.root is None:
            return Presence("not here", f"no snapshot of {source.repo} in {shown(data_hub())}")
        return _of_missing(found.missing, found.root)
    if isinstance(source, HuggingFace):
        return _hub(manifest, source)
    if isinstance(source, Archive):
        state, root = archive_state(source), data_dir() / source.path
        if state.missing and not state.begun:
            return Presence("not here", f"nothing in {shown(root)}")
        if state.missing and all(file.unpack and (root / file_name(file)).is_file() for file in state.missing):
            return Presence("here", f"in {shown(root)}, to be unpacked when it is first read")
        return _of_missing([file_name(file) for file in state.missing], root)
    layout = source.layout if isinstance(source, Manual) else None
    wanted = [manifest.root] if layout is None else layout_paths(layout, manifest.root)
    return _of_paths(wanted, manifest.root)


def _of_missing(missing: list[str], root: Path) -> Presence:
    if not missing:
        return Presence("here", f"in {shown(root)}")
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return Presence("partly", f"{shown(missing[0])}{more} not in {shown(root)} yet")


def _of_paths(wanted: list[Path], root: Path) -> Presence:
    missing = [os.path.relpath(path, root) for path in wanted if not holds_something(path)]
    if missing and not holds_something(root):
        return Presence("not here", f"nothing in {shown(root)}")
    return _of_missing(missing, root)


def _builtin(source: Builtin) -> Presence:
    if source.builder != "fashion-mnist":
        return Presence("bundled", "comes with labkit" if source.builder != "digits" else "comes with scikit-learn")
    folder = find_fashion_mnist("test")
    if folder is not None and find_fashion_mnist("train") is not None:
        return Presence("here", f"in {shown(folder)}")
    return Presence("not here", f"no files of Fashion-MNIST in {shown(data_dir())}")


def _torchvision(source: Torchvision) -> Presence:
    names, root = TORCHVISION.get(source.dataset), data_dir()
    if names is None:
        return Presence("not here", f"where torchvision keeps {source.dataset} is not known: load it and see")
    missing = [name for name in names if not holds_something(root / name)]
    folder = root / names[0].split("/")[0]
    if len(missing) == len(names) and not holds_something(folder):
        return Presence("not here", f"nothing in {shown(folder)}")
    return _of_missing(missing, root)


def _hub(manifest: Manifest, source: HuggingFace) -> Presence:
    root = find_snapshot(source.repo, source.revision)
    if root is not None:
        return _of_missing([f"split {split}" for split in manifest.splits if not parquet_files(source, split)], root)
    prepared = "" if manifest.stand_in else where_rows_are(source)
    if prepared:
        return Presence("here", f"in {prepared}")
    return Presence("not here", f"{source.repo} is not in the cache of the library datasets")
