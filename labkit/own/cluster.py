"""A folder of images sorted into clusters: scan, audit, feature spaces, clusters, names, files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

import labkit
from labkit._files import user_path
from labkit.errors import CollapseWarning, DataError, shown
from labkit.own.alike import look_alikes
from labkit.own.audit import audit, flags
from labkit.own.clustering import (
    GALLERY,
    LABELS,
    MAP,
    REPORT,
    SEEN,
    TABLE,
    TURTLE,
    Clustering,
    load_clustering,
    replacing,
)
from labkit.own.files import expect_places, write_file
from labkit.own.gallery import center_distances, gallery_page
from labkit.own.later import save_seen
from labkit.own.layout import layout, layout_method
from labkit.own.map_page import map_page
from labkit.own.names import FoundNames, name_found
from labkit.own.reading import Reading, read_folder
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.turtle import Turtle
from labkit.turtle.counting import estimate_n_clusters

DEFAULT_SPACES = ("efficientnet-lite0",)  # where TURTLE looks for classes unless told otherwise
PACKAGES = ("torch", "timm", "open_clip_torch", "scikit-learn", "numpy", "pillow")  # whose versions a report names
NAMED_BY = "pocket-clip"  # unless one of the spaces is that of an image-text model
FILES = (LABELS, TABLE, GALLERY, MAP, TURTLE, SEEN, REPORT)


def cluster_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    n_classes: int | Literal["auto"] = "auto",
    prior: str = "estimated",
    backbones: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
    words_file: Path | None = None,
    strict: bool = False,
    n_restarts: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> Clustering:
    """Cluster the images of a folder with TURTLE, and keep tables, pages and the model in another.

    Features are kept in labkit's cache as they are made. The same call on the same images changes nothing: it reads
    what `out` holds.

    Args:
        folder: the images, at any depth below it.
        out: the folder to write: labels.csv and labels.parquet (a row an image), clusters.html (to review them),
            map.html, turtle.safetensors and seen.safetensors (for later images), report.json.
        n_classes: how many classes to look for; "auto" estimates it.
        prior: "even" or "estimated", as in `Turtle`.
        backbones: names of the feature spaces; None is `DEFAULT_SPACES`.
        words: a vocabulary to name the clusters with; without, there are suggestions only.
        words_file: where the words are from, which is not to be replaced.
        strict: raise where an image cannot be read, instead of leaving it out.
        n_restarts: runs of TURTLE; the most confident is kept.
        seed: of random numbers.
        progress: show progress bars.

    Raises:
        LabkitError: anything that does not work, before the work where it can be known.
    """
    # absolute, so that the result can be used from anywhere
    folder, out = user_path(folder).absolute(), user_path(out)
    expect_places(
        {"--out": out / REPORT} | {f"--out ({name})": out / name for name in FILES[:-1]},
        {"the file of words": [] if words_file is None else [words_file]},
        folder,
    )
    settings: dict[str, Any] = {
        "n_classes": n_classes,
        "prior": prior,
        "backbones": list(dict.fromkeys(backbones or DEFAULT_SPACES)),
        "words": None if words is None else list(words),
        "n_restarts": n_restarts,
        "seed": seed,
    }
    loaded = {name: load_backbone(name) for name in settings["backbones"]}
    namer = _namer(loaded)
    every = loaded | {namer.name: namer}
    reading = read_folder(folder, list(every.values()), strict=strict, progress=progress)
    left_out = [[reading.below(path), reason] for path, reason in reading.left_out.items()]
    fingerprints = [backbone.fingerprint for backbone in every.values()]
    run = _digest([labkit.__version__, reading.identity, left_out, reading.others, settings, fingerprints])
    kept = _kept(out)
    if kept is not None and kept.report["run"] == run:
        return kept
    if kept is not None and kept.report["review"]:
        raise DataError(
            f"{shown(out)} holds clusters that were reviewed, of other images or settings. Choose another --out, or "
            "delete that folder and its review."
        )
    return _cluster(reading, out, run, settings | {"named_by": namer.name}, namer, progress)


def _namer(loaded: dict[str, Backbone]) -> Backbone:
    """The image-text model that names clusters: one of the spaces where it is one, else `NAMED_BY`."""
    known = [backbone for backbone in loaded.values() if backbone.tokenize is not None]
    return known[0] if known else load_backbone(NAMED_BY)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _kept(out: Path) -> Clustering | None:
    """The result in a folder; None where there is none, not all of it, or a damaged one."""
    if all((out / name).is_file() for name in FILES):
        with contextlib.suppress(DataError):
            return load_clustering(out)
    return None


def _cluster(
    reading: Reading,
    out: Path,
    run: str,
    settings: dict[str, Any],
    namer: Backbone,
    progress: bool,
) -> Clustering:
    """Fit, name and write; what `out` holds is complete when it has a report again."""
    n, n_classes, seed = len(reading.files), settings["n_classes"], settings["seed"]
    # where PyTorch put them, whether they were computed or read: sums of floats depend on how memory is aligned
    features = {name: torch.from_numpy(reading.features[name]).clone().numpy() for name in settings["backbones"]}
    spaces = list(features.values())
    if n < 2:
        raise DataError(f"{shown(reading.root)} holds one image that can be read. Expected two or more to compare.")
    if n_classes != "auto" and n_classes > n:
        raise DataError(f"--classes is {n_classes}, but {reading.root} holds {n} images that can be read.")
    interval = None
    if n_classes == "auto":
        count = estimate_n_clusters(spaces, random_state=seed, progress=progress)
        n_classes, interval = count.estimate, list(count.interval)
    turtle = Turtle(
        n_classes, prior=settings["prior"], n_restarts=settings["n_restarts"], random_state=seed, progress=progress
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # the table of clusters shows it
        probs = turtle.fit(spaces).predict_proba(spaces)  # (n, C)
    found = probs.argmax(1)
    named = name_found(probs, namer, reading.features[namer.name], settings["words"])
    positions = layout(spaces, seed)  # (n, 2)
    images = pd.DataFrame(
        {
            "file": [reading.below(path) for path in reading.files],
            "cluster": found.astype(np.int64),
            "confidence": probs.max(1).astype(np.float64),
            "name": [named.names[cluster] for cluster in found],
            "flags": [flags(row) for row in audit(reading).itertuples()],
            "found": found.astype(np.int64),
            "distance": center_distances(found, features),
            "x": positions[:, 0],
            "y": positions[:, 1],
        }
    )
    report = _report(reading, run, settings) | {
        "n_classes": {"used": n_classes, "interval": interval},
        "look_alikes": look_alikes(found, features, seed),
        "prior": [round(float(share), 4) for share in turtle.prior_],
        "layout": layout_method(n),
    }
    clustering = Clustering(reading.root, reading.files, images, cluster_table(found, named), report)
    with replacing(out) as folder:
        turtle.save(folder / TURTLE)
        save_seen(folder, features, clustering)
        _write(folder, out, clustering, reading)
    return clustering


def _report(reading: Reading, run: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What is known of a result before the fit."""
    return {
        "labkit": "clusters",
        "format": 1,
        "run": run,
        "version": labkit.__version__,
        "python": platform.python_version(),
        "packages": {package: metadata.version(package) for package in PACKAGES},
        "root": str(reading.root),
        "settings": settings,
        "n_images": len(reading.files),
        "left_out": {reading.below(path): reason for path, reason in reading.left_out.items()},
        "other_endings": reading.others,
        "review": [],
    }


def cluster_table(found: np.ndarray, named: FoundNames) -> pd.DataFrame:
    """A row for each cluster that has images, as in `Clustering.clusters`."""
    clusters, sizes = np.unique(found, return_counts=True)
    return pd.DataFrame(
        {
            "cluster": clusters,
            "size": sizes,
            "name": [named.names[k] for k in clusters],
            "name_confidence": [float(named.confidence[k]) for k in clusters],
            "suggestions": [named.suggestions[k] for k in clusters],
        }
    )


def write_clustering(out: Path, clustering: Clustering, reading: Reading) -> None:
    """Write the tables and pages of a clustering anew; the model for later images stays."""
    with replacing(out) as folder:
        _write(folder, out, clustering, reading)


def _write(folder: Path, out: Path, clustering: Clustering, reading: Reading) -> None:
    """Tables and pages into a folder; links in them are right in `out`."""
    write_file(folder / GALLERY, gallery_page(clustering, reading.thumbnails, reading.features, out))
    positions = clustering.images[["x", "y"]].to_numpy(np.float32)
    write_file(folder / MAP, map_page(clustering, reading.thumbnails, positions, out))
    clustering.save(folder)
