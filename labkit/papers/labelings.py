"""Where the labelings lie that the authors of TURTLE released, by labkit's names of datasets and spaces.

`turtle_tasks.zip` of their project page unpacks to 1space/SPACE/DATASET.pt and 2space/SPACE_SPACE/DATASET.pt; read
one with `Turtle.from_published`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labkit.errors import DataError, quote, shown

ADDRESS = "https://brbiclab.epfl.ch/wp-content/uploads/2024/06/turtle_tasks.zip"
DATASETS = {  # whose names differ from labkit's
    "clevr-counts": "clevr",
    "fgvc-aircraft": "aircraft",
    "flowers102": "flowers",
    "hateful-memes": "hatefulmemes",
    "kitti-distance": "kitti",
    "oxford-pets": "pets",
    "rendered-sst2": "sst",
    "stanford-cars": "cars",
}
SPACES = {
    "clip-rn50": "clipRN50",
    "clip-rn101": "clipRN101",
    "clip-rn50x4": "clipRN50x4",
    "clip-rn50x16": "clipRN50x16",
    "clip-rn50x64": "clipRN50x64",
    "clip-vit-b32": "clipvitB32",
    "clip-vit-b16": "clipvitB16",
    "clip-vit-l14": "clipvitL14",
    "dinov2-vit-g14": "dinov2",
}


def labeling_path(folder: Path, dataset: str, spaces: Sequence[str]) -> Path:
    """The released labeling of a dataset in one or two spaces of the paper.

    Args:
        folder: what `turtle_tasks.zip` was unpacked into, or the folder in it.
        dataset, spaces: labkit's names; the order of the spaces is that of the released file.

    Raises:
        DataError: the authors released none for these spaces, or it is not there.
    """
    unknown = [space for space in spaces if space not in SPACES]
    if unknown or len(spaces) not in (1, 2):
        raise DataError(
            f"the authors of TURTLE released no labeling for the spaces {quote(list(spaces))}. Expected one or two of "
            f"{', '.join(SPACES)}."
        )
    name = f"{DATASETS.get(dataset, dataset)}.pt"
    below = Path(f"{len(spaces)}space", "_".join(SPACES[space] for space in spaces), name)
    for place in (folder / below, folder / "turtle_tasks" / below):
        if place.is_file():
            return place
    raise DataError(f"{shown(folder)} has no {below}. Expected there what {ADDRESS} unpacks to.")
