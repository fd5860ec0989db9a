"""Text that fits: names wrapped, shortened, rotated or thinned out, so that none is cut and no two overlap."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from labkit.plots.style import SMALL, SMALLEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 1.25 * SMALL / 72  # inches from one line of small text to the next


@functools.lru_cache(maxsize=4096)
def inches_of(text: str) -> float:
    """How wide a line of small text is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks: drawing warns of them
        width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=SMALL), False)
    return 1.03 * width / 72  # on the screen letters are moved to whole pixels


def shortened(text: str, inches: float) -> str:
    """One line of small text no wider than this; what does not fit becomes "…"."""
    if inches_of(text) <= inches:
        return text
    kept = text[:200]
    while kept and inches_of(f"{kept}…") > inches:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def wrapped(text: str, inches: float, *, lines: int = 2) -> str:
    """Small text no wider than this: each line of its own becomes up to `lines` lines, the last of them shortened."""
    done = []
    for own in text.split("\n"):
        parts = [""]
        for piece in re.split(r"(?<=\s)(?=\S)|(?<=\w[/-])(?=\w)", own):  # after spaces, and within words at / and -
            if parts[-1] and inches_of(f"{parts[-1]}{piece}".rstrip()) > inches:
                parts.append("")
            parts[-1] += piece
        parts = [*parts[: lines - 1], "".join(parts[lines - 1 :])]
        done += [shortened(part.strip(), inches) for part in parts if part or not own]
    return "\n".join(done)


def n_lines(texts: Sequence[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def name_rows(ax: Axes, names: Sequence[str], inches: float, *, widest: float = 1.5, first: float = 0.0) -> None:
    """Names beside the rows at `first`, `first` + 1, …, each of which is this high; every second, third, … where low.

    Args:
        widest: inches a name may take; what is longer is shortened.
    """
    at, size = _shown(len(names), inches)
    texts = [shortened(names[i], widest) for i in at]
    ax.set_yticks([first + i for i in at], texts, fontsize=size, parse_math=False)


def name_columns(ax: Axes, names: Sequence[str], inches: float, *, widest: float = 1.5, first: float = 0.0) -> None:
    """Names below columns of this width: wrapped where their words fit, else rotated; every second, … if narrow."""
    at, size = _shown(len(names), inches)
    rotated: dict[str, Any] = {}
    flat = {name: wrapped(name, 0.93 * inches) for name in names}
    if all(name.split() == text.split() for name, text in flat.items()):
        texts = [flat[names[i]] for i in at]
    else:
        texts = [shortened(names[i], widest) for i in at]
        rotated = (
            {"rotation": 90} if inches < 1.5 * LINE else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        )
    ax.set_xticks([first + i for i in at], texts, fontsize=size, parse_math=False, **rotated)


def _shown(n: int, inches: float) -> tuple[range, int]:
    """Which of n names there is room for, and at which font size."""
    size = SMALL if inches >= LINE else SMALLEST
    return range(0, n, max(1, math.ceil(1.18 * size / 72 / inches))), size
