"""Fits of MUST for the tests to launch on any number of processes: `fits.py MODEL JOBS`, a folder and a file of JSON.

A job is a dictionary: "folder" for the checkpoint and metrics, "settings" of the fit, and perhaps "stop", the step
before whose checkpoint every process ends as in a crash. A job with none of them asks for texts from all processes at
once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed

from labkit.must import estimator
from labkit.prompts import Prompts
from labkit.zeroshot import text_classifier
from tests import tiny


class Stop(Exception):
    """Ends a fit as a crash does."""


def fit(folder: str | Path, settings: dict[str, Any], stop: int | None = None) -> None:
    """One fit of the tiny model, with a line of metrics and a checkpoint after every step."""
    estimator.LOG_EVERY, estimator.SAVE_EVERY = 1, -1.0

    def crash(records: list[dict[str, float]]) -> None:
        if records[-1]["step"] == stop:
            raise Stop

    try:
        must = tiny.must(**settings).fit(tiny.pictures(), folder=folder, on_log=crash)
    except Stop:
        return
    result = {"labels": must.pseudo_labels_, "probs": must.predict_proba(tiny.pictures())}
    np.savez(Path(folder, f"process-{os.environ.get('RANK', 0)}.npz"), **result)


def ask_for_texts() -> None:
    """The same texts in all processes at the same moment, some of them for the first time, again and again."""
    model = tiny.backbone()
    for i in range(30):
        prompts = Prompts.of(["cat", "dog", f"thing {i}"])
        expected = text_classifier(model, prompts, cache=False)
        torch.distributed.barrier()
        for _ in range(2):  # made, then read
            np.testing.assert_array_equal(text_classifier(model, prompts), expected)


def run(model: str | Path, jobs: list[dict[str, Any]]) -> None:
    """All jobs one after the other."""
    tiny.use_model(Path(model))
    for job in jobs:
        if job:
            fit(**job)
        else:
            ask_for_texts()


if __name__ == "__main__":
    run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")))
