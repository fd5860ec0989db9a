"""Folders of images: where data lies on this machine, which files are images, and how one is decoded."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from labkit._files import cache_dir, open_regular, user_path
from labkit.errors import DataError, shorten, shown

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # those of Pillow that the suffixes stand for
SPLITS = ("train", "val", "test")

MAX_PIXELS = 128_000_000  # of one image; decoding takes up to ten bytes each,
MAX_PIXELS_WEBP = 80_000_000  # but of this format sixteen
MAX_SIDE = 65_535  # in pixels
MAX_BYTES = 1 << 30  # of the file of one image
ALONE = 32_000_000  # images of more pixels are decoded one at a time, so that threads do not add up
BAND = 1 << 20  # pixels of an image that are converted at a time
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
XMP = b"XML:com.adobe.xmp\0\0"  # how a text begins that may say which way is up

_large = threading.Lock()
_told: dict[Path, str] = {}  # what was last said to be left out of a folder, which is read several times in one run


def data_dir() -> Path:
    """Where datasets are looked for and downloaded to: $LABKIT_DATA, else "data" in labkit's cache folder."""
    given = os.environ.get("LABKIT_DATA")
    return user_path(given) if given else cache_dir() / "data"


# ------------------------------------------------------------------------------------------------------------- scanning


def scan_folder(root: Path) -> dict[str, list[tuple[Path, str | None]]]:
    """The image files of a folder, sorted by name: {split: [(path, class or None), ...]}.

    Sub-folders are classes, whatever their depth below; a flat folder has no classes. They make the split "train",
    unless all sub-folders are named train, val or test: then each is a split. Hidden files and folders are skipped.
    What looks like an image but is no file, and folders that cannot be opened, are left out with a warning.

    Raises:
        DataError: there is no folder, it has no images, some lie beside the folders of the classes, or the names of
            two classes differ only in bytes that are not UTF-8.
    """
    if not os.path.isdir(root):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"there is no folder {shown(root)}. Give the path of a folder of images.")
    names = _subfolders(root)
    has_splits = "train" in names and names <= set(SPLITS)
    found: dict[str, list[tuple[Path, str | None]]] = {}
    left_out: dict[Path, str] = {}
    for split in [name for name in SPLITS if name in names] if has_splits else ["train"]:
        base = root / split if has_splits else root
        images = sorted(path.relative_to(base) for path in _walk(base, left_out))
        if not images:
            because = f" Left out: {_listed(left_out, root)}." if left_out else ""
            raise DataError(
                f"{shown(base)} holds no images. Expected files that end in {', '.join(sorted(SUFFIXES))}.{because}"
            )
        flat = [path for path in images if len(path.parts) == 1]
        if flat and len(flat) < len(images):
            raise DataError(
                f"{shown(base)} has {len(flat)} images (such as {shown(flat[0])}) beside {len(images) - len(flat)} in "
                "sub-folders. Put every image into the folder of its class, or all of them directly into one folder "
                "(no labels)."
            )
        found[split] = [(base / path, None if flat else path.parts[0]) for path in images]
    _warn(root, left_out)
    return _with_shown_classes(root, found)


def _subfolders(root: Path) -> set[str]:
    """Names of the visible folders in a folder."""
    try:
        visible = [path for path in root.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"the folder {shown(root)} cannot be opened ({error.strerror}). Change its rights.") from error
    return {path.name for path in visible if os.path.isdir(path)}  # noqa: PTH112


def _walk(base: Path, left_out: dict[Path, str]) -> Iterator[Path]:
    """Visible image files below a folder; links to folders are followed, and no folder is visited twice.

    Args:
        left_out: what is passed over goes in here, with the reason.
    """
    visited: set[tuple[int, int]] = set()
    todo = [base]
    while todo:  # a loop, since folders may be nested deeper than calls
        folder = todo.pop()
        try:
            stat = folder.stat()
            if (stat.st_dev, stat.st_ino) in visited:
                continue
            visited.add((stat.st_dev, stat.st_ino))
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            left_out[folder] = f"it cannot be opened: {error.strerror}"
            continue
        subfolders = []
        for entry in visible:
            path = folder / entry.name
            kind = _kind(entry)
            if kind == "folder":
                subfolders.append(path)
            elif kind == "image":
                yield path
            elif kind:
                left_out[path] = kind
        todo += reversed(subfolders)


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder", "image", "" where nothing is missed, or why something that may be an image cannot be one."""
    suffix = Path(entry.name).suffix.lower()
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "image" if suffix in SUFFIXES else ""
        entry.stat()
    except OSError as error:
        # without a suffix it may have led to a folder of images
        return f"the link leads nowhere: {error.strerror}" if suffix in SUFFIXES or not suffix else ""
    return "it is a pipe, a socket or a device" if suffix in SUFFIXES else ""


def _listed(left_out: dict[Path, str], root: Path) -> str:
    first = [f"{shorten(shown(path.relative_to(root)))} ({why})" for path, why in list(left_out.items())[:3]]
    return ", ".join(first) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")


def _warn(root: Path, left_out: dict[Path, str]) -> None:
    """Say what is left out, but no more than once while it stays the same."""
    if not left_out:
        _told.pop(root, None)
        return
    message = f"left out of {shown(root)}: {len(left_out)}, namely {_listed(left_out, root)}."
    if _told.get(root) != message:
        logger.warning("%s", message)
        _told[root] = message


def _with_shown_classes(
    root: Path, found: dict[str, list[tuple[Path, str | None]]]
) -> dict[str, list[tuple[Path, str | None]]]:
    """The same with names of classes that are text, whatever bytes the names of their folders have."""
    folders = {name for paths in found.values() for _, name in paths if name is not None}
    by_name: dict[str, str] = {}
    for folder in sorted(folders):
        if by_name.setdefault(shown(folder), folder) != folder:
            raise DataError(
                f"{shown(root)} has two folders whose names read {shown(folder)}, since one of them is not UTF-8. "
                "Rename one of them."
            )
    return {split: [(path, name and shown(name)) for path, name in paths] for split, paths in found.items()}


# ------------------------------------------------------------------------------------------------------------- decoding


class _NotReadError(ValueError):
    """The image may be whole, but it is not one that labkit reads; the message says why and what to do."""


def plain_image(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit grey ("L") or "RGB": what is transparent becomes white, 16-bit grey is scaled.

    Memory: what the picture holds, what the result holds, and a few MB.

    Raises:
        ValueError: its levels are floating-point numbers of unknown range.
    """
    if image.mode.startswith("I"):  # 16 bits of grey, which PIL would clip at 255 instead of scaling
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
        colours = part.convert("RGBA")
        white.paste(colours, (0, top), mask=colours)
    return white


def read_image(path: Path) -> Image.Image:
    """Decode an image file as 8-bit RGB, the right way up (see `plain_image`).

    Formats are those of `FORMATS`, whatever the name of the file. Peak memory is about ten bytes a pixel (of WebP 16),
    and images of more than 32 million pixels wait for each other. Pillow's warnings are silenced, here and for the
    whole process: what they tell is either harmless or an error here.

    Raises:
        DataError: the file is missing, truncated, too large or not an image.
    """
    _silence_pillow()
    try:
        with open_regular(path) as file:
            return _decode(file)
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


def _decode(file: BinaryIO) -> Image.Image:
    if os.fstat(file.fileno()).st_size > MAX_BYTES:
        raise _NotReadError(f"the file has more than {MAX_BYTES:,} bytes. Save it smaller, or take it away.")
    try:
        return _decode_as_it_is(file)
    except _NotReadError:
        raise
    except ValueError:  # there may be more text in it than Pillow takes
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
    return _decode_as_it_is(_png_without_text(file))


def _decode_as_it_is(file: BinaryIO) -> Image.Image:
    from PIL import Image, ImageFile, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _NotReadError(_why_not_identified(file)) from None
    _check_size(image.size, MAX_PIXELS_WEBP if image.format == "WEBP" else MAX_PIXELS)
    with _large if image.width * image.height > ALONE else contextlib.nullcontext():
        image.load()
        turn = _turn(image)
        image = plain_image(image)  # each step lets go of the picture before
        image = image if turn is None else image.transpose(turn)
        if image.mode == "RGB":
            return image.copy() if isinstance(image, ImageFile.ImageFile) else image  # lets go of its decoder
        return image.convert("RGB")


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
    """A PNG file without what surrounds its pixels and may unpack to any size: texts and the colour profile."""
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
