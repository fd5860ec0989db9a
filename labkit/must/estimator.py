"""The estimator `MUST`: fit on images without labels, stop and go on, predict."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from labkit._inputs import expect_fitted, is_whole
from labkit.data.images import ImageDataset
from labkit.devices import cpu_count, explain_out_of_memory, pick_device
from labkit.errors import BackboneError, FitError, quote
from labkit.must.checkpoint import Checkpointer, hold, interruptible, run_folder
from labkit.must.config import MustConfig
from labkit.must.head import head_and_prior, read_labeling
from labkit.must.model import MaskedClassifier, image_tower
from labkit.must.processes import accelerator_for, from_main_process, whole_batches
from labkit.must.run import Run
from labkit.must.saved import read_must, write_must
from labkit.must.trainer import Trainer, new_state
from labkit.must.views import Views
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.features import encode_images
from labkit.zeroshot.prompts import Prompts

logger = logging.getLogger(__name__)

LOG_EVERY = 10  # steps between two lines of metrics (and the last); only then does the device have to answer


class MUST(BaseEstimator, ClassifierMixin):
    """Masked unsupervised self-training of an image-text model on images without labels (Li et al., ICLR 2023).

    Args:
        backbone: an image-text model with a native vision transformer: its name, or what `load_backbone` gave.
        prompts: the words for the classes, from `load_prompts` or `Prompts.from_words(names)`.
        config: the settings; `PRESETS` has the published ones.
        n_workers: processes that prepare images; None is none on a CPU, else one a core, up to 8.
        device: "auto", or a torch device; under `accelerate launch` each process takes its own.
        random_state: seed of views, masks and the order of images.
        progress: show a progress bar.

    Attributes:
        classes_: numbers of the classes, (C,) int64: 0 … C − 1.
        class_names_: their names, (C,).
        model_: the teacher, which predicts.
        history_: an entry an epoch of what is known without labels: "kept", "confidence", "agreement" (share of
            images where student and teacher agree), "marginal_entropy", "mean_entropy" and "mutual_information", their
            difference: how much a prediction tells of an image, in nats. All but "agreement" of the teacher.
        pseudo_labels_: the teacher's prediction for each image in each epoch, (epochs, n) int64; -1 where the image
            was left out because the last batch was not full.
        best_epoch_: the epoch, from 1 on, whose teacher is kept: the last one, or with `patience` the one of most
            information.

    The fit sees no label: it takes the images of a dataset and leaves its class numbers alone.
    """

    def __init__(
        self,
        backbone: str | Backbone,
        prompts: Prompts,
        config: MustConfig | None = None,
        *,
        n_workers: int | None = None,
        device: str = "auto",
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.prompts = prompts
        self.config = config
        self.n_workers = n_workers
        self.device = device
        self.random_state = random_state
        self.progress = progress

    # ------------------------------------------------------------------------------------------------------------ fit

    def fit(
        self,
        images: ImageDataset,
        y: object = None,
        *,
        initial_labels: ArrayLike | None = None,
        folder: str | os.PathLike[str] | None = None,
        on_log: Callable[[list[dict[str, float]]], None] | None = None,
    ) -> MUST:
        """Train on images without labels.

        Args:
            images: the images, such as `load_dataset("fashion-mini", "train")`.
            y: ignored; there for scikit-learn's pipelines.
            initial_labels: pseudo-labels of these images to begin with instead of the zero-shot predictions, class
                numbers (n,) with -1 for unknown, such as those of TURTLE's named clusters (`Names.predict`). The head
                is then fitted to them.
            folder: where checkpoints and metrics are kept. A fit that finds its own checkpoint there resumes from it,
                to the same result as one that was never stopped; Ctrl-C saves before it leaves.
            on_log: called every few steps with all metrics so far, for live curves.

        Raises:
            FitError: settings or images that cannot be trained on, or training diverged.
            BackboneError: the tower has no patches that can be masked.
            CheckpointError: the folder holds a checkpoint of other settings, or cannot be written.
        """
        config = self._checked_config(images)
        if on_log is not None and not callable(on_log):
            raise FitError(f"on_log is {quote(on_log)}. Expected a function of the metrics so far, or None.")
        accelerator = accelerator_for(self.device)
        config = whole_batches(config, len(images), 1 if accelerator is None else accelerator.num_processes)
        kept_in = None if folder is None else run_folder(folder)
        with contextlib.ExitStack() as held:
            if kept_in is not None:
                from_main_process(accelerator, lambda: held.push(hold(kept_in)) and None)
            return self._fit(images, config, accelerator, initial_labels, kept_in, on_log)

    def _fit(
        self,
        images: ImageDataset,
        config: MustConfig,
        accelerator: Any,
        initial_labels: ArrayLike | None,
        folder: Path | None,
        on_log: Callable[[list[dict[str, float]]], None] | None,
    ) -> MUST:
        backbone = self._load_backbone(self.device if accelerator is None else str(accelerator.device))
        if accelerator is not None:
            device = accelerator.device
        else:
            device = backbone.device if self.device == "auto" else pick_device(self.device)
        labeling = read_labeling(initial_labels, len(images), len(self.prompts.classes))
        weights, prior = head_and_prior(backbone, self.prompts, images, labeling, config, accelerator)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.random_state))
            student = MaskedClassifier(
                image_tower(backbone),
                weights,
                backbone.logit_scale,
                masked_image=config.masked_image_weight > 0 and config.mask_ratio > 0,
                alignment=config.alignment_weight > 0 and config.mask_ratio > 0,
            ).to(device)
        per_epoch = len(images) // config.batch_size
        trainer = Trainer(
            new_state(student, config),
            config,
            backbone.mean,
            backbone.std,
            steps_per_epoch=per_epoch,
            prior=None if prior is None else prior.to(device),
            seed=int(self.random_state),
            accelerator=accelerator,
            dtype=backbone.dtype,
        )
        run, keeper = Run(trainer, len(images), per_epoch), None
        if folder is not None:
            keeper = Checkpointer(folder, run, self._identity(backbone, config, images, labeling))
            keeper.restore()
        views = Views(
            images,
            image_tower(backbone).image_size[0],
            self.random_state,
            crop=config.crop,
            flip=config.flip,
            augment=config.augment,
            mean=backbone.mean,
        )
        workers = self.n_workers
        if workers is None:
            workers = min(8, cpu_count()) if device.type == "cuda" else 0
        advice = (
            f"Compute a batch of {config.batch_size} in more micro-batches, to the same result: accumulate="
            f"{2 * config.accumulate} (now {config.accumulate}). Or lower batch_size."
        )
        with explain_out_of_memory(advice):
            self._train(run, keeper, views, workers, self.progress and trainer.rank == 0, on_log)
        self.classes_, self.class_names_ = np.arange(len(self.prompts.classes)), np.array(self.prompts.classes)
        self.history_, self.best_epoch_ = run.history, run.best_epoch
        self.pseudo_labels_ = np.stack([labels.numpy() for labels in run.labels_of_epochs])
        self.model_ = run.best_teacher()
        self._backbone = backbone
        return self

    def _train(
        self,
        run: Run,
        keeper: Checkpointer | None,
        views: Views,
        workers: int,
        progress: bool,
        on_log: Callable[[list[dict[str, float]]], None] | None,
    ) -> None:
        config, state = run.trainer.config, run.trainer.state
        total = run.per_epoch * config.epochs
        bar = tqdm(total=total, initial=state.step, desc="MUST", unit="step", disable=not progress)
        with bar, interruptible(keeper is not None) as interrupted:
            while run.epoch < config.epochs and not run.finished:
                batches = run.batches(int(self.random_state))
                loader = DataLoader(
                    views,
                    batch_sampler=batches,
                    num_workers=workers,
                    pin_memory=run.trainer.device.type == "cuda",
                    generator=torch.Generator(),  # else it draws from the global one a seed that views do not use
                )
                for rows, weak, strong in loader:
                    run.take(rows, run.trainer.step(weak, strong))
                    bar.update()
                    if state.step % LOG_EVERY == 0 or state.step == total:
                        record = run.record()
                        bar.set_postfix({k: f"{record[k]:.3f}" for k in ("loss", "kept", "confidence")})
                        if keeper is not None:
                            keeper.log(record)
                        if on_log is not None:
                            on_log(run.records)
                    if state.step % run.per_epoch == 0:
                        run.end_epoch()
                    if keeper is not None:
                        stop = run.anywhere(interrupted, when=state.step % LOG_EVERY == 0)
                        if stop or keeper.is_due():
                            keeper.save()
                        if stop:
                            raise KeyboardInterrupt(f"saved in {keeper.folder}; the same fit resumes from there")
        if keeper is not None:
            keeper.save()

    def __sklearn_clone__(self) -> MUST:
        """For scikit-learn's `clone`: the same settings, and the same backbone, which a fit leaves as it is."""
        return type(self)(**self.get_params(deep=False))

    def _checked_config(self, images: ImageDataset) -> MustConfig:
        """The settings, after a look at what was given with them."""
        config = MustConfig() if self.config is None else self.config
        if not isinstance(config, MustConfig):
            raise FitError(f"config is {quote(config)}. Expected a MustConfig, such as PRESETS[…].")
        if not isinstance(images, ImageDataset):
            raise FitError(f"images is {quote(images)}. Expected a dataset, such as load_dataset(manifest).")
        if len(images) == 0:
            raise FitError("there are no images. Expected a dataset of at least one.")
        if not isinstance(self.prompts, Prompts):
            raise FitError(f"prompts is {quote(self.prompts)}. Expected what load_prompts or Prompts.from_words gives.")
        for name in ("random_state", "n_workers"):
            value = getattr(self, name)
            if value is None and name == "n_workers":
                continue
            if not is_whole(value, 0, 2**63 - 1):
                raise FitError(f"{name} is {quote(value)}. Expected a whole number from 0 on.")
        return config

    def _load_backbone(self, device: str) -> Backbone:
        backbone = self.backbone
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, device=device)
        if not isinstance(backbone, Backbone):
            raise BackboneError(f"backbone is {quote(backbone)}. Expected a name, or what load_backbone gives.")
        image_tower(backbone)
        return backbone

    def _identity(
        self, backbone: Backbone, config: MustConfig, images: ImageDataset, labeling: np.ndarray | None
    ) -> dict[str, Any]:
        """What a run must share with a checkpoint to resume from it; not the number of micro-batches."""
        settings = dataclasses.asdict(config)
        del settings["accumulate"]
        return {
            **settings,
            "backbone": backbone.fingerprint,
            "classes": list(self.prompts.classes),
            "prompts": [self.prompts.texts(i) for i in range(len(self.prompts.classes))],
            "images": images.contents,
            "initial_labels": "zero-shot"
            if labeling is None
            else f"given, {hashlib.sha256(labeling.astype(np.int64).tobytes()).hexdigest()[:8]}",
            "random_state": int(self.random_state),
        }

    # -------------------------------------------------------------------------------------------------------- predict

    def predict(self, images: ImageDataset) -> np.ndarray:
        """Class number of each image, (n,) int64."""
        return self.predict_proba(images).argmax(1)

    def predict_proba(self, images: ImageDataset) -> np.ndarray:
        """Probability of each class for each image, (n, C) float32."""
        expect_fitted(self, "model_")
        device = self.model_.head.weight.device
        backbone = dataclasses.replace(self._backbone, model=_Probabilities(self.model_), device=device)
        return encode_images(backbone, images)

    # -------------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything fitted to one safetensors file, atomically.

        Raises:
            CheckpointError: the file cannot be written.
        """
        expect_fitted(self, "model_")
        write_must(self, self._backbone, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backbone: Backbone | None = None, device: str = "auto") -> MUST:
        """Read what `save` wrote.

        Args:
            path: of the file.
            backbone: the one of the fit, where it has a geometry of its own or comes from a file or a repository that
                no registry lists; None loads the one that the file names.
            device: "auto", or a torch device.

        Raises:
            CheckpointError: the file is missing, damaged, of a newer labkit, or something else; or it names a backbone
                that no registry lists.
            BackboneError: its backbone is not on this machine.
        """
        must, must_backbone = read_must(cls, path, backbone, device)
        must._backbone = must_backbone
        return must


class _Probabilities(nn.Module):
    """Images -> probabilities, as the last layers of a backbone."""

    def __init__(self, model: MaskedClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits.float().softmax(-1)
