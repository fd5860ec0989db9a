"""Facts: what is noted of one decoded image beside its features: sharpness, contrast, two hashes and a thumbnail."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL = 128  # pixels of its longest side
QUALITY = 85  # of its JPEG: about 4 kB each
MEASURED = 256  # pixels of the longest side at which sharpness and contrast are measured, about what a network sees
HASHED = 32  # pixels of the side of the square that the perceptual hash is made of
LOW = 8  # frequencies of it in each direction that are kept: 64 bits


@dataclass(frozen=True)
class Facts:
    """What is noted of one image.

    Attributes:
        sharpness: variance of the Laplacian, divided by the variance of the gray levels.
        contrast: standard deviation of the levels of the color that varies most, from 0 to 0.5.
        hash: perceptual, 64 bits: a few differ between images that look alike.
        content: 64 bits of a digest of the pixels: the same for identical images only.
        thumbnail: JPEG, longest side 128 pixels.
    """

    sharpness: float
    contrast: float
    hash: int
    content: int
    thumbnail: bytes


def facts_of(image: Image.Image) -> Facts:
    """The facts of an RGB image."""
    small = _no_larger(image, MEASURED)
    return Facts(
        sharpness(_levels(small.convert("L"))),
        float(_levels(small).std(axis=(0, 1)).max()),
        perceptual_hash(image),
        content_digest(image),
        thumbnail(image),
    )


def _levels(image: Image.Image) -> np.ndarray:
    """From 0 to 1, of gray (h, w), of colors (h, w, 3)."""
    return np.asarray(image, np.float64) / 255


def sharpness(levels: np.ndarray) -> float:
    """Variance of the Laplacian of gray levels (h, w) in units of their own variance; 0 where all are equal.

    The variance of the Laplacian is the measure of focus of Pech-Pacheco et al. (2000); divided by the contrast, so
    that an image is not called blurred for its pale colors.
    """
    padded = np.pad(levels, 1, mode="edge")
    beside = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    spread = float(levels.var())
    return float((beside - 4 * levels).var()) / spread if spread > 0 else 0.0


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of a discrete cosine transform: which of the lowest 8 x 8 frequencies are above their median.

    The hash called "DCT-based" by Zauner (2010), of 32 x 32 gray levels; bit 0 is the mean, and after it the frequency
    across grows first.
    """
    from PIL import Image

    square = image.convert("L").resize((HASHED, HASHED), Image.Resampling.BOX, reducing_gap=2.0)
    k, x = np.arange(LOW)[:, None], np.arange(HASHED)[None]
    waves = np.cos(np.pi * k * (2 * x + 1) / (2 * HASHED))  # (8, 32)
    low = np.rint(waves @ np.asarray(square, np.float64) @ waves.T * 1e3).ravel()  # rounded: of a blank image all are 0
    bits = low > np.median(low)
    return int(sum(1 << i for i, bit in enumerate(bits) if bit))


def content_digest(image: Image.Image) -> int:
    """64 bits that tell the pixels of an image from others'."""
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=8)
    rows = max(1, (1 << 20) // image.width)
    for top in range(0, image.height, rows):  # not all pixels twice
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return int.from_bytes(digest.digest(), "big")


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of the image, longest side 128 pixels where it is larger."""
    kept = io.BytesIO()
    _no_larger(image, THUMBNAIL).save(kept, "JPEG", quality=QUALITY)
    return kept.getvalue()


def _no_larger(image: Image.Image, longest: int) -> Image.Image:
    """The image, or a copy whose longest side is this many pixels."""
    from PIL import Image

    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
