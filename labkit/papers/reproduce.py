"""Reproduce a paper's table: dataset after dataset, each finished piece kept at once, so that it can stop anywhere.

The folder of a run holds `results.jsonl` (see `labkit.papers.results`), `fits/` (every fitted model), and, from the
results, `table.md`, `table.csv` and `report.html`. The same call goes on where the last one stopped, also on another
machine that the folder was copied to. A dataset that cannot be had is said and skipped.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit._files import locked_folder, user_path
from labkit._processes import are_launched
from labkit.data.manifests import list_manifests
from labkit.errors import DataError, did_you_mean, quote, shorten, shown
from labkit.papers.job import Backbones, Job
from labkit.papers.must_row import reproduce_must_row
from labkit.papers.page import write_report
from labkit.papers.protocol import DATASETS, PAPERS, pick_scale
from labkit.papers.results import FILE, Results
from labkit.papers.turtle_row import reproduce_turtle_row

logger = logging.getLogger(__name__)

ROWS = {"turtle": reproduce_turtle_row, "must": reproduce_must_row}


@dataclass(frozen=True)
class Reproduced:
    """What came of a run.

    Attributes:
        folder: with results, fits, tables and the page.
        failed: why a dataset has no full row, by dataset.
    """

    folder: Path
    failed: dict[str, str]


def reproduce(
    paper: str,
    folder: str | os.PathLike[str],
    *,
    datasets: Sequence[str] | None = None,
    profile: str = "pocket",
    features: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Reproduced:
    """Make the rows of a paper's table that are not there yet.

    Args:
        paper: "turtle" or "must".
        folder: for results and fits; one that holds some is gone on with.
        datasets: ids of manifests; None is all that the paper has.
        profile: "pocket", "photos", "standard" or "paper" (see `labkit.papers.protocol`).
        features: folder for features in shards, where `labkit.papers.job.extract_for` puts them; what is there is
            used. None keeps them whole: in the cache, and in memory.
        progress: show progress bars.

    Raises:
        DataError: an argument is none of these, a launcher has started more processes than this one, another process
            works in the folder, or it cannot be written to.
    """
    expect_alone()
    names, scale, out = chosen_datasets(paper, datasets), pick_scale(profile), user_path(folder)
    shards = None if features is None else user_path(features)
    failed: dict[str, str] = {}
    with _held(out):
        results = Results(out)
        backbones = Backbones(scale)
        for name in names:
            try:
                ROWS[paper](Job(paper, name, scale, out, results, backbones, features=shards, progress=progress))
            except Exception as error:  # of a source, a library or a fit: the other rows do not depend on it
                reason = " ".join(str(error).split()) or type(error).__name__
                failed[name] = shorten(reason, 1500)
                logger.warning("%s is skipped: %s", name, failed[name])
                logger.debug("what happened with %s:", name, exc_info=error)
        if (out / FILE).exists():
            write_report([out], out / "report.html", tables=out)
    return Reproduced(out, failed)


def expect_alone() -> None:
    """Raise a DataError in one of several processes of a launcher: they would do the same work, in one folder."""
    if are_launched():
        raise DataError(
            "a reproduction runs in one process, and a launcher has started several. Start it without `accelerate "
            "launch` or torchrun. For several GPUs, start one command on each (CUDA_VISIBLE_DEVICES=0, 1, …), with "
            "--datasets and an --out of its own; `labkit report` merges them."
        )


def chosen_datasets(paper: str, datasets: Sequence[str] | None) -> list[str]:
    """The ids of the datasets of a run, each once; all of the paper's where none are given.

    Raises:
        DataError: there is no such paper or dataset.
    """
    if not isinstance(paper, str) or paper not in PAPERS:
        raise DataError(f"the paper is {quote(paper)}. Expected {' or '.join(PAPERS)}.")
    if datasets is None:
        return list(DATASETS[paper])
    if isinstance(datasets, str) or not isinstance(datasets, Sequence) or not datasets:
        raise DataError(f"datasets is {quote(datasets)}. Expected a list of ids, such as dtd, or None for all.")
    known = list_manifests()
    for name in datasets:
        if name not in known and name not in DATASETS[paper]:
            near = did_you_mean(name, known) if isinstance(name, str) else ""
            raise DataError(f"there is no dataset {quote(name)}.{near} Expected some of {', '.join(known)}.")
    return list(dict.fromkeys(datasets))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        with locked_folder(folder, wait=False):
            yield
    except BlockingIOError as error:
        raise DataError(
            f"another process reproduces into {shown(folder)}. Wait for it, or give another folder; `labkit report` "
            "merges several."
        ) from error
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be written to ({error}). Choose another folder.") from error
