"""Reading: one pass over the photographs of a folder, each decoded once, for all that is made of it.

From one decoding come an image's facts, its thumbnail and the pixels of every backbone. Threads decode at most one
batch ahead of the networks, so memory does not grow with the number of files (features aside).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit._files import open_regular
from labkit.data.decoding import DECODING, use_image
from labkit.data.folders import Listing, list_images
from labkit.data.formats import ending, readable_formats
from labkit.data.images import file_identity
from labkit.devices import cpu_count
from labkit.errors import DataError, quote, shown
from labkit.own.facts import facts_of
from labkit.own.kept import (
    FACTS,
    PART,
    VERSION,
    Found,
    Read,
    Thumbnails,
    make_part,
    part_folders,
    take_parts,
    tidy,
    writable_folder,
    write_part,
)
from labkit.spaces.backbones import Backbone

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

BATCH = 32  # images in a pass of a network, and decoded ahead of it
AT_LEAST = 512  # pixels of an image's shorter side that facts are made of: twice what they are measured at


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of a folder of n images that can be read.

    Attributes:
        root: the folder.
        files: (n) paths, sorted.
        facts: n rows: width and height in pixels (of the original, the right way up), format, sharpness, contrast, hash
            (perceptual, 64 bits) and content (64 bits of a digest of the pixels).
        thumbnails: n JPEGs, longest side 128 pixels, read from disk when they are asked for.
        features: {name of the backbone: (n, d) float32}.
        left_out: {path: why it is no image that can be read}.
        others: {ending: how many files with it were taken for no images}.
        identity: a SHA-256 that tells these files from others, by path below the root, size, time and a sample of the
            content.
    """

    root: Path
    files: list[Path]
    facts: pd.DataFrame
    thumbnails: Sequence[bytes]
    features: dict[str, np.ndarray]
    left_out: dict[Path, str]
    others: dict[str, int]
    identity: str

    def below(self, path: Path) -> str:
        """A path as text, below the folder where it is."""
        return below(path, self.root)


def below(path: Path, root: Path) -> str:
    """A path as text, with slashes, below a folder where it is."""
    return shown((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())


@dataclass(frozen=True)
class _Decoded:
    read: Read
    pixels: list[np.ndarray]  # of each backbone, uint8 (h, w, c)


@dataclass(frozen=True)
class _Failed:
    why: str
    lasts: bool  # whether it would fail again: not where memory or a disk failed


def read_folder(root: Path, backbones: Sequence[Backbone], *, strict: bool = False, progress: bool = False) -> Reading:
    """Read all images of a folder, whatever its sub-folders: facts, thumbnails, and features in every space.

    What was read is kept in labkit's cache, in parts of 256 files: a second run decodes what is new or has changed, and
    one that was killed goes on. Files that cannot be read are left out, with the reason. Nothing in the folder is
    changed.

    Args:
        root: the folder.
        backbones: the feature spaces, of different names; none for facts and thumbnails alone.
        strict: raise where a file is left out; all that can be read is read before.
        progress: show a progress bar.

    Raises:
        DataError: there is no image that can be read, a file is left out and `strict`, the cache cannot be written, or
            a feature is not finite.
    """
    root = Path(root)
    by_name = {backbone.name: backbone for backbone in backbones}
    if len(by_name) < len(backbones):
        names = [backbone.name for backbone in backbones]
        raise DataError(f"backbones are {quote(names)}. Expected each name once.")
    listing = list_images(root)
    if not listing.files and not listing.left_out:
        raise DataError(f"{shown(root)} holds no images. Expected files such as .jpg, .png, .webp, .tif, .heic.")
    left_out = dict(listing.left_out)
    files, identities = _identify(listing.files, root, left_out)
    settings = {"version": f"{VERSION}.{DECODING}", "decoders": _decoders()}
    columns = {_column(backbone): backbone for backbone in backbones}
    found = Found(identities, {column: backbone.dim for column, backbone in columns.items()}, settings)
    folders = part_folders(root)
    take_parts(folders, found)
    if any(found.missing(row) for row in range(len(files))):
        with writable_folder(folders) as folder:
            take_parts([folder], found, mend=True)  # another process has read them while this one waited
            _read_missing(files, found, columns, folder, progress)
    else:
        for folder in folders:
            tidy(folder)
    left_out |= {files[row]: why for row, why in found.failed.items()}
    if strict and left_out:
        raise DataError(_all_left_out(left_out, root))
    if len(found.failed) == len(files):
        raise DataError(f"{shown(root)} holds no image that can be read: {_all_left_out(left_out, root)}")
    return _reading(root, files, found, columns, dict(sorted(left_out.items())), listing)


def _identify(files: Sequence[Path], root: Path, left_out: dict[Path, str]) -> tuple[list[Path], list[str]]:
    """The files that can be opened, and what tells each from others; why not goes into `left_out`."""
    opened, identities = [], []
    for path in files:
        try:
            identities.append(hashlib.sha256(file_identity(path, root)).hexdigest())
            opened.append(path)
        except DataError as error:
            left_out[path] = f"it cannot be opened: {getattr(error.__cause__, 'strerror', None) or error}"
    return opened, identities


def _decoders() -> str:
    """What files are read with: where this changes, a file that could not be read is tried again."""
    from PIL import __version__

    plugins = [name for name in ("pillow_avif", "pillow_heif") if importlib.util.find_spec(name)]
    return " ".join([__version__, *plugins])


def _column(backbone: Backbone) -> str:
    """Under which the features of a backbone are kept: its weights, its preprocessing and its dtype."""
    return f"{backbone.fingerprint} {str(backbone.dtype).removeprefix('torch.')}"


def _all_left_out(left_out: dict[Path, str], root: Path) -> str:
    named = "; ".join(f"{below(path, root)} ({why})" for path, why in sorted(left_out.items()))
    return f"{len(left_out)} files cannot be read: {named}. Replace them or take them away."


def _reading(
    root: Path,
    files: list[Path],
    found: Found,
    columns: dict[str, Backbone],
    left_out: dict[Path, str],
    listing: Listing,
) -> Reading:
    import pandas as pd

    rows = [row for row in range(len(files)) if row not in found.failed]
    facts = pd.DataFrame(
        {
            "width": found.sizes[rows, 0],
            "height": found.sizes[rows, 1],
            "format": [found.formats[row] for row in rows],
            "sharpness": found.measures[rows, 0],
            "contrast": found.measures[rows, 1],
            "hash": found.hashes[rows, 0],
            "content": found.hashes[rows, 1],
        }
    )
    whole = len(rows) == len(files)  # then nothing needs to be held twice
    features = {
        backbone.name: found.features[column] if whole else found.features[column][rows]
        for column, backbone in columns.items()
    }
    identity = hashlib.sha256("".join(found.identities[row] for row in rows).encode()).hexdigest()
    return Reading(
        root=root,
        files=[files[row] for row in rows],
        facts=facts,
        thumbnails=Thumbnails([place for row in rows if (place := found.thumbnails[row]) is not None]),
        features=features,
        left_out=left_out,
        others=listing.others,
        identity=identity,
    )


# ------------------------------------------------------------------------------------------------------------- the pass


def _read_missing(
    files: Sequence[Path], found: Found, columns: dict[str, Backbone], folder: Path, progress: bool
) -> None:
    """Read what is missing, part by part.

    Parts are cut the same way whether a run before was killed or not, and so are the batches within them: features of
    a batch may differ in their last bits from those of another batch.
    """
    todo: dict[tuple[str, ...], list[int]] = {}
    for row in range(len(files)):
        if missing := found.missing(row):
            todo.setdefault(missing, []).append(row)
    parts = [
        (missing, rows[start : start + PART]) for missing, rows in todo.items() for start in range(0, len(rows), PART)
    ]
    batches = [
        (missing, rows[start : start + BATCH]) for missing, rows in parts for start in range(0, len(rows), BATCH)
    ]
    decoded = _decode_ahead(files, batches, columns)
    total = sum(len(rows) for _, rows in parts)
    with tqdm(total=total, desc="reading", unit="file", disable=not progress, dynamic_ncols=True) as bar:
        for missing, rows in parts:
            read: dict[str, Read] = {}
            failed: dict[str, str] = {}
            features: dict[str, list[torch.Tensor]] = {column: [] for column in missing if column != FACTS}
            for start in range(0, len(rows), BATCH):
                batch = dict(zip(rows[start : start + BATCH], next(decoded), strict=True))
                whole = {row: one for row, one in batch.items() if isinstance(one, _Decoded)}
                read |= {found.identities[row]: one.read for row, one in whole.items()}
                for row, one in batch.items():
                    if isinstance(one, _Failed):
                        found.failed[row] = one.why
                        failed |= {found.identities[row]: one.why} if one.lasts else {}
                for k, column in enumerate(features):
                    if whole:
                        pixels = [one.pixels[k] for one in whole.values()]
                        features[column].append(_encode(columns[column], pixels, [files[row] for row in whole]))
                bar.update(len(batch))
            tensors = {column: torch.cat(encoded) for column, encoded in features.items() if encoded}
            part = make_part(found.settings, read, tensors, failed)
            found.take(write_part(folder, *part), *part)


def _decode_ahead(
    files: Sequence[Path],
    batches: Sequence[tuple[tuple[str, ...], list[int]]],
    columns: dict[str, Backbone],
) -> Iterator[list[_Decoded | _Failed]]:
    """What is made of each file of a batch, by threads (Pillow lets them run side by side), one batch ahead."""
    with ThreadPoolExecutor(cpu_count()) as pool:

        def submit(batch: tuple[tuple[str, ...], list[int]]) -> list[Future[_Decoded | _Failed]]:
            missing, rows = batch
            wanted = [columns[column] for column in missing if column != FACTS]
            return [pool.submit(_decode, files[row], wanted, FACTS in missing) for row in rows]

        waiting = iter(batches)
        pending = submit(next(waiting, ((), [])))
        while pending:
            ready, pending = pending, submit(next(waiting, ((), [])))
            yield [future.result() for future in ready]


def _decode(path: Path, backbones: Sequence[Backbone], with_facts: bool) -> _Decoded | _Failed:
    """What is made of one file, or why it cannot be read.

    It is decoded once, no smaller than is enough for all; so what is made of a large JPEG may depend, by a hair, on
    what else is made of it at the same time.
    """
    enough = [backbone.preprocess.at_least for backbone in backbones] + [AT_LEAST] * with_facts
    at_least = None if None in enough else max(side for side in enough if side is not None)

    def use(image: Image.Image) -> _Decoded:
        size, kind = _header(path) if with_facts else (image.size, "")
        read = Read(size or image.size, kind, facts_of(image) if with_facts else None)
        return _Decoded(read, [backbone.preprocess(image) for backbone in backbones])

    try:
        return use_image(path, use, at_least)
    except DataError as error:
        cause = error.__cause__
        fleeting = isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None)
        why = str(error).removeprefix(f"the image {shown(path)} cannot be read").lstrip(": ")
        why = re.sub(r"^\((.*)\)\. (?=It is )", r"\1. ", why, flags=re.DOTALL)  # the reason, then what to do
        return _Failed(why, lasts=not fleeting)


def _header(path: Path) -> tuple[tuple[int, int] | None, str]:
    """Width and height, the right way up, and the format, as the header says."""
    from PIL import ExifTags, Image

    formats = readable_formats(ending(path.name))
    try:
        with open_regular(path) as file, Image.open(file, formats=formats) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size, image.format or ""
    except Exception:  # damaged EXIF beside whole pixels
        return None, ""


def _encode(backbone: Backbone, pixels: list[Any], files: Sequence[Path]) -> torch.Tensor:
    """Features (b, d) float32 on the CPU of a batch of b images, each uint8 (h, w, c)."""
    features = backbone.encode_image(torch.from_numpy(np.stack(pixels))).cpu()
    finite = torch.isfinite(features).all(1)
    if not finite.all():
        bad = files[int(finite.int().argmin())]
        raise DataError(
            f"{backbone.name} gives features that are not finite for {shown(bad)}. Look at that image, or load the "
            "backbone on a device with a wider dtype."
        )
    return features
