"""Images in rows: a grid, and the most confident images of every cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labkit._inputs import is_number, is_whole
from labkit.errors import quote
from labkit.plots._given import count, expect, expect_names, numbers, whole_numbers
from labkit.plots.labels import LINE, inches_of, n_lines, wrapped
from labkit.plots.style import LARGEST_SIDE, PAGE_WIDTH, SMALL, STYLE, figure, in_style, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = 0.3  # inches that a title takes
CLOSE = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0.0, "hspace": 0.0}  # inches around images, half of Matplotlib's


@in_style
def image_grid(
    images: Sequence[Any], titles: Sequence[str] | None = None, *, n_cols: int = 10, title: str = "", size: float = 0.9
) -> Figure:
    """Images (PIL or arrays) in rows of `n_cols`, each under its title, which is wrapped to its width.

    Args:
        size: side of an image in inches; less where a row would be wider than the page.
    """
    n = count("images", images)
    expect(is_whole(n_cols, 1), f"n_cols {quote(n_cols)}", "a whole number of at least 1")
    expect(is_number(size, 0.1, LARGEST_SIDE), f"size {quote(size)}", "inches")
    expect(titles is None or count("titles", titles) == n, f"other than {n} titles", "one for each image")
    n_cols = min(n_cols, n)
    n_rows = -(-n // n_cols)
    size = min(size, PAGE_WIDTH / n_cols)
    texts = [wrapped(f"{text}", size - 0.04) for text in titles] if titles is not None else []
    row = size + (0.06 + LINE * n_lines(texts) if texts else 0.04)
    fig, axes = figure(n_rows, n_cols, width=n_cols * size, height=n_rows * row + (TITLE if title else 0))
    fig.set_layout_engine("constrained", **CLOSE)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < n:
            _draw_image(ax, images[i], size)
        if i < len(texts):
            ax.set_title(texts[i], fontsize=SMALL, fontweight="normal", loc="center", pad=2, parse_math=False)
    set_title(fig, title)
    return fig


@in_style
def cluster_gallery(
    images: Sequence[Any],
    labels: ArrayLike,
    confidence: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    n: int = 10,
    title: str = "",
) -> Figure:
    """A row for each cluster with its `n` most confident images.

    Args:
        images: N images; only those that are drawn are read.
        labels: cluster of each, (N,).
        confidence: how confident the labeling is of each, (N,).
        class_names: name of each cluster, such as the class it was matched to; its number otherwise.
    """
    n_images = count("images", images)
    cluster_of, confident = whole_numbers("labels", labels, n_images), numbers("confidence", confidence, n_images)
    clusters = np.unique(cluster_of)
    expect(is_whole(n, 1), f"n {quote(n)}", "a whole number of at least 1")
    expect_names("class_names", class_names, cluster_of, least=-1 if class_names is None else 0)
    names = [class_names[k] if class_names is not None else f"cluster {k}" for k in clusters]
    names = [wrapped(name, 1.3) for name in names]
    margin = 0.2 + max(inches_of(line) for name in names for line in name.split("\n"))
    size = min(0.75, (PAGE_WIDTH - margin) / n)
    row_height = max(size, LINE * (1 + n_lines(names))) + 0.03
    height = row_height * len(clusters) + (TITLE if title else 0)
    fig, axes = figure(len(clusters), n, width=size * n + margin, height=height)
    fig.set_layout_engine("constrained", **CLOSE)
    for row, cluster, name in zip(axes, clusters, names, strict=True):
        members = np.flatnonzero(cluster_of == cluster)
        best = members[np.argsort(-confident[members], kind="stable")][:n]
        for ax, i in zip(row, best, strict=False):
            _draw_image(ax, images[i], size)
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        beside = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}
        row[0].set_ylabel(f"{name}\n{len(members):,}", fontsize=SMALL, **beside)
    set_title(fig, title)
    return fig


def _draw_image(ax: Axes, image: Any, size: float) -> None:
    """An image about `size` inches wide: each pixel a square where it is magnified, smoothed where it is not."""
    pixels = np.asarray(image)
    drawable = pixels.dtype.kind in "buif" and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
    what = f"an image of {pixels.dtype} and shape {pixels.shape}"
    expect(drawable and pixels.size > 0, what, "a PIL image, or an array (h, w) or (h, w, 3)")
    magnified = max(pixels.shape[:2]) <= size * STYLE["savefig.dpi"]
    ax.imshow(
        pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest" if magnified else "antialiased"
    )
