"""A row of MUST's table: zero-shot before, and the last epoch's teacher after, for each student of the profile.

Training sees the images of the train split and the names of the classes, no label; nothing is chosen among epochs, as
the authors' code does by test labels. Both are scored on the test split (Li et al., ICLR 2023, section 4).
"""

from __future__ import annotations

import dataclasses
import gc
import logging
from pathlib import Path
from typing import Any

import torch

from labkit.devices import is_out_of_memory
from labkit.errors import CheckpointError, FitError
from labkit.must import MUST, MustConfig
from labkit.must.checkpoint import CHECKPOINT
from labkit.papers.job import Job, digest
from labkit.papers.protocol import SEED
from labkit.papers.turtle_row import CLASSIFIED, classified, record_zero_shot
from labkit.zeroshot.prompts import load_prompts

logger = logging.getLogger(__name__)

MODEL = "must.safetensors"


def reproduce_must_row(job: Job) -> None:
    """All that a dataset's rows of the table have and that is not there yet.

    Raises:
        LabkitError: the images or the networks are not to be had, a fit is not possible, or there are no settings.
    """
    configs = {name: job.scale.must_config(job.manifest, name) for name in job.scale.students}
    if not any(configs.values()):
        raise FitError(
            f"MUST has no settings for {job.manifest.id} with {' or '.join(configs)}. Choose other datasets, or "
            "--profile pocket, whose models have settings for any images."
        )
    for name, config in configs.items():
        if config is not None:
            record_zero_shot(job, name)
            job.record("must", [name], dataclasses.asdict(config), CLASSIFIED, _must(job, name, config))
            for model in job.fits("").glob(f"must-{name}-*/{MODEL}"):
                (model.parent / CHECKPOINT).unlink(missing_ok=True)  # four times as large, and done with


def _must(job: Job, name: str, config: MustConfig) -> Any:
    def fit_and_score() -> tuple[dict[str, float], dict[str, Any]]:
        must, folder = _fit(job, name, config)
        fit = (folder / MODEL).relative_to(job.folder).as_posix()
        chosen = {"epoch": int(must.best_epoch_), "fit": fit}
        return classified(job, must.predict(job.test)), chosen

    return fit_and_score


def _fit(job: Job, name: str, config: MustConfig) -> tuple[MUST, Path]:
    """The fit and its folder: from its file where it is there, else in as many micro-batches as memory asks for, which
    changes no gradient.

    Raises:
        FitError: it is not possible, or not even with one image at a time.
    """
    prompts, backbone = load_prompts(job.manifest), job.backbones[name]
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key != "accumulate"}
    texts = [prompts.texts(i) for i in range(len(prompts.classes))]
    folder = job.fits(f"must-{name}-{digest([settings, texts, job.images_digest, SEED, backbone.fingerprint])}")
    if (folder / MODEL).exists():
        try:
            return MUST.load(folder / MODEL, backbone=backbone), folder
        except CheckpointError as error:
            logger.warning("%s It is fitted again.", error)
    while True:
        must = MUST(backbone, prompts, config, random_state=SEED, progress=job.progress)
        try:
            must.fit(job.train.without_labels(), folder=folder)  # resumes from a checkpoint there
            must.save(folder / MODEL)
            return must, folder
        except FitError as error:
            full = error.__cause__ is not None and is_out_of_memory(error.__cause__)
            if not full or config.accumulate >= config.batch_size:
                raise
        finer = next(k for k in range(2 * config.accumulate, config.batch_size + 1) if config.batch_size % k == 0)
        logger.warning(
            "A batch of %d images in %d micro-batches does not fit into memory: MUST of %s goes on with %d.",
            *(config.batch_size, config.accumulate, job.manifest.id, finer),
        )
        config = config.replace(accumulate=finer)
        gc.collect()
        torch.cuda.empty_cache()  # nothing where there is no GPU
