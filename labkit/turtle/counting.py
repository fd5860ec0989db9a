"""How many classes are there? An estimate from features alone, its interval, and a tree for when it is wrong.

Many short k-means runs at a ladder of numbers C give, at every C, three scores, none of which sees a label:

    silhouette   of the tightest run at C: mean of (b − a) / max(a, b), where a is a sample's mean cosine distance to
                 its own cluster and b that to the nearest other one (Rousseeuw, 1987)
    gap          mean of b − a, minus the same for features whose columns were permuted, in which no classes are left
                 (after the gap statistic of Tibshirani, Walther and Hastie, 2001)
    stability    silhouette in another distance: how often two samples are in different clusters over all runs (evidence
                 accumulation; Fred and Jain, 2005). The clusters are those of a Ward tree of the features, since
                 those of the runs would confirm themselves

Each is brought to 0 … 1 over the ladder, and the estimate is where their mean, smoothed, peaks: every score alone is
misled somewhere, for instance the silhouette by superclasses. The constants were chosen on developer sets (digits,
fashion-mini, emoji-unseen, CIFAR-10, clothing, Food-10 and Oxford Pets, whole, long-tailed, and in parts of their
classes); there the median estimate was off by a factor of 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist
from torch import Tensor
from tqdm.auto import tqdm

from labkit._inputs import LARGEST_COUNT, is_whole, named_spaces
from labkit._scales import block_of, refuse_far_rows
from labkit._stored import Space, as_spaces
from labkit.devices import pick_device
from labkit.errors import FitError, quote
from labkit.turtle.settings import random_state_of
from labkit.turtle.transform import FeatureTransform, transformed
from labkit.turtle.tree import ClusterCount, cluster_tree

if TYPE_CHECKING:
    import pandas as pd

ROWS = 4000  # a random part of more samples is enough; the distances of all pairs are held
FEW, MANY = 48, 96  # directions of a space; distances say more in fewer of them than Turtle's classifiers use
WHITENING = 0.5  # as in Turtle
STEP = 1.12  # from one number of the ladder to the next, where that is more than 1
SAMPLES = 6  # in a cluster on average, at least: larger numbers are not tried
INFORMATIVE = 6  # clusters of a run that says which samples belong together, at least
TOLERANCE = 0.15  # below the peak of the score, where a number is in the interval: 35 of 40 developer cases were
CLEAR = 0.045  # gap, below which the features look like features without classes


def estimate_n_clusters(
    spaces: Any,
    between: tuple[int, int] = (2, 200),
    *,
    random_state: int | np.random.RandomState | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> ClusterCount:
    """Estimate how many classes a dataset has, from the features of its samples.

    Args:
        spaces: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples. Of more than 4,000
            samples a random part is used.
        between: (low, high), the numbers of clusters to look at. Numbers that leave fewer than six samples to a
            cluster are not tried.
        random_state: int, NumPy RandomState or None, as in scikit-learn.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        progress: show a progress bar.

    Returns:
        The estimate, its interval, the curve of the scores, and a tree of clusters to merge or split from there.

    Raises:
        FitError: the spaces or the settings cannot be used; the message says why and what to do.
    """
    tensors = as_spaces(named_spaces(spaces))
    n = len(tensors[0])
    low, high = _expect_between(between, n)
    source = random_state_of(random_state)
    if not isinstance(progress, bool):
        raise FitError(f"progress is {quote(progress)}. Expected True or False.")
    generator = torch.Generator().manual_seed(int(source.randint(2**31 - 1)))
    rows = torch.randperm(n, generator=generator)[:ROWS].sort().values
    picked = pick_device(device)
    try:
        transforms = [[FeatureTransform.from_rows(z, rows, c, WHITENING, 8.0) for z in tensors] for c in (FEW, MANY)]
        few, many = (_joined(tensors, some, rows, picked) for some in transforms)
    except FitError:
        refuse_far_rows(tensors)
        raise
    center = few.mean(0)
    permuted = torch.stack([column[torch.randperm(len(rows), generator=generator)] for column in few.T.cpu()], 1)
    few, many, permuted = (_unit_rows(z - z.mean(0)) for z in (few, many, permuted.to(picked)))

    ladder = _ladder(low, max(low, min(high, len(rows) // SAMPLES)))
    tree = linkage(pdist(many.cpu().numpy(), "sqeuclidean"), "ward")
    records, runs = [], []
    for c in tqdm(ladder, desc="counting", unit="number", disable=not progress):
        found = [cosine_kmeans(few, c, generator) for _ in range(4)]
        own, other = _tightest(few, found)
        null = _separation(*_tightest(permuted, [cosine_kmeans(permuted, c, generator) for _ in range(2)]))
        gap = _separation(own, other) - null
        records.append({"n_clusters": c, "silhouette": silhouette(own, other), "gap": gap})
        if c >= min(INFORMATIVE, ladder[-1]):
            runs += [labels.cpu() for labels in (*found[:2], cosine_kmeans(many, c, generator))]
    apart = _apart(runs)
    cuts = cut_tree(tree, ladder)
    for record, labels in zip(records, torch.from_numpy(cuts.T).long(), strict=True):
        record["stability"] = silhouette(*_mean_distances(apart @ _one_hot(labels), labels))
    curve = _curve(records)

    merges, leaf_of_row = cluster_tree(apart.numpy(), min(max(high, 2), len(rows)))
    means = (_one_hot(torch.from_numpy(leaf_of_row)).T @ few.cpu()).to(picked)
    means /= torch.from_numpy(np.bincount(leaf_of_row)).to(means)[:, None]
    leaves = np.empty(n, np.int64)
    for some in torch.arange(n).split(block_of(sum(z.shape[1] for z in tensors))):
        features = _unit_rows(_joined(tensors, transforms[0], some, picked) - center)
        leaves[some.numpy()] = torch.cdist(features, means).argmin(1).cpu().numpy()
    leaves[rows.numpy()] = leaf_of_row
    estimate, interval = read_curve(curve, min(high, n))
    return ClusterCount(estimate, interval, curve, merges, leaves)


def cosine_kmeans(rows: Tensor, n_clusters: int, generator: torch.Generator, n_steps: int = 12) -> Tensor:
    """k-means of L2-normalized rows (m, d) by their cosine, from a k-means++ start: the cluster of each, (m,).

    A cluster that loses all its rows keeps its center.
    """
    draws = torch.rand(n_clusters, generator=generator).tolist()
    chosen = [int(draws[0] * len(rows))]
    distance = (1 - rows @ rows[chosen[0]]).clamp_min(0)
    for draw in draws[1:]:
        total = distance.cumsum(0)
        chosen.append(min(int(torch.searchsorted(total, draw * total[-1], right=True)), len(rows) - 1))
        distance = torch.minimum(distance, (1 - rows @ rows[chosen[-1]]).clamp_min(0))
    centers = rows[chosen]
    labels = (rows @ centers.T).argmax(1)
    for _ in range(n_steps):
        sums = torch.zeros_like(centers).index_add_(0, labels, rows)
        norms = sums.norm(dim=1, keepdim=True)
        centers = torch.where(norms > 1e-6, sums / norms.clamp_min(1e-6), centers)
        before, labels = labels, (rows @ centers.T).argmax(1)
        if torch.equal(before, labels):
            break
    return labels


def silhouette(own: Tensor, other: Tensor) -> float:
    """Mean silhouette from mean distances to the own cluster and to the nearest other, both (m,); 0 where both are."""
    return float(((other - own) / torch.maximum(own, other).clamp_min(1e-9)).mean())


def read_curve(curve: pd.DataFrame, most: int) -> tuple[int, tuple[int, int]]:
    """The estimate and its interval from a curve of `ClusterCount`; `most` is the largest number that is possible.

    The peak is that of the parabola through the highest point and its neighbors, over the logarithm of the numbers.
    """
    tried, score = curve["n_clusters"].to_numpy(), curve["score"].to_numpy()
    if curve["gap"].max() < CLEAR:
        return int(tried[0]), (int(tried[0]), most)
    i = int(score.argmax())
    estimate = float(tried[i])
    if 0 < i < len(tried) - 1:
        left, peak, right = score[i - 1 : i + 2]
        if left + right < 2 * peak:
            shift = 0.25 * (right - left) / (2 * peak - left - right)
            estimate *= (tried[i + 1] / tried[i - 1]) ** shift
    near = tried[score >= score[i] - TOLERANCE]
    return round(estimate), (int(near[0]), most if near[-1] == tried[-1] else int(near[-1]))


def _expect_between(between: Any, n: int) -> tuple[int, int]:
    pair = isinstance(between, list | tuple) and len(between) == 2
    if not pair or not is_whole(between[0], 2) or not is_whole(between[1], int(between[0])):
        raise FitError(
            f"between is {quote(between)}. Expected two whole numbers (low, high), 2 ≤ low ≤ high ≤ {LARGEST_COUNT:,}."
        )
    if between[0] > n:
        raise FitError(
            f"between begins at {between[0]}, for n_samples = {n}. Expected at least as many samples as clusters."
        )
    return int(between[0]), int(between[1])


def _ladder(low: int, high: int) -> list[int]:
    """Numbers from low to high, each larger by one or by the factor STEP."""
    numbers, exact = [low], float(low)
    while (exact := max(numbers[-1] + 1.0, exact * STEP)) < high:
        numbers.append(round(exact))
    return numbers if numbers[-1] == high else [*numbers, high]


def _joined(
    spaces: Sequence[Space], transforms: Sequence[FeatureTransform], rows: Tensor, device: torch.device
) -> Tensor:
    """These rows of all spaces beside each other, each as Turtle's solver gets it."""
    parts = [transformed(z, t, rows, device, torch.float32) for z, t in zip(spaces, transforms, strict=True)]
    return torch.cat(parts, 1)


def _unit_rows(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels).float()


def _mean_distances(sums: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As `cosine_distances`, from the sums of any distances over clusters (m, C)."""
    counts = torch.bincount(labels, minlength=sums.shape[1]).to(sums)
    own_sum, own_count = sums.gather(1, labels[:, None])[:, 0], counts[labels] - 1
    means = torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)
    other = means.scatter(1, labels[:, None], torch.inf).amin(1)
    own = (own_sum / own_count.clamp_min(1)).clamp_min(0)
    own = torch.where(own_count > 0, own, torch.where(other.isfinite(), other, own))
    return own, torch.where(other.isfinite(), other, own)


def cosine_distances(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 1 − cosine of L2-normalized rows (m, d) to their own cluster, without themselves, and to the nearest other.

    Labels (m,) -> both (m,). A row alone in its cluster, or with all others in one, has both equal.
    """
    members = _one_hot(labels)
    return _mean_distances(members.sum(0) - rows @ (rows.T @ members), labels)


def _tightest(rows: Tensor, found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`cosine_distances` of the labeling whose clusters are the tightest."""
    return min((cosine_distances(rows, labels) for labels in found), key=lambda pair: float(pair[0].mean()))


def _separation(own: Tensor, other: Tensor) -> float:
    return float((other - own).mean())


def _apart(runs: Sequence[Tensor]) -> Tensor:
    """Share of the runs in which two samples are in different clusters, (m, m)."""
    count = torch.zeros(len(runs[0]), len(runs[0]), dtype=torch.int16)
    for labels in runs:
        count += labels[:, None] != labels
    return count.float() / len(runs)


def _curve(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of scores, with their mean after each is brought to 0 … 1 and smoothed over neighboring numbers."""
    import pandas as pd

    curve = pd.DataFrame(records)
    scores = curve[["silhouette", "gap", "stability"]].to_numpy()
    low, high = scores.min(0), scores.max(0)
    padded = np.pad(((scores - low) / np.where(high > low, high - low, 1)).mean(1), 2, mode="edge")
    return curve.assign(score=np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, "valid"))
