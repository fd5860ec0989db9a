"""What was found in a folder of images, and the folder that keeps it: a table of images, one of clusters, a report."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit._files import open_regular, temporary_folder, user_path
from labkit.errors import DataError, quote, shown
from labkit.own.files import explain_unwritable, file_cell, word_cell, write_file, write_table

LABELS, TABLE, REPORT = "labels.csv", "labels.parquet", "report.json"
GALLERY, MAP, TURTLE, SEEN = "clusters.html", "map.html", "turtle.safetensors", "seen.safetensors"
REJECTED = -1  # the cluster of an image that a review took out
COLUMNS = ["cluster", "size", "name", "name_confidence", "suggestions"]  # of `Clustering.clusters`
LARGEST = 1 << 30  # bytes of a table or a report


@dataclass(frozen=True, eq=False)
class Clustering:
    """The clusters of a folder of images.

    Attributes:
        root: the folder of the images.
        paths: the images that could be read, n of them, sorted.
        images: a row for each: `file` (path below the root as text), `cluster` (−1: rejected in a review),
            `confidence` (TURTLE's probability of the cluster that it found), `name` ("" where there is none), `flags`
            (what the audit says, ""), `found` (TURTLE's cluster, which no review changes), `distance`
            (from the mean of that cluster), `x` and `y` (where the map shows it).
        clusters: a row for each, in the order of their numbers: `cluster`, `size`, `name`, `name_confidence` (NaN where
            it is not known), `suggestions` (a list of words). A merge keeps the smallest number, a split gives new
            ones; none is renumbered.
        report: settings, versions, counts, what was left out and why; `run` tells this result from others.
    """

    root: Path
    paths: list[Path]
    images: pd.DataFrame
    clusters: pd.DataFrame
    report: dict[str, Any] = field(repr=False)

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each image, (n,) int64; −1 where a review rejected it."""
        return self.images["cluster"].to_numpy(np.int64)

    def members(self, cluster: int) -> np.ndarray:
        """The rows of a cluster's images, most confident first, (m,) int64."""
        rows = np.flatnonzero(self.labels == cluster)
        return rows[np.argsort(-self.images["confidence"].to_numpy()[rows], kind="stable")]

    def save(self, out: Path) -> None:
        """Write labels.csv, labels.parquet and report.json into a folder, the report last.

        Raises:
            DataError: they cannot be written.
        """
        columns = ["file", "cluster", "confidence", "name", "flags"]
        cells = zip(*(self.images[column] for column in columns[1:]), strict=True)
        rows = [
            [file_cell(path, self.root), cluster, f"{confidence:.4f}", word_cell(name), word_cell(flags)]
            for path, (cluster, confidence, name, flags) in zip(self.paths, cells, strict=True)
        ]
        write_table(out / LABELS, columns, rows)
        table = io.BytesIO()
        # bytes: a name of a file need not be text
        paths = [os.fsencode(path.relative_to(self.root)) for path in self.paths]
        self.images.assign(path=paths).to_parquet(table, index=False)
        write_file(out / TABLE, table.getvalue())
        report = self.report | {"clusters": json.loads(self.clusters.to_json(orient="records"))}
        write_file(out / REPORT, (json.dumps(report, indent=1) + "\n").encode())


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A folder to write a result into, whose files replace those of `out` when the block ends well.

    Where it does not, `out` is as it was. Where the process is killed while files are moved, `out` has no report, and
    so no result.

    Raises:
        DataError: the files cannot be written.
    """
    with explain_unwritable(out):
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, f".{REPORT}.") as folder:
            yield folder
            (out / REPORT).unlink(missing_ok=True)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == REPORT):
                if not path.name.startswith("."):
                    path.replace(out / path.name)


def load_clustering(out: str | os.PathLike[str]) -> Clustering:
    """What `labkit cluster` keeps in its output folder, from that folder or a file in it.

    Raises:
        DataError: the folder holds no result, or one that is damaged.
    """
    folder = user_path(out)
    if not folder.exists():
        raise DataError(f"there is no {shown(folder)}. Expected the folder that `labkit cluster --out` wrote.")
    folder = folder if folder.is_dir() else folder.parent
    expected = f"Expected the folder that `labkit cluster --out` wrote, with {REPORT} and {TABLE} in it."
    try:
        report = json.loads(_read(folder / REPORT))
        if not isinstance(report, dict) or report.get("labkit") != "clusters":
            raise ValueError(f"{REPORT} is of something else")
        images = pd.read_parquet(io.BytesIO(_read(folder / TABLE)))
        root = Path(report["root"])
        paths = [root / os.fsdecode(path) for path in images.pop("path")]
        clusters = pd.DataFrame(report.pop("clusters"), columns=COLUMNS)
        clusters["name_confidence"] = clusters["name_confidence"].astype(float)
        return Clustering(root, paths, images, clusters, report)
    except FileNotFoundError as error:
        raise DataError(f"{shown(folder)} holds no clusters: there is no {error.filename}. {expected}") from error
    except Exception as error:  # a damaged table raises whatever its reader does
        raise DataError(f"the clusters in {shown(folder)} cannot be read ({quote(error)}). {expected}") from error


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(f"{path.name} is larger than {LARGEST >> 30} GB")
    return content
