"""Choosing among labelings without labels: four scores, none of which needs to know what is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn

from labkit._inputs import LARGEST_COUNT, is_whole, read_classes, read_spaces
from labkit._scales import exponent_of
from labkit.errors import FitError, quote
from labkit.turtle import Turtle

if TYPE_CHECKING:
    import pandas as pd


def label_free_scores(turtle: Turtle, spaces: Any) -> pd.DataFrame:
    """Scores of every restart of a fitted Turtle on its training spaces; one row a restart, higher is better.

    Columns: "confidence" (mean largest probability of the labeling; what `Turtle` chooses by), "agreement" (how often
    the spaces' own task encoders choose the cluster that their mean chooses; always 1 in one space) and "fit" (minus
    the inner loss, the margin that TURTLE maximizes, averaged over the last 20 outer steps). Restarts that the race
    stopped are scored as they were then; to compare all of them, fit with `race=False`.

    Args:
        turtle: fitted.
        spaces: what it was fitted on, one space (n, d) or a list of K spaces (n, d_k).

    Raises:
        FitError: it is no Turtle, not fitted, or the spaces are others.
    """
    import pandas as pd

    if not isinstance(turtle, Turtle):
        raise FitError(f"turtle is {quote(turtle)}. Expected a fitted Turtle.")
    turtle.predict(spaces)  # which says what is wrong with them
    arrays = read_spaces(spaces)
    agreement = []
    for r in range(len(turtle.confidence_)):
        joint = turtle.predict(spaces, restart=r)
        alone = [
            (space @ weight[r].T + bias[r]).argmax(1)
            for space, (weight, bias) in zip(arrays, turtle.restarts_, strict=True)
        ]
        agreement.append(np.mean([labels == joint for labels in alone]))
    fit = [-loss[~np.isnan(loss)][-20:].mean() for loss in turtle.history_["inner_loss"].T]
    scores = pd.DataFrame({"confidence": turtle.confidence_, "agreement": agreement, "fit": fit})
    return scores.rename_axis("restart")


def generalization_score(
    spaces: Any,
    labels: ArrayLike,
    *,
    n_folds: int = 10,
    max_samples: int = 2000,
    random_state: int | None = 0,
) -> float:
    """The TURTLE paper's score of a labeling: can linear classifiers predict it on samples they have not seen?

    Cross-validated accuracy of a logistic regression on the pseudo-labels, averaged over folds and spaces (section 4
    of Gadetsky et al., 2024). A labeling that puts everything into one cluster is perfectly predictable: compare only
    labelings that found the same number of clusters.

    Args:
        spaces: one space (n, d) or a list of K spaces (n, d_k).
        labels: cluster of each sample, (n,), whole numbers or texts.
        n_folds: folds of the cross-validation.
        max_samples: a random subset of this size is scored; the score needs no more to tell labelings apart.
        random_state: seed of the subset and of the folds.

    Raises:
        FitError: the spaces, labels or settings are none, or fewer than two clusters have a sample in every fold.
    """
    for name, value, least in (("n_folds", n_folds, 2), ("max_samples", max_samples, 1)):
        if not is_whole(value, least):
            raise FitError(f"{name} is {quote(value)}. Expected a whole number from {least} to {LARGEST_COUNT:,}.")
    if random_state is not None and not is_whole(random_state, 0, 2**32 - 1):
        raise FitError(f"random_state is {quote(random_state)}. Expected a whole number from 0 to 2**32 - 1, or None.")
    arrays = read_spaces(spaces)
    arrays = [np.ldexp(array, -e) if (e := exponent_of(array)) else array for array in arrays]  # squares are numbers
    clusters = read_classes(labels, len(arrays[0]))
    chosen = np.random.default_rng(random_state).permutation(len(clusters))[:max_samples]
    values, counts = np.unique(clusters[chosen], return_counts=True)
    kept = chosen[np.isin(clusters[chosen], values[counts >= n_folds])]  # a cluster needs a sample in every fold
    if len(np.unique(clusters[kept])) < 2:
        raise FitError(
            f"the labeling has fewer than two clusters of at least {n_folds} samples. Expected two or more: "
            "it has collapsed, and its score would mean nothing."
        )
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=500))
    with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take ten times longer
        return float(
            np.mean([cross_val_score(probe, space[kept], clusters[kept], cv=folds).mean() for space in arrays])
        )
