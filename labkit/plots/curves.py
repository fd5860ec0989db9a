"""Curves of a training: TURTLE's restarts over its outer steps, MUST's metrics over its epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from labkit._inputs import is_whole, real_array
from labkit.errors import DataError, quote
from labkit.plots._given import expect
from labkit.plots.style import PAGE_WIDTH, SMALL, color, figure, in_style, set_title


@in_style
def training_curves(history: Mapping[str, np.ndarray], *, best: int | None = None, title: str = "") -> Figure:
    """Turtle's `history_` over the outer steps: a thin line for each restart, the kept one on top."""
    panels = {"inner_loss": "inner loss", "entropy": "entropy of the mean", "outer_loss": "outer loss"}
    expect(isinstance(history, Mapping) and set(panels) <= set(history), quote(history), "Turtle's history_")
    curves = {name: real_array(name, history[name], "Expected numbers, (T, R).", DataError) for name in panels}
    shape = curves["inner_loss"].shape
    equal = len(shape) == 2 and 0 not in shape and all(curve.shape == shape for curve in curves.values())
    expect(equal, f"curves of shapes {[c.shape for c in curves.values()]}", "(T, R) for each")
    expect(best is None or is_whole(best, 0, shape[1] - 1), f"best {quote(best)}", "the number of a restart")
    fig, axes = figure(1, len(panels), width=PAGE_WIDTH, height=2.7)
    for ax, (key, name) in zip(axes[0], panels.items(), strict=True):
        steps = np.arange(1, len(curves[key]) + 1)
        ax.plot(steps, curves[key], color="#b5b5b5", linewidth=0.8)
        if best is not None:
            ax.plot(steps, curves[key][:, best], color=color(0))
        ax.set(xlabel="outer step", title=name)
    axes[0, 0].set_ylabel("nats")
    if best is not None:
        for height, name, hue in ((0.97, "kept restart", color(0)), (0.86, "other restarts", "#777777")):
            axes[0, 0].text(
                0.98, height, name, color=hue, transform=axes[0, 0].transAxes, ha="right", va="top", fontsize=SMALL,
                bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
    set_title(fig, title)
    return fig


@in_style
def metric_curves(records: Sequence[Mapping[str, float]], names: Sequence[str], *, title: str = "") -> Figure:
    """Metrics of a training, a panel each, over its epochs; `records` as `MUST.fit` hands them to `on_log`."""
    maps = isinstance(records, Sequence) and all(isinstance(line, Mapping) and "epoch" in line for line in records)
    expect(maps, quote(records), "a list of records, each with its epoch")
    expect(isinstance(names, list | tuple), quote(names), "a list of names of metrics")
    present = [name for name in names if any(name in record for record in records)]
    columns = min(3, max(1, len(present)))
    rows = -(-max(1, len(present)) // columns)
    fig, axes = figure(rows, columns, width=PAGE_WIDTH / 3 * columns, height=2.1 * rows + 0.3, sharex=True)
    for ax in axes.flat[len(present) :]:
        ax.set_visible(False)
    for i, (ax, name) in enumerate(zip(axes.flat, present, strict=False)):
        lines = [record for record in records if name in record]
        ax.plot([line["epoch"] for line in lines], [line[name] for line in lines], color=color(i))
        ax.set(title=name.replace("_", " "))
        if i + columns >= len(present):
            ax.set_xlabel("epoch")
            ax.tick_params(labelbottom=True)
    set_title(fig, title)
    return fig
