"""Names in the released file: the authors' own, all nine spaces and 26 datasets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labkit.errors import DataError
from labkit.papers.labelings import DATASETS, SPACES, labeling_path
from labkit.spaces.papers import TURTLE_SPACES

AUTHORS = re.findall(  # the list in the README of the authors' repository
    r"\w+",
    "food101, cifar10, cifar100, birdsnap, sun397, cars, aircraft, dtd, pets, caltech101, flowers, mnist, fer2013, "
    "stl10, eurosat, resisc45, gtsrb, kitti, country211, pcam, ucf101, kinetics700, clevr, hatefulmemes, sst, imagenet",
)


def test_every_space_of_the_paper_has_its_name() -> None:
    assert list(SPACES) == list(TURTLE_SPACES)


def test_every_name_of_the_authors_is_one_of_ours() -> None:
    assert set(DATASETS.values()) <= set(AUTHORS)
    assert not set(DATASETS) & set(AUTHORS)


@pytest.mark.parametrize("above", ["", "turtle_tasks"])
def test_a_labeling_is_found(tmp_path: Path, above: str) -> None:
    for below in ("1space/clipvitL14/cars.pt", "2space/clipvitL14_dinov2/cifar100.pt"):
        path = tmp_path / above / below
        path.parent.mkdir(parents=True)
        path.touch()
    two = labeling_path(tmp_path, "cifar100", ["clip-vit-l14", "dinov2-vit-g14"])
    assert two == tmp_path / above / "2space/clipvitL14_dinov2/cifar100.pt"
    assert labeling_path(tmp_path, "stanford-cars", ["clip-vit-l14"]).name == "cars.pt"


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (["pixels"], "released no labeling"),
        ([], "released no labeling"),
        (list(SPACES)[:3], "released no labeling"),
        (["dinov2-vit-g14"], "unpacks to"),
    ],
)
def test_what_is_not_there_is_explained(tmp_path: Path, spaces: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labeling_path(tmp_path, "dtd", spaces)
