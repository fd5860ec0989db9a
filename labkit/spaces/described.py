"""Datasets described as Croissant, with what is here beside it: a table of the samples, and features as parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from labkit._files import atomic_write
from labkit.data.croissant import Table, describe
from labkit.data.datasets import load_dataset
from labkit.data.images import ImageDataset
from labkit.data.presence import presence
from labkit.data.schema import Manifest
from labkit.errors import DataError, shown
from labkit.spaces.backbones import load_backbone
from labkit.spaces.cache import file_name_of
from labkit.spaces.features import extract_features

BLOCK = 16384  # rows of features that are written at once
SAMPLES = Path("samples.parquet")


def write_described(
    manifest: Manifest,
    folder: Path,
    *,
    backbones: Sequence[str] = (),
    device: str = "auto",
    progress: bool = False,
) -> Path:
    """Write `croissant.json` of a dataset into a folder, and tables of its samples and features beside it.

    The samples are written where the data is here already; nothing is downloaded for them. A table of features
    has a row for each image of a split, in its order: row, label and the features in float16.

    Args:
        manifest: of the dataset.
        folder: made where it does not exist; what an earlier call wrote is replaced.
        backbones: names for `load_backbone`; the dataset is downloaded for them where it is not here.
        device, progress: as in `load_backbone` and `extract_features`.

    Returns:
        the path of the description.

    Raises:
        DataError: the folder cannot be written, or an image not read.
    """
    tables = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if backbones or presence(manifest).state in ("bundled", "here"):
            datasets = {split: load_dataset(manifest, split) for split in manifest.splits}
            tables.append(_write_samples(manifest, datasets, folder))
            for name in backbones:
                tables += _write_features(manifest, datasets, name, folder, device, progress)
        path = folder / "croissant.json"
        _write_json(path, describe(manifest, folder, tables))
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be written ({error.strerror}). Give another folder.") from error
    return path


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_samples(manifest: Manifest, datasets: dict[str, ImageDataset], folder: Path) -> Table:
    """One row an image: its split, its number there, its file where it has one, and its class number."""
    columns = [("split", "sc:Text", "the split"), ("row", "sc:Integer", "number of the image in the split, from 0")]
    schema = [pa.field("split", pa.string()), pa.field("row", pa.int64())]
    has_files = all(dataset.files is not None for dataset in datasets.values())
    if has_files:
        columns.append(("file", "sc:Text", "the image, relative to the folder of the dataset"))
        schema.append(pa.field("file", pa.string()))
    columns.append(("label", "sc:Integer", "class number, -1 where unknown; for evaluation"))
    schema.append(pa.field("label", pa.int64()))

    def blocks() -> Iterator[list[Any]]:
        for split, dataset in datasets.items():
            n = len(dataset)
            block = [pa.array([split] * n), pa.array(np.arange(n))]
            if has_files:
                block.append(pa.array([_relative(path, manifest.root) for path in dataset.files or []]))
            yield [*block, pa.array(dataset.labels)]

    _write_parquet(folder / SAMPLES, pa.schema(schema), blocks)
    refers = {"split": "splits/name"} | ({"label": "classes/number"} if manifest.classes else {})
    return Table(SAMPLES, f"The images of {manifest.title}, without their pixels", columns, refers=refers)


def _relative(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _write_features(
    manifest: Manifest, datasets: dict[str, ImageDataset], name: str, folder: Path, device: str, progress: bool
) -> Iterator[Table]:
    """A table of features for each split."""
    backbone = load_backbone(name, device=device)
    for split, dataset in datasets.items():
        path = Path("features") / file_name_of(name) / f"{split}.parquet"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        features = extract_features(backbone, manifest, split=split, dtype="float16", progress=progress)
        vectors = pa.list_(pa.float16(), features.shape[1])
        schema = pa.schema([("row", pa.int64()), ("label", pa.int64()), ("features", vectors)])

        def blocks(features: np.ndarray = features, labels: np.ndarray = dataset.labels) -> Iterator[list[Any]]:
            for start in range(0, len(features), BLOCK):
                part = features[start : start + BLOCK]
                flat = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])
                yield [pa.array(np.arange(start, start + len(part))), pa.array(labels[start : start + BLOCK]), flat]

        _write_parquet(folder / path, schema, blocks)
        columns = [
            ("row", "sc:Integer", f"number of the image in the split {split}, from 0"),
            ("label", "sc:Integer", "class number, -1 where unknown; for evaluation"),
            ("features", "cr:Float16", f"what {name} gives for the image, as it is"),
        ]
        refers = {"label": "classes/number"} if manifest.classes else {}
        title = f"Features of {manifest.title}, split {split}, by {name} ({backbone.fingerprint[:12]})"
        yield Table(path, title, columns, {"features": features.shape[1]}, refers)


def _write_parquet(path: Path, schema: Any, blocks: Callable[[], Iterator[list[Any]]]) -> None:
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for block in blocks():
            writer.write_table(pa.Table.from_arrays(block, schema=schema))
