"""A run of MUST: its epochs, what is known of them without labels, and all of it as tensors for a checkpoint."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.errors import FitError
from labkit.must.masking import generator_for
from labkit.must.model import MaskedClassifier
from labkit.must.trainer import Trainer

logger = logging.getLogger(__name__)


class Run:
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

    def anywhere(self, asked: Callable[[], bool], *, when: bool) -> bool:
        """Whether any process is asked to stop: the same answer on all.

        Where there are several, they agree only `when` it is time to, for it waits for the device.
        """
        if self.trainer.world == 1:
            return asked()
        if not when:
            return False
        answer = torch.tensor([float(asked())], device=self.trainer.device)
        return bool(self.trainer.accelerator.reduce(answer, reduction="sum").item())

    def batches(self, seed: int) -> list[list[tuple[int, int]]]:
        """What is left of this epoch for this process: a list of (epoch, image) a step."""
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
        entry["mutual_information"] = entry["marginal_entropy"] - entry["mean_entropy"]
        self.history.append(entry)
        self.labels_of_epochs.append(self.labels.cpu())
        if self.trainer.config.patience is None:
            self.best_epoch = len(self.history)
        elif not self.best or entry["mutual_information"] > self.history[self.best_epoch - 1]["mutual_information"]:
            self.best_epoch = len(self.history)
            self.best = {name: tensor.clone() for name, tensor in self.trainer.state.teacher.state_dict().items()}
        self._begin_epoch()

    def best_teacher(self) -> MaskedClassifier:
        teacher = self.trainer.state.teacher
        if self.best:
            teacher.load_state_dict(self.best)
        return teacher

    # ------------------------------------------------------------------------------------------------- to and from disk

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything as tensors, and as settings for JSON."""
        state = self.trainer.state
        tensors = {f"student/{name}": tensor for name, tensor in state.student.state_dict().items()}
        tensors |= {f"teacher/{name}": tensor for name, tensor in state.teacher.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for number, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"sums/{name}": tensor for name, tensor in self.sums.items()}
        tensors |= {"moving_mean": state.moving_mean, "labels": self.labels}
        tensors |= {f"epochs/{i}": labels for i, labels in enumerate(self.labels_of_epochs)}
        settings = {
            "step": state.step,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "dtype": str(self.trainer.dtype),
            "scaler": self.trainer.scaler.state_dict(),
        }
        return tensors, settings

    def unpack(self, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
        """Become what `pack` was given, whatever the device and the precision that it ran in.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: a part is missing or does not fit.
        """
        state, step, history = self.trainer.state, settings["step"], settings["history"]
        self._expect_agreement(tensors, step, history, settings["best_epoch"])
        if settings["dtype"] != str(self.trainer.dtype):
            logger.warning(
                "The run began in %s and resumes in %s: it ends as if it had not been stopped up to rounding, not bit "
                "by bit.",
                settings["dtype"],
                self.trainer.dtype,
            )
        state.student.load_state_dict(part(tensors, "student/"))
        state.teacher.load_state_dict(part(tensors, "teacher/"))
        self.best = part(tensors, "best/")
        if self.best:
            copy.deepcopy(state.teacher).load_state_dict(self.best)  # raises where it is none
        parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part(tensors, "optimizer/").items():
            number, key = name.split("/")
            if tensor.ndim:  # in the memory layout of its parameter (channels last, say): fused AdamW does not look
                tensor = torch.empty_like(parameters[int(number)]).copy_(tensor)
            moments.setdefault(int(number), {})[key] = tensor
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.moving_mean = tensors["moving_mean"].to(self.trainer.device)
        state.step = step
        self.sums = {name: tensors[f"sums/{name}"].to(self.trainer.device) for name in self.sums}  # in their order
        self.labels = tensors["labels"].to(self.trainer.device)
        self.history, self.best_epoch = history, settings["best_epoch"]
        self.labels_of_epochs = [tensors[f"epochs/{i}"] for i in range(len(self.history))]
        if settings["scaler"]:
            self.trainer.scaler.load_state_dict(settings["scaler"])

    def _expect_agreement(self, tensors: dict[str, Tensor], step: Any, history: Any, best_epoch: Any) -> None:
        """Raise a ValueError where what a checkpoint tells of past epochs cannot be."""
        if not isinstance(step, int) or step < 0 or not isinstance(history, list):
            raise ValueError("its step or its history is none")
        if len(history) != step // self.per_epoch or not isinstance(best_epoch, int):
            raise ValueError(f"step {step} and a history of {len(history)} epochs do not agree")
        numbers = [value for entry in history for value in entry.values()]
        if not all(isinstance(value, float) for value in numbers) or not 0 <= best_epoch <= len(history):
            raise ValueError("its history holds something else than numbers of epochs")
        for name in ("labels", *(f"epochs/{i}" for i in range(len(history)))):
            if tensors[name].shape != (self.n,) or tensors[name].dtype != torch.int64:
                raise ValueError(f"its {name} are not a class number for each of {self.n} images")
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not name.startswith("sums/") and not bool(tensor.isfinite().all()):
                raise ValueError(f"its {name} is not finite")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with this, by the rest of their names."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
