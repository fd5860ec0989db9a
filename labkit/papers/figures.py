"""Figures of reproductions: ours against published, and every method by dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from labkit.papers.report import TITLES
from labkit.plots.style import PAGE_WIDTH, SMALL, SMALLEST, color, figure, in_style, method_colors

if TYPE_CHECKING:
    import pandas as pd

ROW = 0.17  # inches for a bar


@in_style
def ours_against_published(frame: pd.DataFrame, method: str) -> Figure:
    """A point for each row that was run and published, in percent; on the line both are equal.

    Args:
        frame: of a `labkit.papers.report.Section`, only rows that have both.
        method: "turtle" or "must".
    """
    x, y = 100 * frame[f"{method}_published"].to_numpy(), 100 * frame[method].to_numpy()
    fig, axes = figure(width=5.5, height=5.0)
    ax = axes[0, 0]
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=1, zorder=1)
    ax.scatter(x, y, s=30, color=color(0), zorder=2)
    far = np.argsort(-np.abs(y - x), kind="stable")[:8]  # names of all would cover one another
    for i in far:
        name = frame["dataset"].iloc[int(i)]
        right = x[i] < 75
        offset = (5, 4) if right else (-5, 4)
        ax.annotate(
            name, (x[i], y[i]), xytext=offset, textcoords="offset points", ha="left" if right else "right",
            fontsize=SMALLEST, parse_math=False,
        )  # fmt: skip
    ax.set(xlim=(0, 100), ylim=(0, 100), xlabel="published (%)", ylabel="ours (%)", title=f"{TITLES[method]} on test")
    ax.set_aspect("equal")
    return fig


@in_style
def by_dataset(frame: pd.DataFrame, methods: list[str], names: list[str]) -> Figure:
    """Bars of every method for each row of a table that was run, in percent; an open bar is a published number.

    Args:
        frame: of a `labkit.papers.report.Section`, only rows that were run.
        methods: columns; where one ends with "_published", the bar is open.
        names: of the rows.
    """
    n, k = len(frame), len(methods)
    fig, axes = figure(width=PAGE_WIDTH, height=1.1 + n * (k * ROW + 0.15))
    ax = axes[0, 0]
    plain = [name.removesuffix("_published") for name in methods]
    hues = method_colors([name.replace("_", "-") for name in plain])
    at = np.arange(n)
    for j, (method, base) in enumerate(zip(methods, plain, strict=True)):
        values = 100 * frame[method].to_numpy(dtype=float)
        hue, is_open = hues[base.replace("_", "-")], method != base
        places = at + (j - (k - 1) / 2) * 0.9 / k
        label = f"{TITLES[base]}, published" if is_open else TITLES[base]
        ax.barh(
            places, np.nan_to_num(values), 0.85 / k, color="none" if is_open else hue, edgecolor=hue, label=label,
        )  # fmt: skip
        for place, value in zip(places, values, strict=True):
            if np.isfinite(value):
                ax.text(value + 0.7, place, f"{value:.0f}", va="center", fontsize=SMALLEST)
    ax.set_yticks(at, names, fontsize=SMALL, parse_math=False)
    ax.set(xlim=(0, 106), ylim=(n - 0.4, -0.6), xlabel="test accuracy (%)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
