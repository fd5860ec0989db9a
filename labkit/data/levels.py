"""Levels: an image of more than 8 bits, or of floating-point numbers, becomes 8-bit gray by one stated rule.

No file says which level is white: 12 bits of a camera lie in a file of 16, where they look black. So the levels decide.

- Whole numbers from 0 to 65,535: white is the highest level of 8, 10, 12, 14 or 16 bits, the fewest that hold them all;
  of colors those of all channels.
- Floating-point numbers from 0 to 1: white is 1.
- All others, such as those of computed tomography: the lowest becomes black, the highest white. What is no number is
  black.

Where that is a guess (all but 16 bits) it is said once in a process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

BAND = 1 << 20  # pixels of an image that are converted at a time
BITS = (8, 10, 12, 14, 16)

_told: set[str] = set()  # the rules that have been said


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image in parts of its whole width: (top, part)."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def gray_of_levels(image: Image.Image) -> Image.Image:
    """An image of mode "I", "I;16" or "F" as 8-bit gray, by the rule of this module.

    Memory: what the image holds, what the result holds, and a few MB.
    """
    from PIL import Image

    black, white = _black_and_white(image)
    gray = np.empty((image.height, image.width), np.uint8)
    for top, part in bands(image):
        levels = (np.asarray(part).astype(np.float64) - black) * (255 / (white - black))
        gray[top : top + part.height] = np.rint(np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255))
    return Image.fromarray(gray)


def scale_colors(high: Image.Image, low: Image.Image) -> None:
    """Colors of 16 bits a channel that use fewer, in place, by the rule of this module; opacity as well where it does.

    Args:
        high, low: the upper and the lower 8 bits of every channel, of mode "RGB" or "RGBA". The upper ones become what
            all of them scale to.
    """
    from PIL import Image

    of_colors, of_all = 0, 0
    for (_, upper), (_, lower) in zip(bands(high), bands(low), strict=True):
        levels = _joined(upper, lower)
        of_colors, of_all = max(of_colors, int(levels[..., :3].max())), max(of_all, int(levels.max()))
    white = _white_of(of_colors)
    for (top, upper), (_, lower) in zip(bands(high), bands(low), strict=True):
        levels = np.rint(_joined(upper, lower) * (255 / white)).clip(0, 255).astype(np.uint8)
        if of_all > white:
            levels[..., 3:] = np.asarray(upper)[..., 3:]
        high.paste(Image.fromarray(levels), (0, top))


def _joined(upper: Image.Image, lower: Image.Image) -> np.ndarray:
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)


def _white_of(highest: float) -> int:
    bits = next(bits for bits in BITS if highest < 1 << bits)
    if bits != BITS[-1]:
        _tell(f"levels of at most {bits} bits in a file of more", f"{(1 << bits) - 1:,} is white")
    return (1 << bits) - 1


def _black_and_white(image: Image.Image) -> tuple[float, float]:
    """Which levels become 0 and 255."""
    lowest, highest = np.inf, -np.inf
    for _, part in bands(image):
        levels = np.asarray(part)
        levels = levels[np.isfinite(levels)] if image.mode == "F" else levels
        if levels.size:
            lowest, highest = min(lowest, float(levels.min())), max(highest, float(levels.max()))
    if lowest >= 0 and highest <= 1 and image.mode == "F":
        _tell("levels of floating-point numbers from 0 to 1", "1 is white")
        return 0, 1
    if lowest >= 0 and highest < 1 << BITS[-1] and image.mode != "F":
        return 0, _white_of(highest)
    _tell("levels of unknown range", "the lowest of an image is black and its highest white")
    return (lowest, highest) if lowest < highest else (min(lowest, 0), min(lowest, 0) + 1)


def _tell(what: str, rule: str) -> None:
    if what not in _told:
        _told.add(what)
        logger.warning("there are images with %s: %s. This is said once.", what, rule)
