"""A row of TURTLE's table: zero-shot, K-means, the linear probe, and TURTLE with the paper's choice of settings.

Each is a piece of work of its own, which is skipped where its results are there. All are fitted on the train split and
scored on the test split; clusters are matched to classes there (Gadetsky et al., ICML 2024, section 5). Labels are seen
by the linear probe, as its name says, and by the scores.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from labkit.data.folders import data_dir
from labkit.errors import CheckpointError, CollapseWarning, DataError
from labkit.evaluation.baselines import KMeans, LinearProbe
from labkit.evaluation.metrics import (
    accuracy,
    adjusted_rand_index,
    clustering_accuracy,
    mean_per_class_accuracy,
    normalized_mutual_info,
)
from labkit.papers.choice import choose
from labkit.papers.job import Features, Job, digest
from labkit.papers.labelings import labeling_path
from labkit.papers.protocol import SEED
from labkit.turtle import Turtle
from labkit.zeroshot.classifier import ZeroShot
from labkit.zeroshot.prompts import load_prompts

logger = logging.getLogger(__name__)

CLASSIFIED = ("accuracy", "mean_per_class")
CLUSTERED = ("accuracy", "nmi", "ari")


def reproduce_turtle_row(job: Job) -> None:
    """All that a row of the table has and that is not there yet.

    Raises:
        LabkitError: the images or the networks are not to be had, or a fit is not possible.
    """
    scale, n_classes = job.scale, job.manifest.n_classes
    spaces = list(scale.spaces)

    def k_means() -> tuple[dict[str, float], dict[str, Any]]:
        # as in the paper: raw features of one space, L2-normalized ones of several
        fitted = KMeans(n_classes, normalize=len(spaces) > 1, random_state=SEED).fit(job.features("train", spaces))
        return clustered(job, fitted.predict(job.features("test", spaces))), {}

    def linear_probe() -> tuple[dict[str, float], dict[str, Any]]:
        probe = LinearProbe().fit(job.features("train", spaces), job.train.labels)
        return classified(job, probe.predict(job.features("test", spaces))), {"labels_used": True}

    record_zero_shot(job, scale.image_text)
    made, needs = {"image_size": scale.image_size, "features": scale.feature_dtype}, ("train", "test")
    job.record("k-means", spaces, {"n_init": 10, **made}, CLUSTERED, k_means, needs=needs)
    job.record("linear-probe", spaces, {"inverse_penalty": 1e-2, **made}, CLASSIFIED, linear_probe, needs=needs)
    settings = {**scale.turtle, "sweep": dict(scale.grid), "n_scored": scale.n_scored, **made}
    job.record("turtle", spaces, settings, CLUSTERED, lambda: _turtle(job), needs=needs)
    released = _released_path(job)
    if released is not None:
        job.record("turtle-published", spaces, made, CLUSTERED, lambda: _released(job, released), needs=["test"])


def record_zero_shot(job: Job, name: str) -> None:
    """Zero-shot of an image-text model with the prompts of the dataset."""

    def zero_shot() -> tuple[dict[str, float], dict[str, Any]]:
        [features] = job.features("test", [name])
        classifier = ZeroShot.from_prompts(job.backbones[name], load_prompts(job.manifest))
        return classified(job, classifier.predict(features)), {}

    job.record("zero-shot", [name], {}, CLASSIFIED, zero_shot, needs=["test"])


def classified(job: Job, predicted: np.ndarray) -> dict[str, float]:
    """The scores of predicted classes of the test split, (n,)."""
    labels = job.test.labels
    return {"accuracy": accuracy(labels, predicted), "mean_per_class": mean_per_class_accuracy(labels, predicted)}


def clustered(job: Job, predicted: np.ndarray) -> dict[str, float]:
    """The scores of clusters of the test split, (n,), after matching where a score needs it."""
    labels = job.test.labels
    return {
        "accuracy": clustering_accuracy(labels, predicted),
        "nmi": normalized_mutual_info(labels, predicted),
        "ari": adjusted_rand_index(labels, predicted),
    }


def _turtle(job: Job) -> tuple[dict[str, float], dict[str, Any]]:
    spaces, scale = job.features("train", job.scale.spaces), job.scale
    turtles, swept = list(_sweep(job, spaces)), [{name: run[name] for name in scale.grid} for run in scale.runs()]
    sweep, by = choose(spaces, turtles, swept, n_scored=scale.n_scored, seed=SEED)
    best = sweep.best()
    first = sweep.table.iloc[0]
    chosen = {
        **{name: getattr(best, name) for name in scale.grid},
        "by": by,
        "score": float(first[by]),
        "n_found": int(first["n_found"]),
        "n_clusters": job.manifest.n_classes,
        "fit": _fit_path(job, swept[int(sweep.table.index[0])]).relative_to(job.folder).as_posix(),
    }
    return clustered(job, best.predict(job.features("test", scale.spaces))), chosen


def _released_path(job: Job) -> Path | None:
    """The labeling that the authors released, below the data folder; None where there is none for these spaces."""
    try:
        return labeling_path(data_dir(), job.manifest.id, job.scale.spaces)
    except DataError:
        return None


def _released(job: Job, path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The authors' own labeling on our features: another accuracy than theirs tells of the features, not of a fit."""
    found = Turtle.from_published(path)
    return clustered(job, found.predict(job.features("test", job.scale.spaces))), {"fit": path.name}


def _sweep(job: Job, spaces: list[Features]) -> Iterator[Turtle]:
    """Every run of the sweep: from its file where it is there, else fitted and saved."""
    bar = tqdm(job.scale.runs(), desc=f"{job.manifest.id} TURTLE", unit="fit", disable=not job.progress)
    for settings in bar:
        path = _fit_path(job, {name: settings[name] for name in job.scale.grid})
        turtle = _saved(path)
        if turtle is None:
            turtle = Turtle(job.manifest.n_classes, n_restarts=1, race=False, random_state=SEED, **settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CollapseWarning)  # the choice knows, and the table says
                turtle.fit(spaces).save(path)
        yield turtle


def _fit_path(job: Job, point: Mapping[str, Any]) -> Path:
    """The file of a run, named after all that it follows from."""
    run = [job.features_digest(job.scale.spaces), dict(job.scale.turtle), dict(point), SEED, job.manifest.n_classes]
    return job.fits(f"turtle-{digest(run)}.safetensors")


def _saved(path: Path) -> Turtle | None:
    if not path.exists():
        return None
    try:
        return Turtle.load(path)
    except CheckpointError as error:
        logger.warning("%s It is fitted again.", error)
        return None
