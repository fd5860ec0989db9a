"""The paper's choice of hyper-parameters, which sees no label: the generalization score of each labeling of a sweep.

Gadetsky et al., ICML 2024, section 4: take the hard pseudo-labels on the train split, and score them by the 10-fold
cross-validated accuracy of a logistic regression in each space, averaged over folds and spaces. A labeling that has
collapsed is easy to predict, so those that found fewer clusters than another are left out (`labkit.turtle.Sweep`).

Ours differs from the authors' in cost: the regressions see a sample of the rows, in their principal directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from labkit._inputs import named_spaces
from labkit._stored import as_spaces
from labkit.devices import fast_dtype, pick_device
from labkit.turtle import FeatureTransform, Sweep, Turtle
from labkit.turtle.probe import cross_validated_accuracy
from labkit.turtle.sweep import FEATURE_SCALE, N_COMPONENTS, N_SCORED_OF_CLUSTER, WHITENING
from labkit.turtle.transform import transformed

N_FOLDS = 10  # the paper's


def choose(
    spaces: Sequence[Any],
    turtles: Sequence[Turtle],
    settings: Sequence[Mapping[str, Any]],
    *,
    n_scored: int,
    seed: int,
) -> tuple[Sweep, str]:
    """The runs ranked without labels, and what by.

    Args:
        spaces: what the runs were fitted on, K of (n, d_k).
        turtles: the fitted runs.
        settings: what differs between them.
        n_scored: rows, at most, that are scored; or 20 a cluster, if that is more.
        seed: of the sample and the folds.

    Returns:
        The sweep, whose `best()` is the chosen run, and "generalization"; "confidence" where no labeling of those that
        found the most clusters has two of ten scored rows, so that ten folds cannot be made (a stand-in has two images
        a class).
    """
    scores = {
        "generalization": generalization(spaces, turtles, n_scored=n_scored, seed=seed),
        "confidence": np.array([float(turtle.confidence_[0]) for turtle in turtles]),
    }
    n_found = np.array([int(turtle.n_found_[0]) for turtle in turtles])
    full = n_found == n_found.max()  # among which the sweep chooses
    by = "confidence" if np.isnan(scores["generalization"][full]).all() else "generalization"
    return Sweep(turtles, settings, scores, by), by


def generalization(spaces: Sequence[Any], turtles: Sequence[Turtle], *, n_scored: int, seed: int) -> np.ndarray:
    """The generalization score of each labeling, (R,) in [0, 1]; NaN where it has no two clusters of ten rows."""
    n, n_clusters = len(turtles[0].labels_), turtles[0].n_clusters_
    device = pick_device(turtles[0].device)
    generator = torch.Generator().manual_seed(seed)
    most = max(n_scored, N_SCORED_OF_CLUSTER * n_clusters)
    rows = torch.randperm(n, generator=generator)[:most].sort().values
    labelings = torch.from_numpy(np.stack([turtle.labels_[rows.numpy()] for turtle in turtles])).to(device)
    sizes = torch.stack([torch.bincount(labels, minlength=n_clusters) for labels in labelings])
    if not ((sizes >= N_FOLDS).sum(1) >= 2).any():
        return np.full(len(turtles), np.nan)  # known before the work
    scores = []
    for space in as_spaces(named_spaces(list(spaces))):
        transform = FeatureTransform.from_rows(space, rows, N_COMPONENTS, WHITENING, FEATURE_SCALE)
        features = transformed(space, transform, rows, device, torch.float32).to(fast_dtype(device))
        folds = torch.Generator().manual_seed(seed)  # the same in all spaces
        scores.append(cross_validated_accuracy(features, labelings, n_clusters, n_folds=N_FOLDS, generator=folds))
    return torch.stack(scores).mean(0).cpu().double().numpy()
