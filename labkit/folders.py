"""Folders of images: where data lies on this machine, which files are images, and how one is decoded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit._files import cache_dir
from labkit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
SPLITS = ("train", "val", "test")


def data_dir() -> Path:
    """Where datasets are looked for and downloaded to: $LABKIT_DATA, else "data" in labkit's cache folder."""
    return Path(os.environ.get("LABKIT_DATA") or cache_dir() / "data").expanduser()


def scan_folder(root: Path) -> dict[str, list[tuple[Path, str | None]]]:
    """The image files of a folder, sorted by name: {split: [(path, class or None), ...]}.

    Sub-folders are classes, whatever their depth below; a flat folder has no classes. They make the split "train",
    unless all sub-folders are named train, val or test: then each is a split. Hidden files and folders are skipped.

    Raises:
        DataError: there is no folder, it has no images, or some lie beside the folders of the classes.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}. Give the path of a folder of images.")
    names = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    has_splits = "train" in names and names <= set(SPLITS)
    found: dict[str, list[tuple[Path, str | None]]] = {}
    for split in [name for name in SPLITS if name in names] if has_splits else ["train"]:
        base = root / split if has_splits else root
        images = sorted(path.relative_to(base) for path in _walk(base))
        if not images:
            raise DataError(f"{base} holds no images. Expected files that end in {', '.join(sorted(SUFFIXES))}.")
        flat = [path for path in images if len(path.parts) == 1]
        if flat and len(flat) < len(images):
            raise DataError(
                f"{base} has {len(flat)} images (such as {flat[0]}) beside {len(images) - len(flat)} in sub-folders. "
                "Put every image into the folder of its class, or all of them directly into one folder (no labels)."
            )
        found[split] = [(base / path, None if flat else path.parts[0]) for path in images]
    return found


def _walk(base: Path) -> Iterator[Path]:
    """Visible image files below a folder; links to folders are followed, and no folder is visited twice."""
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def plain_image(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit grey ("L") or "RGB": what is transparent becomes white, 16-bit grey is scaled.

    Raises:
        ValueError: its levels are floating-point numbers of unknown range.
    """
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which PIL would clip at 255 instead of scaling
        return Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point levels have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def read_image(path: Path) -> Image.Image:
    """Decode an image file as 8-bit RGB, the right way up (see `plain_image`).

    Raises:
        DataError: the file is missing, truncated or not an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            plain = plain_image(ImageOps.exif_transpose(image))
            return plain if plain.mode == "RGB" else plain.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image {path} cannot be read ({error}). It is damaged or not an image: replace it or take it away."
        ) from error
