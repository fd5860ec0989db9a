"""Folders of images: where data lies on this machine, which files are images, which folders are splits or classes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labkit._files import cache_dir, user_path
from labkit.data.formats import ENDINGS, begins_like_an_image, ending
from labkit.errors import DataError, printable, shorten, shown

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
NAMES_OF_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# what systems and programs leave in folders, in lower case; hidden files and folders are passed over as well
JUNK = frozenset(
    (
        *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"),
    )
)

_told: dict[Path, str] = {}  # what was last said to be left out of a folder, which is read several times in one run


@dataclass(frozen=True)
class Listing:
    """What lies in a folder and all folders below it.

    Attributes:
        files: what may be an image by its ending, or where it has none by its first bytes; sorted, below the root.
        left_out: what may be an image, or hold some, and is no file or cannot be opened, with the reason.
        others: how many files there are of other endings, in lower case; "" are those without.
    """

    files: list[Path]
    left_out: dict[Path, str]
    others: dict[str, int]


def data_dir() -> Path:
    """Where datasets are looked for and downloaded to: $LABKIT_DATA, else "data" in labkit's cache folder."""
    given = os.environ.get("LABKIT_DATA")
    return user_path(given) if given else cache_dir() / "data"


def list_images(root: Path) -> Listing:
    """The images in a folder, whatever its sub-folders mean. No file but those without ending is opened.

    Hidden files and folders are passed over, as is what systems leave behind (__MACOSX, @eaDir, Thumbs.db). Links are
    followed, and no folder is visited twice.

    Raises:
        DataError: there is no folder, or it cannot be opened.
    """
    _expect_folder(root)
    walk = _Walk(root)
    files = sorted(walk.images(root))
    if root in walk.left_out:
        raise DataError(f"the folder {shown(root)} cannot be read: {walk.left_out[root]}. Change its rights.")
    return Listing(files, walk.left_out, dict(sorted(walk.others.items())))


def scan_folder(root: Path) -> dict[str, list[tuple[Path, str | None]]]:
    """The image files of a folder, sorted by name: {split: [(path, class or None), ...]}.

    Sub-folders are classes, whatever their depth below; images beside them have none. They make the split "train",
    unless all sub-folders with images have names of splits: then each is one. Such names are train and training; val,
    valid and validation; test and testing, in any case. Which files are images `list_images` says. What is left out is
    told in a warning.

    Raises:
        DataError: there is no folder; it has no images; some sub-folders are splits and others are not, or two are the
            same split; or the names of two classes differ only in bytes that are not UTF-8.
    """
    _expect_folder(root)
    walk = _Walk(root)
    images = sorted(path.relative_to(root) for path in walk.images(root))
    if not images:
        because = f" Left out: {_listed(walk.left_out, root)}." if walk.left_out else ""
        raise DataError(
            f"{shown(root)} holds no images. Expected files such as .jpg, .png, .webp, .tif, .heic.{because}"
        )
    folders = _folders_of_splits(root, {path.parts[0] for path in images if len(path.parts) > 1})
    found: dict[str, list[tuple[Path, str | None]]] = {}
    for split, base in folders.items():
        below = [path.relative_to(base) for path in images if path.is_relative_to(base)]
        found[split] = [(root / base / path, path.parts[0] if len(path.parts) > 1 else None) for path in below]
    if Path() not in folders.values():
        beside = (path for path in images if len(path.parts) == 1)
        walk.left_out.update((root / path, "it lies beside the folders of the splits") for path in beside)
    _warn(root, walk.left_out)
    return _with_shown_classes(root, found)


def _expect_folder(root: Path) -> None:
    if not os.path.isdir(root):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"there is no folder {shown(root)}. Give the path of a folder of images.")


def _folders_of_splits(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """For each split its folder below the root; the root itself is "train" where sub-folders are none.

    Args:
        names: of the sub-folders that hold images.
    """
    found: dict[str, list[str]] = {}
    others = []
    for name in sorted(names):
        split = NAMES_OF_SPLITS.get(name.lower())
        if split is None:
            others.append(name)
        else:
            found.setdefault(split, []).append(name)
    if "train" not in found or (others and len(found) == 1):  # one name alone may be that of a class, such as a train
        return {"train": Path()}
    for split, same in found.items():
        if len(same) > 1:
            raise DataError(
                f"{shown(root)} has the folders {shown(same[0])} and {shown(same[1])}, which both name the split "
                f"{split}. Join them, or rename one."
            )
    if others:
        splits = ", ".join(shown(same[0]) for same in found.values())
        raise DataError(
            f"{shown(root)} has the folders {splits}, which name splits, and {_some(others)}, which does not. Expected "
            f"splits alone (train, val, test) or classes alone: move or rename the other folders, or give the path "
            "of one split."
        )
    return {split: Path(found[split][0]) for split in SPLITS if split in found}


def _some(names: list[str]) -> str:
    return ", ".join(shorten(shown(name)) for name in names[:3]) + (f" and {len(names) - 3} more" * (len(names) > 3))


@dataclass
class _Walk:
    """Goes through the folders below a root, and notes what it passes over.

    Attributes:
        left_out, others: as in `Listing`.
    """

    root: Path
    left_out: dict[Path, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def images(self, base: Path) -> Iterator[Path]:
        """Image files below a folder; links to folders are followed last, and no folder is visited twice."""
        visited: set[tuple[int, int]] = set()
        above = {_identity(folder) for folder in base.resolve().parents}
        todo: list[Path] = [base]
        links: list[Path] = []
        while todo or links:  # a loop, since folders may be nested deeper than calls
            folder = todo.pop() if todo else links.pop(0)
            try:
                identity = _identity(folder)
                if identity in above:
                    self.left_out[folder] = "the link leads to a folder that holds this one"
                    continue
                if identity in visited:
                    continue
                visited.add(identity)
                with os.scandir(folder) as entries:
                    visible = sorted((entry for entry in entries if _is_visible(entry.name)), key=lambda e: e.name)
            except OSError as error:
                self.left_out[folder] = f"it cannot be opened: {error.strerror}"
                continue
            subfolders: list[Path] = []
            for entry in visible:
                path = folder / entry.name
                kind = _kind(entry)
                if kind == "folder":
                    (links if entry.is_symlink() else subfolders).append(path)
                elif kind == "image":
                    yield path
                elif kind == "other":
                    self.others[ending(entry.name)] += 1
                else:
                    self.left_out[path] = kind
            todo += reversed(subfolders)


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in JUNK


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder", "image", "other", or why what may be an image cannot be one."""
    suffix = ending(entry.name)
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            is_image = suffix in ENDINGS or (not suffix and begins_like_an_image(Path(entry.path)))
            return "image" if is_image else "other"
        entry.stat()
    except OSError as error:
        if suffix and suffix not in ENDINGS:  # without one a link may have led to a folder of images
            return "other"
        return f"the link leads nowhere: {error.strerror}" if entry.is_symlink() else f"it is closed: {error.strerror}"
    return "it is a pipe, a socket or a device"


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
