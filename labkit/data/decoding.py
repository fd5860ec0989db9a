"""Decoding: an image file becomes an 8-bit image, within limits of format, size and memory, or one clear error."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np

from labkit._files import open_regular
from labkit.errors import DataError, shorten, shown

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # those of Pillow that the suffixes stand for
MAX_PIXELS = 112_000_000  # of one image; decoding takes up to ten bytes each,
MAX_PIXELS_WEBP = 80_000_000  # but of this format sixteen
MAX_SIDE = 65_535  # in pixels
HEADER = 1 << 16  # bytes in which a PPM has said its size
MAX_BYTES = 1 << 30  # of the file of one image
ALONE = 32_000_000  # images of more pixels are decoded one at a time, so that threads do not add up
BAND = 1 << 20  # pixels of an image that are converted at a time
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
XMP = b"XML:com.adobe.xmp\0\0"  # how a text begins that may say which way is up

_large = threading.RLock()  # a PNG may be tried twice


class _NotReadError(ValueError):
    """The image may be whole, but it is not one that labkit reads; the message says why and what to do."""


def plain_image(image: Image.Image) -> Image.Image:
    """Any image as 8-bit gray ("L") or "RGB": what is transparent becomes white, 16-bit gray is scaled.

    Memory: what the image holds, what the result holds, and a few MB.

    Raises:
        ValueError: its levels are floating-point numbers of unknown range.
    """
    if image.mode.startswith("I"):  # 16 bits of gray, which PIL would clip at 255 instead of scaling
        return _scaled_to_8_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point levels have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image in parts of its whole width: (top, part)."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    from PIL import Image

    levels = np.empty((image.height, image.width), np.uint8)
    for top, part in _bands(image):
        levels[top : top + part.height] = np.rint(np.asarray(part).clip(0, 65535) / 257)
    return Image.fromarray(levels)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    white = Image.new("RGB", image.size, "white")
    for top, part in _bands(image):
        colors = part.convert("RGBA")
        white.paste(colors, (0, top), mask=colors)
    return white


def read_image(path: Path) -> Image.Image:
    """Decode an image file as 8-bit RGB, the right way up (see `plain_image` and `use_image`).

    Raises:
        DataError: the file is missing, truncated, too large or not an image.
    """
    return use_image(path, lambda image: image)


def use_image(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What a function makes of an image file, decoded as 8-bit RGB, the right way up.

    Formats are those of `FORMATS`, whatever the name of the file. Peak memory is about ten bytes a pixel (of WebP 16),
    and images of more than 32 million pixels wait until others have been used. Pillow's warnings are silenced, here and
    for the whole process: what they tell is either harmless or an error here.

    Raises:
        DataError: the file is missing, truncated, too large or not an image.
    """
    with contextlib.ExitStack() as held:
        return use(_read(path, held))


def _read(path: Path, held: contextlib.ExitStack) -> Image.Image:
    """Decode an image; where it is large, the lock of large ones goes into `held`."""
    _silence_pillow()
    try:
        with open_regular(path) as file:
            return _decode(file, held)
    except _NotReadError as error:
        raise DataError(f"the image {shown(path)} cannot be read: {error}") from error
    except Exception as error:  # decoders raise whatever comes to their mind
        reason = shorten(str(error) or type(error).__name__, 200)
        raise DataError(
            f"the image {shown(path)} cannot be read ({reason}). It is damaged or not an image: replace it or take it "
            "away."
        ) from error


def _silence_pillow() -> None:
    """Warnings of Pillow become neither noise nor, under -W error, exceptions (threads share catch_warnings)."""
    ours = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if ours not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _decode(file: BinaryIO, held: contextlib.ExitStack) -> Image.Image:
    if os.fstat(file.fileno()).st_size > MAX_BYTES:
        raise _NotReadError(f"the file has more than {MAX_BYTES:,} bytes. Save it smaller, or take it away.")
    _expect_short_header(file)
    try:
        return _decode_as_it_is(file, held)
    except _NotReadError:
        raise
    except ValueError:  # there may be more text in it than Pillow takes
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
    return _decode_as_it_is(_png_without_text(file), held)


def _expect_short_header(file: BinaryIO) -> None:
    """Refuse a PPM whose comments are longer than any should be: Pillow reads them byte by byte."""
    start = file.read(HEADER)
    file.seek(0)
    if re.match(rb"P[1-7]\s", start) and len(start) == HEADER:
        words = re.sub(rb"#[^\r\n]*", b"", start).split(maxsplit=4)
        if len(words) < 4:
            raise _NotReadError("its header has no end. It is damaged or not an image: replace it or take it away.")


def _decode_as_it_is(file: BinaryIO, held: contextlib.ExitStack) -> Image.Image:
    from PIL import Image, ImageFile, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _NotReadError(_why_not_identified(file)) from None
    _check_size(image.size, MAX_PIXELS_WEBP if image.format == "WEBP" else MAX_PIXELS)
    if image.width * image.height > ALONE:
        held.enter_context(_large)
    image.load()
    turn = _turn(image)
    image = plain_image(image)  # each step lets go of the image before
    image = image if turn is None else image.transpose(turn)
    if image.mode != "RGB":
        return image.convert("RGB")
    return image.copy() if isinstance(image, ImageFile.ImageFile) else image  # lets go of its decoder


def _check_size(size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width * height > limit or max(size) > MAX_SIDE:
        raise _NotReadError(
            f"it has {width:,} x {height:,} pixels, expected at most {limit:,} in all and {MAX_SIDE:,} a side. Save it "
            "smaller, or take it away."
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What puts an image the right way up, as its camera noted in EXIF."""
    from PIL import ExifTags, Image

    turns = Image.Transpose
    by_orientation = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    try:
        return by_orientation.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF beside whole pixels
        return None


def _why_not_identified(file: BinaryIO) -> str:
    """Which format a file seems to have that none of `FORMATS` could open."""
    from PIL import Image

    file.seek(0)
    start = file.read(16)
    Image.init()
    for name, (_, accept) in Image.OPEN.items():
        with contextlib.suppress(Exception):  # some cannot take so few bytes
            if accept is not None and accept(start) and name not in FORMATS:
                return (
                    f"its format seems to be {name}, expected one of {', '.join(FORMATS)}. Save it as PNG or JPEG, or "
                    "take it away."
                )
    return "it is damaged or not an image. Replace it or take it away."


def _png_without_text(file: BinaryIO) -> BinaryIO:
    """A PNG file without what surrounds its pixels and may unpack to any size: texts and the color profile."""
    kept = io.BytesIO()
    file.seek(0)
    kept.write(file.read(len(PNG)))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        chunk = file.read(length + 4)
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") or (kind == b"iTXt" and chunk.startswith(XMP)):
            kept.write(head + chunk)
    kept.seek(0)
    return kept
