"""Later images: the clusters of an earlier run for the images of another folder, and which are unlike anything seen.

How far an image is from the fitted ones is its mean distance to the nearest of them (Sun et al., Out-of-Distribution
Detection with Deep Nearest Neighbors, ICML 2022), in every space, as a multiple of what is usual there: the mean of the
distance of unit vectors, which sees images of another kind, and that of centered ones, which sees classes. It is
compared with the same distance of each fitted image from the others: `unlike` is the share of the fitted images that
are nearer to the rest than this one is. So of later images like the fitted ones about 5 % are above 0.95 (a conformal
p-value: Vovk et al., Algorithmic Learning in a Random World, 2005), whatever the features; no label is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit._saved import MALFORMED, read_saved, write_saved
from labkit._scales import unit_rows
from labkit.errors import CheckpointError, DataError, quote, shown
from labkit.own.audit import audit, flags
from labkit.own.clustering import SEEN, TURTLE, Clustering, load_clustering
from labkit.own.files import expect_places, explain_unwritable, file_cell, word_cell, write_table
from labkit.own.reading import Reading, read_folder
from labkit.spaces.backbones import load_backbone
from labkit.turtle import Turtle

REFERENCE = 4000  # fitted images that are kept to compare with; of more a random part
NEAREST = 5  # of them that a distance is the mean of
UNLIKE = 0.95  # above, an image is flagged: so are about 5 % of images like the fitted ones
LEAST_PART = (
    0.1  # of a found cluster's images: what a review put elsewhere is a rule for later images, not an exception
)
BLOCK = 1024  # images that are compared at a time
KIND = "Seen"


@dataclass(frozen=True)
class Seen:
    """What is kept of the images that a result was fitted to, m of n.

    Attributes:
        run: of the result that it belongs to.
        rows: which of the images, (m,).
        spaces: {name: (mean (d,) of the unit vectors, and m of these (m, d) in half precision)}.
        usual: {name: the median distance of these from the others, of unit vectors and of centered ones}.
        distances: of each from the others, over all spaces, sorted, (m,).
    """

    run: str
    rows: np.ndarray
    spaces: dict[str, tuple[np.ndarray, np.ndarray]]
    usual: dict[str, tuple[float, float]]
    distances: np.ndarray

    def unlike(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """The share of the fitted images that are nearer to the rest than each image is to them, (n,): 0 to 1.

        Args:
            features: {name: (n, d)} of the same spaces.

        Raises:
            DataError: a space is missing, or of another width.
        """
        far = []
        for name, (mean, units) in self.spaces.items():
            pairs = zip(_views(self._given(features, name), mean), _views(units, mean), self.usual[name], strict=True)
            far += [distances(new, kept) / usual for new, kept, usual in pairs]
        nearer = np.searchsorted(self.distances, np.stack(far).mean(0), side="left")
        return nearer / (len(self.distances) + 1)  # as one more of them: conformal

    def nearest(self, features: Mapping[str, np.ndarray], groups: Sequence[np.ndarray]) -> np.ndarray:
        """The group of fitted images whose centroid each image is most similar to, over all spaces, (n,).

        Args:
            features: {name: (n, d)} of the same spaces.
            groups: the rows of the fitted images of each; one of which none is kept is nobody's nearest.
        """
        kept = [np.flatnonzero(np.isin(self.rows, group)) for group in groups]
        similar = np.zeros((len(next(iter(features.values()))), len(groups)))
        for name, (mean, units) in self.spaces.items():
            _, centered = _views(self._given(features, name), mean)
            _, fitted = _views(units, mean)
            for k, rows in enumerate(kept):
                similar[:, k] += centered @ unit_rows(fitted[rows].mean(0)) if len(rows) else -np.inf
        return similar.argmax(1)

    def _given(self, features: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        width = len(self.spaces[name][0])
        if name not in features or features[name].ndim != 2 or features[name].shape[1] != width:
            raise DataError(f"features are {quote(features)}. Expected {width} columns of the space {name}.")
        return features[name]


def distances(units: np.ndarray, seen: np.ndarray, *, same: bool = False) -> np.ndarray:
    """Mean cosine distance of n unit vectors (n, d) from the nearest few of m others (m, d): (n,).

    Args:
        units: of the images.
        seen: to compare with.
        same: the two are the same images, and each is compared with all but itself.
    """
    n_nearest = min(NEAREST, len(seen) - same)
    far = []
    for start in range(0, len(units), BLOCK):
        cosines = units[start : start + BLOCK] @ seen.T  # (block, m)
        if same:
            rows = np.arange(len(cosines))
            cosines[rows, start + rows] = -np.inf
        nearest = -np.partition(-cosines, n_nearest - 1, axis=1)[:, :n_nearest]
        far.append(np.maximum(1 - nearest.mean(1), 0))
    return np.concatenate(far)


def see(features: Mapping[str, np.ndarray], run: str) -> Seen:
    """What to keep of n ≥ 2 fitted images, with features {name: (n, d)}."""
    n = len(next(iter(features.values())))
    rows = np.sort(np.random.default_rng(0).permutation(n)[:REFERENCE])
    spaces, usual, far = {}, {}, []
    for name, given in features.items():
        mean = unit_rows(given).mean(0, dtype=np.float64).astype(np.float32)
        units = unit_rows(given[rows]).astype(np.float16)
        own = [distances(view, view, same=True) for view in _views(units, mean)]
        direct, centered = (float(max(np.median(view), 1e-6)) for view in own)
        spaces[name], usual[name] = (mean, units), (direct, centered)
        far += [own[0] / direct, own[1] / centered]
    return Seen(run, rows, spaces, usual, np.sort(np.stack(far).mean(0)))


def save_seen(out: Path, features: Mapping[str, np.ndarray], clustering: Clustering) -> None:
    """Keep what tells later images that are unlike the fitted ones, in seen.safetensors in the folder of a result.

    Args:
        out: the folder.
        features: {name of the backbone: (n, d)}, in the order of the spaces of the fit.
        clustering: of these n images.

    Raises:
        DataError: it cannot be written.
    """
    seen = see(features, clustering.report["run"])
    tensors = {"rows": torch.from_numpy(seen.rows), "distances": torch.from_numpy(seen.distances)}
    for k, (mean, units) in enumerate(seen.spaces.values()):
        tensors |= {f"mean/{k}": torch.from_numpy(mean), f"units/{k}": torch.from_numpy(units)}
    with explain_unwritable(out / SEEN):
        write_saved(out / SEEN, KIND, {"run": seen.run, "usual": seen.usual}, tensors)


def load_seen(out: Path) -> Seen:
    """What `save_seen` kept.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    advice = "Run labkit cluster again."
    settings, tensors = read_saved(out / SEEN, KIND, advice)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        usual = {str(name): (float(direct), float(centered)) for name, (direct, centered) in settings["usual"].items()}
        spaces = {name: (arrays[f"mean/{k}"], arrays[f"units/{k}"]) for k, name in enumerate(usual)}
        rows, far = arrays["rows"], arrays["distances"]
        fits = all(
            mean.ndim == 1 and units.shape == (len(rows), len(mean)) and units.dtype == np.float16
            for mean, units in spaces.values()
        )
        numbers = [*(array for pair in spaces.values() for array in pair), far]
        is_whole = bool(spaces) and rows.ndim == 1 and rows.dtype == np.int64 and far.shape == rows.shape
        if not (
            fits
            and is_whole
            and all(np.isfinite(array).all() for array in numbers)
            and min(map(min, usual.values())) > 0
        ):
            raise ValueError("its parts do not fit")
    except MALFORMED as error:
        raise CheckpointError(f"{shown(out / SEEN)} holds no whole {KIND} ({error}). {advice}") from error
    return Seen(str(settings["run"]), rows, spaces, usual, far)


# --------------------------------------------------------------------------------------------------- clusters of others


@dataclass(frozen=True, eq=False)
class Predicted:
    """The clusters of a folder's n images that can be read.

    Attributes:
        reading: the images.
        clusters: as reviewed, (n,); −1 where later images would be rejected.
        confidence: TURTLE's probability of the cluster that it found, (n,).
        names: of the clusters, "" where there is none, n.
        unlike: see `Seen.unlike`, (n,).
        flags: what the audit says, and "unlike anything seen"; n texts.
    """

    reading: Reading
    clusters: np.ndarray
    confidence: np.ndarray
    names: list[str]
    unlike: np.ndarray
    flags: list[str]

    @property
    def is_unlike(self) -> np.ndarray:
        """Which images are unlike anything seen, (n,) bool."""
        return self.unlike > UNLIKE

    def counts(self) -> list[tuple[int, str, int]]:
        """Each cluster with its name and how many images it got, in the order of their numbers."""
        names = dict(zip(self.clusters.tolist(), self.names, strict=True))
        numbers, sizes = np.unique(self.clusters, return_counts=True)
        return [(number, names[number], size) for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True)]

    def rows(self) -> Iterator[list[Any]]:
        """A row of labels.csv for each image."""
        columns = (self.reading.files, self.clusters, self.confidence, self.names, self.flags, self.unlike)
        for path, cluster, confidence, name, flag, unlike in zip(*columns, strict=True):
            file = file_cell(path, self.reading.root)
            yield [file, cluster, f"{confidence:.4f}", word_cell(name), word_cell(flag), f"{unlike:.4f}"]


def predict_folder(
    saved: Path, folder: Path, out: Path | None = None, *, strict: bool = False, progress: bool = False
) -> Predicted:
    """The clusters of an earlier result for the images of another folder, as they were reviewed.

    An image gets the cluster that TURTLE finds, and what the review made of that: where it was split, the part whose
    centroid is nearest. Files that were moved or rejected one by one say nothing of later ones, unless they are a tenth
    of their cluster.

    Args:
        saved: the folder that `labkit cluster` wrote, or turtle.safetensors in it.
        folder: the images, at any depth below it.
        out: a CSV to write, with the columns of labels.csv and `unlike`.
        strict: raise where an image cannot be read.
        progress: show a progress bar.

    Raises:
        LabkitError: the result is missing or damaged, no image can be read, or the CSV cannot be written.
    """
    kept = saved if saved.is_dir() else saved.parent
    clustering, seen = load_clustering(saved), load_seen(kept)
    if seen.run != clustering.report["run"]:
        raise DataError(f"{shown(kept / SEEN)} is of another run than {shown(kept)}. Run labkit cluster again.")
    turtle = Turtle.load(kept / TURTLE)
    backbones = [load_backbone(name) for name in clustering.report["settings"]["backbones"]]
    if out is not None:
        expect_places({"--out": out}, {"the saved result": [kept / TURTLE, kept / SEEN]}, folder)
    reading = read_folder(folder, backbones, strict=strict, progress=progress)
    if out is not None:
        expect_places({"--out": out}, {"one of the images": reading.files})
    probs = turtle.predict_proba([reading.features[backbone.name] for backbone in backbones])  # (n, C)
    clusters = reviewed(probs.argmax(1), clustering, seen, reading.features)
    names = dict(zip(clustering.clusters["cluster"], clustering.clusters["name"], strict=True))
    unlike = seen.unlike(reading.features)
    flagged = [
        "; ".join(filter(None, (flags(row), "unlike anything seen" if far > UNLIKE else "")))
        for (_, row), far in zip(audit(reading).iterrows(), unlike, strict=True)
    ]
    named = [names.get(cluster, "") for cluster in clusters]
    predicted = Predicted(reading, clusters, probs.max(1), named, unlike, flagged)
    if out is not None:
        header = ["file", "cluster", "confidence", "name", "flags", "unlike"]
        write_table(out, header, predicted.rows())
    return predicted


def reviewed(found: np.ndarray, clustering: Clustering, seen: Seen, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """The clusters (n,) after the review for those that TURTLE found (n,), with features {name: (n, d)}."""
    was, labels = clustering.images["found"].to_numpy(np.int64), clustering.labels
    final = found.astype(np.int64)
    for cluster in np.unique(found):
        members = was == cluster
        numbers, sizes = np.unique(labels[members], return_counts=True)
        numbers = numbers[sizes >= max(LEAST_PART * members.sum(), sizes.max(initial=0) * LEAST_PART)]
        rows = np.flatnonzero(found == cluster)
        if len(numbers) == 1:
            final[rows] = numbers[0]
        elif len(numbers) > 1:
            groups = [np.flatnonzero(members & (labels == number)) for number in numbers]
            here = {name: given[rows] for name, given in features.items()}
            final[rows] = numbers[seen.nearest(here, groups)]
    return final


def _views(features: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of features (n, d), and those of their differences from the mean of the fitted ones."""
    units = unit_rows(features.astype(np.float32))
    return units, unit_rows(units - mean)
