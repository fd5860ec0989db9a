"""The figure of an estimated number of classes: its scores over the numbers that were tried."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from labkit._inputs import is_whole
from labkit.errors import quote
from labkit.plots._given import expect, expect_frame, numbers
from labkit.plots.style import PAGE_WIDTH, color, figure, in_style, set_title


@in_style
def counting_curve(curve: pd.DataFrame, estimate: int, interval: tuple[int, int], *, title: str = "") -> Figure:
    """The curve of `ClusterCount`, its estimate as a line and its interval as a band.

    Every score is drawn from its lowest to its highest value, as the mean is taken of.
    """
    columns = ["silhouette", "gap", "stability"]
    expect_frame(curve, "n_clusters", *columns, "score")
    bounds = isinstance(interval, list | tuple) and len(interval) == 2 and all(is_whole(end, 1) for end in interval)
    expect(is_whole(estimate, 1) and bounds, f"{quote(estimate)} and {quote(interval)}", "whole numbers from 1 on")
    tried = numbers("n_clusters", curve["n_clusters"].to_numpy())
    fig, axes = figure(width=PAGE_WIDTH, height=3.2)
    ax = axes[0, 0]
    low, high = (float(np.clip(end, tried[0], tried[-1])) for end in interval)
    ax.axvspan(low, high, color="#e8e8e8", linewidth=0, label=f"interval {interval[0]} to {interval[1]}")
    for i, name in enumerate(columns):
        values = numbers(name, curve[name].to_numpy(), len(tried))
        span = float(np.ptp(values)) or 1.0
        ax.plot(tried, (values - values.min()) / span, color=color(i), linewidth=1, alpha=0.7, label=name)
    ax.plot(tried, numbers("score", curve["score"].to_numpy(), len(tried)), color="k", label="their mean")
    ax.axvline(estimate, color="k", linewidth=1, linestyle=":", label=f"estimate {estimate}")
    ax.set(xscale="log", xlabel="number of clusters", ylabel="score, 0 to 1")
    ticks = [tick for tick in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if tried[0] <= tick <= tried[-1]]
    ax.xaxis.set_major_locator(FixedLocator(ticks or [float(tried[0])]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    fig.legend(loc="outside right upper")
    set_title(fig, title)
    return fig
