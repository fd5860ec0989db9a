"""Choosing among labelings without labels: four scores, none of which needs to know what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn

from labkit.errors import FitError

if TYPE_CHECKING:
    import pandas as pd

    from labkit.turtle import Turtle


def label_free_scores(turtle: Turtle, spaces: Sequence[np.ndarray]) -> pd.DataFrame:
    """Scores of every restart of a fitted Turtle on its training spaces; one row a restart, higher is better.

    Columns: "confidence" (mean largest probability of the labeling; what `Turtle` chooses by), "agreement" (how often
    the spaces' own task encoders choose the cluster that their mean chooses; always 1 in one space) and "fit" (minus
    the inner loss, the margin that TURTLE maximises, averaged over the last 20 outer steps).
    """
    import pandas as pd

    agreement = []
    for r in range(len(turtle.confidence_)):
        joint = turtle.predict(list(spaces), restart=r)
        alone = [
            (space @ weight[r].T + bias[r]).argmax(1)
            for space, (weight, bias) in zip(spaces, turtle.restarts_, strict=True)
        ]
        agreement.append(np.mean([labels == joint for labels in alone]))
    fit = -turtle.history_["inner_loss"][-20:].mean(0)
    scores = pd.DataFrame({"confidence": turtle.confidence_, "agreement": agreement, "fit": fit})
    return scores.rename_axis("restart")


def generalization_score(
    spaces: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    n_folds: int = 10,
    max_samples: int = 2000,
    random_state: int = 0,
) -> float:
    """The TURTLE paper's score of a labeling: can linear classifiers predict it on samples they have not seen?

    Cross-validated accuracy of a logistic regression on the pseudo-labels, averaged over folds and spaces (section 4
    of Gadetsky et al., 2024). A labeling that puts everything into one cluster is perfectly predictable: compare only
    labelings that found the same number of clusters.

    Args:
        spaces: K arrays (n, d_k).
        labels: cluster of each sample, (n,).
        n_folds: folds of the cross-validation.
        max_samples: a random subset of this size is scored; the score needs no more to tell labelings apart.
        random_state: seed of the subset and of the folds.
    """
    labels = np.asarray(labels)
    chosen = np.random.default_rng(random_state).permutation(len(labels))[:max_samples]
    values, counts = np.unique(labels[chosen], return_counts=True)
    kept = chosen[np.isin(labels[chosen], values[counts >= n_folds])]  # a cluster needs a sample in every fold
    if len(np.unique(labels[kept])) < 2:
        raise FitError(
            f"the labeling has fewer than two clusters of at least {n_folds} samples. Expected two or more: "
            "it has collapsed, and its score would mean nothing."
        )
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=500))
    with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take ten times longer
        return float(np.mean([cross_val_score(probe, space[kept], labels[kept], cv=folds).mean() for space in spaces]))
