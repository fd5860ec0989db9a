"""A folder of images sorted into classes: scan, feature spaces, clusters, names, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.data.manifests import load_manifest
from labkit.errors import DataError
from labkit.own.files import expect_places, file_cell, image_files, name_unreadable, word_cell, write_file, write_table
from labkit.own.sheet import make_sheet
from labkit.spaces.backbones import load_backbone
from labkit.spaces.features import extract_features
from labkit.turtle import Turtle

if TYPE_CHECKING:
    from labkit.data.schema import Manifest
    from labkit.spaces.backbones import Backbone
    from labkit.zeroshot.naming import Names


DEFAULT_SPACES = ("efficientnet-lite0",)  # where TURTLE looks for classes unless told otherwise


@dataclass(frozen=True)
class Clustered:
    """What `cluster_folder` found: how many images in how many clusters that are not empty, and their names."""

    n_images: int
    n_clusters: int
    names: Names | None


def cluster_folder(
    folder: Path,
    n_classes: int,
    *,
    backbones: Sequence[str] | None = None,
    out: Path,
    sheet: Path | None = None,
    words: list[str] | None = None,
    words_file: Path | None = None,
    n_restarts: int,
    seed: int,
) -> Clustered:
    """Cluster the images of a folder with TURTLE, and write a table of them and a contact sheet.

    Args:
        folder: the images.
        n_classes: how many classes to look for.
        backbones: names of the feature spaces; None is `DEFAULT_SPACES`.
        out: the CSV to write.
        sheet: the contact sheet to write, .html or .png.
        words: a vocabulary; the clusters are named with its words.
        words_file: where the words are from, which is not to be replaced.
        n_restarts: runs of TURTLE; the most confident is kept.
        seed: of random numbers.

    Raises:
        LabkitError: anything that does not work, before the work where it can be known. The table is written first.
    """
    manifest = load_manifest(folder)
    paths = image_files(manifest)
    if n_classes > len(paths):
        raise DataError(f"--classes is {n_classes}, but {folder} holds {len(paths)} images. Ask for fewer.")
    expect_places(
        {"--out": out} | ({} if sheet is None else {"--sheet": sheet}),
        {"one of the images": paths, "the file of words": [] if words_file is None else [words_file]},
    )
    if sheet is not None and sheet.suffix == ".png" and Path(os.path.realpath(sheet)).is_relative_to(folder.resolve()):
        raise DataError(f"the contact sheet {sheet} would be an image of {folder} next time. Choose another folder.")
    loaded = [load_backbone(name) for name in backbones or DEFAULT_SPACES]
    image_text = load_backbone("pocket-clip") if words else None  # before the work, for it may be missing
    with name_unreadable(manifest):
        spaces = [_extract(backbone, manifest) for backbone in loaded]
    turtle = Turtle(n_classes, n_restarts=n_restarts, random_state=seed, progress=True)
    probs = turtle.fit(spaces).predict_proba(spaces)  # (n, C)
    named = _name(probs, image_text, _extract(image_text, manifest), words) if words and image_text else None
    if image_files(manifest) != paths:
        raise DataError(f"images came or went in {folder} while it was read. Run the command again.")

    labels, confidence = probs.argmax(1), probs.max(1)
    names = [words[i] for i in named.assignment] if named and words else None
    rows = [
        [file_cell(path, folder.resolve()), label, f"{c:.4f}", *([word_cell(names[label])] if names else [])]
        for path, label, c in zip(paths, labels, confidence, strict=True)
    ]
    write_table(out, ["file", "cluster", "confidence", *(["name"] if names else [])], rows)
    if sheet is not None:
        try:
            write_file(sheet, make_sheet(sheet.suffix, paths, labels, confidence, names))
        except DataError as error:
            raise DataError(f"{error} The clusters are in {out}.") from error
    return Clustered(len(paths), len(np.unique(labels)), named)


def _extract(backbone: Backbone, manifest: Manifest) -> np.ndarray:
    """Features of all splits, one after another."""
    return np.concatenate(
        [extract_features(backbone, manifest, split=split, progress=True) for split in manifest.splits]
    )


def _name(probs: np.ndarray, backbone: Backbone, features: np.ndarray, words: list[str]) -> Names:
    """A word for each cluster of the labeling `probs` (n, C)."""
    from labkit.zeroshot.naming import name_by_model
    from labkit.zeroshot.prompts import Prompts

    return name_by_model(probs, backbone, features, Prompts.from_words(words, templates=("{}", "a photo of a {}.")))
