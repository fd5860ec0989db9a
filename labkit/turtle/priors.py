"""How large the classes are: shares that are given, that follow a power law, or that are estimated without labels.

The published objective rewards even clusters: − γ H(mean labeling) is, up to a constant, γ times the divergence of the
mean labeling from even shares. Where classes are of unequal size it splits the large ones and merges the small ones.
PET-TURTLE (Salazar Cavazos, IEEE Signal Processing Letters 2026, arXiv 2601.03237) puts a power law in place of the
even shares; `estimated` asks the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn.functional import one_hot

from labkit._inputs import is_number, is_whole, plain_array
from labkit.errors import FitError, quote
from labkit.turtle.racing import race
from labkit.turtle.solver import Layers, TurtleSolver

EXPECTED = '"even", "estimated", or one positive share for each cluster, such as labkit.turtle.power_law(10, 1.0) gives'
LOOSE = 0.03  # times γ: clusters may then have any size, and few are empty
N_JUDGED = 2000  # samples at most that labelings are compared on
N_DIRECTIONS = 64
WORTH_A_SILHOUETTE = 32  # directions explained; chosen on digits, fashion-mini, emoji, Food-10, Pets and photographs


def power_law(n_clusters: int, exponent: float = 1.0) -> np.ndarray:
    """Shares proportional to 1 / rank^exponent, the largest first: (C,) float64 that adds up to 1.

    Args:
        n_clusters: C.
        exponent: 0 gives even shares; at 1 and C = 10 the first is ten times the last.

    Raises:
        FitError: one of them is no such number.
    """
    if not is_whole(n_clusters, 1):
        raise FitError(f"n_clusters is {quote(n_clusters)}. Expected a whole number from 1.")
    if not is_number(exponent, 0, 100):
        raise FitError(f"exponent is {quote(exponent)}. Expected a number from 0 (even shares) to 100.")
    shares = np.arange(1, n_clusters + 1, dtype=np.float64) ** -float(exponent)
    return shares / shares.sum()


def shares_of(prior: Any, n_clusters: int) -> np.ndarray | None:
    """The shares (C,) that a prior gives, which add up to 1; None for "even" and "estimated".

    Raises:
        FitError: it is no prior for that many clusters.
    """
    if isinstance(prior, str):
        if prior not in ("even", "estimated"):
            raise FitError(f"prior is {quote(prior)}. Expected {EXPECTED}.")
        return None
    array = plain_array("prior", prior, f"Expected {EXPECTED}.")
    if array.dtype.kind not in "iuf":
        raise FitError(f"prior holds {array.dtype}. Expected {EXPECTED}.")
    shares = array.astype(np.float64)
    if shares.shape != (n_clusters,):
        raise FitError(f"prior has the shape {shares.shape}. Expected {EXPECTED}: {n_clusters} shares.")
    if not (np.isfinite(shares).all() and shares.min() > 0 and np.isfinite(shares.sum())):
        raise FitError(f"the shares of prior go from {shares.min()} to {shares.max()}. Expected positive numbers.")
    shares = shares / shares.sum()
    if shares.min() < 1e-12:
        raise FitError(f"the smallest share of prior is {shares.min():.0e}. Expected at least 1e-12 of all samples.")
    return shares


def consensus(labelings: Tensor, n_clusters: int) -> Tensor:
    """The labeling that several labelings (R, n) agree on: (n,) int64.

    Two samples are as similar as the share of labelings that put them into one cluster; average linkage merges them
    until C clusters are left (evidence accumulation: Fred and Jain, IEEE TPAMI 2005). Memory and time grow with n².
    """
    together = one_hot(labelings.long(), n_clusters).float().permute(1, 0, 2).flatten(1)  # (n, R·C)
    apart = 1 - (together @ together.T) / len(labelings)
    apart.fill_diagonal_(0)
    tree = linkage(squareform(apart.cpu().numpy(), checks=False), "average")
    return torch.from_numpy(fcluster(tree, n_clusters, "maxclust").astype(np.int64) - 1)


def separation(spaces: Sequence[Tensor], labels: Tensor) -> float:
    """How well a labeling (n,) separates samples in all spaces (n, d_k) together, without labels; higher is better.

    The silhouette, which is high where clusters have gaps between them, plus a thirty-second of the number of
    directions that the clusters explain: the sum of the shares of variance between clusters in each of the 64 largest
    directions. The first alone prefers few large clusters, the second even ones.
    """
    found = np.unique(labels.numpy(), return_inverse=True)[1]
    if not 1 < found.max() + 1 < len(found):
        return -np.inf
    features = torch.cat([space.float() for space in spaces], 1).cpu()
    features = features - features.mean(0)
    left, sizes, _ = torch.linalg.svd(features, full_matrices=False)
    white = left[:, : min(N_DIRECTIONS, int((sizes > 1e-4 * sizes[0]).sum()))]
    members = one_hot(torch.from_numpy(found)).float()  # (n, C)
    means = (members.T @ white) / members.sum(0)[:, None]
    explained = float((members.sum(0)[:, None] * means.square()).sum())  # number of directions: each has length 1
    return float(silhouette_score(features.numpy(), found)) + explained / WORTH_A_SILHOUETTE


def estimated(
    even: TurtleSolver, new_solver: Callable[..., TurtleSolver], n_steps: int, *, progress: bool = False
) -> tuple[Layers, Tensor, np.ndarray] | None:
    """Look for a labeling whose clusters have the sizes that the data suggest, and compare it with the even one.

    Restarts with a loose entropy term find clusters of any size, each somewhat different ones. Their consensus gives
    the shares, and is where one more run begins that asks for these shares. It is kept if it separates the samples
    better than the even labeling does. Tried, and worse: merging over-clusters by how often linear classifiers confuse
    them; lowering γ during a fit, whose splits then stay; the stability of the restarts as the criterion.

    Args:
        even: solver with the entropy term of even clusters, at its end.
        new_solver: makes another one on the same features; takes the settings that differ.
        n_steps: T.
        progress: show progress bars.

    Returns:
        What `labkit.turtle.racing.race` does, for the one run, and its shares (C,); None if even clusters are better.
    """
    stride = -(-even.parts.n // N_JUDGED)
    judged = [even.parts.rows(space, torch.arange(0, even.parts.n, stride)) for space in even.spaces]
    n_clusters = even.encoder.biases[0].shape[1]
    loose = new_solver(entropy_weight=LOOSE * float(even.entropy_weight))
    race(loose, n_steps, all_to_the_end=True, progress=progress)
    labels = consensus(_probs(loose, judged).argmax(1), n_clusters)
    probs = _probs(even, judged)
    confident = probs[int(probs.amax(1).mean(-1).argmax())]
    if separation(judged, labels) <= separation(judged, confident.argmax(0)):
        return None
    shares = (torch.bincount(labels, minlength=n_clusters).double().numpy() + 1) / (len(labels) + n_clusters)
    chosen = new_solver(n_restarts=1, prior=torch.from_numpy(shares))
    labeling = one_hot(labels, n_clusters).T[None].to(probs)
    chosen.begin_with(judged, labeling.to(judged[0].device), max(1, n_steps // 2))
    encoder, records = race(chosen, max(1, n_steps // 2), progress=progress)
    return encoder, records, shares


def _probs(solver: TurtleSolver, features: Sequence[Tensor]) -> Tensor:
    """The labelings of a solver's restarts on some features, (R, C, n) on the CPU."""
    return torch.stack(solver.task_probs(features)).mean(0).cpu()
