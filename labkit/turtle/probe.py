"""Logistic regressions of many labelings and folds side by side: the generalization score of a whole sweep at once.

The score is the TURTLE paper's (section 4 of Gadetsky et al., ICML 2024): cross-validated accuracy of a linear
classifier on the pseudo-labels. Every labeling and fold is a row of one matrix product, as restarts are in
`labkit.turtle.objective`, whose shapes hold here too: R rows, C clusters, n samples, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.turtle.objective import linear, linear_grad

STEPS_ON_ALL, STEPS_IN_FOLDS = 12, 8  # scores then differ from those at convergence by less than 0.01
MOST_ENTRIES = 2**24  # of logits (R, C, n) in one product: 64 MiB


def cross_validated_accuracy(
    features: Tensor,
    labelings: Tensor,
    n_clusters: int,
    *,
    n_folds: int = 10,
    inverse_penalty: float = 1e-2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How well a logistic regression predicts each labeling on samples that it has not seen: (L,) in [0, 1].

    The loss is that of scikit-learn's LogisticRegression, Σ CE + ‖w‖² / (2 · inverse_penalty). It is minimized on all
    samples first, then from there without each fold. Folds are stratified for each labeling; samples in clusters of
    fewer than `n_folds` are left out. A labeling with less than two larger clusters scores NaN.

    Args:
        features: (n, d), of mean 0; fewer steps suffice where they are uncorrelated, as principal components are.
        labelings: cluster of each sample, (L, n) int64.
        n_clusters: C.
        generator: source of the folds, on the CPU.
    """
    n = len(features)
    order = torch.randperm(n, generator=generator).to(labelings.device)
    counts = torch.zeros(len(labelings), n_clusters, device=labelings.device, dtype=torch.int64)
    counts.scatter_add_(1, labelings, torch.ones_like(labelings))
    kept = (counts >= n_folds).gather(1, labelings)  # (L, n)
    curvature = features.float().square().sum(0)  # (d,)
    scores = []
    for some, used in zip(
        *(rows.split(max(1, MOST_ENTRIES // (n * n_clusters * n_folds))) for rows in (labelings, kept)), strict=True
    ):
        fold = stratified_folds(some, order, n_folds)
        seen = used[:, None] & (fold[:, None] != torch.arange(n_folds, device=fold.device)[:, None])  # (L, F, n)
        whole = _minimize(features, some, used.float(), n_clusters, curvature, inverse_penalty, STEPS_ON_ALL)
        start = (whole[0].repeat_interleave(n_folds, 0), whole[1].repeat_interleave(n_folds, 0))
        rows = some.repeat_interleave(n_folds, 0)
        layer = _minimize(
            features, rows, seen.flatten(0, 1).float(), n_clusters, curvature, inverse_penalty, STEPS_IN_FOLDS, start
        )
        right = (linear(features, *layer).argmax(1) == rows).view(seen.shape)
        held_out = used[:, None] & ~seen
        scores.append(((right & held_out).sum(-1) / held_out.sum(-1)).mean(-1))
    result = torch.cat(scores)
    return torch.where((counts >= n_folds).sum(1) >= 2, result, torch.nan)


def stratified_folds(labelings: Tensor, order: Tensor, n_folds: int) -> Tensor:
    """A fold for each sample, (L, n): the samples of a cluster are dealt out one by one, in a random order."""
    by_cluster = order[labelings[:, order].argsort(dim=1, stable=True)]
    folds = torch.arange(labelings.shape[1], device=order.device) % n_folds
    return torch.empty_like(labelings).scatter_(1, by_cluster, folds.expand_as(labelings))


def _minimize(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_clusters: int,
    curvature: Tensor,
    inverse_penalty: float,
    n_steps: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Nesterov's accelerated gradient on R weighted logistic regressions: weight (R, C, d), bias (R, C).

    Each feature's step is the inverse of a bound of the curvature along it, half its sum of squares (Böhning, 1992)
    and the penalty's.
    """
    if start is None:
        shape = (len(labels), n_clusters)
        start = (curvature.new_zeros(*shape, features.shape[1]), curvature.new_zeros(*shape))
    steps = (1 / (curvature / 2 + 1 / inverse_penalty), 2 / len(features))
    current = ahead = start
    for t in range(n_steps):
        delta = linear(features, *ahead).softmax(1)  # (R, C, n)
        delta.scatter_add_(1, labels[:, None], torch.full_like(delta[:, :1], -1.0)).mul_(weights[:, None])
        grad_weight, grad_bias = linear_grad(features, delta)
        grad_weight += ahead[0] / inverse_penalty
        moved = (ahead[0] - steps[0] * grad_weight, ahead[1] - steps[1] * grad_bias)
        momentum = t / (t + 3)
        ahead = (moved[0] + momentum * (moved[0] - current[0]), moved[1] + momentum * (moved[1] - current[1]))
        current = moved
    return current
