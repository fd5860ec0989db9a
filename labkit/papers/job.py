"""One dataset of a reproduction: its images and features when they are needed, its results, its saved fits."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from labkit.data.datasets import load_dataset
from labkit.data.images import ImageDataset
from labkit.data.manifests import load_manifest
from labkit.data.schema import Manifest
from labkit.errors import DataError
from labkit.papers.protocol import SEED, Scale, device_name
from labkit.papers.results import Results
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.cache import file_name_of
from labkit.spaces.features import extract_features
from labkit.spaces.shard_files import missing_shards, read_header
from labkit.spaces.shards import SHARD, ShardedFeatures, extract_shards
from labkit.spaces.weights import EFFICIENTNETS

Features = np.ndarray | ShardedFeatures


class Backbones:
    """The networks of a run, each loaded once and only when it is needed.

    Args:
        scale: of the run.
        device: that they compute on.
    """

    def __init__(self, scale: Scale, device: str = "auto") -> None:
        self.scale, self.device = scale, device
        self._loaded: dict[str, Backbone] = {}

    def __getitem__(self, name: str) -> Backbone:
        if name not in self._loaded:
            size = self.scale.image_size if name in EFFICIENTNETS else None  # the others have one
            dtype = self.scale.forward_dtype()
            self._loaded[name] = load_backbone(name, image_size=size, dtype=dtype, device=self.device)
        return self._loaded[name]


class Job:
    """What a row of a paper is made with.

    Args:
        paper: "turtle" or "must".
        dataset: a manifest's id.
        scale: of the run.
        folder: of the run, with its results and fits.
        results: of the run.
        backbones: shared by the datasets.
        features: folder for features in shards; None keeps them whole, in the cache.
        progress: show progress bars.

    Raises:
        LabkitError: there is no such dataset, or it has no split train or test or no classes.
    """

    def __init__(
        self,
        paper: str,
        dataset: str,
        scale: Scale,
        folder: Path,
        results: Results,
        backbones: Backbones,
        *,
        features: Path | None = None,
        progress: bool = False,
    ) -> None:
        self.paper, self.scale, self.folder = paper, scale, folder
        self.results, self.backbones, self.progress = results, backbones, progress
        self._shards = features
        self._features: dict[tuple[str, str], Features] = {}
        self.manifest = load_manifest(dataset)
        expect_splits(self.manifest)

    @functools.cached_property
    def train(self) -> ImageDataset:
        return load_dataset(self.manifest, "train")

    @functools.cached_property
    def test(self) -> ImageDataset:
        return load_dataset(self.manifest, "test")

    def features(self, split: str, names: Sequence[str]) -> list[Features]:
        """Features (n, d_k) of a split in each space, computed where they are not there yet."""
        for name in names:
            if (split, name) not in self._features:
                self._features[split, name] = self._extract(split, self.backbones[name])
        return [self._features[split, name] for name in names]

    def _extract(self, split: str, backbone: Backbone) -> Features:
        dtype, progress = self.scale.feature_dtype, self.progress
        if self._shards is None:
            return extract_features(backbone, self.manifest, split=split, dtype=dtype, progress=progress)
        images = (self.train if split == "train" else self.test).without_labels()
        folder = shards_folder(self._shards, self.manifest, split, backbone.name)
        begun = read_header(folder)  # by others, in shards of their size
        shard = SHARD if begun is None else begun.shard
        return extract_shards(backbone, images, folder, dtype=dtype, shard=shard, progress=progress)

    @functools.cached_property
    def images_digest(self) -> str:
        """Of the images of the train split, as `ImageDataset.contents` tells them from others: the same on another
        machine, where files have other times.
        """
        return self.train.contents

    def features_digest(self, names: Sequence[str]) -> str:
        """Of what the train features follow from: images, weights, preprocessing and dtypes."""
        networks = [self.backbones[name] for name in names]
        forward = [(network.fingerprint, str(network.dtype)) for network in networks]
        return digest([self.images_digest, self.scale.feature_dtype, *forward])

    def fits(self, name: str) -> Path:
        """The folder for saved fits of this dataset, and a name in it."""
        return self.folder / "fits" / folder_of(self.manifest) / name

    def record(
        self,
        method: str,
        spaces: Sequence[str],
        settings: Mapping[str, Any],
        metrics: Sequence[str],
        measure: Callable[[], tuple[dict[str, float], dict[str, Any]]],
        *,
        needs: Sequence[str] = (),
    ) -> None:
        """Keep the results of one piece of work, unless they are there already.

        Args:
            method, spaces: as results name them.
            settings: all that the result follows from beside these, as JSON holds it.
            metrics: what is measured.
            measure: does the work; returns a value for each metric, and what was chosen on the way.
            needs: splits whose features must be there before; the time that they take is not the method's.
        """
        row = {
            "paper": self.paper,
            "dataset": self.manifest.id,
            "stand_in": is_stand_in(self.manifest),
            "split": "test",
            "method": method,
            "spaces": list(spaces),
            "settings": {"profile": self.scale.name, **settings},
            "seed": SEED,
            "n_train": self.manifest.splits["train"].size,
            "n_test": self.manifest.splits["test"].size,
        }
        if self.results.has(row, metrics):
            return
        for split in needs:
            self.features(split, spaces)
        if self.progress:  # some methods are silent for hours
            tqdm.write(f"{self.manifest.id}: {method} of {', '.join(spaces)}", file=sys.stderr)
        began = time.perf_counter()
        values, chosen = measure()
        seconds = round(time.perf_counter() - began, 2)
        self.results.add(row, values, chosen=chosen, seconds=seconds, device=device_name())


def expect_splits(manifest: Manifest) -> None:
    """Raise a DataError where a dataset cannot be fitted on its train split and scored on its test split."""
    missing = [name for name in ("train", "test") if name not in manifest.splits]
    if missing or manifest.n_classes < 2:
        has = f"the splits {', '.join(manifest.splits)} and {manifest.n_classes} classes"
        raise DataError(
            f"{manifest.id} has {has}. Expected the splits train and test, and two classes or more: choose another "
            "dataset, or complete its manifest."
        )


def folder_of(manifest: Manifest) -> str:
    """The name of a folder for what belongs to a dataset, stand-ins apart."""
    return f"{manifest.id} (stand-in)" if is_stand_in(manifest) else manifest.id


def shards_folder(features: Path, manifest: Manifest, split: str, backbone: str) -> Path:
    """Where a folder of features has the shards of a split in one space."""
    return features / folder_of(manifest) / f"{split}-{file_name_of(backbone)}"


def are_there(features: Path, manifest: Manifest, split: str, backbone: str) -> bool:
    """Whether a folder of features has all shards of a split in one space; looks at names only."""
    folder = shards_folder(features, manifest, split, backbone)
    layout = read_header(folder)
    return layout is not None and not missing_shards(folder, layout)


def extract_for(
    dataset: str, scale: Scale, features: Path, *, device: str = "auto", shard: int = SHARD, progress: bool = False
) -> list[ShardedFeatures]:
    """All features that a row of TURTLE's table needs, in shards that several processes share out.

    Args:
        dataset: a manifest's id.
        scale: of the run.
        features: folder; each split in each space gets one below it, where `labkit.papers.reproduce` looks.
        device: of this process.
        shard: rows of a shard.
        progress: show progress bars.

    Raises:
        LabkitError: as of `Job`, `load_dataset`, `load_backbone` and `extract_shards`.
    """
    manifest = load_manifest(dataset)
    expect_splits(manifest)
    backbones = Backbones(scale, device)
    done = []
    for split, names in (("train", scale.spaces), ("test", dict.fromkeys((*scale.spaces, scale.image_text)))):
        images = load_dataset(manifest, split).without_labels()
        for name in names:
            folder, dtype = shards_folder(features, manifest, split, name), scale.feature_dtype
            done.append(extract_shards(backbones[name], images, folder, dtype=dtype, shard=shard, progress=progress))
    return done


def is_stand_in(manifest: Manifest) -> bool:
    """Whether these are the few invented images that stand in for a dataset (see `labkit.papers.standins`)."""
    return bool(getattr(manifest, "stand_in", False))


def digest(settings: Any) -> str:
    """Twelve hexadecimal digits of anything that JSON holds."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
