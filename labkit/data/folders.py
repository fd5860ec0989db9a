"""Folders of images: where data lies on this machine, and which files are images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from labkit._files import cache_dir, user_path
from labkit.errors import DataError, printable, shorten, shown

logger = logging.getLogger(__name__)

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
SPLITS = ("train", "val", "test")


_told: dict[Path, str] = {}  # what was last said to be left out of a folder, which is read several times in one run


def data_dir() -> Path:
    """Where datasets are looked for and downloaded to: $LABKIT_DATA, else "data" in labkit's cache folder."""
    given = os.environ.get("LABKIT_DATA")
    return user_path(given) if given else cache_dir() / "data"


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
    first = [f"{printable(shorten(shown(path.relative_to(root))))} ({why})" for path, why in list(left_out.items())[:3]]
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
