"""The plan of a reproduction: what has to be fetched, and what it takes in hours and gigabytes.

Nothing is downloaded for it. Hours are estimates: what was measured on this device in a few seconds (see
`labkit.papers.throughput`), times the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit._files import user_path
from labkit.data.manifests import load_manifest
from labkit.data.presence import missing_library, presence
from labkit.data.schema import Manifest
from labkit.errors import LabkitError, shorten, shown
from labkit.papers.job import Backbones, are_there, expect_splits, is_stand_in
from labkit.papers.protocol import Scale, pick_scale
from labkit.papers.report import aligned, duration
from labkit.papers.reproduce import chosen_datasets
from labkit.papers.results import FILE, read_rows
from labkit.papers.throughput import NETWORKS, Rates, measure, width
from labkit.spaces.papers import SPACES
from labkit.spaces.weights import is_in_cache

HERE = ("bundled", "here")
STUDENT_PASSES = 4  # of MUST for one image in one epoch: the teacher's forward; the student's and, twice it, backward
BYTES = {"float32": 4, "float16": 2}
BUNDLED_GB = 0.01  # of a model that comes with labkit
Piece = tuple[str, tuple[str, ...]]  # method and spaces
Pieces = frozenset[Piece]


@dataclass(frozen=True)
class Work:
    """What a dataset takes; hours of one device, gigabytes of 1e9 bytes.

    Attributes:
        dataset: its id.
        state: "bundled", "here", "partly", "not here", or "unusable".
        why: what `labkit.data.presence` says of that.
        by_hand: whether a person has to fetch the images.
        lacks: a library that they are read with and that is not installed; "" for none.
        download_gb: of the images where they are to be fetched; None is not known.
        images: in both splits.
        feature_hours, fit_hours: of results that are not there yet; features in the cache are not looked for.
        disk_gb: of what is kept: features, and models that MUST trained, at most.
        done: whether all its rows are there.
    """

    dataset: str
    state: str
    why: str
    by_hand: bool = False
    lacks: str = ""
    download_gb: float | None = 0.0
    images: int = 0
    feature_hours: float = 0.0
    fit_hours: float = 0.0
    disk_gb: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Plan:
    """What a reproduction would do, in the order of its datasets."""

    paper: str
    scale: Scale
    work: Sequence[Work]
    rates: Rates
    networks: Sequence[str] = ()  # which the hub's cache does not have
    shards: Path | None = None  # the folder for features in shards

    @property
    def weights_gb(self) -> float:
        """Gigabytes of networks that are to be fetched."""
        return sum(NETWORKS[name][1] for name in self.networks)

    @property
    def downloads(self) -> bool:
        """Whether anything is to be fetched: images or networks."""
        fetched = [
            one for one in self.work if one.state not in (*HERE, "unusable") and not one.by_hand and not one.done
        ]
        return bool(fetched) or (self.weights_gb > 0 and not all(one.done for one in self.work))

    def lines(self) -> list[str]:
        """The plan for people: a line a dataset, sums, and where the numbers are from."""
        header = ["dataset", "images are", "to fetch", "images", "features take", "fits take", "kept"]
        cells = [header, *(_cells(one) for one in self.work), _sums(self.work)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        table = ["  ".join(aligned(row, widths, texts=2)).rstrip() for row in cells]
        return [
            f"{self.paper}, profile {self.scale.name}: {self.scale.summary}",
            *table,
            *self._absent(),
            *self._notes(),
        ]

    def _absent(self) -> list[str]:
        """What is to be installed, what is downloaded, what a person has to fetch, and what is wrong."""
        absent = [one for one in self.work if one.state not in HERE and not one.done]
        downloaded = [one.dataset for one in absent if one.state == "not here" and not one.by_hand]
        lacking = [f"{one.lacks} for {one.dataset}" for one in self.work if one.lacks and not one.done]
        lines = [f"To be installed first: pip install 'labkit[papers]' ({', '.join(lacking)})."] if lacking else []
        lines += [f"Downloaded, each when its turn comes: {', '.join(downloaded)}."] if downloaded else []
        for one in absent:
            if one.by_hand and one.state != "unusable":
                lines.append(f"{one.dataset}: by hand, {one.why}; see labkit datasets show {one.dataset}")
            elif one.state != "not here":
                lines.append(f"{one.dataset}: {shorten(one.why, 200)}")
        return lines

    def _notes(self) -> list[str]:
        rates = self.rates
        network = [
            f"{name} {_rate(1 / seconds)} images/s{' (from its operations)' if name in rates.counted else ''}"
            for name, seconds in rates.image.items()
            if seconds > 0
        ]
        notes = [
            f"Hours are an estimate from a few seconds of measurement on this device ({rates.device}): "
            f"{', '.join(network)}. Reading and decoding of files is not in them, nor is a queue for the device."
        ]
        if self.paper == "turtle":
            steps = self.scale.turtle["n_outer_steps"]
            notes.append(f"TURTLE: {len(self.scale.runs())} fits of {steps:,} outer steps for each dataset.")
        if self.shards is not None:
            notes.append(
                f"Features are kept in {shown(self.shards)}{'' if self.shards.exists() else ', which is new'}."
            )
        if self.networks:
            notes.append(f"Networks from the hub, once: {', '.join(self.networks)}, {self.weights_gb:.1f} GB.")
        return notes


def make_plan(
    paper: str,
    folder: str | os.PathLike[str],
    *,
    datasets: Sequence[str] | None = None,
    profile: str = "pocket",
    features: str | os.PathLike[str] | None = None,
) -> Plan:
    """What `labkit.papers.reproduce.reproduce` with the same arguments would do; some seconds, no download.

    Raises:
        DataError: an argument is none of those that it takes.
    """
    names, scale = chosen_datasets(paper, datasets), pick_scale(profile)
    shards = None if features is None else user_path(features)
    done = _done(user_path(folder), paper, scale)
    backbones = Backbones(scale)
    rates = measure(paper, scale, backbones)
    networks = {*scale.spaces, scale.image_text} if paper == "turtle" else set(scale.students)
    widths = {name: width(name, backbones) for name in networks}
    absent = [name for name in sorted(rates.counted) if not is_in_cache(SPACES[name].repo)]
    work = [_work(paper, name, scale, rates, widths, done, shards) for name in names]
    return Plan(paper, scale, work, rates, absent, shards)


def _done(folder: Path, paper: str, scale: Scale) -> dict[tuple[str, bool], Pieces]:
    """What the results of a folder hold of this paper and profile, by dataset and whether it is a stand-in."""
    if not (folder / FILE).exists():
        return {}
    rows = read_rows(folder)
    rows = rows[(rows["paper"] == paper) & (rows["settings"].map(lambda given: given.get("profile")) == scale.name)]
    groups = rows.groupby(["dataset", "stand_in"])
    return {key: frozenset((row.method, tuple(row.spaces)) for row in group.itertuples()) for key, group in groups}


def _work(
    paper: str,
    dataset: str,
    scale: Scale,
    rates: Rates,
    widths: dict[str, int],
    done: dict[tuple[str, bool], Pieces],
    shards: Path | None,
) -> Work:
    try:
        manifest = load_manifest(dataset)
        expect_splits(manifest)
        found = presence(manifest)
    except LabkitError as error:
        return Work(dataset, "unusable", " ".join(str(error).split()), download_gb=0.0)
    pieces = pieces_of(paper, manifest, scale)
    if not pieces:
        return Work(dataset, "unusable", f"MUST has no settings for it with {' or '.join(scale.students)}")
    left = [piece for piece in pieces if piece not in done.get((dataset, is_stand_in(manifest)), frozenset())]
    todo = encoded(left, manifest, shards)
    n = sum(manifest.splits[split].size for split in ("train", "test"))
    fetched = getattr(manifest, "download_gb", None) if found.state not in HERE else 0.0
    return Work(
        dataset,
        found.state,
        found.why,
        by_hand=manifest.source.kind in ("manual", "folder"),
        lacks=missing_library(manifest),
        download_gb=0.0 if not left else fetched,
        images=n,
        feature_hours=sum(rows * rates.image[name] for name, rows in todo) / 3600,
        fit_hours=sum(fit_seconds(piece, manifest, scale, rates) for piece in left) / 3600,
        disk_gb=sum(rows * widths[name] for name, rows in todo) * BYTES[scale.feature_dtype] / 1e9
        + sum(_weights_gb(spaces[0]) for method, spaces in left if method == "must"),
        done=not left,
    )


def _weights_gb(name: str) -> float:
    return NETWORKS[name][1] if name in NETWORKS else BUNDLED_GB


def pieces_of(paper: str, manifest: Manifest, scale: Scale) -> list[Piece]:
    """Method and spaces of all that a dataset's rows have."""
    if paper == "turtle":
        fitted = [(method, scale.spaces) for method in ("k-means", "linear-probe", "turtle")]
        return [("zero-shot", (scale.image_text,)), *fitted]
    students = [name for name in scale.students if scale.must_config(manifest, name) is not None]
    return [(method, (name,)) for name in students for method in ("zero-shot", "must")]


def encoded(pieces: Iterable[Piece], manifest: Manifest, shards: Path | None) -> list[tuple[str, int]]:
    """How many images go through each network for the features of these pieces; MUST trains on images."""
    needed = {(split, name) for method, spaces in pieces if method != "must" for name in spaces
              for split in (("test",) if method == "zero-shot" else ("train", "test"))}  # fmt: skip
    return [
        (name, manifest.splits[split].size)
        for split, name in sorted(needed)
        if shards is None or not are_there(shards, manifest, split, name)
    ]


def fit_seconds(piece: Piece, manifest: Manifest, scale: Scale, rates: Rates) -> float:
    """Of one piece, once its features are there."""
    method, spaces = piece
    n, n_classes = manifest.splits["train"].size, manifest.n_classes
    if method == "turtle":
        per_row = rates.turtle[0] + rates.turtle[1] * n_classes
        runs = scale.runs()
        return sum(run["n_outer_steps"] * min(run["batch_size"] or n, n) * per_row for run in runs)
    if method == "must":
        config = scale.must_config(manifest, spaces[0])
        passes = STUDENT_PASSES * n * (0 if config is None else config.epochs) + manifest.splits["test"].size
        return passes * rates.image[spaces[0]]
    if method == "linear-probe":
        return rates.probe_seconds(n, n_classes)
    return rates.k_means_seconds(n, n_classes) if method == "k-means" else 0.0


def _cells(work: Work) -> list[str]:
    if work.done:
        return [work.dataset, "done", "", f"{work.images:,}", "", "", ""]
    fetch = "by hand" if work.by_hand and work.state not in HERE else _download(work.download_gb)
    times = [duration(hours) for hours in (work.feature_hours, work.fit_hours)]
    return [work.dataset, work.state, fetch, f"{work.images:,}", *times, _size(work.disk_gb)]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _download(size: float | None) -> str:
    return "not known" if size is None else _size(size) if size else "nothing"


def _size(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{max(gigabytes * 1000, 1):.0f} MB" if gigabytes else "0"


def _sums(work: Sequence[Work]) -> list[str]:
    known = sum(one.download_gb or 0.0 for one in work if not one.by_hand)
    unknown = sum(one.download_gb is None and not one.by_hand for one in work)
    fetch = _download(known) + (f" and {unknown} not known" if unknown else "")
    times = [duration(sum(hours)) for hours in zip(*((w.feature_hours, w.fit_hours) for w in work), strict=True)]
    disk = _size(sum(one.disk_gb for one in work))
    images = sum(one.images for one in work)
    return ["all", "", fetch, f"{images:,}", *times, disk]
