"""Words for the images of a folder, from an image-text model: the nearest word to each, with no clusters in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.errors import BackboneError, DataError, quote
from labkit.own.files import expect_places, file_cell, word_cell, write_table
from labkit.own.reading import Reading, read_folder
from labkit.spaces.backbones import load_backbone
from labkit.zeroshot.classifier import ZeroShot
from labkit.zeroshot.prompts import Prompts

BUNDLED = "pocket-clip"  # small enough to ship
LARGER = "clip-vit-b32"  # trained on photographs, from the hub once


@dataclass(frozen=True, eq=False)
class Named:
    """A word for each of the n images of a folder that can be read.

    Attributes:
        reading: the images.
        words: V of them.
        probs: (n, V).
        is_centered: whether what all images share was taken off, see `ZeroShot`.
    """

    reading: Reading
    words: list[str]
    probs: np.ndarray
    is_centered: bool

    def counts(self) -> list[tuple[str, int]]:
        """How many images each word has, most first."""
        counts = np.bincount(self.probs.argmax(1), minlength=len(self.words))
        return [(self.words[k], int(counts[k])) for k in np.argsort(-counts, kind="stable")]


def name_folder(
    folder: Path,
    words: Sequence[str],
    out: Path | None = None,
    *,
    backbone: str = BUNDLED,
    words_file: Path | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Named:
    """The most probable of the words for each image of a folder.

    The mean image is taken off where that makes the answers more even (`ZeroShot`, center="auto").

    Args:
        folder: the images, at any depth below it.
        words: at least two, all different.
        out: a CSV to write: file, name, confidence.
        backbone: name of the image-text model.
        words_file: where the words are from, which is not to be replaced.
        strict: raise where an image cannot be read.
        progress: show a progress bar.

    Raises:
        LabkitError: the model has no text tower, no image can be read, or the CSV cannot be written.
    """
    words = list(words)
    if len(words) < 2 or len(set(words)) < len(words):
        raise DataError(f"the words are {quote(words)}. Expected at least two, all different, to choose from.")
    places = {} if out is None else {"--out": out}
    expect_places(places, {"the file of words": [] if words_file is None else [words_file]}, folder)
    model = load_backbone(backbone)
    if model.tokenize is None:
        raise BackboneError(
            f"{backbone} knows images and no words. Expected an image-text model, such as {BUNDLED} or {LARGER}."
        )
    reading = read_folder(folder, [model], strict=strict, progress=progress)
    expect_places(places, {"one of the images": reading.files})
    prompts = Prompts.from_words(words, templates=("{}", "a photo of a {}."))
    classifier = ZeroShot.from_prompts(model, prompts, center="auto")
    features = reading.features[model.name]
    probs = classifier.fit(features).predict_proba(features)
    named = Named(reading, words, probs, classifier.centered_)
    if out is not None:
        rows = (
            [file_cell(path, reading.root), word_cell(words[p.argmax()]), f"{p.max():.4f}"]
            for path, p in zip(reading.files, probs, strict=True)
        )
        write_table(out, ["file", "name", "confidence"], rows)
    return named
