"""Stand-ins: every loader reads the miniature of its set, and tells what is wrong with a half-finished one."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from labkit.data.datasets import load_dataset
from labkit.data.draws import list_digest
from labkit.data.images import ImageDataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.presence import presence
from labkit.data.schema import Archive, HuggingFace, Manual, WebDataset
from labkit.data.stand_ins import FILE
from labkit.errors import DataError
from labkit.evaluation.baselines import KMeans
from labkit.evaluation.metrics import clustering_accuracy
from labkit.papers.standins import write_stand_ins, writing
from labkit.papers.standins.images import ODD_FILES, pixels

SHIPPED = {"digits", "emoji-unseen", "fashion-mini", "fashion-mnist"}  # which need no stand-in
NAMES = sorted(set(list_manifests()) - SHIPPED)
PAPERS = 26
MODES = {"mnist": {"L"}, "fer2013": {"L"}}  # of the images that a loader gives, where they are not all RGB
VIDEOS = {"kinetics700", "ucf101"}  # in which colors are half as fine
WORST = 7.0  # mean difference of levels to what was written: JPEG and videos lose some; another image is at 11 or more


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all stand-ins; tests do not change it."""
    folder = tmp_path_factory.mktemp("stand-ins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_DATA", str(folder / "nothing"))
        write_stand_ins(folder)
    return folder


@pytest.fixture
def data(everything: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LABKIT_DATA", str(everything))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return everything


def splits_of(name: str) -> dict[str, ImageDataset]:
    manifest = load_manifest(name)
    assert manifest.stand_in
    return {split: load_dataset(manifest, split) for split in ("train", "test")}


def which(name: str, image: Image.Image, number: int) -> tuple[str, int]:
    """Split and index of the image of this class that was written and is most like the one that was read."""
    given = np.asarray(image).astype(float)
    gray = given.ndim == 2 or np.ptp(given, axis=2).max() == 0 or name in VIDEOS
    given = np.asarray(image.convert("L")).astype(float) if gray else given
    drawn = getattr(load_once(name).source, "draw", None) is not None
    found = []
    for split, index in itertools.product(["all"], range(4)) if drawn else (("train", 0), ("train", 1), ("test", 0)):
        wanted = Image.fromarray(pixels(name, number, split, index, len(given))).convert("L" if gray else "RGB")
        found.append((float(np.abs(np.asarray(wanted) - given).mean()), split, index))
    difference, split, index = min(found)
    assert difference < WORST, f"{name} has no such image of class {number}"
    return split, index


load_once = functools.cache(load_manifest)


# every loader


def test_all_datasets_of_the_papers_have_one(everything: Path) -> None:
    index = json.loads((everything / FILE).read_text("utf-8"))
    assert index["format"] == 1
    assert set(NAMES) == set(index["splits"])
    assert len(set(NAMES) - {"clothing-small"}) == PAPERS


@pytest.mark.parametrize("name", NAMES)
def test_a_loader_gives_each_image_its_class(name: str, data: Path) -> None:
    seen: set[tuple[int, str, int]] = set()
    assert presence(load_manifest(name)).state == "here"
    for split, dataset in splits_of(name).items():
        n = 2 if split == "train" else 1
        assert len(dataset) == n * len(dataset.classes)
        assert set(Counter(dataset.labels.tolist()).values()) == {n} or name in ("clevr-counts", "kitti-distance")
        for i in range(0, len(dataset), max(1, len(dataset) // 100)):
            image, number = dataset[i]
            assert image.mode in MODES.get(name, {"RGB", "L"} if name in ODD_FILES else {"RGB"})
            key = (number, *which(name, image, number))
            assert key[1] in (split, "all")
            assert key not in seen
            seen.add(key)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_those_of_the_real_set(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_manifest(name)
    monkeypatch.setenv("LABKIT_DATA", str(data / "nothing"))
    assert small.classes == load_manifest(name).classes


def test_draws_are_those_of_the_authors(data: Path) -> None:
    """Caltech-101 and EuroSAT by NumPy's generator, seeded anew for each class; RESISC45 and CLEVR by Python's."""
    for name, folder, n, train in (
        ("caltech101", "caltech101/caltech-101/101_ObjectCategories", 2, 2),
        ("eurosat", "eurosat/2750", 3, 2),
    ):
        samples = torchvision.datasets.ImageFolder(str(data / folder)).samples
        drawn: list[str] = []
        for number in range(len({y for _, y in samples})):
            rows = [i for i, (_, y) in enumerate(samples) if y == number]
            drawn += [samples[i][0] for i in np.random.RandomState(42).choice(rows, n, replace=False)[:train]]
        assert [str(path) for path in splits_of(name)["train"].files or []] == drawn
    generator, drawn = random.Random(42), []
    for folder in sorted((data / "resisc45/NWPU-RESISC45").iterdir()):
        files = sorted(folder.iterdir())
        generator.shuffle(files)
        drawn += map(str, files[:2])
    assert [str(path) for path in splits_of("resisc45")["train"].files or []] == drawn
    scenes = json.loads((data / "clevr/CLEVR_v1.0/scenes/CLEVR_train_scenes.json").read_text("utf-8"))["scenes"]
    chosen = random.Random(42).sample([scene["image_filename"] for scene in scenes], 24)
    for split, names in (("train", chosen[:16]), ("test", chosen[16:])):
        assert [path.name for path in splits_of("clevr-counts")[split].files or []] == names


# what a half-finished download gives

CURE = r"(?i)\b(fetch|connect|put|complete|delete|write the stand-ins again|remove|look whether)\b"  # what to do
IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".avi", ".mp4"}
CUT_IN_HALF = {"kitti-distance"}  # whose labels are whole again after fewer lines
DIGESTED = {"clevr-counts", "eurosat", "kitti-distance", "resisc45"}  # whose manifests know which files are drawn
LOSE_IMAGES = {"birdsnap", "kinetics700"}  # whose sources do: their size is not exact, and other ones are warned of


def place_of(name: str) -> Path:
    """The folder below the data folder that a stand-in takes."""
    source = load_manifest(name).source
    if isinstance(source, WebDataset | HuggingFace):
        return Path("hub", f"datasets--{source.repo.replace('/', '--')}")
    if isinstance(source, Archive | Manual):
        return Path(source.path)
    folders = {"fgvc-aircraft": "fgvc-aircraft-2013b", "flowers102": "flowers-102", "food101": "food-101"}
    folders |= {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
    folders |= {"oxford-pets": "oxford-iiit-pet", "mnist": "MNIST"}
    return Path(folders.get(name, name))


def copy_of(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one stand-in in a data folder of its own; its files are links, to be replaced and not written to."""
    folder, place = tmp_path / "data", place_of(name)
    shutil.copytree(data / place, folder / place, symlinks=True, copy_function=os.link)
    shutil.copy(data / FILE, folder)
    monkeypatch.setenv("LABKIT_DATA", str(folder))
    return folder / place


def replace(path: Path, content: bytes | None) -> None:
    """Another file there, or none."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def all_of(name: str) -> list[tuple[bytes, int]]:
    """The pixels and classes of both splits; of large ones, of some images."""
    found = []
    for dataset in splits_of(name).values():
        for i in range(0, len(dataset), max(1, len(dataset) // 30)):
            image, number = dataset[i]
            found.append((image.tobytes(), number))
    return found


def expect_error_or(name: str, intact: list[tuple[bytes, int]]) -> bool:
    """Whether reading gives an error that says what to do; else it gives what it gave before."""
    message = ""
    try:
        assert all_of(name) == intact
    except DataError as error:
        message = str(error)
    assert not message or re.search(CURE, message), message
    return bool(message)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_annotation_is_never_another_dataset(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not annotations(data / place_of(name)):
        pytest.skip("it has only images")
    intact = all_of(name)
    files = annotations(copy_of(name, data, tmp_path, monkeypatch))
    needed = 0
    for path in files[:5]:
        content = path.read_bytes()
        for damaged in (None, *[content[: len(content) // 2]] * (name not in CUT_IN_HALF)):
            replace(path, damaged)
            needed += expect_error_or(name, intact)
        replace(path, content)
    assert needed > 0
    assert all_of(name) == intact


def annotations(folder: Path) -> list[Path]:
    """Its files of other things than one image, those that lie highest first."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in IMAGES)
    found = [path for path in files if not path.is_symlink() and path.stat().st_size]
    return sorted(found, key=lambda path: (len(path.parts), path))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_image_and_half_of_one(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not load_dataset(name).files:
        pytest.skip("it has no files of single images")
    copy_of(name, data, tmp_path, monkeypatch)
    dataset = load_dataset(name)
    assert dataset.files is not None
    path = dataset.files[3]
    replace(path, path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=path.name):
        load_dataset(name)[3]
    replace(path, None)
    if name in LOSE_IMAGES:
        assert len(load_dataset(name)) == len(dataset) - 1
        assert "the source itself loses images" in caplog.text
        return
    if name in DIGESTED:
        manifest = load_manifest(name).model_copy(update={"digest": {"train": list_digest(dataset.files)}})
        with pytest.raises(DataError, match=CURE):
            load_dataset(manifest)
    else:
        with pytest.raises(DataError, match=CURE):
            load_dataset(name)[3]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_and_none(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(data / FILE, tmp_path)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    manifest = load_manifest(name)
    assert presence(manifest).state == "not here"
    for split in ("train", "test"):
        with pytest.raises(DataError, match=CURE):
            load_dataset(manifest, split)
    (tmp_path / place_of(name)).mkdir(parents=True, exist_ok=True)
    assert presence(manifest).state in ("not here", "partly")
    for split in ("train", "test"):
        with pytest.raises(DataError, match=CURE):
            load_dataset(manifest, split)


# writing


def test_classes_can_be_told_apart() -> None:
    """By K-means of the pixels of ten classes; by chance it would be one in ten."""
    for first in (0, 300):  # fewer pixels, for time
        numbers = np.repeat(np.arange(10), 20)
        images = [pixels("imagenet", first + number, "train", i)[::4, ::4] for i, number in enumerate(numbers)]
        found = KMeans(10, random_state=0).fit_predict(np.stack(images).reshape(200, -1).astype(np.float32))
        assert clustering_accuracy(numbers, found) > 0.8


SMALL = ["cifar10", "clevr-counts", "dtd", "fer2013", "hateful-memes", "kitti-distance", "mnist", "pcam", "ucf101"]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_call_makes_the_same_bytes(everything: Path, tmp_path: Path) -> None:
    sizes = write_stand_ins(tmp_path / "again", SMALL)
    assert sizes == {name: {"train": 2 * n, "test": n} for name in sizes for n in [load_manifest(name).n_classes]}
    written, before = tree(tmp_path / "again"), tree(everything)
    del written[FILE]
    assert len(written) > 500
    assert {path: before[path] for path in written} == written


def test_numbers_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    names = ["clevr-counts", "dtd", "eurosat", "fer2013", "kitti-distance", "resisc45"]
    assert write_stand_ins(tmp_path, names, per_class=(3, 2)).keys() == set(names)
    for name in names:
        assert {split: len(dataset) for split, dataset in splits_of(name).items()} == {
            "train": 3 * load_manifest(name).n_classes,
            "test": 2 * load_manifest(name).n_classes,
        }
    assert write_stand_ins(tmp_path, ["dtd"], per_class=(2, 1))["dtd"] == {"train": 94, "test": 47}
    assert len(splits_of("dtd")["train"]) == 94


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["while it writes", "before it is listed"])
def test_a_killed_call_is_taken_up_again(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    write_stand_ins(tmp_path, ["mnist"])
    before = tree(tmp_path)

    def kill(*_: object) -> Iterator[None]:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "while it writes":
            patch.setattr("labkit.papers.standins.miniature.Miniature.write", kill)
        else:
            patch.setattr(writing, "_save_index", kill)
        with pytest.raises(Killed):
            write_stand_ins(tmp_path, ["mnist", "dtd", "stl10"])
    assert not load_manifest("dtd").stand_in
    if moment == "while it writes":
        assert tree(tmp_path) == before
    write_stand_ins(tmp_path, ["mnist", "dtd", "stl10"])
    assert all(len(splits_of(name)["test"]) == load_manifest(name).n_classes for name in ("mnist", "dtd", "stl10"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".labkit-new")]


def test_a_call_that_is_killed_while_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    write_stand_ins(tmp_path, ["mnist", "eurosat"])

    def kill(source: Path, target: Path, beside: Path) -> None:
        shutil.rmtree(target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_move", kill)
        with pytest.raises(Killed):
            write_stand_ins(tmp_path, ["eurosat"], per_class=(3, 2))
    assert not load_manifest("eurosat").stand_in
    assert load_manifest("mnist").stand_in
    assert write_stand_ins(tmp_path, ["eurosat"], per_class=(4, 1))["eurosat"] == {"train": 40, "test": 10}
    assert {split: len(dataset) for split, dataset in splits_of("eurosat").items()} == {"train": 40, "test": 10}


def test_what_is_there_already_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stand_ins(tmp_path, ["mnist"])
    monkeypatch.setattr("labkit.papers.standins.miniature.Miniature.write", None)
    write_stand_ins(tmp_path, ["mnist"])


def test_other_data_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST/mine").write_text("real", "utf-8")
    with pytest.raises(DataError, match=r"MNIST and no stand-ins\.json"):
        write_stand_ins(tmp_path, ["mnist"])
    (tmp_path / "other").mkdir()
    write_stand_ins(tmp_path / "other", ["stl10"])
    (tmp_path / "MNIST").rename(tmp_path / "other/MNIST")
    with pytest.raises(DataError, match="MNIST is there and no stand-in"):
        write_stand_ins(tmp_path / "other", ["mnist"])
    assert (tmp_path / "other/MNIST/mine").read_text("utf-8") == "real"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ["mnits"]}, "Did you mean 'mnist'"),
        ({"ids": ["digits"]}, "digits has no stand-in"),
        ({"ids": "mnist"}, r"Expected a list of datasets"),
        ({"ids": [7]}, "there is no dataset 7"),
        ({"per_class": (1, 1)}, "Expected two whole numbers"),
        ({"per_class": 3}, "Expected two whole numbers"),
        ({"per_class": (2, True)}, "Expected two whole numbers"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_stand_ins(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_damaged_index_and_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"format": 1}', "utf-8")
    with pytest.raises(DataError, match=r"stand-ins.json is damaged .* Delete the folder"):
        write_stand_ins(tmp_path, ["mnist"])
    with pytest.raises(DataError, match="Give another folder"):
        write_stand_ins(tmp_path / FILE, ["mnist"])
