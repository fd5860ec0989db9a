"""Charts of accuracies: the running results, bars in groups, strips over seeds or restarts, and label-free scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from labkit._inputs import is_whole
from labkit.errors import quote
from labkit.plots._given import expect, expect_frame, expect_texts, numbers
from labkit.plots.labels import LINE, inches_of, n_lines, name_columns, wrapped
from labkit.plots.style import PAGE_WIDTH, SMALL, color, figure, in_style, method_colors, set_title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KEY = "Bar: mean over seeds. Dot: one seed. Diamond: chosen without labels. Number: the choice, else the mean."


@in_style
def results_bars(results: pd.DataFrame, *, title: str = "") -> Figure:
    """Accuracy of each method and choice of spaces, from `Lab.results()` of one dataset and metric.

    A bar is the mean over seeds, a dot one seed, and the open diamond the choice made without labels. Rows of one
    method stand together, and a method has the same color in every chart.
    """
    import seaborn as sns

    expect_frame(results, "method", "variant", "spaces", "value", "selected_without_labels", "labels_used")
    hues = method_colors(results["method"])
    rows = results.sort_values("method", key=lambda names: names.map(list(hues).index), kind="stable")
    names = [
        f"{row.method}{f' ({row.variant})' if row.variant else ''}, {' + '.join(row.spaces)}"
        for row in rows.itertuples()
    ]
    rows = rows.assign(name=[wrapped(name, 2.6) for name in names], percent=100 * rows["value"])
    labels = list(dict.fromkeys(rows["name"]))
    row_height = max(0.32, LINE * n_lines(labels) + 0.06) if labels else 0.32
    fig, axes = figure(width=PAGE_WIDTH, height=row_height * len(labels) + 1.2)
    ax = axes[0, 0]
    is_choice = rows["selected_without_labels"].astype(bool)
    if len(rows):
        barred = rows[~is_choice | ~rows["name"].isin(rows["name"][~is_choice])]  # a choice alone has a bar, too
        shared = {"x": "percent", "y": "name", "hue": "method", "palette": hues, "order": labels, "legend": False}
        sns.barplot(barred, **shared, errorbar=None, saturation=1, alpha=0.35, width=0.7, ax=ax)
        sns.stripplot(rows[~is_choice], **shared, jitter=False, size=4, zorder=3, ax=ax)
        choice = rows[is_choice]
        at = [labels.index(name) for name in choice["name"]]
        diamond = {"marker": "D", "facecolors": "white", "edgecolors": "k", "zorder": 4, "clip_on": False}
        ax.scatter(choice["percent"], at, s=48, **diamond)
    for i, label in enumerate(labels):
        group = rows["name"] == label
        told = rows[group & is_choice] if (group & is_choice).any() else rows[group]
        uses_labels = " (labels used)" if rows["labels_used"][group].astype(bool).any() else ""
        ax.text(103, i, f"{told['percent'].mean():.1f}{uses_labels}", va="center", fontsize=SMALL)
    ax.set_yticks(range(len(labels)), labels, fontsize=SMALL)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)", ylabel="")
    fig.supxlabel(wrapped(_KEY, PAGE_WIDTH), x=0.01, ha="left", fontsize=SMALL, color="#666666")
    set_title(fig, title)
    return fig


@in_style
def bars(
    groups: Mapping[str, ArrayLike], names: Sequence[str], *, ylabel: str = "test accuracy (%)", title: str = ""
) -> Figure:
    """Bars in groups, in percent, each with its number above.

    Args:
        groups: {label: fractions}, (n,) for each label; a label has a color.
        names: n different names, such as datasets, below the groups.
    """
    import seaborn as sns

    n = expect_texts("names", names)
    expect(len(set(names)) == n, f"names {quote(names)}", "names that differ")
    percent = _in_percent(groups, n)
    fig, axes = figure(width=min(PAGE_WIDTH, 1.0 + n * max(1.2, 0.5 * len(groups))), height=3.2)
    ax = axes[0, 0]
    rows = {
        "name": [*names] * len(percent),
        "label": np.repeat(list(percent), n),
        "percent": np.concatenate(list(percent.values())),
    }
    hues = {label: color(i) for i, label in enumerate(percent)}
    sns.barplot(rows, x="name", y="percent", hue="label", palette=hues, saturation=1, legend=False, ax=ax)
    room = (fig.get_figwidth() - 0.8) / n  # inches for each name
    widest = max(inches_of(f"{value:.0f}") for values in percent.values() for value in values)
    if 0.8 * room / len(groups) > widest:
        for container in ax.containers:
            ax.bar_label(container, fmt="%.0f", fontsize=SMALL, padding=1)
    name_columns(ax, names, room)
    ax.set(ylim=(min(0, ax.get_ylim()[0]), max(100, ax.get_ylim()[1]) * 1.06), xlabel="", ylabel=ylabel, title=title)
    if len(groups) > 1:
        columns = max(1, int(fig.get_figwidth() / (0.7 + 1.1 * max(map(inches_of, percent)))))
        fig.legend(ax.containers, list(percent), loc="outside lower center", ncols=columns)
    return fig


@in_style
def strips(values: Mapping[str, ArrayLike], *, xlabel: str = "accuracy (%)", title: str = "") -> Figure:
    """A row for each method: a dot for each seed or restart, a bar at their mean, and the mean as a number.

    Args:
        values: {method: fractions}, drawn in percent; a method has the color that it has in `results_bars`.
    """
    fig, axes = figure(width=PAGE_WIDTH, height=1.0 + 0.36 * len(_in_percent(values)))
    draw_strips(axes[0, 0], values)
    axes[0, 0].set(xlabel=xlabel, title=title)
    return fig


def draw_strips(ax: Axes, values: Mapping[str, ArrayLike]) -> None:
    """The strips of `strips` on given axes."""
    import seaborn as sns

    percent = _in_percent(values)
    hues = method_colors(percent)
    dots = {
        "method": np.repeat(list(percent), [len(given) for given in percent.values()]),
        "percent": np.concatenate(list(percent.values())),
    }
    shared = {"palette": hues, "jitter": False, "size": 6, "alpha": 0.6, "legend": False}
    sns.stripplot(dots, x="percent", y="method", hue="method", **shared, ax=ax)
    for i, (method, given) in enumerate(percent.items()):
        ax.plot([given.mean()] * 2, [i - 0.3, i + 0.3], color=hues[method])
        ax.text(1.02, i, f"{given.mean():.1f}", transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)
    ax.set_yticks(range(len(percent)), [wrapped(name, 2.0) for name in percent], fontsize=SMALL, parse_math=False)
    ax.set(ylabel="")


def _in_percent(groups: Mapping[str, ArrayLike], n: int | None = None) -> dict[str, np.ndarray]:
    """Fractions, (n,) for each label, in percent."""
    expect(isinstance(groups, Mapping) and len(groups) > 0, quote(groups), "values for each label")
    return {f"{label}": 100 * numbers(f"{label}", values, n) for label, values in groups.items()}


@in_style
def criteria(scores: pd.DataFrame, accuracy: ArrayLike, *, chosen: int | None = None, title: str = "") -> Figure:
    """Each label-free score of the restarts against their accuracy (which labels are needed for), with Pearson's r."""
    expect_frame(scores)
    of_numbers = scores.size > 0 and all(dtype.kind in "iuf" for dtype in scores.dtypes)
    expect(of_numbers, quote(scores), "a frame of numbers")
    percent = 100 * numbers("accuracy", accuracy, len(scores))
    expect(chosen is None or is_whole(chosen, 0, len(scores) - 1), f"chosen {quote(chosen)}", "the number of a row")
    n = len(scores.columns)
    columns = min(3, n) if n != 4 else 2
    rows = -(-n // columns)
    width = PAGE_WIDTH / 3 * max(2, columns) if n > 1 else 3.5
    fig, axes = figure(rows, columns, width=width, height=2.6 * rows + 0.3, sharey=True)
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, scores.columns, strict=False):
        values = scores[name].to_numpy()
        ax.scatter(values, percent, s=36, color=color(0), alpha=0.8, linewidths=0)
        if chosen is not None:
            ax.scatter(values[chosen], percent[chosen], s=110, facecolors="none", edgecolors=color(4), linewidths=2)
            if ax is axes[0, 0]:
                left = values[chosen] > np.median(values)  # towards the middle, where there is room
                low = percent[chosen] < np.median(percent)
                ax.annotate(
                    "chosen", (values[chosen], percent[chosen]), xytext=(-8 if left else 8, 12 if low else -12),
                    textcoords="offset points", ha="right" if left else "left", va="center", color=color(4),
                    fontsize=SMALL,
                )  # fmt: skip
        varies = np.std(values) > 1e-9 and np.std(percent) > 1e-9
        r = f"r = {np.corrcoef(values, percent)[0, 1]:.2f}".replace("-", "−") if varies else "does not vary"
        ax.set(xlabel=name, title=r)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy (%), after the fact")
    set_title(fig, title)
    return fig
