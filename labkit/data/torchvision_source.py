"""Datasets of torchvision: calls of one of its classes become images with class numbers, files where it has files."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labkit._files import locked_folder, open_regular
from labkit.data.decoding import plain_image
from labkit.data.draws import draw_rows
from labkit.data.file_list import FileList
from labkit.data.folders import data_dir
from labkit.data.images import ImageDataset
from labkit.data.schema import Manifest, Torchvision
from labkit.errors import DataError, quote, reason, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCKED = ".torchvision"  # a folder in the data folder, locked while torchvision downloads
# what torchvision reads of each dataset, below its root; where all of it is there, so is the dataset
TORCHVISION = {
    "CIFAR10": ["cifar-10-batches-py/batches.meta", "cifar-10-batches-py/test_batch"],
    "CIFAR100": ["cifar-100-python/meta", "cifar-100-python/train", "cifar-100-python/test"],
    "Country211": ["country211/train", "country211/valid", "country211/test"],
    "DTD": ["dtd/dtd/labels/train1.txt", "dtd/dtd/labels/val1.txt", "dtd/dtd/labels/test1.txt", "dtd/dtd/images"],
    "EuroSAT": ["eurosat/2750"],
    "FGVCAircraft": ["fgvc-aircraft-2013b/data/variants.txt", "fgvc-aircraft-2013b/data/images"],
    "FashionMNIST": [f"FashionMNIST/raw/{part}-images-idx3-ubyte" for part in ("train", "t10k")],
    "Flowers102": ["flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"],
    "Food101": ["food-101/meta/train.json", "food-101/meta/test.json", "food-101/images"],
    "GTSRB": ["gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"],
    "MNIST": [f"MNIST/raw/{part}-images-idx3-ubyte" for part in ("train", "t10k")],
    "OxfordIIITPet": ["oxford-iiit-pet/annotations/trainval.txt", "oxford-iiit-pet/images"],
    "PCAM": [f"pcam/camelyonpatch_level_2_split_{part}_x.h5" for part in ("train", "valid", "test")],
    "RenderedSST2": ["rendered-sst2/train", "rendered-sst2/valid", "rendered-sst2/test"],
    "STL10": ["stl10_binary/train_X.bin", "stl10_binary/test_X.bin"],
    "SUN397": ["SUN397/ClassName.txt"],
    "StanfordCars": [
        *("stanford_cars/devkit/cars_train_annos.mat", "stanford_cars/cars_test_annos_withlabels.mat"),
        *("stanford_cars/cars_train", "stanford_cars/cars_test"),
    ],
}
ARRAYS = frozenset(  # what a pickle of arrays and names refers to
    f"{module}.{name}"
    for module, name in [
        *[(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")],
        *[(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")],
        *[("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")],
    ]
)


def read_torchvision(manifest: Manifest, source: Torchvision, split: str) -> ImageDataset:
    """The images of one split of a dataset that torchvision reads, and downloads where they are not there.

    Raises:
        DataError: torchvision has no such dataset, cannot read or download it, or it has other classes.
    """
    dataset = read_calls(manifest, source.dataset, source.args[split])
    if source.draw is None:
        return dataset
    return dataset.subset(draw_rows(source.draw, dataset.labels, "train" if split == "train" else "test"))  # type: ignore[arg-type]


def read_calls(manifest: Manifest, name: str, calls: list[dict[str, Any]]) -> ImageDataset:
    """The images that one class of torchvision gives when it is called with each of some keyword arguments, joined.

    Raises:
        DataError: as `read_torchvision`.
    """
    import torchvision.datasets
    from torch.utils.data import ConcatDataset

    factory = getattr(torchvision.datasets, name, None) if name in torchvision.datasets.__all__ else None
    if not isinstance(factory, type) or not issubclass(factory, torchvision.datasets.VisionDataset):
        raise DataError(
            f"torchvision has no dataset {quote(name)}. Correct `source.dataset` in the manifest {manifest.id}."
        )
    root = data_dir()
    try:
        if manifest.stand_in:
            factory = _without_digests(factory, root)
        parts = _parts(factory, root, calls, download=not manifest.stand_in)
    except Exception as error:  # no network, no such host, a damaged archive, wrong arguments: all kinds
        raise DataError(_not_to_be_had(manifest, name, calls, error)) from error
    try:
        named = [str(name) for name in getattr(parts[0], "classes", manifest.classes)]
        labels = np.concatenate([_labels(part) for part in parts])
        arrays = [_array(part) for part in parts]
    except Exception as error:  # boxes, captions or texts instead of class numbers
        raise DataError(
            f"torchvision.datasets.{name} has no class number for each image ({type(error).__name__}). Choose another "
            f"`source.dataset` in the manifest {manifest.id}."
        ) from error
    if list(map(plain, named)) != list(map(plain, manifest.classes)):
        raise DataError(
            f"torchvision.datasets.{name} has the classes {', '.join(named):.200}, but the manifest {manifest.id} has "
            f"{', '.join(manifest.classes):.200}. Give `classes` in that order, or fetch the files again where they "
            "are not complete."
        )
    if all(array is not None for array in arrays):
        return ImageDataset(labels, manifest.classes, array=np.concatenate(arrays))  # type: ignore[arg-type]
    files = [file for part in parts for file in _files(part)]
    if len(files) == len(labels) and all(file.is_relative_to(root) for file in files):
        listed = FileList(root, (file.relative_to(root).as_posix() for file in files))
        listed.expect_all()  # torchvision takes a list of files for the files
        return ImageDataset(labels, manifest.classes, files=listed, root=root)
    joined: ConcatDataset[Any] = ConcatDataset(parts)
    return ImageDataset(labels, manifest.classes, decode=TorchvisionImages(joined))


def _not_to_be_had(manifest: Manifest, name: str, calls: list[dict[str, Any]], error: Exception) -> str:
    """The message of an error of torchvision: what is wrong, and what to do about it."""
    what, root = f"torchvision.datasets.{name}", data_dir()
    if any(re.search(rf"argument '?{re.escape(key)}\b", str(error)) for call in calls for key in call):
        return f"{what} cannot be called so ({reason(error)}): correct `source.args` in the manifest {manifest.id}."
    if manifest.stand_in:
        return f"the stand-in of {manifest.id} is not complete ({reason(error)}). Write the stand-ins again."
    first = f", so that {shown(root / TORCHVISION[name][0])} is there" if name in TORCHVISION else ""
    return (
        f"{what} can neither be read in {shown(root)} nor downloaded ({reason(error)}). Connect to the network once, "
        f"or put the files there yourself (homepage: {manifest.homepage}){first}; or set LABKIT_DATA to the "
        "folder that holds them."
    )


def _parts(factory: type, root: Path, calls: list[dict[str, Any]], *, download: bool) -> list[Any]:
    """What each call gives; what is not there is downloaded by one process, while others wait for it."""
    given = [{"root": str(root), **kwargs} for kwargs in calls]
    if not download or "download" not in inspect.signature(factory).parameters:
        return [factory(**kwargs) for kwargs in given]
    with contextlib.suppress(Exception):
        return [factory(**kwargs) for kwargs in given]
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # where nothing can be written to, nothing is downloaded either
            held.enter_context(locked_folder(root / LOCKED, wait=True))
        return [factory(download=True, **kwargs) for kwargs in given]  # only what is still missing


def plain(name: str) -> str:
    """A name of a class as names are compared: lower case, and spaces for _ and -."""
    return name.lower().replace("_", " ").replace("-", " ")


def _labels(part: Any) -> np.ndarray:
    for attribute in ("targets", "labels", "_labels"):  # the names that torchvision uses
        if getattr(part, attribute, None) is not None:
            return np.asarray(getattr(part, attribute)).astype(np.int64)
    if isinstance(getattr(part, "_samples", None), list):
        return np.array([label for _, label in part._samples], dtype=np.int64)
    return np.array([part[i][1] for i in range(len(part))], dtype=np.int64)


def _array(part: Any) -> np.ndarray | None:
    """All images of a torchvision dataset as (n, h, w) or (n, h, w, 3) uint8, where it holds them in memory."""
    if not hasattr(part, "data"):
        return None
    array = np.asarray(part.data)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return None
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] == 3 else array  # STL10 is (n, 3, h, w)


def _files(part: Any) -> list[Path]:
    """The image files of a torchvision dataset, one a sample; [] where it has other things than files."""
    for attribute in ("_image_files", "_images"):
        found: Iterable[Any] = getattr(part, attribute, None) or ()
        if found:
            break
    else:
        pairs = getattr(part, "samples", None) or getattr(part, "_samples", None) or ()
        found = [pair[0] for pair in pairs if isinstance(pair, tuple)]
    files = list(found)
    return [Path(file) for file in files] if all(isinstance(file, str | os.PathLike) for file in files) else []


def _without_digests(factory: type, root: Path) -> type:
    """The same class for miniatures, whose files have other digests than those that torchvision knows.

    Raises:
        ValueError: a file that torchvision would unpickle holds more than arrays and names.
    """
    changes: dict[str, Any] = {"_check_integrity": lambda self: True}
    if hasattr(factory, "base_folder") and hasattr(factory, "meta"):  # CIFAR, in pickles
        changes["meta"] = {**factory.meta, "md5": None}
        names = [factory.meta["filename"], *[name for name, _ in factory.train_list + factory.test_list]]  # type: ignore[attr-defined]
        for name in names:
            with open_regular(root / factory.base_folder / name) as file:
                _PlainUnpickler(file, encoding="latin1").load()
    return type(factory.__name__, (factory,), {**changes, "__module__": factory.__module__})


@dataclass(frozen=True)
class TorchvisionImages:
    """Decodes image i of a dataset of (PIL image, label) pairs; a class, so that worker processes can be sent it."""

    pairs: Any

    def __call__(self, i: int) -> Image.Image:
        return plain_image(self.pairs[i][0]).convert("RGB")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ARRAYS:
            raise ValueError(f"a pickle refers to {module}.{name}, expected arrays and names alone")
        return super().find_class(module, name)
