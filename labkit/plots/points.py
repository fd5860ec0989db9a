"""Samples as points in the plane, each group named where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit._inputs import real_array
from labkit.errors import DataError
from labkit.plots._given import expect, expect_names, whole_numbers
from labkit.plots.style import SMALL, color, figure, in_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text


@in_style
def embedding(
    points: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "",
    axis_names: tuple[str, str] = ("first principal direction", "second principal direction"),
) -> Figure:
    """Points (n, 2) colored by label, each group named where it lies."""
    fig, axes = figure(width=6.4, height=4.6)
    axes[0, 0].set(xlabel=axis_names[0], ylabel=axis_names[1], title=title)
    draw_embedding(axes[0, 0], points, labels, names)
    return fig


def draw_embedding(ax: Axes, points: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None) -> None:
    """The scatter of `embedding` on given axes."""
    xy = real_array("points", points, "Expected finite numbers, (n, 2).", DataError)
    shaped = xy.ndim == 2 and xy.shape[1] == 2 and len(xy) > 0
    expect(shaped and bool(np.isfinite(xy).all()), f"points of shape {xy.shape}", "finite numbers, (n, 2)")
    groups = whole_numbers("labels", labels, len(xy))
    expect_names("names", names, groups)
    ax.scatter(xy[:, 0], xy[:, 1], s=7, c=[color(int(k)) for k in groups], alpha=0.6, linewidths=0)
    ax.set(xticks=[], yticks=[])
    if names is not None:
        texts = []
        for k in np.unique(groups[groups >= 0]):  # −1: unknown
            x, y = np.median(xy[groups == k], axis=0)
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": color(int(k)), "alpha": 0.85}
            text = ax.text(x, y, names[k], ha="center", va="center", fontsize=SMALL, bbox=box, parse_math=False)
            texts.append(text)
        _move_apart(ax, texts)


def _move_apart(ax: Axes, texts: Sequence[Text], gap: float = 5) -> None:
    """Move texts that would cover each other apart vertically, and all of them into the axes; `gap` in pixels."""
    fig = ax.figure.figure  # of subfigures, too
    if not texts or fig is None:
        return
    fig.draw_without_rendering()  # settles the layout, so that boxes are known
    boxes = [text.get_window_extent() for text in texts]
    half = np.array([[box.width / 2 + gap, box.height / 2 + gap] for box in boxes])
    at = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    frame, order = ax.get_window_extent(), np.arange(len(texts))
    for _ in range(200):
        at = np.clip(at, np.array([frame.x0, frame.y0]) + half, np.array([frame.x1, frame.y1]) - half)
        apart = at[:, None] - at[None]  # (m, m, 2)
        missing = half[:, None] + half[None] - np.abs(apart)
        close = (missing > 0).all(2)
        np.fill_diagonal(close, False)
        if not close.any():
            break
        upward = np.where(apart[..., 1] == 0, np.sign(order[:, None] - order), np.sign(apart[..., 1]))
        at[:, 1] += 0.25 * (close * upward * (missing[..., 1] + 1)).sum(1)
    for text, place in zip(texts, ax.transData.inverted().transform(at), strict=True):
        text.set_position(place)
