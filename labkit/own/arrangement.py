"""A folder for each cluster and a place in it for each image, under names that Linux, macOS and Windows can hold."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from labkit.own.clustering import REJECTED, Clustering

REJECTED_FOLDER = "rejected"
LONGEST_FOLDER = 100  # bytes of a folder's name in UTF-8
LONGEST_FILE = 255  # bytes of a file's name, which most file systems allow
NOT_IN_NAMES = '<>:"/\\|?*'  # on Windows; a slash nowhere
DEVICES = frozenset(
    [
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "CONIN$",
        "CONOUT$",
        *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"),
    ]
)  # Windows takes such a name for a device, whatever follows its first dot


def arrange(clustering: Clustering, *, rejected: bool) -> list[tuple[Path, PurePosixPath]]:
    """Each image and its place "folder/file", in the order of the images; no two places differ by case alone.

    The folder is named by the cluster's name, "cluster 3" where it has none; a second cluster of the same name gets
    "shoes 2", a second file of the same name in a folder "a (2).jpg".

    Args:
        clustering: n images.
        rejected: rejected images go to the folder "rejected"; without, they are left out.
    """
    folders = cluster_folders(clustering)
    taken: dict[str, set[str]] = {}
    places = []
    for path, cluster in zip(clustering.paths, clustering.labels, strict=True):
        if cluster == REJECTED and not rejected:
            continue
        folder = folders[int(cluster)]
        name = free_name(path.name, taken.setdefault(folder, set()))
        places.append((path, PurePosixPath(folder, name)))
    return places


def cluster_folders(clustering: Clustering) -> dict[int, str]:
    """The folder of each cluster that has images, and of the rejected ones (−1)."""
    names = dict(zip(clustering.clusters["cluster"].astype(int), clustering.clusters["name"], strict=True))
    folders, taken = {REJECTED: REJECTED_FOLDER}, {_key(REJECTED_FOLDER), "undo.json"}
    for cluster in sorted({int(label) for label in clustering.labels} - {REJECTED}):
        base = folder_name(names.get(cluster) or "") or f"cluster {cluster}"
        folders[cluster] = _first_free((base if k == 1 else f"{base} {k}" for k in range(1, len(names) + 4)), taken)
    return folders


def folder_name(name: str) -> str:
    """A name that a folder can have on Linux, macOS and Windows; "" where nothing of it can be kept.

    Not hidden, no option or home folder for a shell, no formula for a spreadsheet, no device for Windows, at most 100
    bytes.
    """
    text = unicodedata.normalize("NFC", " ".join(name.split()))
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    text = "".join("_" if c in NOT_IN_NAMES else c for c in text).lstrip(" .-~=+@")
    while len(text.encode()) > LONGEST_FOLDER:
        text = text[:-1]
    text = text.rstrip(" .")
    return f"_{text}" if text.split(".")[0].rstrip().upper() in DEVICES else text


def free_name(name: str, taken: set[str]) -> str:
    """A file's name, or with the first free number before its ending, which is then taken."""
    stem, ending = Path(name).stem, Path(name).suffix

    def numbered(k: int) -> str:
        tail = f" ({k}){ending}"
        short = stem
        while len(os.fsencode(short + tail)) > LONGEST_FILE and short:
            short = short[:-1]
        return short + tail

    return _first_free((name if k == 1 else numbered(k) for k in range(1, len(taken) + 3)), taken)


def _first_free(candidates: Iterable[str], taken: set[str]) -> str:
    free = next(name for name in candidates if _key(name) not in taken)
    taken.add(_key(free))
    return free


def _key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
