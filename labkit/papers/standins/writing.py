"""Write stand-ins into a folder: each dataset appears atomically, and a killed call is taken up again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labkit._files import atomic_write, locked_folder, open_regular, temporary_folder, user_path
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.schema import Archive, HuggingFace, Manifest, Manual, Torchvision, WebDataset
from labkit.data.stand_ins import FILE
from labkit.errors import DataError, did_you_mean, quote, shorten, shown
from labkit.papers.standins import arrays, files
from labkit.papers.standins.hub import write_parquet, write_webdataset
from labkit.papers.standins.layouts import small_draw, write_layout
from labkit.papers.standins.miniature import Miniature

MARK = ".labkit-stand-in"  # an empty file in every place that a stand-in takes in the data folder
FORMAT = 1
# of the index: for each id the sizes of its splits, what its draw has instead, and what `per_class` was
KEYS = ("splits", "draws", "per_class")
MOST = 1000  # images of a class in a split
Writer = Callable[[Miniature], None]

TORCHVISION: dict[str, Writer] = {
    "CIFAR10": arrays.write_cifar10,
    "CIFAR100": arrays.write_cifar100,
    "DTD": files.write_dtd,
    "FGVCAircraft": files.write_fgvc_aircraft,
    "Flowers102": files.write_flowers102,
    "Food101": files.write_food101,
    "GTSRB": files.write_gtsrb,
    "MNIST": arrays.write_mnist,
    "OxfordIIITPet": files.write_oxford_pets,
    "RenderedSST2": files.write_rendered_sst2,
    "STL10": arrays.write_stl10,
}


def write_stand_ins(
    folder: str | os.PathLike[str],
    ids: Sequence[str] | None = None,
    *,
    per_class: tuple[int, int] = (2, 1),
    progress: bool = False,
) -> dict[str, dict[str, int]]:
    """Write a miniature of each dataset in its true layout, so that its loader reads it without a network.

    Names of classes and files, annotations and image modes are those of the real set; images are small, and each class
    has colors and stripes of its own. With the folder in $LABKIT_DATA, `load_manifest` gives the manifests with the
    sizes of the stand-ins; where splits are drawn, with the real rule and smaller numbers. The same call makes the same
    bytes; what is there already is left as it is.

    Args:
        folder: a new or empty folder, or one that this function filled.
        ids: of datasets, as in `list_manifests`; None is all that can have one, those of the papers among them.
        per_class: how many images each class has in train (from 2, since some sets join two parts) and in test (from
            1).
        progress: show a progress bar.

    Returns:
        {id: {split: size}} of all stand-ins in the folder, which its file stand-ins.json has as well.

    Raises:
        DataError: an id or a number is wrong, the folder holds other things or cannot be written, or a package that
            writes a format is missing.
    """
    n_train, n_test = _expect_numbers(per_class)
    manifests = _manifests(ids)
    target = user_path(folder)
    try:
        with locked_folder(target, wait=True):
            index = _read_index(target)
            wanted = [m for m in manifests if index["per_class"].get(m.id) != [n_train, n_test]]
            for manifest in _bar(wanted, progress):
                _write_one(target, index, manifest, n_train, n_test)
    except OSError as error:
        raise DataError(f"stand-ins cannot be written to {shown(target)} ({error}). Give another folder.") from error
    return dict(index["splits"])


def _writer_of(manifest: Manifest) -> Writer | None:
    source = manifest.source
    if isinstance(source, Torchvision):
        return TORCHVISION.get(source.dataset)
    if isinstance(source, Archive | Manual):
        return write_layout if source.layout is not None else None
    if isinstance(source, HuggingFace):
        return write_parquet
    return write_webdataset if isinstance(source, WebDataset) else None


def _expect_numbers(per_class: object) -> tuple[int, int]:
    numbers = per_class if isinstance(per_class, tuple | list) else ()
    if len(numbers) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        n_train, n_test = numbers
        if 2 <= n_train <= MOST and 1 <= n_test <= MOST:
            return n_train, n_test
    raise DataError(
        f"per_class is {quote(per_class)}. Expected two whole numbers, the images of each class in train (2 to {MOST}) "
        f"and in test (1 to {MOST})."
    )


def _manifests(ids: object) -> list[Manifest]:
    """Of these datasets, or of all that can have a stand-in."""
    if ids is None:
        return [manifest for manifest in map(load_manifest, list_manifests()) if _writer_of(manifest) is not None]
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise DataError(f"ids is {quote(ids)}. Expected a list of datasets, such as ['cifar10'], or None for all.")
    known, found = list_manifests(), []
    for name in dict.fromkeys(ids):
        if name not in known:
            hint = did_you_mean(name, known) if isinstance(name, str) else ""
            raise DataError(f"there is no dataset {quote(name)}.{hint} Expected datasets among {', '.join(known)}.")
        found.append(load_manifest(name))
        if _writer_of(found[-1]) is None:
            raise DataError(f"{name} has no stand-in, since it ships with labkit. Leave it out of ids.")
    return found


def _bar(manifests: list[Manifest], progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(manifests, desc="stand-ins", unit="set", disable=not progress)


def _read_index(folder: Path) -> dict[str, Any]:
    """What stand-ins.json says; written where the folder is empty, so that all that follows in it is ours.

    Raises:
        DataError: the folder holds other things, or the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        strangers = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".labkit-"))
        if strangers:
            raise DataError(
                f"{shown(folder)} holds {shorten(', '.join(map(shown, strangers[:3])))} and no {FILE}: stand-ins are "
                "not written among other data. Give a new or an empty folder."
            )
        _save_index(folder, {"format": FORMAT} | {key: {} for key in KEYS})
    try:
        with open_regular(path) as file:
            index = json.loads(file.read())
        if index["format"] != FORMAT or not all(isinstance(index[key], dict) for key in KEYS):
            raise ValueError(f"it has not the format {FORMAT}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{shown(path)} is damaged ({shorten(str(error), 100)}). Delete the folder, or give another one."
        ) from error
    return index


def _save_index(folder: Path, index: dict[str, Any]) -> None:
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")


def _write_one(folder: Path, index: dict[str, Any], manifest: Manifest, n_train: int, n_test: int) -> None:
    """Write a dataset beside, then take it off the index, move it into its place and put it on the index."""
    writer = _writer_of(manifest)
    assert writer is not None
    with temporary_folder(folder, ".labkit-new-") as beside:
        root = beside / "data"
        root.mkdir()
        mini = Miniature(manifest, root, n_train, n_test)
        writer(mini)
        if any([index[key].pop(manifest.id, None) for key in KEYS]):
            _save_index(folder, index)
        for place in _places(root):
            (root / place / MARK).touch()
            _move(root / place, folder / place, beside)
    index["splits"][manifest.id] = mini.sizes()
    index["per_class"][manifest.id] = [n_train, n_test]
    if draw := small_draw(mini):
        index["draws"][manifest.id] = draw
    _save_index(folder, index)


def _places(root: Path) -> list[Path]:
    """The folders that a dataset takes in the data folder; in that of the hub, many have one each."""
    return sorted(
        place.relative_to(root)
        for entry in root.iterdir()
        for place in (entry.iterdir() if entry.name == "hub" else [entry])
    )


def _move(source: Path, target: Path, beside: Path) -> None:
    """Move a folder to its place, and what an earlier or a killed call left there away.

    Raises:
        DataError: what is there is no stand-in.
    """
    if os.path.lexists(target):
        if not (target / MARK).exists():
            raise DataError(
                f"{shown(target)} is there and no stand-in: it is not replaced. Move it away, or give another folder."
            )
        target.rename(beside / "old")
        shutil.rmtree(beside / "old")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
