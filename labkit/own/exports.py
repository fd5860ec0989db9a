"""A result in the layouts that other tools read: Hugging Face's `imagefolder`, FiftyOne's image classification.

imagefolder (huggingface.co/docs/datasets, "Create an image dataset"): a folder for the split, in it a folder for each
label and metadata.csv, whose column `file_name` is an image's path below that file. A folder named like a split, such
as "test tube", would become one, so such a cluster's folder has its number for a name.

FiftyOneImageClassificationDataset (docs.voxel51.com, "Importing datasets"): labels.json with the names of the classes
and, for each image data/KEY.ENDING, under KEY its class, confidence and attributes.

Images that a review rejected are in neither.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from labkit._files import LOCK, locked_folder, sweep, temporary_folder
from labkit.data.formats import ENDINGS, ending
from labkit.errors import DataError, quote, shown
from labkit.own.arrangement import cluster_folders, folder_name, free_name
from labkit.own.clustering import REJECTED, Clustering
from labkit.own.files import csv_text, file_cell, write_file
from labkit.own.placing import copy_file, free_space, link_file, same_content, size_on, size_text

HOW = ("copy", "link")
# huggingface/datasets takes a folder for a split where such a word stands alone in its name
SPLIT_WORD = re.compile(
    r"(?:^|[-._ 0-9])(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:$|[-._ 0-9])"
)


@dataclass(frozen=True)
class Item:
    """An image that is exported: where it is, its place below the new folder, its label, and what is known of it."""

    source: Path
    place: PurePosixPath
    label: str
    confidence: float
    file: str


@dataclass(frozen=True)
class Layout:
    """Where images go, and the table that lists them: its place, and its content for the images that are there."""

    table: PurePosixPath
    items: list[Item] = field(repr=False)
    content: Callable[[Sequence[Item]], bytes] = field(repr=False)


def export(
    clustering: Clustering, new: Path, layout: str, how: str = "copy", *, progress: bool = False
) -> dict[Path, str]:
    """Write images and labels in the layout of another tool. The same call goes on where it was stopped.

    Args:
        clustering: n images; those that a review rejected are left out.
        new: a folder that is not there yet, or empty, or of the same export. No image in it is replaced.
        layout: "imagefolder" or "fiftyone".
        how: "copy", or "link" for symbolic links.
        progress: show a progress bar.

    Returns:
        Images that could not be exported, and why; the table does not list them.

    Raises:
        DataError: the folder holds something else, lies among the images, or cannot be written.
    """
    for name, given, known in (("format", layout, tuple(LAYOUTS)), ("how", how, HOW)):
        if given not in known:
            raise DataError(f"the {name} is {quote(given)}. Expected one of {', '.join(known)}.")
    new = new.absolute()
    if Path(os.path.realpath(new)).is_relative_to(os.path.realpath(clustering.root)):
        raise DataError(
            f"{shown(new)} lies in the folder of the images, where the next run would find each image twice. Choose a "
            "folder beside it."
        )
    work = LAYOUTS[layout](clustering)
    if not work.items:
        raise DataError("a review rejected all images: there is nothing to export.")
    if not any(item.source.exists() for item in work.items):
        raise DataError(
            f"none of the {len(work.items):,} images is where it was, in {shown(clustering.root)}. If a sort has moved "
            "them, put them back first (labkit sort --undo)."
        )
    _expect_ours(new, work)
    todo = [item for item in work.items if not os.path.lexists(new / item.place)]
    space = 0 if how == "link" else sum(size_on(item.source, new, moved=False) for item in todo)
    if space > free_space(new):
        raise DataError(f"the images take {size_text(space)}, and {shown(new)} has {size_text(free_space(new))} free.")
    left: dict[Path, str] = {}
    try:
        with locked_folder(new, wait=False), temporary_folder(new, ".export.") as scratch:
            for item in tqdm(work.items, desc="export", unit="image", disable=not progress):
                if reason := _put(item.source, new / item.place, scratch, how):
                    left[item.source] = reason
            sweep(new / work.table)
            write_file(new / work.table, work.content([item for item in work.items if item.source not in left]))
    except OSError as error:
        raise DataError(
            f"{shown(new)} cannot be written ({error.strerror or error}). Choose another folder."
        ) from error
    return left


# ---------------------------------------------------------------------------------------------------------- the layouts


def imagefolder(clustering: Clustering) -> Layout:
    """The folder of Hugging Face's `imagefolder`: train/LABEL/FILE, and train/metadata.csv."""
    labels = cluster_folders(clustering)
    folders: dict[int, str] = {}
    for cluster, label in labels.items():
        plain = f"cluster {cluster}" if SPLIT_WORD.search(label.lower()) else label
        while plain in folders.values() or (plain != label and plain in labels.values()):
            plain += "_"
        folders[cluster] = plain
    items = _items(clustering, lambda cluster, name: PurePosixPath("train", folders[cluster], name))
    return Layout(PurePosixPath("train", "metadata.csv"), items, _metadata)


def _metadata(items: Sequence[Item]) -> bytes:
    rows = [[str(item.place.relative_to("train")), item.label, f"{item.confidence:.4f}", item.file] for item in items]
    return csv_text([["file_name", "label", "confidence", "original"], *rows]).encode()


def fiftyone(clustering: Clustering) -> Layout:
    """The folder of FiftyOne's image classification: data/FILE and labels.json."""
    keys: set[str] = set()  # the importer knows an image by its name without the ending

    def place(_: int, name: str) -> PurePosixPath:
        stem, suffix = name.removesuffix(PurePosixPath(name).suffix), PurePosixPath(name).suffix
        return PurePosixPath("data", free_name(stem.replace(".", "_"), keys) + suffix)

    return Layout(PurePosixPath("labels.json"), _items(clustering, place), _labels)


def _labels(items: Sequence[Item]) -> bytes:
    classes = sorted({item.label for item in items})
    labels = {
        item.place.stem: {
            "label": classes.index(item.label),
            "confidence": round(item.confidence, 4),
            "attributes": {"original": item.file},
        }
        for item in items
    }
    return (json.dumps({"classes": classes, "labels": labels}, indent=1) + "\n").encode()


LAYOUTS: dict[str, Callable[[Clustering], Layout]] = {"imagefolder": imagefolder, "fiftyone": fiftyone}


def _items(clustering: Clustering, place: Callable[[int, str], PurePosixPath]) -> list[Item]:
    """The images that are not rejected, under names that every system and a table in UTF-8 can hold."""
    labels, taken = cluster_folders(clustering), dict[int, set[str]]()
    items = []
    confidences = clustering.images["confidence"]
    for path, cluster, confidence in zip(clustering.paths, clustering.labels.tolist(), confidences, strict=True):
        if cluster == REJECTED:
            continue
        source = path.absolute()
        name = free_name(_portable(source), taken.setdefault(cluster, set()))
        file = file_cell(path, clustering.root)
        items.append(Item(source, place(cluster, name), labels[cluster], float(confidence), file))
    return items


def _portable(path: Path) -> str:
    """A file's name without what some system or table cannot hold, and with the ending of its format."""
    suffix = ending(path.name)
    stem = path.name[: len(path.name) - len(suffix)] if suffix in ENDINGS else path.name
    text = "".join("\ufffd" if unicodedata.category(c) == "Cs" else c for c in stem)
    return (folder_name(text) or "image") + (suffix if suffix in ENDINGS else _ending_of_content(path))


def _ending_of_content(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(image.format or "", f".{image.format}".lower())
    except Exception:  # of a damaged file, whatever its reader raises
        return ""


# ------------------------------------------------------------------------------------------------------------ the files


def _put(source: Path, target: Path, scratch: Path, how: str) -> str:
    """Copy or link an image to its place; "" where it is there now, else why not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        is_link = target.is_symlink()
        same = (
            os.path.realpath(target) == os.path.realpath(source)
            if is_link
            else same_content(source, target, quick=True)
        )
        return "" if same else f"another file is at {shown(target)}"
    try:
        if how == "link" and source.exists():
            link_file(source, target)
        else:
            copy_file(source, target, scratch)
    except (FileNotFoundError, PermissionError) as error:
        return error.strerror or str(error)
    return ""


def _expect_ours(new: Path, work: Layout) -> None:
    """Raise where a folder holds what this export would not have written."""
    if os.path.lexists(new) and not new.is_dir():
        raise DataError(f"{shown(new)} is not a folder. Choose a folder that is new or empty.")
    ours = {new / item.place for item in work.items} | {new / work.table}
    ours |= {folder for path in ours for folder in path.parents}
    leftovers = (LOCK, ".export.", f".{work.table.name}.")
    for path in new.rglob("*"):
        name = path.relative_to(new)
        if path not in ours and not any(part.startswith(leftovers) for part in name.parts):
            raise DataError(
                f"{shown(new)} holds other files or another export, such as {shown(name)}. Choose a folder that is "
                "new or empty."
            )
