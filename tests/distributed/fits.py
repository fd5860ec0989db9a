"""Fits of MUST for the tests to launch on any number of processes: `fits.py MODEL JOBS`, a folder and a file of JSON.

A job is a dictionary: "folder" for the checkpoint and metrics, "settings" of the fit, and perhaps "stop", the step
before whose checkpoint every process ends as in a crash, or "interrupt", the step at which the last process alone gets
Ctrl-C. A job with none of them asks for texts from all processes at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed

from labkit.must import checkpoint, estimator, head
from labkit.zeroshot.classifier import text_classifier
from labkit.zeroshot.prompts import Prompts
from tests import tiny
from tests.distributed.exits import note_group_at_exit


class Stop(Exception):
    """Ends a fit as a crash does."""


def fit(folder: str | Path, settings: dict[str, Any], stop: int | None = None, interrupt: int | None = None) -> None:
    """One fit of the tiny model, with a line of metrics and a checkpoint after every step.

    What a process ends with is kept beside the checkpoint: its labels and probabilities, how many images it has encoded
    before the first step and how often it has made the head; or the step at which it was interrupted.
    """
    estimator.LOG_EVERY, checkpoint.SAVE_EVERY = 1, -1.0
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    encoded, made, last = [0], [0], [0]
    encode_images, text_classifier = head.encode_images, head.text_classifier

    def watch(records: list[dict[str, float]]) -> None:
        last[0] = int(records[-1]["step"])
        if last[0] == stop:
            raise Stop
        if last[0] == interrupt and rank == world - 1:
            os.kill(os.getpid(), signal.SIGINT)

    def count_images(backbone: Any, images: Any) -> np.ndarray:
        encoded[0] += len(images)
        return encode_images(backbone, images)

    def count_heads(*arguments: Any) -> np.ndarray:
        made[0] += 1
        return text_classifier(*arguments)

    head.encode_images, head.text_classifier = count_images, count_heads  # type: ignore[assignment]
    try:
        must = tiny.must(**settings).fit(tiny.images(), folder=folder, on_log=watch)
    except Stop:
        return
    except KeyboardInterrupt:
        Path(folder, f"interrupted-{rank}.txt").write_text(str(last[0]), "utf-8")
        return
    finally:
        head.encode_images, head.text_classifier = encode_images, text_classifier
    result = {"labels": must.pseudo_labels_, "probs": must.predict_proba(tiny.images())}
    np.savez(Path(folder, f"process-{rank}.npz"), **result, encoded=encoded, heads=made)


def ask_for_texts() -> None:
    """The same texts in all processes at the same moment, some of them for the first time, again and again."""
    model = tiny.backbone()
    for i in range(30):
        prompts = Prompts.from_words(["cat", "dog", f"thing {i}"])
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
    note_group_at_exit(Path(sys.argv[2]).parent)
    run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")))
