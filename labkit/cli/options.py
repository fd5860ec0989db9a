"""What options of several commands take: paths, numbers, seeds, words, names of feature spaces."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from labkit._files import user_path
from labkit.errors import DataError, quote

# labkit.spaces.papers has these; its imports would slow the help down
PAPER_SPACES = (
    "clip-rn50, clip-rn101, clip-rn50x4, clip-rn50x16, clip-rn50x64, clip-vit-b32, clip-vit-b16, clip-vit-l14, "
    "dinov2-vit-g14, dinov2-vit-b14, dinov3-vit-b16, dinov3-vit-l16, siglip2-vit-b16, siglip2-vit-l16, pe-core-b16, "
    "pe-core-l14"
)
SPACES = (
    "efficientnet-lite0, efficientnet-lite2, hog, pixels, pocket-clip, pocket-vit (with labkit or its packages); "
    f"{PAPER_SPACES}, timm:MODEL, open_clip:MODEL/PRETRAINED (from the hub once)"
)
PROFILES = ("pocket", "photos", "standard", "paper")  # as labkit.papers.protocol has them
SEED = "of random numbers: the same seed gives the same labels (default: %(default)s)"


def path(text: str) -> Path:
    """A path that a person typed."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty. Expected a path; that of this folder is a dot")
    return user_path(text)


def data(text: str) -> str:
    """The id of a dataset that has a manifest, or the path of a folder."""
    from labkit.data.manifests import list_manifests

    return text if text in list_manifests() else str(path(text))


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1, "of at least 1")


def seed(text: str) -> int:
    """A seed of random numbers."""
    return whole(text, 0, "from 0 to 2**32 - 1", 2**32 - 1)


def whole(text: str, low: int, expected: str, high: int = sys.maxsize) -> int:
    """A whole number in a range; `expected` says which, after "a whole number"."""
    with contextlib.suppress(ValueError):
        if low <= int(text) <= high:
            return int(text)
    raise argparse.ArgumentTypeError(f"{quote(text)} is not a whole number {expected}")


def share(text: str) -> float:
    """A number from 0 to below 1."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{quote(text)} is not a number from 0 to below 1, such as 0.7")


def expect_folder(folder: Path) -> None:
    """Raise a DataError, before anything heavy is loaded, where there is no such folder of images."""
    if not os.path.isdir(folder):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"{quote(str(folder))} is not a folder. Expected a folder of images.")


def ask_hub_early(arguments: argparse.Namespace) -> None:
    """Where a feature space comes from the hub, ask it at once whether it is there: libraries are loaded meanwhile."""
    given: list[str] = []
    for name in ("backbone", "space"):
        value = getattr(arguments, name, None) or []
        given += [value] if isinstance(value, str) else value
    if any(":" in name or name in PAPER_SPACES.split(", ") for name in given):
        from labkit.data.hub import ask_hub

        ask_hub()


def given_words(words: str | None, least: int = 1) -> tuple[list[str] | None, Path | None]:
    """The vocabulary of --words, at least so many, and the file that it is from; None where there is none."""
    from labkit.own.files import read_words, words_file

    return (None, None) if words is None else (read_words(words, least), words_file(words))
