"""A row of MUST's table: zero-shot before, and the last epoch's teacher after, for each student of the profile.

Training sees the images of the train split and the names of the classes, no label; nothing is chosen among epochs, as
the authors' code does by test labels. Both are scored on the test split (Li et al., ICLR 2023, section 4).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from labkit.errors import FitError
from labkit.must import MUST, MustConfig
from labkit.papers.job import Job, digest
from labkit.papers.protocol import SEED
from labkit.papers.turtle_row import CLASSIFIED, classified, record_zero_shot
from labkit.zeroshot.prompts import load_prompts


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


def _must(job: Job, name: str, config: MustConfig) -> Any:
    def fit_and_score() -> tuple[dict[str, float], dict[str, Any]]:
        prompts = load_prompts(job.manifest)
        run = [name, dataclasses.asdict(config), job.images_digest, SEED, job.backbones[name].fingerprint]
        folder = job.fits(f"must-{name}-{digest(run)}")
        must = MUST(job.backbones[name], prompts, config, random_state=SEED, progress=job.progress)
        must.fit(job.train.without_labels(), folder=folder)  # resumes from a checkpoint in the folder
        path = folder / "must.safetensors"
        must.save(path)
        chosen = {"epoch": int(must.best_epoch_), "fit": path.relative_to(job.folder).as_posix()}
        return classified(job, must.predict(job.test)), chosen

    return fit_and_score
