"""A folder to practice on: embedded images in color, uneven classes, and everything that is wrong with real folders.

Clothes of fashion-mini get a color and a background, emoji a background, digits ink and paper. Nothing of the folder
tells what an image shows: who made it is given the truth, for evaluation only.
"""

from __future__ import annotations

import colorsys
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from labkit._files import user_path
from labkit._inputs import is_whole
from labkit.data.datasets import load_dataset
from labkit.data.decoding import read_image
from labkit.errors import DataError, quote, shown
from labkit.own.files import write_file

Drawn = Callable[[Image.Image, np.random.Generator], Image.Image]

SIDE = 144  # pixels of what an image shows
GRAIN = 8.0  # levels of noise, as a camera adds, so that blurred images differ from sharp ones
PLACES = ("", "", "phone", "phone/2024", "downloads")  # sub-folders, some more common than others
ENDINGS = (".jpg", ".jpg", ".jpg", ".jpg", ".png", ".webp")  # likewise
ORIENTATION = 0x0112  # the EXIF tag that says which side is up
ODD, KIND = "odd one out", "sneakers"  # what the receipt is called; a kind with images to spare


@dataclass(frozen=True)
class _Source:
    """Where the images of a kind come from, and how many the folder and the later one get."""

    dataset: str
    classes: tuple[str, ...]
    drawn: Drawn
    n: int
    n_later: int = 0


# ------------------------------------------------------------------------------------------------------ what they show


def _paper(random: np.random.Generator, *, saturation: tuple[float, float] = (0.1, 0.45)) -> np.ndarray:
    """A background in one color, darker to one side, with grain: (SIDE, SIDE, 3) levels."""
    light = 255 * np.array(
        colorsys.hsv_to_rgb(random.random(), random.uniform(*saturation), random.uniform(0.75, 0.98))
    )
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angle = random.uniform(0, 2 * np.pi)
    shade = (np.cos(angle) * x + np.sin(angle) * y + 0.5).clip(0, 1)[..., None] * random.uniform(0.15, 0.4)
    return np.asarray(light * (1 - shade) + random.normal(0, GRAIN, (SIDE, SIDE, 1)))


def _laid_on(paper: np.ndarray, levels: np.ndarray, mask: np.ndarray) -> Image.Image:
    """`levels` (SIDE, SIDE, 3) where the mask (SIDE, SIDE) is 1, the paper where it is 0."""
    mixed = paper * (1 - mask[..., None]) + levels * mask[..., None]
    return Image.fromarray(np.rint(mixed.clip(0, 255)).astype(np.uint8))


def _enlarged(levels: np.ndarray) -> np.ndarray:
    """Levels 0 to 255 (h, w) as fractions at full size, (SIDE, SIDE)."""
    image = Image.fromarray(levels.astype(np.uint8))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float) / 255


def _clothing(image: Image.Image, random: np.random.Generator) -> Image.Image:
    gray = np.asarray(image.convert("L"))
    dye = 255 * np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0.5, 0.95), 1.0))
    color = _enlarged(gray)[..., None] * (64 + 0.75 * dye)
    return _laid_on(_paper(random), color, _enlarged(np.where(gray > 12, 255, 0)))


def _emoji(image: Image.Image, random: np.random.Generator) -> Image.Image:
    mark = (1, 2, 3)  # a color that no emoji has
    flooded = image.convert("RGB")
    corners = [(x, y) for x in (0, image.width - 1) for y in (0, image.height - 1)]
    for corner in corners:
        if flooded.getpixel(corner) == (255, 255, 255):
            ImageDraw.floodfill(flooded, corner, mark, thresh=10)
    mask = (np.asarray(flooded) != mark).any(2)
    levels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=float)
    return _laid_on(_paper(random), levels, _enlarged(np.where(mask, 255, 0)))


def _number(image: Image.Image, random: np.random.Generator) -> Image.Image:
    ink = 255 * np.array(colorsys.hsv_to_rgb(random.random(), 0.8, 0.45))
    strokes = _enlarged(np.pad(np.asarray(image.convert("L")), 1))
    return _laid_on(_paper(random, saturation=(0.03, 0.12)), np.broadcast_to(ink, (SIDE, SIDE, 3)), strokes)


def _receipt(random: np.random.Generator) -> Image.Image:
    """Lines of print on white: what has no place in any cluster."""
    image = Image.new("RGB", (SIDE, 2 * SIDE), "white")
    draw = ImageDraw.Draw(image)
    for line in range(18):
        x = 12
        while x < SIDE - 24:
            width = int(random.integers(4, 22))
            draw.rectangle((x, 14 + 14 * line, x + width, 19 + 14 * line), fill=(40, 40, 48))
            x += width + 5
    return image


KINDS = {
    KIND: _Source("fashion-mini", ("Sneaker",), _clothing, 80, 6),
    "trousers": _Source("fashion-mini", ("Trouser",), _clothing, 56, 5),
    "faces": _Source("emoji-unseen", ("face",), _emoji, 48, 4),
    "bags": _Source("fashion-mini", ("Bag",), _clothing, 40, 4),
    "animals": _Source("emoji-unseen", ("animal",), _emoji, 36, 4),
    "dresses": _Source("fashion-mini", ("Dress",), _clothing, 28, 3),
    "vehicles": _Source("emoji-unseen", ("vehicle",), _emoji, 22, 2),
    "numbers": _Source("digits", (), _number, 16, 2),
}
UNSEEN = {  # kinds that only the later folder has
    "clocks": _Source("emoji-unseen", ("clock",), _emoji, 0, 5),
    "plants": _Source("emoji-unseen", ("plant",), _emoji, 0, 5),
}


def _drawn(source: _Source, random: np.random.Generator, split: str) -> Iterator[Image.Image]:
    """The images of a kind in random order."""
    dataset = load_dataset(source.dataset, split)
    wanted = [dataset.classes.index(name) for name in source.classes] or range(len(dataset.classes))
    for row in random.permutation(np.flatnonzero(np.isin(dataset.labels, wanted))).tolist():
        yield source.drawn(dataset[row][0], random)


# -------------------------------------------------------------------------------------------------------------- folders


def make_sample_folder(path: str | os.PathLike[str], random_state: int = 0) -> pd.DataFrame:
    """Write a folder of some 340 files as people have them, the same for the same `random_state`.

    Eight kinds of images, the largest five times as frequent as the smallest; in sub-folders; as JPEG, PNG, WebP and
    GIF; one on its side with a note in its EXIF data; exact and near duplicates; blurred, blank and tiny images; one of
    no kind; and files that are no images: cut short, empty, a text named .jpg, a film.

    Args:
        path: the folder, which is made; it must be empty if it is there.
        random_state: a seed.

    Returns:
        The truth, which is for evaluation only, a row for each file in the order of the names: `file` (below the
        folder, posix), `kind` ("" where a file shows nothing), `note` (what is special about it, "" mostly).

    Raises:
        DataError: the folder holds something, or cannot be written.
    """
    random, folder = _generator(random_state), _empty_folder(path)
    made: list[tuple[Image.Image | bytes, str, str]] = []  # image or content, kind, note
    spare: dict[str, Iterator[Image.Image]] = {}
    for kind, source in KINDS.items():
        spare[kind] = _drawn(source, random, "train")
        made += [(next(spare[kind]), kind, "") for _ in range(source.n)]
    for kind in ("trousers", "faces", "bags", KIND):
        made.append((next(spare[kind]).filter(ImageFilter.GaussianBlur(9)), kind, "blurred"))
    for kind in (KIND, "faces"):
        made.append((next(spare[kind]).resize((16, 16), Image.Resampling.LANCZOS), kind, "tiny"))
    made.append((next(spare[KIND]).convert("L"), KIND, "gray"))
    made.append((next(spare["animals"]), "animals", "on its side"))
    made.append((Image.new("RGB", (SIDE, SIDE), (9, 9, 11)), "", "blank"))
    made.append((Image.new("RGB", (SIDE, SIDE), (252, 252, 250)), "", "blank"))
    made.append((_receipt(random), ODD, ODD))
    made.append((_jpeg(next(spare["bags"]))[:1500], "", "cut short"))
    made.append((b"", "", "empty"))
    made.append((b"Dear Ada,\nthe photographs are in the other folder.\n", "", "text named .jpg"))
    made.append((b"\0\0\0\x18ftypqt  " + bytes(64), "", "film"))

    rows = _write_all(folder, made, random)
    sources = [*_some(rows, "trousers", 2), *_some(rows, "bags", 1), *_some(rows, "vehicles", 1)]
    rows += [_write_copy(folder, row, i, exact=row["kind"] == "vehicles") for i, row in enumerate(sources, 1)]
    return _table(rows)


def make_later_folder(path: str | os.PathLike[str], random_state: int = 0) -> pd.DataFrame:
    """Write a folder of 40 images that came later: of the kinds of `make_sample_folder`, and ten of two new kinds.

    Args:
        path: the folder, which is made; it must be empty if it is there.
        random_state: a seed.

    Returns:
        The truth as in `make_sample_folder`; the note of a new kind is "new kind".

    Raises:
        DataError: the folder holds something, or cannot be written.
    """
    random, folder = _generator(random_state), _empty_folder(path)
    made: list[tuple[Image.Image | bytes, str, str]] = []
    for kind, source in (KINDS | UNSEEN).items():
        images = _drawn(source, random, "test")
        made += [(next(images), kind, "new kind" if kind in UNSEEN else "") for _ in range(source.n_later)]
    return _table(_write_all(folder, made, random))


def _generator(random_state: int) -> np.random.Generator:
    if not is_whole(random_state, 0):
        raise DataError(f"random_state is {quote(random_state)}. Expected a whole number from 0 on.")
    return np.random.default_rng(int(random_state))


def _empty_folder(path: str | os.PathLike[str]) -> Path:
    folder = user_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = next((inside.name for inside in sorted(folder.iterdir())), None)
    except OSError as error:
        raise DataError(f"the folder {shown(folder)} cannot be made ({error}). Choose another one.") from error
    if held is not None:
        raise DataError(f"the folder {shown(folder)} holds {quote(held)}. Expected an empty folder, or none.")
    return folder


# ---------------------------------------------------------------------------------------------------------------- files


def _write_all(
    folder: Path, made: list[tuple[Image.Image | bytes, str, str]], random: np.random.Generator
) -> list[dict[str, str]]:
    """Write each image or content under a number, in random order; a row of the table for each."""
    rows = []
    for number, i in enumerate(random.permutation(len(made)).tolist(), 1):
        image, kind, note = made[i]
        place = PLACES[int(random.integers(len(PLACES)))]
        ending = ENDINGS[int(random.integers(len(ENDINGS)))]
        ending = {"film": ".mov", "empty": ".png", "tiny": ".gif", "gray": ".png"}.get(note, ending)
        ending = ".jpg" if note in ("text named .jpg", "cut short", "on its side") else ending
        name = f"{place}/IMG_{number:04}{ending}".lstrip("/")
        write_file(folder / name, image if isinstance(image, bytes) else _encoded(image, ending, note))
        rows.append({"file": name, "kind": kind, "note": note})
    return rows


def _encoded(image: Image.Image, ending: str, note: str) -> bytes:
    if ending == ".jpg":
        return _jpeg(image, on_its_side=note == "on its side")
    settings = {".webp": {"quality": 85}}.get(ending, {})
    return _saved(image, {".png": "PNG", ".gif": "GIF", ".webp": "WEBP"}[ending], **settings)


def _jpeg(image: Image.Image, *, on_its_side: bool = False, quality: int = 90) -> bytes:
    exif = Image.Exif()
    if on_its_side:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = 6  # turn it by 90 degrees clockwise to show it
    return _saved(image, "JPEG", quality=quality, exif=exif)


def _saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return content.getvalue()


def _some(rows: list[dict[str, str]], kind: str, n: int) -> list[dict[str, str]]:
    """The first ordinary JPEG files of a kind."""
    plain = [row for row in rows if row["kind"] == kind and not row["note"] and row["file"].endswith(".jpg")]
    return plain[:n]


def _write_copy(folder: Path, row: dict[str, str], number: int, *, exact: bool) -> dict[str, str]:
    """Write an image once more: the same bytes, or as a messenger sends it, smaller and a little lighter."""
    original, name = folder / row["file"], f"downloads/copy_{number}.jpg"
    if exact:
        content, note = original.read_bytes(), f"duplicate of {row['file']}"
    else:
        image = read_image(original)
        smaller = image.resize((SIDE * 3 // 4, SIDE * 3 // 4), Image.Resampling.LANCZOS)
        content = _jpeg(smaller.point(lambda level: min(255, level + 6)), quality=70)
        note = f"near duplicate of {row['file']}"
    write_file(folder / name, content)
    return {"file": name, "kind": row["kind"], "note": note}


def _table(rows: list[dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values("file", ignore_index=True)
