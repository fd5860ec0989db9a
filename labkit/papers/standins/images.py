"""Small images that can be told apart: each class has colors and stripes of its own, and each image has noise.

Everything follows from the dataset, the class, the split and the number of the image, so a second call makes the same
pixels, and a test knows what a loader must give.
"""

from __future__ import annotations

import colorsys
import functools
import io
import math
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32  # pixels, where a format does not set its own
GOLDEN = 0.6180339887498949  # hues of successive classes that are a golden ratio apart lie far from each other
NOISE = 10.0  # standard deviation, of 255 levels
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".ppm": "PPM", ".gif": "GIF", ".webp": "WEBP"}
OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
# Modes and formats that a few files of the real set have: every so many images are saved as such. ImageNet has gray and
# CMYK JPEGs and a PNG that is called .JPEG, Caltech-101 and SUN397 have gray ones, Pets has GIFs that are called .jpg.
ODD_FILES = {
    "imagenet": {"L": (13, "JPEG"), "CMYK": (97, "JPEG"), "RGBA": (1009, "PNG")},
    "caltech101": {"L": (13, "JPEG")},
    "sun397": {"L": (17, "JPEG")},
    "birdsnap": {"L": (29, "JPEG")},
    "oxford-pets": {"P": (23, "GIF")},
}


def pixels(name: str, number: int, split: str, index: int, side: int = SIDE) -> np.ndarray:
    """One image of a stand-in.

    Args:
        name: the id of the dataset.
        number: of the class.
        split: "train" or "test", or any other part of the real set.
        index: of the image within its class and split.

    Returns:
        (side, side, 3) uint8.
    """
    rng = np.random.default_rng((zlib.crc32(f"{name} {split}".encode()), number, index))
    image = _pattern(number, side) + rng.normal(0.0, NOISE, (side, side, 1)).astype(np.float32)
    return np.rint(image).clip(0, 255).astype(np.uint8)


def gray_pixels(name: str, number: int, split: str, index: int, side: int = SIDE) -> np.ndarray:
    """The same image in gray, as Pillow converts it: (side, side) uint8."""
    return np.asarray(Image.fromarray(pixels(name, number, split, index, side)).convert("L"))


@functools.lru_cache(maxsize=4096)
def _pattern(number: int, side: int) -> np.ndarray:
    """Stripes of two colors: (side, side, 3) float32 from 25 to 230."""
    hue, level = number * GOLDEN % 1.0, (number % 3) / 2
    first = np.array(colorsys.hsv_to_rgb(hue, 0.9 - 0.3 * level, 0.5 + 0.5 * level))
    second = np.array(colorsys.hsv_to_rgb(hue + 0.35, 0.5, 0.9 - 0.5 * level))
    angle, waves = math.pi * (number * GOLDEN * GOLDEN % 1.0), 1 + number % 4
    y, x = np.mgrid[:side, :side] / side
    mix = 0.5 + 0.5 * np.sin(2 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle)))
    colors = mix[..., None] * first + (1 - mix[..., None]) * second
    return (25 + 205 * colors).astype(np.float32)


def file_of(array: np.ndarray, ending: str, *, name: str = "", serial: int = 0) -> bytes:
    """An image file in which JPEG loses little.

    Args:
        array: (h, w) gray or (h, w, 3) RGB, uint8.
        ending: of the file's name, such as ".jpg"; it says the format, unless the real set says otherwise.
        name, serial: the dataset, and the number of the image in it, from which `ODD_FILES` are chosen.
    """
    mode, form = odd_file(name, serial) or ("", FORMATS[ending.lower()])
    image = Image.fromarray(array)
    if mode:
        image = image.quantize() if mode == "P" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, form, **OPTIONS.get(form, {}))
    return file.getvalue()


def odd_file(name: str, serial: int) -> tuple[str, str] | None:
    """Mode and format of an image that the real set has in another one than most; None where it is like most."""
    for mode, (every, form) in ODD_FILES.get(name, {}).items():
        if serial % every == every // 2:
            return mode, form
    return None
