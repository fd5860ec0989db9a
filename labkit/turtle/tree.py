"""A tree over small clusters, cut anywhere: what to merge and what to split when a number of clusters is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from labkit._inputs import is_whole
from labkit.errors import FitError, quote

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ClusterCount:
    """An estimate of the number of classes, with what it was read from.

    Attributes:
        estimate: the number of clusters that the scores favor.
        interval: (low, high), numbers that the scores do not speak against.
        curve: a row for every number that was tried: "n_clusters", the scores "silhouette", "gap" and "stability", and
            "score", their mean after each is brought to 0 … 1, whose peak is the estimate.
        merges: the tree over L small clusters 0 … L − 1. Row i merges "first" and "second" into node L + i, as in
            SciPy's linkages; "height" never decreases; "together" says how often two samples, one from each, were
            in the same cluster of a k-means run, 0 to 1.
        leaves: the small cluster of each sample, (n,).
    """

    estimate: int
    interval: tuple[int, int]
    curve: pd.DataFrame = field(repr=False)
    merges: pd.DataFrame = field(repr=False)
    leaves: np.ndarray = field(repr=False)

    def labels(self, n_clusters: int | None = None) -> np.ndarray:
        """The labeling that the tree gives for a number of clusters, the estimate by default: (n,) int64.

        Clusters are numbered by their size, largest first. That of n_clusters + 1 is the same with one cluster split.

        Raises:
            FitError: the tree has no such cut.
        """
        return self._number_of_node(n_clusters)[0][self.leaves]

    def next_merges(self, n_clusters: int | None = None, most: int = 5) -> pd.DataFrame:
        """Pairs of clusters of `labels(n_clusters)` to merge if there are too many, most alike first.

        Columns: "first", "second" (clusters), "together" (see `merges`; near 1: one class, near 0: two), "height".
        """
        _, cluster = self._number_of_node(n_clusters)
        pairs = self.merges.assign(
            first=self.merges["first"].map(cluster), second=self.merges["second"].map(cluster)
        ).dropna(subset=["first", "second"])
        columns = ["first", "second", "together", "height"]
        return pairs[columns].astype({"first": int, "second": int}).head(most).reset_index(drop=True)

    def next_splits(self, n_clusters: int | None = None, most: int = 5) -> pd.DataFrame:
        """Clusters of `labels(n_clusters)` to split if there are too few, the most different halves first.

        Columns: "cluster", "first_size", "second_size" (samples of its two parts), "together", "height".
        """
        _, cluster = self._number_of_node(n_clusters)
        n_leaves = len(self.merges) + 1
        sizes = np.bincount(self.leaves, minlength=2 * n_leaves - 1)
        for node, (a, b) in enumerate(self.merges[["first", "second"]].to_numpy(), n_leaves):
            sizes[node] = sizes[a] + sizes[b]
        rows = self.merges.assign(
            cluster=(self.merges.index + n_leaves).map(cluster),
            first_size=sizes[self.merges["first"]],
            second_size=sizes[self.merges["second"]],
        ).dropna(subset=["cluster"])
        columns = ["cluster", "first_size", "second_size", "together", "height"]
        return rows[columns].astype({"cluster": int}).iloc[::-1].head(most).reset_index(drop=True)

    def _number_of_node(self, n_clusters: int | None) -> tuple[np.ndarray, dict[int, int]]:
        """The cluster of every leaf at a cut, and the clusters by their nodes."""
        n_leaves = len(self.merges) + 1
        n_clusters = min(self.estimate, n_leaves) if n_clusters is None else n_clusters
        if not is_whole(n_clusters, 1, n_leaves):
            raise FitError(
                f"n_clusters is {quote(n_clusters)}. Expected a whole number from 1 to {n_leaves}, the clusters at "
                "the bottom of the tree; for more give a larger `between`."
            )
        node = np.arange(n_leaves)
        pairs = self.merges[["first", "second"]].to_numpy()[: n_leaves - n_clusters]
        for i, pair in enumerate(pairs):
            node[np.isin(node, pair)] = n_leaves + i
        nodes, of_leaf = np.unique(node, return_inverse=True)
        sizes = np.bincount(of_leaf[self.leaves], minlength=len(nodes))
        order = np.argsort(-sizes, kind="stable")
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        return number[of_leaf], {int(name): int(number[i]) for i, name in enumerate(nodes)}


def cluster_tree(apart: np.ndarray, n_leaves: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Ward's tree of samples by how often they are apart, with its `n_leaves` largest clusters as leaves.

    Args:
        apart: share of the runs in which two samples are in different clusters, (m, m).

    Returns:
        The table of `ClusterCount.merges`, and the leaf of each sample, (m,).
    """
    import pandas as pd

    m = len(apart)
    full = linkage(squareform(apart, checks=False), "ward") if m > 1 else np.empty((0, 4))
    leaf = cut_tree(full, n_leaves)[:, 0] if m > 1 else np.zeros(1, int)
    n_leaves = int(leaf.max()) + 1
    first_row = np.arange(2 * m - 1)  # of every node
    for i, pair in enumerate(full[:, :2].astype(int)):
        first_row[m + i] = first_row[pair[0]]
    top = full[m - n_leaves :]
    pairs = top[:, :2].astype(int)
    above = pairs - (2 * m - n_leaves)  # among the nodes over the leaves
    nodes = np.where(above >= 0, n_leaves + above, leaf[first_row[pairs]])
    members = np.zeros((2 * n_leaves - 1, m), np.float32)
    members[leaf, np.arange(m)] = 1
    together = []
    for i, (a, b) in enumerate(nodes):
        members[n_leaves + i] = members[a] + members[b]
        small, large = sorted((members[a] > 0, members[b] > 0), key=np.count_nonzero)
        together.append(1 - float(apart[small][:, large].mean()))
    table = {"first": nodes[:, 0], "second": nodes[:, 1], "height": top[:, 2], "together": together}
    return pd.DataFrame(table), leaf.astype(np.int64)
