"""Real photographs in the true layouts of their datasets: the loaders that read stand-ins read these as well."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.data.datasets import load_dataset
from labkit.data.draws import list_digest
from labkit.data.manifests import load_manifest
from labkit.errors import DataError

REAL = Path(os.environ.get("LABKIT_REAL") or Path(__file__).parents[4] / "shared" / "real") / "photos"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real photographs are not here")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


def promise(data: Path, name: str, sizes: dict[str, int], **draw: int) -> None:
    """That the folder holds so many images of a set, as `write_stand_ins` would say of its own."""
    index = {"format": 1, "splits": {name: sizes}, "draws": {name: draw} if draw else {}}
    (data / "stand-ins.json").write_text(json.dumps(index), "utf-8")


def test_caltech101(data: Path) -> None:
    """4,114 photographs of 100 of the 102 classes: five a class to train on, drawn as TURTLE's authors draw thirty."""
    names = load_manifest("caltech101").source.layout.names  # type: ignore[union-attr]
    folders = sorted(path.name for path in (REAL / "caltech101").iterdir())
    base = data / "caltech101/caltech-101/101_ObjectCategories"
    base.mkdir(parents=True)
    for folder in folders:
        (base / folder).symlink_to(REAL / "caltech101" / folder)
    promise(data, "caltech101", {"train": 500, "test": 3614}, n=5, train=5)
    train, test = (load_dataset("caltech101", split) for split in ("train", "test"))
    expected = []
    for folder in folders:
        files = sorted(path.name for path in (base / folder).iterdir())
        expected += [base / folder / files[i] for i in np.random.RandomState(42).choice(len(files), 5, replace=False)]
    assert list(train.files or []) == expected
    assert [names[y] for y in train.labels] == [path.parent.name for path in expected]
    assert test.files is not None
    assert [names[y] for y in test.labels] == [path.parent.name for path in test.files]
    assert not set(test.files) & set(expected)
    image, number = train[123]
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(expected[123])))
    assert names[number] == expected[123].parent.name


def lay_out_cifar10(data: Path) -> dict[str, list[tuple[np.ndarray, int]]]:
    """Batches of a thousand, as the python version of CIFAR-10 has ten thousand each; what is in them."""
    classes, folder = load_manifest("cifar10").classes, data / "cifar-10-batches-py"
    folder.mkdir()
    found = {}
    for split in ("train", "test"):
        files = [
            (path, y) for y, name in enumerate(classes) for path in sorted((REAL / "cifar10" / split / name).iterdir())
        ]
        order = np.random.RandomState(0).permutation(len(files))
        found[split] = [(np.asarray(Image.open(files[i][0])), files[i][1]) for i in order]
    parts = {
        "test_batch": found["test"],
        **{f"data_batch_{k + 1}": found["train"][1000 * k :][:1000] for k in range(5)},
    }
    for name, rows in parts.items():
        batch = {"data": np.stack([x.transpose(2, 0, 1).ravel() for x, _ in rows]), "labels": [y for _, y in rows]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}, protocol=2))
    return found


def test_cifar10(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lay_out_cifar10(data)
    promise(data, "cifar10", {split: len(rows) for split, rows in found.items()})
    for split, rows in found.items():
        dataset = load_dataset("cifar10", split)
        assert dataset.labels.tolist() == [y for _, y in rows]
        assert dataset.array is not None
        assert np.array_equal(dataset.array, np.stack([x for x, _ in rows]))

    # what no stand-ins.json names is held to be real, and must have the digests of the real batches
    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("no network here")

    (data / "stand-ins.json").unlink()
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    with pytest.raises(DataError, match=r"no network here.*Connect to the network"):
        load_dataset("cifar10", "test")


def test_clothing_small(data: Path) -> None:
    """All photographs of the archive: the shipped manifest itself, not one of a stand-in, finds its own sizes."""
    manifest = load_manifest("clothing-small")
    folders = [*manifest.source.layout.train, *manifest.source.layout.test]  # type: ignore[union-attr]
    for folder, name in zip(folders, ("train", "val", "test"), strict=True):
        (data / "clothing-small" / folder).parent.mkdir(parents=True, exist_ok=True)
        (data / "clothing-small" / folder).symlink_to(REAL / "clothing-small" / name)
    assert not manifest.stand_in
    sizes = {"train": [241, 123, 455, 184, 468, 290, 198, 202, 112, 795]}
    sizes["test"] = [47, 26, 121, 62, 91, 55, 99, 55, 24, 133]
    for split, of_classes in sizes.items():
        dataset = load_dataset("clothing-small", split)
        assert dataset.files is not None
        assert [dataset.classes[y] for y in dataset.labels] == [path.parent.name for path in dataset.files]
        assert np.bincount(dataset.labels).tolist() == of_classes
        assert list_digest(dataset.files) == manifest.digest[split]
