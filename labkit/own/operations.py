"""The operations of a review, on the labels of images: merge, split, rename, reject, move."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import DataError, quote
from labkit.own.clustering import REJECTED
from labkit.own.joined import joined

SEED = 0  # of the K-means of a split


class Operated:
    """Labels and clusters while operations are done, one after another.

    A merge keeps the smallest number, and its name, or where it has none the first of the others. A split gives its
    largest part the number and the name; the others get numbers that no cluster had, and no name. A cluster that is
    rejected or merged away is gone.

    Args:
        images: `file` and `found` of n images, as in `Clustering.images`.
        found: the clusters before any operation, as in `Clustering.clusters`.
        features: n rows in each space; looked at only for a split.

    Attributes:
        labels: the cluster of each image, (n,) int64; −1 where it was rejected.
        rows: each cluster's row, by its number.
    """

    def __init__(
        self, images: pd.DataFrame, found: Sequence[Mapping[str, Any]], features: Mapping[str, np.ndarray]
    ) -> None:
        self.labels = images["found"].to_numpy(np.int64).copy()
        self.rows: dict[int, dict[str, Any]] = {int(row["cluster"]): dict(row) for row in found}
        self._next = int(self.labels.max(initial=-1)) + 1  # the number of the next new cluster
        self._gone: dict[int, str] = {}  # why a cluster is not there any more
        self._columns = list(found[0])
        self._features = features
        self._files = images["file"]
        self._places: dict[str, list[int]] = {}

    def table(self) -> pd.DataFrame:
        """The clusters that have images, in the order of their numbers."""
        sizes = {number: int((self.labels == number).sum()) for number in sorted(self.rows)}
        rows = [self.rows[number] | {"size": size} for number, size in sizes.items() if size]
        table = pd.DataFrame(rows, columns=self._columns)
        return table.astype({"cluster": np.int64, "size": np.int64, "name_confidence": float})

    def do(self, i: int, operation: Mapping[str, Any]) -> None:
        """Do operation i of a review (as `Review.operations`).

        Raises:
            DataError: it asks for a cluster or a file that there is not, or for more parts than images.
        """
        for number in operation.get("clusters", [operation["cluster"]] if "cluster" in operation else []):
            if number not in self.rows:
                why = self._gone.get(number, "there is none of this number")
                raise DataError(
                    f"operation {i}, {operation['do']}, is of cluster {number}: {why}. Expected one of "
                    f"{quote(sorted(self.rows))[1:-1]}: save the review again from the page of these clusters."
                )
        work = {"merge": self._merge, "split": self._split, "rename": self._rename, "move": self._move}
        work.get(operation["do"], self._reject)(i, operation)

    def _merge(self, i: int, operation: Mapping[str, Any]) -> None:
        kept, *others = sorted(set(operation["clusters"]))
        row = self.rows[kept]
        for other in others:
            taken = self.rows.pop(other)
            row["name"] = row["name"] or taken["name"]
            row["suggestions"] = list(dict.fromkeys([*row["suggestions"], *taken["suggestions"]]))
            self.labels[self.labels == other] = kept
            self._gone[other] = f"operation {i} merged it into {kept}"
        row["name_confidence"] = None

    def _rename(self, i: int, operation: Mapping[str, Any]) -> None:
        self.rows[operation["cluster"]].update(name=operation["name"], name_confidence=None)

    def _reject(self, i: int, operation: Mapping[str, Any]) -> None:
        if "files" in operation:
            self.labels[self._members(i, operation)] = REJECTED
            return
        del self.rows[operation["cluster"]]
        self.labels[self.labels == operation["cluster"]] = REJECTED
        self._gone[operation["cluster"]] = f"operation {i} rejected it"

    def _move(self, i: int, operation: Mapping[str, Any]) -> None:
        self.labels[self._members(i, operation)] = operation["cluster"]

    def _members(self, i: int, operation: Mapping[str, Any]) -> list[int]:
        if not self._places:
            for place, file in enumerate(self._files):
                self._places.setdefault(file, []).append(place)
        unknown = [file for file in operation["files"] if file not in self._places]
        if unknown:
            raise DataError(
                f"operation {i}, {operation['do']}, is of {quote(unknown[0])}"
                + (f" and {len(unknown) - 1} more that are" if len(unknown) > 1 else ", which is")
                + " not among the images. Expected files as labels.csv shows them: save the review again from the page."
            )
        return [place for file in operation["files"] for place in self._places[file]]

    def _split(self, i: int, operation: Mapping[str, Any]) -> None:
        number, into = operation["cluster"], operation["into"]
        members = np.flatnonzero(self.labels == number)
        if len(members) < into:
            raise DataError(
                f"operation {i} splits cluster {number} into {into}, and it has {len(members)} images. Expected at "
                "least one for each part: ask for fewer."
            )
        parts = _parts([space[members] for space in self._features.values()], into)
        for part in parts[1:]:
            self.labels[members[part]] = self._next
            blank = {"cluster": self._next, "name": "", "name_confidence": None, "suggestions": []}
            self.rows[self._next] = dict.fromkeys(self.rows[number]) | blank
            self._next += 1
        self.rows[number]["name_confidence"] = None


def _parts(spaces: list[np.ndarray], into: int) -> list[np.ndarray]:
    """Rows of m images in at most `into` parts, largest first; fewer where fewer images differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if not spaces:
        raise DataError("a split needs features, and there are none. Expected at least one space.")
    rows = joined(spaces)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than parts
        labels = KMeans(into, n_init=10, random_state=SEED).fit_predict(rows)
    parts = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    return sorted(parts, key=lambda part: (-len(part), part[0]))
