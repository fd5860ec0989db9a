"""Geometry: what is done to the pixels of an image before a network sees them; all of it survives pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labkit.data.decoding import plain_image
from labkit.errors import BackboneError, quote

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 16  # times its shorter side an image may be long, before a resize of the shorter side
SMALLEST = 256  # pixels of the shorter side below which no image is decoded smaller
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Middle:
    """The middle of an image that is more than `longest` times as long as wide; any other image is itself.

    A resize of the shorter side would enlarge a line of one pixel to gigabytes, most of which a crop at the center then
    takes away; a resize of the longer side would leave nothing of it.
    """

    longest: int

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        longest = self.longest * min(image.size)
        if max(image.size) <= longest:
            return image
        left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
        return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


@dataclass(frozen=True)
class Geometry:
    """Resize the shorter side, then crop the center: PIL image -> PIL image (crop, crop), as torchvision does both.

    Of an image longer than 16:1 only the middle is resized (see `Middle`).

    Attributes:
        resize: length in pixels that the shorter side becomes; the longer one keeps the ratio.
        crop: side in pixels of the square cut out of the center, which the network sees.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".

    Raises:
        BackboneError: a value is out of its range.
    """

    resize: int
    crop: int
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BackboneError(f"{name} is {quote(value)}. Expected a whole number of pixels from 1 on.")
        if self.crop > self.resize:
            raise BackboneError(
                f"crop is {self.crop} and resize is {self.resize}. Expected a crop no larger than the resized image, "
                f"such as Geometry(resize={self.crop}, crop={self.crop})."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise BackboneError(
                f"interpolation is {quote(self.interpolation)}. Expected one of {', '.join(INTERPOLATIONS)}."
            )

    def __call__(self, image: Image.Image) -> Image.Image:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        resized = F.resize(Middle(LONGEST)(image), self.resize, InterpolationMode(self.interpolation))
        return F.center_crop(resized, self.crop)


@dataclass(frozen=True)
class Squash:
    """The whole image as a square of this side, whatever its shape was: PIL image -> PIL image (side, side)."""

    side: int

    def __call__(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        return image.resize((self.side, self.side), Image.Resampling.BILINEAR)


def least_side(geometry: object) -> int | None:
    """Pixels of an image's shorter side from which on a geometry hardly sees a difference; None where it needs all.

    Twice what it is resized to, so that an image which was decoded smaller is resampled by at least that once more; and
    no fewer than 256, where decoding even smaller saves little.
    """
    steps = getattr(geometry, "transforms", None)
    first = next((step for step in steps if not isinstance(step, Middle)), None) if steps is not None else geometry
    if isinstance(first, Geometry | Squash):
        return max(SMALLEST, 2 * (first.resize if isinstance(first, Geometry) else first.side))
    if type(first).__name__ not in ("Resize", "ResizeKeepRatio"):  # any other step may count pixels
        return None
    size = getattr(first, "size", None)
    sizes = [size] if isinstance(size, int) else list(size or ())
    return max(SMALLEST, *(2 * n for n in sizes)) if sizes and all(isinstance(n, int) for n in sizes) else None


@dataclass(frozen=True)
class Preprocess:
    """The part of a model's preprocessing that works on one image: resize and crop; PIL image -> uint8 (h, w, c).

    Transparency, palettes and 16-bit levels are resolved first (see `plain_image`), so that the resize mixes colors
    and not numbers of a palette. Gray images keep their one channel where the geometry allows it. Scaling to floats,
    normalizing and repeating that channel happen for whole batches on the device, in `Backbone.encode_image`.
    """

    geometry: Callable[[Image.Image], Image.Image]
    modes: tuple[str, ...] = ("RGB",)  # that the geometry takes; any other image becomes the last

    @property
    def at_least(self) -> int | None:
        """Pixels that the shorter side of an image must keep, so that it may be decoded smaller; None is all."""
        return least_side(self.geometry)

    def __call__(self, image: Image.Image) -> np.ndarray:
        image = plain_image(image)
        pixels = np.array(self.geometry(image if image.mode in self.modes else image.convert(self.modes[-1])))
        return pixels[..., None] if pixels.ndim == 2 else pixels
