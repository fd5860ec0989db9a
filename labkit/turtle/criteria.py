"""Label-free scores of many labelings of the same samples at once; higher is better in all of them.

Shapes: R labelings (R, n) of whole numbers below C; every function returns (R,) but for `pairwise_nmi`, (R, R).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import one_hot


def pairwise_nmi(labelings: Tensor, n_clusters: int) -> Tensor:
    """Normalized mutual information (arithmetic mean of the entropies) of all pairs of labelings: (R, n) -> (R, R).

    Two labelings of one cluster each count as equal, 1, as in scikit-learn.
    """
    n = labelings.shape[1]
    joined = _indicators(labelings, n_clusters)  # (R·C, n)
    counts = torch.stack([part @ joined.T for part in joined.split(n_clusters)])  # (R, C, R·C)
    joint = counts.view(len(labelings), n_clusters, len(labelings), n_clusters).transpose(1, 2) / n  # (R, R, C, C)
    entropy = torch.special.entr(joined.view(len(labelings), n_clusters, n).mean(-1)).sum(-1)  # (R,)
    total = entropy[:, None] + entropy
    mutual = total - torch.special.entr(joint).sum((-2, -1))
    return torch.where(total > 0, 2 * mutual / total, 1.0)


def consensus(similarity: Tensor) -> Tensor:
    """Mean similarity (R, R) of each labeling to all others; the largest is the medoid. NaN where there is no other."""
    others = len(similarity) - 1
    return (similarity.sum(1) - similarity.diagonal()) / others if others else similarity.new_full((1,), torch.nan)


def stability(similarity: Tensor, groups: Tensor) -> Tensor:
    """Mean similarity (R, R) to the others of the same group (R,), the runs of one setting; NaN without another."""
    same = (groups[:, None] == groups).to(similarity)
    same.fill_diagonal_(0)
    return (similarity * same).sum(1) / same.sum(1)


def silhouette(features: Tensor, labelings: Tensor, n_clusters: int) -> Tensor:
    """Mean silhouette (Rousseeuw, 1987) by Euclidean distance in one space (n, d); NaN where one cluster has all.

    A sample alone in its cluster counts 0.
    """
    distances = torch.cdist(features, features)  # (n, n)
    members = _indicators(labelings, n_clusters)
    sums = (members @ distances).view(len(labelings), n_clusters, -1)  # (R, C, n)
    sizes = members.sum(-1).view(len(labelings), n_clusters, 1)
    own = labelings[:, None]  # (R, 1, n)
    own_size = sizes.expand_as(sums).gather(1, own)
    within = (sums.gather(1, own) / (own_size - 1).clamp_min(1))[:, 0]
    means = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf).scatter(1, own, torch.inf)
    between = means.amin(1)  # (R, n)
    scores = (between - within) / torch.maximum(between, within).clamp_min(torch.finfo(between.dtype).tiny)
    scores = torch.where(own_size[:, 0] > 1, scores, 0.0).mean(1)
    return torch.where((sizes[..., 0] > 0).sum(1) > 1, scores, torch.nan)


def without_settings(scores: np.ndarray, settings: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """What is left of scores (R,) when the part that each setting explains is taken out.

    Some scores depend on the learning rates whatever the labeling: larger weights are more confident. The part is the
    least-squares fit of a sum with one term for each value of each setting.
    """
    names = {name for setting in settings for name in setting}
    values = [[repr(setting.get(name)) for setting in settings] for name in sorted(names)]
    terms = [[value == level for value in of_one] for of_one in values for level in sorted(set(of_one))]
    table = np.array([[True] * len(scores), *terms], dtype=float).T  # (R, terms)
    rest = scores - table @ np.linalg.lstsq(table, scores, rcond=None)[0]
    return np.where(np.abs(rest) > 1e-9 * np.abs(scores), rest, 0.0)  # rounding would break ties


def mean_rank(*scores: np.ndarray) -> np.ndarray:
    """Scores (R,) of any units as one: the mean share of runs that are not above, in (0, 1]."""
    return np.mean([rankdata(np.nan_to_num(one, nan=-np.inf)) / len(one) for one in scores], axis=0)


def _indicators(labelings: Tensor, n_clusters: int) -> Tensor:
    """Which samples each cluster of each labeling holds: (R, n) -> (R·C, n) of 0 and 1."""
    return one_hot(labelings, n_clusters).transpose(1, 2).flatten(0, 1).float()
