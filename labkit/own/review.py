"""A review of clusters: what a person merged, split, renamed, rejected and moved, and how that changes the clusters.

A review is a list of operations on the clusters as TURTLE found them. Applying it begins with these every time: twice
gives what once gave, and a review without operations undoes all others.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit._files import open_regular
from labkit._inputs import is_whole
from labkit.errors import DataError, quote, shown
from labkit.own.clustering import REJECTED, Clustering, load_clustering
from labkit.own.operations import Operated

if TYPE_CHECKING:
    from labkit.own.reading import Reading

LARGEST = 50_000_000  # bytes of a review
LONGEST_NAME = 100  # characters
MOST_PARTS = 20  # of a split

_DONE = {"merge": "merged", "split": "split", "rename": "renamed", "reject": "rejected", "move": "moved"}
KEYS = {  # what an operation needs beside "do"; of two choices, one
    "merge": [{"clusters"}],
    "split": [{"cluster", "into"}],
    "rename": [{"cluster", "name"}],
    "reject": [{"cluster"}, {"files"}],
    "move": [{"files", "cluster"}],
}


@dataclass(frozen=True)
class Review:
    """What a person decided about clusters.

    Attributes:
        run: `run` in the report of the clusters that were looked at; "" fits all.
        operations: each {"do": "merge", "clusters": [3, 7]}, {"do": "split", "cluster": 2, "into": 2},
            {"do": "rename", "cluster": 3, "name": "shoes"}, {"do": "reject", "cluster": 5}, {"do": "reject", "files":
            […]} or {"do": "move", "files": […], "cluster": 4}; done in this order.
    """

    run: str
    operations: list[dict[str, Any]]

    @property
    def has_splits(self) -> bool:
        """Whether features are needed to apply it."""
        return any(operation["do"] == "split" for operation in self.operations)

    def summary(self) -> str:
        """What it does, in a line: "merged 2 clusters, renamed 1 cluster, rejected 3 images"."""
        counts: dict[tuple[str, str], int] = {}
        for operation in self.operations:
            what = "image" if "files" in operation else "cluster"
            key = _DONE[operation["do"]], what
            counts[key] = counts.get(key, 0) + len(set(operation.get("files", operation.get("clusters", [0]))))
        said = [f"{done} {n} {what}{'' if n == 1 else 's'}" for (done, what), n in counts.items()]
        return ", ".join(said) or "nothing: the clusters are as they were found"


# -------------------------------------------------------------------------------------------------------------- reading


def read_review(path: str | os.PathLike[str]) -> Review:
    """Read the review.json that the gallery saves.

    Raises:
        DataError: it cannot be read, or is no review.
    """
    expected = "Expected the review.json that “Save review” of clusters.html downloads."
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST // 1_000_000} MB")
        given = json.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"the review {shown(path)} cannot be read ({why}). {expected}") from error
    if not isinstance(given, dict) or given.get("labkit") != "review":
        raise DataError(f"{shown(path)} holds {quote(given)}, which is no review. {expected}")
    if given.get("version") != 1 or isinstance(given.get("version"), bool):
        raise DataError(
            f"{shown(path)} is a review of version {quote(given.get('version'))}. Expected version 1: it is from "
            "another labkit; make the page anew and review there."
        )
    run, operations = given.get("run", ""), given.get("operations")
    if not isinstance(run, str) or not isinstance(operations, list):
        raise DataError(f"the review {shown(path)} has no run or no list of operations. {expected}")
    return Review(run, [_read_operation(i, operation) for i, operation in enumerate(operations, 1)])


def _read_operation(i: int, given: Any) -> dict[str, Any]:
    """Operation i as it may be, or an error: types and ranges only, not whether there are such clusters."""
    if not isinstance(given, dict) or not isinstance(given.get("do"), str) or given["do"] not in KEYS:
        raise DataError(f'operation {i} is {quote(given)}. Expected {{"do": …}} with one of {", ".join(KEYS)}.')
    choices, keys = KEYS[given["do"]], set(given) - {"do"}
    if keys not in choices:
        needed = " or ".join(" and ".join(sorted(choice)) for choice in choices)
        raise DataError(
            f"operation {i}, {given['do']}, has {quote(sorted(keys))}. Expected {needed}, and nothing else."
        )
    for key, (is_right, expected) in _VALUES.items():
        if key in given and not is_right(given[key]):
            raise DataError(f"operation {i}, {given['do']}: {key} is {quote(given[key])}. Expected {expected}.")
    return dict(given)


def _is_name(value: Any) -> bool:
    """One line of text without what would steer a terminal or a table; "" takes a name away."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST_NAME
        and value == value.strip()
        and not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value)
    )


def _is_cluster(value: Any) -> bool:
    return is_whole(value, 0)


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cluster": (_is_cluster, "the number of a cluster"),
    "clusters": (
        lambda value: isinstance(value, list) and all(map(_is_cluster, value)) and len(set(value)) > 1,
        "a list of at least two different numbers of clusters",
    ),
    "into": (lambda value: is_whole(value, 2, MOST_PARTS), f"a whole number from 2 to {MOST_PARTS}"),
    "name": (_is_name, f"one line of at most {LONGEST_NAME} characters without blanks around it"),
    "files": (
        lambda value: isinstance(value, list) and bool(value) and all(isinstance(file, str) for file in value),
        "a list of files as labels.csv and the page show them",
    ),
}


# ------------------------------------------------------------------------------------------------------------- applying


def reviewed(clustering: Clustering, review: Review, features: Mapping[str, np.ndarray]) -> Clustering:
    """The clusters after a review of them; `clustering` is left as it is.

    A merge keeps the smallest number, and its name, or where it has none the first of the others. A split is K-means
    on the L2-normalized features; the largest part keeps number and name, the others get new numbers and no name.
    Confidences stay those that TURTLE found.

    Args:
        clustering: n images, reviewed before or not.
        review: the operations.
        features: n rows in each space; looked at only for a split.

    Raises:
        DataError: the review is of another run, an operation asks for what there is not, or no image is left.
    """
    run = clustering.report.get("run", "")
    if review.run and review.run != run:
        raise DataError(
            f"the review is of the run {quote(review.run)}, and the clusters are those of {quote(run)}. Expected a "
            "review of these clusters: open their clusters.html, or name the folder that was reviewed with --to."
        )
    found = clustering.report.get("found") or json.loads(clustering.clusters.to_json(orient="records"))
    state = Operated(clustering.images, found, features)
    for i, operation in enumerate(review.operations, 1):
        state.do(i, operation)
    if (state.labels == REJECTED).all():
        raise DataError(f"the review rejects all {len(state.labels)} images. Expected one that keeps at least one.")
    images = clustering.images.assign(
        cluster=state.labels, name=[state.rows[k]["name"] if k != REJECTED else "" for k in state.labels.tolist()]
    )
    report = {name: value for name, value in clustering.report.items() if name != "found"} | {
        "review": review.operations
    }
    if review.operations:
        report["found"] = found  # the clusters before any review
    return Clustering(clustering.root, clustering.paths, images, state.table(), report)


def apply_review(out: Path, review: Review, *, progress: bool = False) -> Clustering:
    """Carry a review out: tables, pages and report of a result are written anew. No image is changed.

    Args:
        out: the folder that `labkit cluster` wrote.
        review: what to do with the clusters.
        progress: show a progress bar, where images need to be read again.

    Raises:
        LabkitError: as `load_clustering`, `read_folder` and `reviewed`, before anything is written; or a file cannot be
            written.
    """
    from labkit.own.cluster import write_clustering
    from labkit.own.reading import read_folder
    from labkit.spaces.backbones import load_backbone

    clustering = load_clustering(out)
    reviewed(clustering, Review(review.run, []), {})  # whether it is of another run is said before any work
    backbones = clustering.report["settings"]["backbones"] if review.has_splits else []
    reading = read_folder(clustering.root, [load_backbone(name) for name in backbones], progress=progress)
    reading = _of_images(reading, clustering)
    result = reviewed(clustering, review, reading.features)
    write_clustering(out, result, reading)
    return result


def _of_images(reading: Reading, clustering: Clustering) -> Reading:
    """What was read now of the n images that were clustered; of those that are gone a thumbnail is gray."""
    row_of = {path: row for row, path in enumerate(reading.files)}
    rows = [row_of.get(path) for path in clustering.paths]
    missing = [path for path, row in zip(clustering.paths, rows, strict=True) if row is None]
    if missing and reading.features:
        raise DataError(
            f"a split needs all images, and {len(missing)} are gone or cannot be read, such as {shown(missing[0])}. "
            "Put them back, or run `labkit cluster` again."
        )
    features = {name: space[[row for row in rows if row is not None]] for name, space in reading.features.items()}
    return dataclasses.replace(
        reading, files=clustering.paths, thumbnails=_Chosen(reading.thumbnails, rows), features=features
    )


class _Chosen(Sequence[bytes]):
    """Thumbnails in another order, each read when it is asked for."""

    def __init__(self, thumbnails: Sequence[bytes], rows: Sequence[int | None]) -> None:
        self._thumbnails, self._rows = thumbnails, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        row = self._rows[i]
        return _blank() if row is None else self._thumbnails[row]


@functools.cache
def _blank() -> bytes:
    """The thumbnail of an image that is gone: a gray square, as JPEG."""
    from PIL import Image

    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16), (127, 127, 127)).save(jpeg, "JPEG")
    return jpeg.getvalue()
