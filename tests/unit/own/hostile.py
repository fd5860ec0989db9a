"""A folder of small images of many kinds, and what may lie among them: damaged files, odd formats, names, no files.

python -m tests.unit.own.hostile FOLDER      writes it with MANY ordinary images
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FEW, MANY = 200, 2000  # ordinary images: where a test should take seconds, and what a person has
KINDS = 5  # of ordinary images, by color and pattern
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG", "JPEG2000", "PPM", "JPEG")
ENDING = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}

NAMES: list[bytes] = [
    b"new\nline.png",
    b"carriage\rreturn.png",
    b"\ttab.png",
    b"\rfirst.png",
    b"\nlast.png",
    b"=cmd()|'A0'!.png",
    b"+1+1.png",
    b"-rf.png",
    b"--help.png",
    b"@SUM(A1).png",
    b"quotes'\"`.png",
    b"comma, semicolon; tab\t.png",
    b"<script>alert(1)<script>.png",
    b'"><img src=x onerror=alert(2)>.png',
    b"{{ 7 * 7 }}${7 * 7}.png",
    b"javascript:alert(3).png",
    b"a:b?c#d%41&amp;.png",
    b"back\\slash%2e%2e.png",
    b"$(touch ran) `touch ran`.png",
    b" space .png",
    b"latin-\xe9.png",
    b"\xff\xfe.png",
    b"\x1b[31mred\x07.png",
    b"=" + b"n" * 250 + b".png",
    b"NaN.png",
    "👩‍👩‍👧 球.png".encode(),
    "line\u2028separator \u202egnp.exe.png".encode(),
    "é.png".encode(),  # as one character
    "e\u0301.png".encode(),  # and as two
]
FOLDERS: list[bytes] = [b"=1+1", b"<script>alert(4)<", b"latin-\xe9", b"/".join([b"d" * 200] * 8), b"folder.jpg"]


@dataclass(frozen=True)
class Hostile:
    """What was written.

    Attributes:
        root: the folder.
        readable: the images that a person sees in it, below the root.
        broken: what is left out, below the root, and a part of the reason.
        others: how many files have other endings.
    """

    root: Path
    readable: set[bytes] = field(default_factory=set)
    broken: dict[bytes, str] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)


def make_hostile(root: Path, n: int = FEW, huge: bool = False) -> Hostile:
    """Write n ordinary images and about a hundred that are not; with `huge` one of 96 million pixels as well."""
    hostile = Hostile(root)
    for i in range(n):
        kind = FORMATS[i % len(FORMATS)]
        name = f"{'abc'[i % 3]}/{i:04d}.{ENDING.get(kind, kind.lower())}"
        _write(hostile, name.encode(), encoded(small_image(i), kind))
    for i, (name, content) in enumerate(_odd_images(huge).items()):
        _write(hostile, b"odd/" + name.encode(), content)
        assert i < 100
    for i, name in enumerate(NAMES):
        _write(hostile, name, encoded(small_image(i // 2), "PNG"))  # so that the flags name others
    for i, name in enumerate(FOLDERS):
        _write(hostile, name + b"/=2.png", encoded(small_image(i), "PNG"))
    for name, (content, why) in _broken().items():
        _write(hostile, b"broken/" + name.encode(), content, why)
    for name in ("notes.txt", "=cmd().csv", "page.html", ".hidden.jpg", "Thumbs.db"):
        (root / name).write_text("<script>alert(5)</script>")
    hostile.others.update({".csv": 1, ".html": 1, ".txt": 1})
    _no_files(hostile)
    return hostile


def snapshot(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Kind, size, time and content of all that is in a folder."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for path in (os.path.join(folder, name) for name in folders + files):  # noqa: PTH118 (bytes)
            stat = os.lstat(path)
            regular = stat.st_mode >> 12 == 8 and os.access(path, os.R_OK)
            content = Path(os.fsdecode(path)).read_bytes() if regular else b""
            found[path] = stat.st_mode, stat.st_size, stat.st_mtime_ns, content
    return found


def small_image(i: int) -> Image.Image:
    """An image of kind i modulo KINDS, each a bit different."""
    rng, kind = np.random.default_rng(i), i % KINDS
    height, width = (int(side) for side in rng.integers(24, 65, 2))
    y, x = np.mgrid[:height, :width]
    pattern = [x * 0, (x // 4) % 2 * 90, (y // 4) % 2 * 90, (x // 6 + y // 6) % 2 * 120, x + y][kind]
    color = np.array([(200, 40, 40), (40, 150, 60), (50, 80, 160), (120, 110, 40), (90, 90, 90)][kind])
    levels = color + pattern[..., None] + rng.normal(0, 18, (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def reads_its_own_ycc() -> bool:
    """Whether Pillow can read a TIFF in YCbCr that it has written, as newer ones can."""
    try:
        Image.open(io.BytesIO(encoded(Image.new("YCbCr", (8, 8)), "TIFF"))).load()
    except OSError:
        return False
    return True


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of any header, whatever its rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _write(hostile: Hostile, name: bytes, content: bytes, why: str | None = None) -> None:
    path = hostile.root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if why is None:
        hostile.readable.add(name)
    else:
        hostile.broken[name] = why


def _odd_images(huge: bool) -> dict[str, bytes]:
    """Images that are whole, of modes and formats that few have."""
    image = small_image(3)
    gray, mask = image.convert("L"), Image.linear_gradient("L").resize(image.size)
    clear = image.copy()
    clear.putalpha(mask)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    levels = np.linspace(0, 1, 40 * 50, dtype=np.float32).reshape(40, 50)
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    frames = [small_image(i).resize((40, 40)) for i in range(4)]
    empty = Image.new("RGBA", (40, 40))
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 50}
    odd = {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(image.convert("CMYK"), "TIFF"),
        **({"ycc.tif": encoded(image.convert("YCbCr"), "TIFF")} if reads_its_own_ycc() else {}),
        "lab.tif": encoded(image.convert("LAB"), "TIFF"),
        "gray.jpg": encoded(gray, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "gray16.png": encoded(Image.fromarray((levels * 65535).astype(np.uint16)), "PNG"),
        "gray16.tif": encoded(Image.fromarray((levels * 65535).astype(np.uint16)), "TIFF"),
        "gray32.tif": encoded(Image.fromarray((levels * 1e9).astype(np.int32)), "TIFF"),
        "rgb16.png": png(30, 20, 16, 2, rows),
        "float.tif": encoded(Image.fromarray(levels), "TIFF"),
        "not finite.tif": encoded(
            Image.fromarray(np.where(levels < 0.1, np.nan, np.where(levels > 0.9, np.inf, levels))), "TIFF"
        ),
        "bits.png": encoded(gray.convert("1"), "PNG"),
        "bits.tif": encoded(gray.convert("1"), "TIFF", compression="group4"),
        "gray with alpha.png": encoded(clear.convert("LA"), "PNG"),
        "with alpha.png": encoded(clear, "PNG"),
        "with alpha.webp": encoded(clear, "WEBP"),
        "palette.png": encoded(palette, "PNG"),
        "palette with alpha.png": encoded(palette, "PNG", transparency=bytes(range(0, 256))),
        "palette with one clear.gif": encoded(palette, "GIF", transparency=0),
        "interlaced.png": encoded(image, "PNG", interlace=1),
        "all clear.png": encoded(empty, "PNG"),
        "animated.gif": encoded(frames[0], "GIF", **animated),
        "animated.webp": encoded(frames[0], "WEBP", **animated),
        "animated.png": encoded(frames[0], "PNG", **animated),
        "first frame empty.webp": encoded(empty, "WEBP", save_all=True, append_images=frames, lossless=True),
        "pages.tif": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "two.mpo": encoded(frames[0], "MPO", save_all=True, append_images=frames[1:2]),
        "two, called.jpg": encoded(frames[0], "MPO", save_all=True, append_images=frames[1:2]),
        "icon.ico": encoded(image, "ICO", sizes=[(16, 16), (32, 32)]),
        "one pixel.png": encoded(image.crop((0, 0, 1, 1)), "PNG"),
        "one row.png": encoded(image.resize((4000, 1)), "PNG"),
        "one column.jpg": encoded(image.resize((1, 4000)), "JPEG"),
        "really a png.jpg": encoded(image, "PNG"),
        "really a jpeg.PNG": encoded(image, "JPEG"),
        "no ending": encoded(image, "JPEG"),
        "ending in a dot.": encoded(image, "PNG"),
        "damaged exif.jpg": encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "long text.png": png(2, 2, 8, 0, b"\0\1\2\0\3\4", (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        odd[f"orientation {orientation}.jpg"] = encoded(image, "JPEG", exif=exif)
    for kind, write in _optional().items():
        if (content := write(image)) is not None:
            odd[f"photo.{kind}"] = content
    if huge:
        odd["huge.png"] = png(12_000, 8_000, 8, 0, bytes(12_001 * 8_000))
    return odd


def _optional() -> dict[str, Callable[[Image.Image], bytes | None]]:
    """Formats that only some installations write."""

    def avif(image: Image.Image) -> bytes | None:
        Image.init()
        return encoded(image, "AVIF") if "AVIF" in Image.SAVE else None

    def heic(image: Image.Image) -> bytes | None:
        try:
            import pillow_heif
        except ImportError:
            return None
        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file, format="HEIF")
        return file.getvalue()

    return {"avif": avif, "heic": heic}


def _broken() -> dict[str, tuple[bytes, str]]:
    """Files with the ending of an image that hold none, or a part of one, and a part of why."""
    image = small_image(4).resize((60, 60))
    size, odd = "Save it smaller", "damaged or not an image"
    page = b"<!doctype html><script>alert(6)</script>"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 1, 1, 0, 0)
    jpeg = encoded(image, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    broken = {
        "empty.jpg": (b"", "the file is empty"),
        "empty.heic": (b"", "the file is empty"),
        "text.jpg": (b"these are words\n" * 9, odd),
        "page.png": (page, odd),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(7)</script></svg>', odd),
        "document.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", odd),
        "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "seems to be EPS"),
        "archive.png": (b"PK\3\4" + bytes(60), odd),
        "zeros.jpg": (bytes(5000), odd),
        "noise.webp": (np.random.default_rng(0).bytes(5000), odd),
        "first bytes.jpg": (b"\xff\xd8\xff\xe0", odd),
        "first bytes.png": (b"\x89PNG\r\n\x1a\n", odd),
        "no ending, first bytes": (b"\xff\xd8\xff\xe0" + bytes(20), odd),
        "bomb.png": (png(60_000, 60_000, 8, 2, bytes(99)), size),
        "bomb of rows.png": (png(1, 1 << 20, 8, 0, bytes(99)), size),
        "bomb.gif": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;", size),
        "bomb.bmp": (bmp + bytes(99), size),
        "bomb.jpg": (jpeg[:start] + b"\xff\xdc\xff\xdc" + jpeg[start + 4 :], size),
        "bomb.ppm": (b"P6 40000 40000 255\n" + bytes(99), size),
        "=cmd().jpg": (b"=cmd()", odd),
        "<img src=x onerror=alert(8)>.jpg": (page, odd),
        "new\nline.jpg": (b"", "the file is empty"),
    }
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "JPEG2000"):
        whole = encoded(image, kind)
        broken[f"half.{ENDING.get(kind, kind.lower())}"] = (whole[: len(whole) // 2], odd)
    for kind, write in _optional().items():
        whole = write(image)
        if whole is not None:
            broken[f"half.{kind}"] = (whole[: len(whole) // 2], odd)
    return broken


def _no_files(hostile: Hostile) -> None:
    """Links that lead nowhere, round or up, a pipe, a socket, what may not be read."""
    folder = hostile.root / "none"
    folder.mkdir()
    (folder / "dangling.jpg").symlink_to("nothing.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "up").symlink_to("..")  # to what was visited: nothing new
    (folder / "above").symlink_to("../..")
    (folder / "again").symlink_to("../a", target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    hostile.broken.update(
        {
            b"none/dangling.jpg": "the link leads nowhere",
            b"none/loop.jpg": "the link leads nowhere",
            b"none/above": "a folder that holds this one",
            b"none/pipe.jpg": "it is a pipe",
            b"none/pipe": "it is a pipe",
        }
    )
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.png")
    os.chdir(here)
    hostile.broken[b"none/socket.png"] = "it is a pipe, a socket"
    if os.geteuid() != 0:
        _write(hostile, b"none/closed.jpg", encoded(small_image(0), "JPEG"), "cannot be opened")
        (folder / "closed.jpg").chmod(0)
        (folder / "closed").mkdir(0)
        hostile.broken[b"none/closed"] = "cannot be opened"


if __name__ == "__main__":
    made = make_hostile(Path(sys.argv[1]), MANY, huge=True)
    print(f"{len(made.readable)} images that can be read, {len(made.broken)} files that cannot")
