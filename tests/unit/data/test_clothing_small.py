"""clothing-small: its manifest reads the repository as its archive unpacks; on the real photographs where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from labkit.data.datasets import load_dataset
from labkit.data.draws import list_digest
from labkit.data.manifests import load_manifest
from labkit.data.schema import Archive
from labkit.zeroshot.prompts import load_prompts

REAL = Path(os.environ.get("LABKIT_REAL") or Path(__file__).parents[4] / "shared" / "real") / "photos/clothing-small"
FOLDERS = {"train": "train", "validation": "val", "test": "test"}  # in the repository, and here

needs_photographs = pytest.mark.skipif(not REAL.is_dir(), reason="no photographs: set LABKIT_REAL")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the photographs as the archive unpacks; returns the folder of the repository."""
    source = load_manifest("clothing-small").source
    assert isinstance(source, Archive)
    [train] = source.layout.train
    repository = tmp_path / source.path / Path(train).parent
    repository.mkdir(parents=True)
    for there, here in FOLDERS.items():
        (repository / there).symlink_to(REAL / here, target_is_directory=True)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return repository


@needs_photographs
def test_both_splits_are_what_the_manifest_says(data: Path) -> None:
    manifest = load_manifest("clothing-small")
    sizes = {}
    for split, names in {"train": ["train"], "test": ["validation", "test"]}.items():
        dataset = load_dataset(manifest, split)
        assert dataset.files is not None
        assert [dataset.classes[label] for label in dataset.labels] == [path.parent.name for path in dataset.files]
        assert {path.parents[1].name for path in dataset.files} == set(names)
        assert list_digest(dataset.files) == manifest.digest[split]
        assert dataset[0][0].mode == "RGB"
        sizes[split] = np.bincount(dataset.labels)
    assert sizes["train"].tolist() == [241, 123, 455, 184, 468, 290, 198, 202, 112, 795]
    assert sizes["test"].tolist() == [47, 26, 121, 62, 91, 55, 99, 55, 24, 133]


def test_every_class_has_words() -> None:
    manifest = load_manifest("clothing-small")
    prompts = load_prompts(manifest)
    assert list(prompts.classes) == manifest.classes
    assert all(len(names) == 6 for names in prompts.names)
    assert len({name for names in prompts.names for name in names}) == 60, "a word of two classes"
