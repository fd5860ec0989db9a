"""The style of all figures: colors, sizes that stay legible on a page, and figures that leave nothing open."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from labkit._inputs import is_number, is_whole
from labkit.errors import quote
from labkit.plots._given import expect

# Okabe and Ito's palette, distinguishable with every common color blindness, and four more for sets of ten and above.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D1F", "#999999", "#4B2E83", "#B8C12A",
)  # fmt: skip
BLUES = LinearSegmentedColormap.from_list("labkit", ["#ffffff", "#bcd8ec", "#5ba3d0", "#0072B2", "#003a5c"])
METHODS = ("zero-shot", "turtle-named", "k-means", "turtle", "must", "linear-probe")  # each has its color everywhere

# A notebook's column is about 760 pixels wide, and shrinks what is wider, letters included. At 100 dots per inch a
# figure of this width is shown pixel by pixel, so that a letter of 9 points takes 9 points of the page.
PAGE_WIDTH = 7.5  # inches
SMALL, SMALLEST = 9, 8  # points: labels inside figures, and where there are very many of them
STYLE: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "gray",
}
MOST_AXES = 10_000  # in one figure
LARGEST_SIDE = 500.0  # of a figure in inches

P = ParamSpec("P")
T = TypeVar("T")


def in_style(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw` with labkit's style, whatever the global settings are, and without changing them."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@in_style
def figure(
    n_rows: int = 1, n_cols: int = 1, *, width: float = PAGE_WIDTH, height: float = 3.5, **options: Any
) -> tuple[Figure, np.ndarray]:
    """An empty figure in labkit's style and its axes, (n_rows, n_cols).

    Made without pyplot, so that nothing stays open and no global setting changes.

    Args:
        width, height: in inches. A figure is never wider than the page, PAGE_WIDTH: what is wider would be shrunk to
            it, and its text with it.
        options: for Figure.subplots.

    Raises:
        DataError: there is nothing to draw, or too much for one figure.
    """
    whole = is_whole(n_rows, 1, MOST_AXES) and is_whole(n_cols, 1, MOST_AXES) and n_rows * n_cols <= MOST_AXES
    expect(whole, f"{quote(n_rows)} rows of {quote(n_cols)} axes", f"at least one of each, {MOST_AXES:,} axes in all")
    sides = all(is_number(side, 0.1, LARGEST_SIDE) for side in (width, height))
    expect(sides, f"{quote(width)} by {quote(height)} inches", f"sides from 0.1 to {LARGEST_SIDE:.0f}")
    fig = Figure(figsize=(min(width, PAGE_WIDTH), height), layout="constrained")
    return fig, fig.subplots(n_rows, n_cols, squeeze=False, **options)


def set_title(fig: Figure, title: str) -> None:
    """The title of a whole figure, at its left."""
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")


def to_png(fig: Figure) -> bytes:
    """The bytes of a figure as a PNG, cut to what is drawn."""
    expect(isinstance(fig, Figure), quote(fig), "a matplotlib Figure")
    png = io.BytesIO()
    fig.savefig(png, format="png", bbox_inches="tight", pad_inches=0.05)
    return png.getvalue()


def color(i: int) -> str:
    """Color of class or cluster i."""
    expect(is_whole(i, -math.inf, math.inf), quote(i), "the number of a class or cluster")
    return COLORS[i % len(COLORS)]


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """The color of each method, the same in every chart; METHODS come first, then these in their order."""
    return {name: color(i) for i, name in enumerate(dict.fromkeys([*METHODS, *methods]))}
