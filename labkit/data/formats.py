"""Formats of image files: which are read, which endings of names stand for them, and what a library must bring.

Those that Pillow reads as images of pixels, and that are safe to open. Left out are formats that call other programs
(EPS, WMF), that Pillow only names (GRIB, BUFR, HDF5, MPEG), that unpack to any size (FITS), that may hold any other
(IPTC), and textures, brushes and scans of few programs, whose endings mean other things as well.
"""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path
from typing import BinaryIO

from labkit._files import open_regular

# known by how a file begins, whatever it is called
BY_CONTENT = (
    "AVIF", "BMP", "DDS", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "TIFF", "WEBP",
)  # fmt: skip
# others begin like anything, so that only a name can say it
BY_ENDING = {
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA"),
    **dict.fromkeys((".sgi", ".rgb", ".rgba", ".bw"), "SGI"),
    ".cur": "CUR", ".dcx": "DCX", ".dib": "DIB", ".msp": "MSP", ".pcx": "PCX", ".ras": "SUN",
    ".xbm": "XBM", ".xpm": "XPM",
}  # fmt: skip
ENDINGS = frozenset(BY_ENDING) | {
    ".apng", ".avif", ".avifs", ".bmp", ".dds", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".icns",
    ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo",
    ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".tif", ".tiff", ".webp",
}  # fmt: skip
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")  # brands of HEIF
AVIF = (b"avif", b"avis")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
EXTRA = 'Install it: pip install "labkit[photos]"'


def ending(name: str) -> str:
    """How a name ends, in lower case, such as ".jpg"; "" where that is no ending, as in "at 10.21.33"."""
    suffix = Path(name).suffix.lower()
    return suffix if re.fullmatch(r"\.(?=.*[a-z])[a-z0-9_+~-]{1,12}", suffix) else ""


def silence_pillow() -> None:
    """Warnings of Pillow become neither noise nor, under -W error, exceptions (threads share catch_warnings)."""
    ours = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if ours not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def readable_formats(suffix: str) -> tuple[str, ...]:
    """Names of the formats that Pillow is to try on a file with this ending."""
    from PIL import Image

    Image.init()
    given = [BY_ENDING[suffix]] if suffix in BY_ENDING else []
    return tuple(name for name in (*given, *BY_CONTENT) if name in Image.OPEN)


def learn_format(file: BinaryIO) -> str:
    """Let Pillow know the format of a file that it cannot read by itself (HEIC; AVIF before 11.3).

    Returns:
        "" or what is missing and how it is installed.
    """
    from PIL import Image

    brand = _brand(_start(file))
    if brand in HEIC and "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return f"it is a HEIC file, which the package pillow-heif reads. {EXTRA}"
        register_heif_opener()
    if brand in AVIF and not _pillow_reads_avif():
        try:
            import pillow_avif  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        except ImportError:
            return f"it is an AVIF file, which this Pillow does not read. {EXTRA}"
    return ""


def _start(file: BinaryIO) -> bytes:
    start = file.read(12)
    file.seek(0)
    return start


def _brand(start: bytes) -> bytes:
    """Which of the formats in a box that is called "ftyp" a file says it has."""
    return start[8:12] if start[4:8] == b"ftyp" else b""


@functools.cache
def _pillow_reads_avif() -> bool:
    from PIL import features

    return "avif" in features.get_supported_modules()


def begins_like_an_image(path: Path) -> bool:
    """Whether a file whose name does not say what it is has the header of an image.

    Raises:
        OSError: it cannot be opened.
    """
    from PIL import Image

    silence_pillow()
    with open_regular(path) as file:
        start = _start(file)
        if start.startswith(SIGNATURES) or _brand(start) in HEIC + AVIF:  # which may be damaged further on
            return True
        try:
            Image.open(file, formats=readable_formats(""))
        except Image.DecompressionBombError:
            return True
        except Exception:  # whatever a decoder raises
            return False
    return True
