"""A sweep of settings: what each criterion says of its runs, and how good these are once labels are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from labkit.errors import quote
from labkit.evaluation.metrics import clustering_accuracy
from labkit.plots._given import expect
from labkit.plots.style import PAGE_WIDTH, SMALL, color, figure, in_style, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLLAPSED = "#999999"


@in_style
def sweep(result: Any, labels: ArrayLike | None = None, *, title: str = "") -> Figure:
    """The runs of a sweep by each of its criteria, a panel each; the run that a criterion chooses has a ring.

    With labels: score against clustering accuracy, and the regret, by how many points the chosen run is behind the
    best. Without: the scores, the highest first. Runs that found fewer clusters than others, and so cannot be chosen,
    are gray.

    Args:
        result: what `labkit.sweep` returned.
        labels: class of each sample of the sweep, (n,).

    Raises:
        DataError: it is no sweep, or these are no labels of its samples.
    """
    is_sweep = all(hasattr(result, name) for name in ("table", "labelings", "criteria"))
    expect(is_sweep, quote(result), "what labkit.sweep returned")
    table = result.table.sort_index()
    full = (table["n_found"] == table["n_found"].max()).to_numpy()
    percent = None
    if labels is not None:
        percent = np.array([100 * clustering_accuracy(labels, labeling) for labeling in result.labelings])
    n = len(result.criteria)
    columns = 4 if n in (4, 7, 8) else min(3, n)
    rows = -(-n // columns)
    fig, axes = figure(
        rows, columns, width=PAGE_WIDTH if n > 1 else 4.0, height=2.4 * rows + 0.6, sharey=labels is not None
    )
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, result.criteria, strict=False):
        scores = table[name].to_numpy()
        chosen = int(np.where(full & np.isfinite(scores), scores, -np.inf).argmax())
        if percent is None:
            _draw_ranks(ax, scores, full, chosen)
            ax.set_title(name)
        else:
            _draw_regret(ax, scores, percent, full, chosen)
            ax.set(xlabel=name, title=f"regret {percent.max() - percent[chosen]:.1f}")
            ax.xaxis.set_major_locator(MaxNLocator(3))
    for ax in axes[:, 0]:
        ax.set_ylabel("score" if percent is None else "accuracy (%), after the fact")
    handles = {points.get_label(): points for points in axes[0, 0].collections if len(points.get_offsets())}
    handles |= {line.get_label(): line for line in axes[0, 0].lines if not line.get_label().startswith("_")}
    fig.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=2 if n == 1 else 4, fontsize=SMALL)
    set_title(fig, title)
    return fig


def _draw_ranks(ax: Axes, scores: np.ndarray, full: np.ndarray, chosen: int) -> None:
    order = np.lexsort((np.arange(len(scores)), -scores, ~full))
    rank = np.empty(len(scores))
    rank[order] = np.arange(1, len(scores) + 1)
    _draw_runs(ax, rank, scores, full, chosen)
    ax.set_xlabel("rank")
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_regret(ax: Axes, scores: np.ndarray, percent: np.ndarray, full: np.ndarray, chosen: int) -> None:
    best = percent.max()
    ax.axhline(best, color="#777777", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0, label="best run")
    ax.plot([scores[chosen]] * 2, [percent[chosen], best], color=color(4), linewidth=1.5, zorder=1)
    _draw_runs(ax, scores, percent, full, chosen)


def _draw_runs(ax: Axes, x: np.ndarray, y: np.ndarray, full: np.ndarray, chosen: int) -> None:
    ax.scatter(x[~full], y[~full], s=20, color=COLLAPSED, alpha=0.8, linewidths=0, label="fewer clusters found")
    ax.scatter(x[full], y[full], s=20, color=color(0), alpha=0.7, linewidths=0, label="a run")
    ax.scatter(x[chosen], y[chosen], s=70, facecolors="none", edgecolors=color(4), linewidths=1.8, label="chosen")
