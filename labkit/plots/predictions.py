"""What predictions are worth: the confusion matrix, and the reliability diagram of their confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit._inputs import is_whole
from labkit.errors import quote
from labkit.evaluation.metrics import calibration, expected_calibration_error, match_clusters
from labkit.plots._given import expect, expect_names, whole_numbers
from labkit.plots.labels import inches_of, name_columns, name_rows
from labkit.plots.style import BLUES, MOST_AXES, PAGE_WIDTH, SMALL, color, figure, in_style, set_title


@in_style
def confusion(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[str], *, matched: bool = True, title: str = ""
) -> Figure:
    """Confusion matrix in percent of each row: rows are true classes, columns predicted ones.

    Args:
        y_true, y_pred: class and cluster of each sample, (n,).
        classes: C names.
        matched: first rename the clusters by the best one-to-one matching; False for predictions that are classes.
    """
    import seaborn as sns

    true = whole_numbers("y_true", y_true)
    predicted = whole_numbers("y_pred", y_pred, len(true))
    expect_names("classes", classes, true, least=0)
    if matched:
        predicted = match_clusters(true, predicted, len(classes))[predicted]
    else:
        expect_names("classes", classes, predicted)
    n = len(classes)
    counts = np.zeros((n, n))
    known = predicted >= 0  # a cluster beyond the number of classes has no column
    np.add.at(counts, (true[known], predicted[known]), 1)
    percent = 100 * counts / np.maximum(np.bincount(true, minlength=n), 1)[:, None]
    names = min(1.5, max(map(inches_of, classes)))  # inches that they take beside the rows
    cell = min(0.5 if n > 4 else 0.8, (PAGE_WIDTH - names - 0.6) / n)
    fig, axes = figure(width=n * cell + names + 0.6, height=n * cell + names + 0.9)
    ax = axes[0, 0]
    texts = np.where(percent >= 0.5, np.char.mod("%.0f", percent), "") if cell > 0.28 else False  # "100" takes 0.25
    sns.heatmap(
        percent, ax=ax, cmap=BLUES, vmin=0, vmax=100, cbar=False, square=True, xticklabels=False, yticklabels=False,
        annot=texts, fmt="", annot_kws={"fontsize": SMALL},
    )  # fmt: skip
    name_columns(ax, classes, cell, first=0.5)
    name_rows(ax, classes, cell, first=0.5)
    ax.tick_params(length=0)
    ax.set(xlabel="matched cluster" if matched else "predicted class", ylabel="true class")
    set_title(fig, title or "Percent of each true class")
    return fig


@in_style
def reliability(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, title: str = "") -> Figure:
    """Reliability diagram (Guo et al., ICML 2017): accuracy of the predictions of each confidence, and their number.

    Args:
        confidence: probability of the predicted class, (n,).
        correct: whether the prediction is right, (n,) of bool.
        n_bins: equally wide bins of confidence.
    """
    expect(is_whole(n_bins, 1, MOST_AXES), f"n_bins {quote(n_bins)}", f"a whole number from 1 to {MOST_AXES:,}")
    counts, confident, right = calibration(confidence, correct, n_bins)
    error = expected_calibration_error(confidence, correct, n_bins)
    fig, axes = figure(2, 1, width=4.6, height=5.0, sharex=True, height_ratios=[3, 1])
    upper, lower = axes[:, 0]
    filled = counts > 0
    middles = 100 * (np.arange(n_bins) + 0.5) / n_bins
    upper.bar(middles[filled], 100 * right[filled], 96 / n_bins, color=color(0), alpha=0.35)
    upper.plot(100 * confident[filled], 100 * right[filled], "o", color=color(0), markersize=5)
    upper.plot([0, 100], [0, 100], color="#8a8a8a", linewidth=1, linestyle="--")
    upper.text(3, 97, f"expected calibration error: {100 * error:.1f} %", va="top")
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}  # the diagonal
    upper.text(40, 43, "perfectly calibrated", ha="center", color="#6a6a6a", fontsize=SMALL, **along)
    upper.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)", title=title)
    lower.bar(middles, 100 * counts / counts.sum(), 96 / n_bins, color="#8a8a8a")
    lower.set(xlabel="confidence (%)", ylabel="images (%)")
    return fig
