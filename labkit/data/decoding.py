"""Decoding: an image file becomes an 8-bit image, within limits of format, size and memory, or one clear error."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from labkit._files import open_regular
from labkit.data.formats import ending, learn_format, readable_formats, silence_pillow
from labkit.data.levels import bands, gray_of_levels, scale_colors
from labkit.errors import DataError, shorten, shown

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

DECODING = 2  # raised when the pixels that a file decodes to change, so that no features of the old ones are used
MAX_PIXELS = 112_000_000  # of one image; decoding takes up to ten bytes each,
MAX_PIXELS_OF = {"AVIF": 80_000_000, "WEBP": 64_000_000, "JPEG2000": 44_000_000}  # but of these up to 14, 18 and 25,
MAX_PIXELS_OF |= {"DDS": 1 << 24, "QOI": 1 << 24}  # and of these, which Python decodes, a minute for 16 million
MAX_SIDE = 65_535  # in pixels
HEADER = 1 << 16  # bytes in which a PPM has said its size
MAX_BYTES = 1 << 30  # of the file of one image
ALONE = 32_000_000  # pixels of all images that are decoded at a time; one of more is decoded alone
KEPT = 4_000_000  # pixels of an image from which on its memory is given back to the system at once
FRAMES = 16  # of an animation that are looked at for one that is not empty
ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
HIDDEN_SIZE = ("CUR", "ICNS", "ICO")  # their header does not say how large the image in it is
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
XMP = b"XML:com.adobe.xmp\0\0"  # how a text begins that may say which way is up


class _NotReadError(ValueError):
    """The image may be whole, but it is not one that labkit reads; the message says why and what to do."""


class _Room:
    """Room for so many pixels: a thread that asks for some waits until others have left enough of it, or all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0
        self._own = threading.local()  # what a thread has, which may ask for more: it cannot wait for itself

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        own = getattr(self._own, "taken", 0)
        with self._changed:
            self._changed.wait_for(lambda: own or not self._taken or self._taken + pixels <= ALONE)
            self._taken += pixels
        self._own.taken = own + pixels
        try:
            yield
        finally:
            self._own.taken = own
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _Room()


def plain_image(image: Image.Image) -> Image.Image:
    """Any image as 8-bit gray ("L") or "RGB": what is transparent becomes white, more levels become 256.

    Which level is white `labkit.data.levels` says. Memory: what the image holds, what the result holds, and a few MB.
    """
    if image.mode.startswith("I") or image.mode == "F":  # which PIL would clip at 255 instead of scaling
        return gray_of_levels(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    white = Image.new("RGB", image.size, "white")
    for top, part in bands(image):
        colors = part.convert("RGBA")
        white.paste(colors, (0, top), mask=colors)
    return white


def read_image(path: Path, at_least: int | None = None) -> Image.Image:
    """Decode an image file as 8-bit RGB, the right way up (see `plain_image` and `use_image`).

    Raises:
        DataError: the file is missing, truncated, too large or not an image.
    """
    return use_image(path, lambda image: image, at_least)


def use_image(path: Path, use: Callable[[Image.Image], T], at_least: int | None = None) -> T:
    """What a function makes of an image file, decoded as 8-bit RGB, the right way up.

    Formats are those of `labkit.data.formats`, whatever the name of the file; of several images in one the first, of an
    animation the first frame that is not empty. Peak memory is about ten bytes a pixel (of JPEG 2000 25), and no more
    than 32 million pixels are decoded at a time, larger images one by one. Pillow's warnings are silenced, here and
    for the whole process: what they tell is either harmless or an error here.

    Args:
        use: what is done with the image, before another one may take its memory.
        at_least: pixels that its shorter side must keep, where it has them. A JPEG is then decoded at 1/2, 1/4 or 1/8
            of its size, which takes a fraction of time and memory; other formats are decoded as they are.

    Raises:
        DataError: the file is missing, truncated, too large or not an image.
    """
    with contextlib.ExitStack() as held:
        return use(_read(path, held, at_least))


def read_bytes(content: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """Decode what would be in an image file, as `read_image` does; `name` says in errors what it is.

    Raises:
        DataError: the content is truncated, too large or not an image.
    """
    silence_pillow()
    with _explained(name), contextlib.ExitStack() as held:
        return _decode(io.BytesIO(content), held, "", at_least)


def _read(path: Path, held: contextlib.ExitStack, at_least: int | None) -> Image.Image:
    """Decode an image; the room that it takes goes into `held`."""
    silence_pillow()
    with _explained(shown(path)), open_regular(path) as file:
        return _decode(file, held, ending(path.name), at_least)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except _NotReadError as error:
        raise DataError(f"the image {name} cannot be read: {error}") from error
    except Exception as error:  # decoders raise whatever comes to their mind
        reason = shorten(str(error) or type(error).__name__, 200)
        raise DataError(
            f"the image {name} cannot be read ({reason}). It is damaged or not an image: replace it or take it away."
        ) from error


def _decode(file: BinaryIO, held: contextlib.ExitStack, suffix: str, at_least: int | None) -> Image.Image:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        raise _NotReadError("the file is empty. Replace it or take it away.")
    if size > MAX_BYTES:
        raise _NotReadError(f"the file has more than {MAX_BYTES:,} bytes. Save it smaller, or take it away.")
    _expect_short_header(file)
    if missing := learn_format(file):
        raise _NotReadError(missing)
    try:
        with contextlib.ExitStack() as taken:
            image = _decode_as_it_is(file, taken, suffix, at_least)
            held.push(taken.pop_all())
            return image
    except _NotReadError:
        raise
    except ValueError:  # there may be more text in it than Pillow takes
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
    return _decode_as_it_is(_png_without_text(file), held, suffix, at_least)


def _expect_short_header(file: BinaryIO) -> None:
    """Refuse a PPM whose comments are longer than any should be: Pillow reads them byte by byte."""
    start = file.read(HEADER)
    file.seek(0)
    if re.match(rb"P[1-7]\s", start) and len(start) == HEADER:
        words = re.sub(rb"#[^\r\n]*", b"", start).split(maxsplit=4)
        if len(words) < 4:
            raise _NotReadError("its header has no end. It is damaged or not an image: replace it or take it away.")


def _decode_as_it_is(file: BinaryIO, held: contextlib.ExitStack, suffix: str, at_least: int | None) -> Image.Image:
    from PIL import Image, ImageFile, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(file, formats=readable_formats(suffix))
    except UnidentifiedImageError:
        raise _NotReadError(_why_not_identified(file, suffix)) from None
    except Image.DecompressionBombError:  # which Pillow does not open to say how large it is
        raise _NotReadError(f"it has more than {MAX_PIXELS:,} pixels. Save it smaller, or take it away.") from None
    limit = MAX_PIXELS_OF.get(image.format or "", MAX_PIXELS)
    _check_size(image.size, limit)
    pixels = _pixels_of_decoding(image, limit, at_least)
    held.enter_context(_room.take(pixels))
    if pixels > KEPT:
        held.callback(_give_memory_back)
    deep = image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile) for tile in image.tile or ())  # type: ignore[attr-defined]
    image.load()
    _check_size(image.size, limit)  # some formats say it only now
    if deep and np.max(image.getextrema()[:3]) < 1 << 6:
        scale_colors(image, _lower_bits(file, suffix))
    if image.format in ANIMATED:
        _seek_what_is_to_be_seen(image)
    turn = _turn(image)
    image = plain_image(image)  # each step lets go of the image before
    image = image if turn is None else image.transpose(turn)
    if image.mode != "RGB":
        return image.convert("RGB")
    return image.copy() if isinstance(image, ImageFile.ImageFile) else image  # lets go of its decoder


def _give_memory_back() -> None:
    """Let glibc return what was freed: each thread would keep some hundred MB of the largest images it has seen."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # other systems do it, or cannot
        return


def _pixels_of_decoding(image: Image.Image, limit: int, at_least: int | None) -> int:
    """How many pixels of room an image takes, once it has been asked to decode no larger than is needed."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        if not image.info.get("progressive"):  # of which the decoder holds the whole
            pixels = image.width * image.height
    if image.format in HIDDEN_SIZE:
        return limit
    return pixels * MAX_PIXELS // limit


def _raw_mode(tile: tuple[Any, ...]) -> str:
    """How the pixels of a part of an image lie in the file, such as "RGB;16B"."""
    return str(tile[3] if isinstance(tile[3], str) or not tile[3] else tile[3][0])


def _lower_bits(file: BinaryIO, suffix: str) -> Image.Image:
    """The lower 8 of the 16 bits that an image has in each color: Pillow keeps the first byte, so they are swapped."""
    from PIL import Image

    file.seek(0)
    image: Any = Image.open(file, formats=readable_formats(suffix))
    swap = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
    tiles = []
    for tile in image.tile:
        mode = _raw_mode(tile)
        swapped = mode[:-4] + swap[mode[-4:]]
        tiles.append((*tile[:3], swapped if isinstance(tile[3], str) else (swapped, *tile[3][1:])))
    image.tile = tiles
    image.load()
    return image


def _seek_what_is_to_be_seen(image: Image.Image) -> None:
    """Go to the first frame that is not transparent all over; where there is none, to the first."""
    for frame in range(1, FRAMES):
        if not _is_empty(image):
            return
        try:
            image.seek(frame)
        except EOFError:
            break
        image.load()
    if _is_empty(image):
        image.seek(0)
        image.load()


def _is_empty(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return all(part.convert("RGBA").getchannel("A").getextrema() == (0, 0) for _, part in bands(image))


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


def _why_not_identified(file: BinaryIO, suffix: str) -> str:
    """Which format a file seems to have that is not read."""
    from PIL import Image

    file.seek(0)
    start, tried = file.read(16), readable_formats(suffix)
    for name, (_, accept) in Image.OPEN.items():
        with contextlib.suppress(Exception):  # some cannot take so few bytes
            if accept is not None and accept(start) and name not in tried:
                return (
                    f"its format seems to be {name}, which labkit does not read. Save it as PNG or JPEG, or take it "
                    "away."
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
