"""What is wrong with the text of a figure on a page: too small, cut, or one over another."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from PIL import Image

from labkit.plots import to_png

PAGE = 760  # pixels: the column of a notebook
DOTS = 96  # of a page, in an inch
SMALLEST = 8  # points


def problems(fig: Figure) -> list[str]:
    """A line for each text that cannot be read at the width at which a page shows the figure."""
    width, _ = Image.open(io.BytesIO(to_png(fig))).size
    points = fig.dpi / DOTS * min(1, PAGE / width)  # a figure's point on the page, where what is too wide is shrunk
    fig.draw_without_rendering()
    texts = [text for text in drawn(fig) if text.get_visible() and text.get_text().strip()]
    small = [text for text in texts if text.get_fontsize() * points < SMALLEST]
    whole = fig.bbox.padded(1)
    boxes = [text.get_window_extent() for text in texts]
    cut = [
        text
        for text, box in zip(texts, boxes, strict=True)
        if not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1)
    ]
    shapes = [outline(text) for text in texts]
    covered = [
        (texts[i], texts[j])
        for i, j in itertools.combinations(range(len(texts)), 2)
        if boxes[i].overlaps(boxes[j]) and shapes[i].intersects_path(shapes[j])
    ]
    return [
        *([f"{width} pixels are wider than the page"] if width > PAGE + 2 else []),
        *(f"{text.get_fontsize() * points:.1f} points: {text.get_text()!r}" for text in small),
        *(f"cut: {text.get_text()!r}" for text in cut),
        *(f"{a.get_text()!r} over {b.get_text()!r}" for a, b in covered),
    ]


def drawn(fig: Figure) -> Iterator[Text]:
    yield from fig.texts
    for legend in fig.legends:
        yield from legend.get_texts()
    for ax in fig.axes:
        if ax.get_visible():
            yield from of_axes(ax)


def of_axes(ax: Axes) -> Iterator[Text]:
    yield from (child for child in ax.get_children() if isinstance(child, Text))
    if ax.get_legend() is not None:
        yield from ax.get_legend().get_texts()
    if ax.axison:
        for axis in (ax.xaxis, ax.yaxis):
            yield axis.label
            yield from tick_labels(axis)


def tick_labels(axis: Axis) -> Iterator[Text]:
    """Those in view: Matplotlib keeps labels beyond, too."""
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
        if low - margin <= tick.get_loc() <= high + margin:
            yield tick.label1


def outline(text: Text) -> Path:
    """The rectangle around a text, which may be slanted; a little smaller, as letters hardly fill it."""
    angle = text.get_rotation()
    slanted = text.get_rotation_mode() == "anchor" and angle % 90
    if slanted:
        turned = text.get_transform_rotates_text()
        text.set_transform_rotates_text(False)
        text.set_rotation(0)
    box = text.get_window_extent().padded(-1)
    corners = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]])
    if slanted:
        text.set_rotation(angle)
        text.set_transform_rotates_text(turned)
        anchor = text.get_transform().transform(text.get_unitless_position())
        corners = Affine2D().rotate_deg_around(*anchor, angle).transform(corners)
    return Path(corners, closed=False)
