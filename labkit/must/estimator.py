"""The estimator `MUST`: fit on pictures without labels, stop and go on, predict."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from labkit._files import atomic_write
from labkit.backbones import Backbone, load_backbone
from labkit.datasets import ImageDataset
from labkit.devices import pick_device
from labkit.errors import BackboneError, CheckpointError, FitError
from labkit.features import encode_images
from labkit.must.config import MustConfig
from labkit.must.masking import generator_for
from labkit.must.model import MaskedClassifier, check_maskable
from labkit.must.trainer import Trainer, new_state
from labkit.must.views import Views
from labkit.prompts import Prompts
from labkit.zeroshot import text_classifier

logger = logging.getLogger(__name__)

LOG_EVERY = 10  # steps between two lines of metrics (and the last); only then does the device have to answer
SAVE_EVERY = 300.0  # seconds between two checkpoints within an epoch; there is always one at its end
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


class MUST(BaseEstimator, ClassifierMixin):
    """Masked unsupervised self-training of an image-text model on pictures without labels (Li et al., ICLR 2023).

    Args:
        backbone: an image-text model with a native vision transformer: its name, or what `load_backbone` gave.
        prompts: the words for the classes, from `load_prompts` or `Prompts.of(names)`.
        config: the settings; `PRESETS` has the published ones.
        random_state: seed of views, masks and the order of pictures.
        n_workers: processes that prepare pictures; None is none on a CPU, else one a core, up to 8.
        device: "auto", or a torch device; under `accelerate launch` each process takes its own.

    Attributes:
        classes_: names of the classes, (C,).
        model_: the teacher, which predicts.
        history_: an entry an epoch of what is known without labels: "kept", "confidence", "agreement" (share of
            pictures where student and teacher agree), "marginal_entropy", "mean_entropy" and "information", their
            difference: how much a prediction tells of a picture, in nats. All but "agreement" of the teacher.
        pseudo_labels_: what the teacher said of each picture in each epoch, (epochs, n) int64; -1 where the picture
            was left out because the last batch was not full.
        best_epoch_: the epoch, from 1 on, whose teacher is kept: the last one, or with `patience` the one of most
            information.

    The fit sees no label: it takes the pictures of a dataset and leaves its class numbers alone.
    """

    def __init__(
        self,
        backbone: str | Backbone,
        prompts: Prompts,
        config: MustConfig | None = None,
        *,
        random_state: int = 0,
        n_workers: int | None = None,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.prompts = prompts
        self.config = config
        self.random_state = random_state
        self.n_workers = n_workers
        self.device = device

    # ------------------------------------------------------------------------------------------------------------ fit

    def fit(
        self,
        images: ImageDataset,
        y: object = None,
        *,
        start: ArrayLike | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: bool = False,
        on_log: Callable[[list[dict[str, float]]], None] | None = None,
    ) -> MUST:
        """Train on pictures without labels.

        Args:
            images: the pictures, such as `manifest.images("train")`.
            y: ignored; there for scikit-learn's pipelines.
            start: a labeling of these pictures to begin with instead of the prompts, class numbers (n,) with -1 for
                unknown, such as what TURTLE's named clusters say (`Names.predict`). The head is then fitted to it.
            folder: where checkpoints and metrics are kept. A fit that finds its own checkpoint there goes on from it,
                to the same result as one that was never stopped; Ctrl-C saves before it leaves.
            progress: show a progress bar.
            on_log: called every few steps with all metrics so far, for live curves.

        Raises:
            FitError: settings or pictures that cannot be trained on, or training diverged.
            BackboneError: the tower has no patches that can be hidden.
            CheckpointError: the folder holds a checkpoint of other settings, or cannot be written.
        """
        config = self._config(len(images))
        accelerator = _accelerator(self.device)
        config = _whole_batches(config, len(images), 1 if accelerator is None else accelerator.num_processes)
        backbone = self._load_backbone(self.device if accelerator is None else str(accelerator.device))
        if accelerator is not None:
            device = accelerator.device
        else:
            device = backbone.device if self.device == "auto" else pick_device(self.device)
        labeling = self._read_start(start, len(images))
        weights = torch.from_numpy(text_classifier(backbone, self.prompts)).to(device)
        prior = None
        if labeling is not None or config.prior == "estimated":
            embeddings = encode_images(backbone, images)
            if labeling is not None:
                weights = _fit_head(embeddings, labeling, weights, backbone.logit_scale)
            if config.prior == "estimated":
                prior = _shares(embeddings, weights)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_state)
            student = MaskedClassifier(
                _visual(backbone),
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
            prior=prior,
            seed=self.random_state,
            accelerator=accelerator,
            dtype=backbone.dtype,
        )
        run, keeper = _Run(trainer, len(images), per_epoch), None
        if folder is not None:
            keeper = _Keeper(folder, run, self._identity(backbone, config, images, labeling))
            keeper.restore()
        views = Views(
            images,
            _visual(backbone).image_size[0],
            self.random_state,
            crop=config.crop,
            flip=config.flip,
            augment=config.augment,
            mean=backbone.mean,
        )
        workers = self.n_workers
        if workers is None:
            workers = min(8, os.cpu_count() or 1) if device.type == "cuda" else 0
        self._train(run, keeper, views, workers, progress and trainer.rank == 0, on_log)
        self.classes_ = np.array(self.prompts.classes)
        self.history_, self.best_epoch_ = run.history, run.best_epoch
        self.pseudo_labels_ = np.stack([labels.numpy() for labels in run.labels_of_epochs])
        self.model_ = run.best_teacher()
        self._backbone = backbone
        return self

    def _train(
        self,
        run: _Run,
        keeper: _Keeper | None,
        views: Views,
        workers: int,
        progress: bool,
        on_log: Callable[[list[dict[str, float]]], None] | None,
    ) -> None:
        config, state = run.trainer.config, run.trainer.state
        total = run.per_epoch * config.epochs
        bar = tqdm(total=total, initial=state.step, desc="MUST", unit="step", disable=not progress)
        with bar, _interruptible(keeper is not None) as interrupted:
            while run.epoch < config.epochs and not run.finished:
                batches = run.batches(self.random_state)
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
                    at_end, stop = state.step % run.per_epoch == 0, interrupted()
                    if at_end:
                        run.end_epoch()
                    if keeper is not None and (at_end or stop or keeper.is_due()):
                        keeper.save()
                        if stop:
                            raise KeyboardInterrupt(f"saved in {keeper.folder}; the same fit goes on from there")

    def _config(self, n: int) -> MustConfig:
        config = MustConfig() if self.config is None else self.config
        if not isinstance(config, MustConfig):
            raise FitError(f"config is a {type(config).__name__}. Expected a MustConfig, such as PRESETS[…].")
        if n == 0:
            raise FitError("there are no pictures. Expected a dataset of at least one.")
        return config

    def _load_backbone(self, device: str) -> Backbone:
        backbone = self.backbone
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, device=device)
        _visual(backbone)
        return backbone

    def _read_start(self, start: ArrayLike | None, n: int) -> np.ndarray | None:
        if start is None:
            return None
        labeling = np.asarray(start)
        classes = len(self.prompts.classes)
        if labeling.shape != (n,) or not np.issubdtype(labeling.dtype, np.integer):
            raise FitError(
                f"start has shape {labeling.shape} and dtype {labeling.dtype}. Expected a class number for each of "
                f"the {n} pictures, (n,) of integers."
            )
        if labeling.min() < -1 or labeling.max() >= classes:
            raise FitError(
                f"start holds class numbers from {labeling.min()} to {labeling.max()}. Expected 0 to {classes - 1}, "
                "the number of a class in the prompts, or -1 for unknown."
            )
        if len(np.unique(labeling[labeling >= 0])) < 2:
            raise FitError("start knows fewer than two classes. Expected a labeling that tells pictures apart.")
        return labeling

    def _identity(
        self, backbone: Backbone, config: MustConfig, images: ImageDataset, labeling: np.ndarray | None
    ) -> dict[str, Any]:
        """What a run must share with a checkpoint to go on from it."""
        return {
            **dataclasses.asdict(config),
            "backbone": backbone.fingerprint,
            "classes": list(self.prompts.classes),
            "prompts": [self.prompts.texts(i) for i in range(len(self.prompts.classes))],
            "images": _digest(images),
            "start": None if labeling is None else labeling.tolist(),
            "random_state": self.random_state,
            "dtype": str(backbone.dtype),
        }

    # -------------------------------------------------------------------------------------------------------- predict

    def predict(self, images: ImageDataset) -> np.ndarray:
        """Class number of each picture, (n,) int64."""
        return self.predict_proba(images).argmax(1)

    def predict_proba(self, images: ImageDataset) -> np.ndarray:
        """Probability of each class for each picture, (n, C) float32."""
        check_is_fitted(self, "model_")
        device = self.model_.head.weight.device
        backbone = dataclasses.replace(self._backbone, model=_Probabilities(self.model_), device=device)
        return encode_images(backbone, images)

    # -------------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything fitted to one safetensors file, whole or not at all."""
        check_is_fitted(self, "model_")
        metadata = {
            "labkit": "must",
            "backbone": self._backbone.name,
            "prompts": json.dumps(dataclasses.asdict(self.prompts)),
            "config": json.dumps(dataclasses.asdict(self._config(1))),
            "history": json.dumps(self.history_),
            "random_state": str(self.random_state),
            "image_size": str(_visual(self._backbone).image_size[0]),
            "logit_scale": str(self.model_.logit_scale),
            "best_epoch": str(self.best_epoch_),
            "parts": json.dumps([self.model_.masked_image, self.model_.alignment]),
        }
        tensors = {f"model/{name}": tensor.contiguous() for name, tensor in self.model_.state_dict().items()}
        with atomic_write(path) as temporary:
            save_file(tensors | {"pseudo_labels": torch.from_numpy(self.pseudo_labels_)}, temporary, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> MUST:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, or something else.
            BackboneError: its backbone is not on this machine.
        """
        metadata, tensors = _read(Path(path), "Fit and save it again.")
        if metadata.get("labkit") != "must":
            raise CheckpointError(f"{path} holds no saved MUST. Expected a file written by MUST.save.")
        prompts = Prompts(**json.loads(metadata["prompts"]))
        config = MustConfig(**json.loads(metadata["config"]))
        must = cls(metadata["backbone"], prompts, config, random_state=int(metadata["random_state"]), device=device)
        must._backbone = must._load_backbone(device)
        size = int(metadata["image_size"])
        if _visual(must._backbone).image_size[0] != size:
            must._backbone = load_backbone(must._backbone.name, image_size=size, device=device)
        masked_image, alignment = json.loads(metadata["parts"])
        with torch.random.fork_rng(devices=[]):
            must.model_ = MaskedClassifier(
                _visual(must._backbone),
                tensors["model/head.weight"],
                float(metadata["logit_scale"]),
                masked_image=masked_image,
                alignment=alignment,
            )
        try:
            must.model_.load_state_dict(_part(tensors, "model/"))
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit {must._backbone.name!r} ({error}). Fit it again.") from error
        must.model_.requires_grad_(False).eval().to(must._backbone.device)
        must.classes_ = np.array(prompts.classes)
        must.history_, must.best_epoch_ = json.loads(metadata["history"]), int(metadata["best_epoch"])
        must.pseudo_labels_ = tensors["pseudo_labels"].numpy()
        return must


def _accelerator(device: str) -> Any:
    """Accelerate's view of the other processes; None where this one is alone.

    There it would only be in the way: it settles the device and the precision for the rest of the session, and a
    notebook that has used it once cannot launch several processes any more.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # which `accelerate launch` and `notebook_launcher` set
        return None
    from accelerate import Accelerator

    cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    return Accelerator(cpu=cpu, mixed_precision="no")  # precision is up to the backbone's dtype


class _Probabilities(nn.Module):
    """Pictures -> probabilities, as the last layers of a backbone."""

    def __init__(self, model: MaskedClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits.float().softmax(-1)


def _visual(backbone: Backbone) -> Any:
    """The image tower of a backbone, which MUST can mask, or a BackboneError."""
    clip = getattr(backbone.model, "clip", None)
    if clip is None:
        raise BackboneError(f'{backbone.name!r} has no text tower. MUST starts from an image-text model: "pocket-vit".')
    check_maskable(clip.visual)
    return clip.visual


def _digest(images: ImageDataset) -> str:
    """Tells pictures from others: by their pixels in memory, else by the names of their files, else by their number."""
    digest = hashlib.sha256(str(len(images)).encode())
    if images.array is not None:
        digest.update(np.ascontiguousarray(images.array).data)
    for path in images.files or ():
        digest.update(path.name.encode())
    return digest.hexdigest()


def _whole_batches(config: MustConfig, n: int, processes: int) -> MustConfig:
    """The settings with a batch that is no larger than the data and can be shared out evenly."""
    parts = processes * config.accumulate
    if config.batch_size <= n and config.batch_size % parts == 0:
        return config
    if n < parts:
        raise FitError(f"{n} pictures cannot be shared among {processes} processes in {config.accumulate} parts each.")
    size = min(config.batch_size, n) // parts * parts
    logger.warning(
        "A batch holds %d pictures instead of %d: no more than there are, as many for each process and part.",
        size,
        config.batch_size,
    )
    return config.replace(batch_size=size)


def _fit_head(embeddings: np.ndarray, labeling: np.ndarray, weights: Tensor, scale: float) -> Tensor:
    """A head (C, D) that tells pictures apart as a labeling does; classes without pictures keep their prompts'.

    Logistic regression on the normalised embeddings times the logit scale. It knows only how classes differ, so what
    their prompts have in common is added: else a class without pictures, whose prompt is like every picture a little,
    would be more likely than all others.
    """
    known = labeling >= 0
    unit = embeddings[known] / np.linalg.norm(embeddings[known], axis=1, keepdims=True)
    with threadpool_limits(1, user_api="blas"):  # products with few columns: more threads take longer
        fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=10_000).fit(scale * unit, labeling[known])
    coefficients = fitted.coef_ if len(fitted.classes_) > 2 else np.concatenate([-fitted.coef_, fitted.coef_]) / 2
    head, classes = weights.clone(), torch.from_numpy(fitted.classes_).long()
    head[classes] = weights[classes].mean(0) + torch.from_numpy(coefficients).to(head)
    return head


def _shares(embeddings: np.ndarray, weights: Tensor) -> Tensor:
    """The share of each class in what the start says of the pictures, each counted once more than it was met: (C,)."""
    said = (torch.from_numpy(embeddings).to(weights) @ weights.T).argmax(1)
    counts = torch.bincount(said, minlength=len(weights)).float() + 1
    return counts / counts.sum()


# ------------------------------------------------------------------------------------------------------------- the run


class _Run:
    """Where a fit is, beside the weights: the sums of this epoch, and what past epochs gave."""

    def __init__(self, trainer: Trainer, n: int, per_epoch: int) -> None:
        self.trainer, self.n, self.per_epoch = trainer, n, per_epoch
        self.records: list[dict[str, float]] = []  # a line of metrics each
        self.history: list[dict[str, float]] = []
        self.labels_of_epochs: list[Tensor] = []
        self.best: dict[str, Tensor] = {}  # the best teacher so far, where one is asked for
        self.best_epoch = 0
        self._last: dict[str, Tensor] = {}
        self._begin_epoch()

    @property
    def epoch(self) -> int:
        return self.trainer.state.step // self.per_epoch

    @property
    def finished(self) -> bool:
        """Whether the criterion has not grown for `patience` epochs."""
        patience = self.trainer.config.patience
        return patience is not None and len(self.history) - self.best_epoch >= patience

    def batches(self, seed: int) -> list[list[tuple[int, int]]]:
        """What is left of this epoch for this process: a list of (epoch, picture) a step."""
        order = torch.randperm(self.n, generator=generator_for(seed, self.epoch)).tolist()
        size, trainer = self.trainer.config.batch_size, self.trainer
        own = size // trainer.world
        starts = [
            step * size + trainer.rank * own for step in range(trainer.state.step % self.per_epoch, self.per_epoch)
        ]
        return [[(self.epoch, i) for i in order[start : start + own]] for start in starts]

    def _begin_epoch(self) -> None:
        device, classes = self.trainer.device, len(self.trainer.state.moving_mean)
        names = ("kept", "confidence", "agreement", "mean_entropy")
        self.sums = {name: torch.zeros((), device=device) for name in names}
        self.sums["marginal"] = torch.zeros(classes, device=device)
        self.labels = torch.full((self.n,), -1, device=device)

    def take(self, rows: Tensor, seen: dict[str, Tensor]) -> None:
        """Add what a step has seen to this epoch, over all processes."""
        probs = seen.pop("probs")
        labels = seen.pop("labels")
        seen["mean_entropy"] = torch.special.entr(probs).sum(-1).mean()
        seen["marginal"] = probs.mean(0)
        if self.trainer.world > 1:
            accelerator = self.trainer.accelerator
            names = [name for name in seen if name != "kept"]  # which is of all processes already
            flat = accelerator.reduce(torch.cat([seen[name].flatten() for name in names]), reduction="mean")
            parts = flat.split([seen[name].numel() for name in names])
            seen |= {name: part.view_as(seen[name]) for name, part in zip(names, parts, strict=True)}
            rows = accelerator.gather(rows.to(self.trainer.device))
            labels = accelerator.gather(labels)
        for name in self.sums:
            self.sums[name] += seen[name]
        self.labels[rows.to(self.labels.device, non_blocking=True)] = labels
        self._last = seen

    def record(self) -> dict[str, float]:
        """A line of metrics: what the last step has seen. Waits for the device."""
        state, config = self.trainer.state, self.trainer.config
        names = [name for name in self._last if name != "marginal"]
        values = torch.stack([self._last[name].float() for name in names]).tolist()
        line = {
            "step": state.step,
            "epoch": round(state.step / self.per_epoch, 4),
            **dict(zip(names, values, strict=True)),
            "lr": config.lr_at((state.step - 1) / (self.per_epoch * config.epochs)),
            "ema_decay": config.ema_decay_at(state.step - 1),
        }
        if not np.isfinite(line["loss"]):
            raise self._diverged(f"the loss is {line['loss']}")
        self.records.append(line)
        return line

    def _diverged(self, what: str) -> FitError:
        step = self.trainer.state.step
        return FitError(f"training diverged: {what} after step {step}. Lower `lr`, and begin anew in another folder.")

    def end_epoch(self) -> None:
        """Turn the sums of this epoch into an entry of the history."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.trainer.state.teacher.parameters()):
            raise self._diverged("weights are not finite")
        means = {name: value / self.per_epoch for name, value in self.sums.items()}
        marginal = torch.special.entr(means.pop("marginal")).sum()
        entry = {name: float(value) for name, value in means.items()}
        entry["marginal_entropy"] = float(marginal)
        entry["information"] = entry["marginal_entropy"] - entry["mean_entropy"]
        self.history.append(entry)
        self.labels_of_epochs.append(self.labels.cpu())
        if self.trainer.config.patience is None:
            self.best_epoch = len(self.history)
        elif not self.best or entry["information"] > self.history[self.best_epoch - 1]["information"]:
            self.best_epoch = len(self.history)
            self.best = {name: tensor.clone() for name, tensor in self.trainer.state.teacher.state_dict().items()}
        self._begin_epoch()

    def best_teacher(self) -> MaskedClassifier:
        teacher = self.trainer.state.teacher
        if self.best:
            teacher.load_state_dict(self.best)
        return teacher

    # ------------------------------------------------------------------------------------------------- to and from disk

    def pack(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything as tensors and texts."""
        state = self.trainer.state
        tensors = {f"student/{name}": tensor for name, tensor in state.student.state_dict().items()}
        tensors |= {f"teacher/{name}": tensor for name, tensor in state.teacher.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for number, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"sums/{name}": tensor for name, tensor in self.sums.items()}
        tensors |= {"moving_mean": state.moving_mean, "labels": self.labels}
        tensors |= {f"epochs/{i}": labels for i, labels in enumerate(self.labels_of_epochs)}
        texts = {
            "labkit": "must checkpoint",
            "step": str(state.step),
            "history": json.dumps(self.history),
            "best_epoch": str(self.best_epoch),
            "scaler": json.dumps(self.trainer.scaler.state_dict()),
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, texts

    def unpack(self, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
        """Become what `pack` was given."""
        state = self.trainer.state
        state.student.load_state_dict(_part(tensors, "student/"))
        state.teacher.load_state_dict(_part(tensors, "teacher/"))
        self.best = _part(tensors, "best/")
        parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer/").items():
            number, key = name.split("/")
            if tensor.ndim:  # in the memory layout of its parameter (channels last, say): fused AdamW does not look
                tensor = torch.empty_like(parameters[int(number)]).copy_(tensor)
            moments.setdefault(int(number), {})[key] = tensor
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.moving_mean = tensors["moving_mean"].to(self.trainer.device)
        state.step = int(texts["step"])
        self.sums = {name: tensors[f"sums/{name}"].to(self.trainer.device) for name in self.sums}  # in their order
        self.labels = tensors["labels"].to(self.trainer.device)
        self.history, self.best_epoch = json.loads(texts["history"]), int(texts["best_epoch"])
        self.labels_of_epochs = [tensors[f"epochs/{i}"] for i in range(len(self.history))]
        if scaler := json.loads(texts["scaler"]):
            self.trainer.scaler.load_state_dict(scaler)


class _Keeper:
    """Keeps a run in a folder: its checkpoint, whole or not at all, and its metrics, a line of JSON each."""

    def __init__(self, folder: str | os.PathLike[str], run: _Run, identity: dict[str, Any]) -> None:
        self.folder, self.run, self.identity = Path(folder), run, identity
        self.saved = time.monotonic()
        self.writes = run.trainer.rank == 0

    def restore(self) -> None:
        """Go on from the folder's checkpoint, where there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            with self._explained():
                self.folder.mkdir(parents=True, exist_ok=True)
                if self.writes:
                    (self.folder / METRICS).write_text("", "utf-8")
            return
        texts, tensors = _read(path, "Delete it to begin anew.")
        if texts.get("labkit") != "must checkpoint":
            raise CheckpointError(f"{path} is no checkpoint of MUST. Choose another folder.")
        theirs = json.loads(texts.get("identity", "{}"))
        ours = json.loads(json.dumps(self.identity))
        other = [name for name in ours if ours[name] != theirs.get(name)]
        if other:
            shown = ", ".join(f"{n} ({_difference(theirs.get(n), ours[n])})" for n in other)
            raise CheckpointError(
                f"{path} belongs to a run with other settings: {shown}. Choose another folder for this run, or delete "
                "that checkpoint to begin anew."
            )
        try:
            self.run.unpack(tensors, texts)
        except (KeyError, ValueError, RuntimeError) as error:  # a part is missing or has another shape
            raise CheckpointError(f"{path} is damaged ({error}). Delete it to begin anew.") from error
        self.run.records = [line for line in self._lines() if line["step"] <= self.run.trainer.state.step]
        if self.writes:
            with self._explained(), atomic_write(self.folder / METRICS) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in self.run.records), "utf-8")

    def _lines(self) -> Iterator[dict[str, float]]:
        path = self.folder / METRICS
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a run that was killed may be cut off
                yield json.loads(line)

    def log(self, record: dict[str, float]) -> None:
        if self.writes:
            with self._explained(), (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def is_due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_EVERY

    def save(self) -> None:
        if self.writes:
            tensors, texts = self.run.pack()
            with self._explained(), atomic_write(self.folder / CHECKPOINT) as temporary:
                save_file(tensors, temporary, texts | {"identity": json.dumps(self.identity)})
        self.saved = time.monotonic()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the run cannot be kept in {self.folder} ({error}). Make room or choose another folder; the last "
                "checkpoint there is whole, and the same fit goes on from it."
            ) from error


@contextlib.contextmanager
def _interruptible(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C only sets what the yielded function tells; a second one interrupts at once."""
    asked = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _read(path: Path, advice: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). {advice}") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _difference(there: Any, now: Any) -> str:
    """Two settings, or of two lists only what is not in both."""
    if isinstance(there, list) and isinstance(now, list):
        there, now = [v for v in there if v not in now] or there, [v for v in now if v not in there] or now
    return f"there {_short(there)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
