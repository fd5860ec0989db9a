"""Fits of Turtle for the tests to launch on any number of processes: `turtle_fits.py FOLDER` runs all of `JOBS`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import labkit as lk
from labkit.errors import CollapseWarning, FitError
from labkit.spaces.shards import ShardedFeatures
from labkit.turtle import own_part, power_law, streaming
from tests.distributed.exits import note_group_at_exit

N, CLUSTERS = 600, 4
SETTINGS: dict[str, Any] = {
    "n_restarts": 4,
    "n_outer_steps": 40,
    "dtype": "float32",
    "device": "cpu",
    "random_state": 0,
}
FEW = {"batch_size": 100}
JOBS: dict[str, dict[str, Any]] = {
    "full-batch": {"batch_size": None},
    "full-batch-cold": {"batch_size": None, "inner_start": "cold"},
    "batches": FEW,
    "batches-cold-prior": {**FEW, "inner_start": "cold", "prior": power_law(CLUSTERS, 1.0)},
    "batches-estimated": {**FEW, "prior": "estimated"},
    "a-part-is-drawn": {"batch_size": 9, "n_outer_steps": 40},
    "as-given": {**FEW, "n_components": None, "whitening": 0.0, "feature_scale": None, "outer_lr": 1e-3},
    "streamed": FEW,
    "uneven": {"batch_size": 40},
    "float64": {**FEW, "dtype": "float64"},
    "shards": FEW,
}
FITTED = ("confidence_", "n_found_", "prior_", "best_restart_")


def spaces() -> list[np.ndarray]:
    """Blobs of unequal size in two spaces, in a random order."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLUSTERS, N, p=[0.4, 0.3, 0.2, 0.1])
    return [
        (rng.normal(size=(CLUSTERS, d))[labels] * 2 + rng.normal(size=(N, d))).astype(dtype)
        for d, dtype in ((24, np.float32), (16, np.float16))
    ]


def rows_of(rank: int, world: int, name: str) -> slice:
    """The rows of a process: a third and two thirds; or all but two, so that most batches have none of the last."""
    cut = N - 2 if name == "uneven" else N // 3
    return slice(0, N) if world == 1 else slice(0, cut) if rank == 0 else slice(cut, N)


def fit(name: str, settings: dict[str, Any], folder: Path, rank: int, world: int) -> dict[str, Any]:
    """One fit; of memory-mapped files where it is streamed."""
    rows = rows_of(rank, world, name)
    mine: list[Any] = [space[rows] for space in spaces()]
    share = streaming.SHARE
    if name == "streamed":
        for k, space in enumerate(mine):
            np.save(folder / f"{rank}-{k}.npy", space)
        mine = [np.load(folder / f"{rank}-{k}.npy", mmap_mode="r") for k in range(len(mine))]
        streaming.SHARE = 0.0
    if name == "shards":
        first, second = spaces()
        shards = ShardedFeatures.write(folder / f"shards-{rank}", [first], dtype="float32", shard=77)
        mine = own_part([shards, second], device="cpu")
    turtle = lk.Turtle(CLUSTERS, **{**SETTINGS, **settings})
    try:
        turtle.fit_parts(mine) if world > 1 else turtle.fit(mine)
    finally:
        streaming.SHARE = share
    result = {key: getattr(turtle, key) for key in FITTED} | {f"history/{k}": v for k, v in turtle.history_.items()}
    for k, (weight, bias) in enumerate(turtle.restarts_):
        result |= {f"weight/{k}": weight, f"bias/{k}": bias, f"mean/{k}": turtle.means_[k]}
    probs = turtle.predict_proba(spaces())  # of all samples
    return result | {"labels": turtle.labels_, "probs": probs}


def refused(rank: int) -> list[str]:
    """What a process is told when something is wrong with one of them, or with both."""
    messages = []
    streaming.SAMPLE = 20  # random rows, so that the others see neither
    infinite = [space[:100].copy() for space in spaces()]
    infinite[1][7, 3] = np.nan if rank == 1 else 0.0
    far = [space[:100].copy() for space in spaces()]
    far[0][5] = np.inf if rank == 0 else 1.0
    empty = [space[: 0 if rank == 1 else 100] for space in spaces()]
    narrow = [space[:100, : 10 + rank] for space in spaces()]
    for given, clusters in ((infinite, CLUSTERS), (far, CLUSTERS), (empty, CLUSTERS), (narrow, 4), (spaces(), "auto")):
        try:
            lk.Turtle(clusters, **{**SETTINGS, "batch_size": None}).fit_parts(given)
        except FitError as error:
            messages.append(str(error))
    return messages


def run(folder: Path) -> None:
    """All jobs; what each process ends with is written beside the others'."""
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    warnings.simplefilter("ignore", CollapseWarning)
    for name, settings in JOBS.items():
        np.savez(folder / f"{name}-{rank}.npz", **fit(name, settings, folder, rank, world))
    if world > 1:
        (folder / f"refused-{rank}.txt").write_text("\n".join(refused(rank)), "utf-8")


if __name__ == "__main__":
    note_group_at_exit(Path(sys.argv[1]))
    run(Path(sys.argv[1]))
