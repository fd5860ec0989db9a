"""Tables of images on the Hugging Face hub, read with the library `datasets`."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labkit._files import cache_dir
from labkit.data.decoding import plain_image
from labkit.data.hub import cache_only_if_unreachable, find_snapshot, hub_problem
from labkit.data.images import ImageDataset
from labkit.data.schema import HuggingFace, Manifest
from labkit.errors import DataError, shown


def read_hub_rows(manifest: Manifest, source: HuggingFace, split: str) -> ImageDataset:
    """The images of one split of a dataset on the hub; where its parquet files lie in the data folder, those.

    Raises:
        DataError: the library is not installed, the repository is neither here nor can it be fetched, or it has no such
            columns; the message quotes `note` of the manifest.
    """
    try:
        import datasets  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise DataError(
            f"{manifest.id} comes from the Hugging Face hub and needs the library `datasets`. "
            "Install it: pip install 'labkit[papers]'"
        ) from error
    files = parquet_files(source, split)
    if manifest.stand_in and not files:
        raise DataError(f"the stand-in of {manifest.id} is not complete: write the stand-ins again.")
    if not files and os.path.lexists(source.repo):
        raise DataError(
            f"there is a file or folder {source.repo} here, which the library would read instead of the Hugging Face "
            "hub. Work in another folder."
        )
    try:
        with cache_only_if_unreachable():
            rows = _of_files(datasets, files) if files else _of_hub(datasets, source, split)
        labels = np.full(len(rows), -1) if source.label is None else np.array(rows[source.label])
        labels = labels.astype(np.int64)
    except Exception as error:  # offline, no such repository, split or column
        note = f" Note: {manifest.note.strip()}" if manifest.note else ""
        raise DataError(
            f"{source.repo} cannot be loaded from the Hugging Face hub {hub_problem(error, manifest.id)}{note}"
        ) from error
    return ImageDataset(labels, manifest.classes, decode=HubImages(rows, source.image))


def parquet_files(source: HuggingFace, split: str) -> list[Path]:
    """The parquet files of a split in the hub's cache below the data folder; [] unless all of them are there."""
    root = find_snapshot(source.repo, source.revision)
    if root is None:
        return []
    name = re.escape(source.splits[split])
    for folder in (root / "data", root / (source.config or ""), root / "data" / (source.config or "")):
        found = [path for path in sorted(folder.glob("*.parquet")) if re.match(rf"{name}-\d+-of-\d+\.", path.name)]
        if found and len(found) == int(found[0].stem.rpartition("-of-")[2]) and all(path.exists() for path in found):
            return found
    return []


def rows_cache() -> Path:
    """Where the library `datasets` keeps the repositories that it has prepared, unless it was told otherwise later."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")


def _of_files(datasets: Any, files: list[Path]) -> Any:
    """The library turns them into its own format once, in labkit's cache."""
    given = [str(path) for path in files]
    return datasets.load_dataset("parquet", data_files=given, split="train", cache_dir=str(cache_dir() / "datasets"))


def _of_hub(datasets: Any, source: HuggingFace, split: str) -> Any:
    # older versions of the library run programs that come with the data, where they are told to or a person says yes
    untrusted = inspect.signature(datasets.load_dataset).parameters.keys() & {"trust_remote_code"}
    options = {"split": source.splits[split], "revision": source.revision, **dict.fromkeys(untrusted, False)}
    return datasets.load_dataset(source.repo, source.config, **options)


def where_rows_are(source: HuggingFace) -> str:
    """The folder in which the library has prepared the repository, or ""; which splits, only the library can tell."""
    name = source.repo.replace("/", "___")
    for folder in (rows_cache() / name.lower(), rows_cache() / name):
        if folder.is_dir():
            return shown(folder)
    return ""


@dataclass(frozen=True)
class HubImages:
    """Decodes image i of a table from the Hugging Face hub; a class, so that worker processes can be sent it."""

    rows: Any
    column: str

    def __call__(self, i: int) -> Image.Image:
        return plain_image(self.rows[i][self.column]).convert("RGB")
