"""MUST: a zero-shot classifier teaches itself on images without labels.

Li, Savarese and Hoi, ICLR 2023 (arXiv 2206.02967). One step, for a batch of images:

1. the EMA teacher, a moving average of the student, sees a weak view and gives pseudo-labels;
2. the student sees a strong view with some patches masked, in one pass;
3. it learns to predict the teacher's labels where that is confident (self-training), to use all classes (fairness), to
   reconstruct its masked patches (masked image modeling) and to let them agree with the whole image (alignment);
4. AdamW updates the student, and the EMA update moves the teacher.

Everything random is a function of the seed and of the number of the epoch, step or image. So a run that was stopped
and resumes, and a run on several processes, take the very same steps as one that was not. So does a run in
micro-batches: what depends on the whole batch (the share of kept labels, the mean prediction) is taken from all of them
before the first gradient, for one more pass of the student.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from labkit.devices import autocast
from labkit.errors import FitError
from labkit.must.config import MustConfig
from labkit.must.losses import (
    alignment_loss,
    fairness_loss,
    masked_image_loss,
    pseudo_labels,
    self_training_loss,
    to_float32,
)
from labkit.must.masking import block_masks, generator_for
from labkit.must.model import MaskedClassifier, MaskedVisual, Output

LOWEST = tuple(f"backbone.visual.{part}" for part in ("conv1", "class_embedding", "positional_embedding", "ln_pre"))
PLAIN_BELOW = 128  # patches; with more of them flash attention is as fast, and needs less memory


@dataclasses.dataclass
class State:
    """All that a step changes: with it and the settings, training resumes as if it had never stopped."""

    student: MaskedClassifier
    teacher: MaskedClassifier
    optimizer: torch.optim.AdamW
    moving_mean: Tensor  # of the mean prediction, (C,); each epoch begins it anew
    step: int = 0


class Trainer:
    """The steps of MUST, on one process or many.

    Args:
        state: from `new_state`.
        config: the settings.
        mean, std: of the pixels, as the tower expects them.
        steps_per_epoch: the learning rate ends after `config.epochs` times as many.
        prior: expected share of each class, (C,), or None for equal ones.
        seed: of the masks.
        accelerator: Hugging Face's, which knows of the other processes; None for one process. Student and teacher then
            begin as the student of the main process.
        dtype: of the autocast forward passes; float32 for none.

    Raises:
        FitError: blocks of the masks do not fill the tower's images.
    """

    def __init__(
        self,
        state: State,
        config: MustConfig,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        steps_per_epoch: int,
        prior: Tensor | None = None,
        seed: int = 0,
        accelerator: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if config.mask_ratio:
            _check_blocks(config.mask_block, state.student.backbone)
        self.state, self.config, self.steps_per_epoch, self.seed = state, config, steps_per_epoch, seed
        self.accelerator, self.dtype, self.prior = accelerator, dtype, prior
        self.device = state.moving_mean.device
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1) * 255
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1) * 255
        self.model: nn.Module = state.student
        if accelerator is not None:
            self.model = accelerator.prepare_model(state.student)  # which sends the main process's to all
            state.teacher.load_state_dict(state.student.state_dict())
        self.world = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def masks(self) -> Tensor:
        """Which patches of the next batch are masked: bool (all images of all processes, N); the same on each."""
        config, tower = self.config, self.state.student.backbone
        generator, block = generator_for(self.seed, self.state.step), config.mask_block // tower.patch
        return block_masks(config.batch_size, tower.grid, ratio=config.mask_ratio, block=block, generator=generator)

    def step(self, weak: Tensor, strong: Tensor) -> dict[str, Tensor]:
        """Train student and teacher on one batch.

        Args:
            weak, strong: this process's images, uint8 (B, 3, h, w); B times the processes is `config.batch_size`.

        Returns:
            Scalars on the device: the losses, and what is known without labels ("kept", "confidence", "agreement");
            and the teacher's "labels" (B,) int64 and "probs" (B, C).
        """
        state, config, size = self.state, self.config, len(weak)
        self._set_rates()
        masked: Tensor | None = None
        if config.mask_ratio:
            masked = self.masks()[self.rank * size : (self.rank + 1) * size].to(self.device, non_blocking=True)
        micro_batches = [
            slice(i * size // config.accumulate, (i + 1) * size // config.accumulate) for i in range(config.accumulate)
        ]

        def student(rows: slice, model: nn.Module) -> tuple[Tensor, Output]:
            images = self.normalize(strong[rows])
            with autocast(self.device, self.dtype), self._attention():
                return images, model(images, None if masked is None else masked[rows])

        teacher_logits = torch.cat([self._teacher_logits(weak[rows]) for rows in micro_batches])
        labels, kept = pseudo_labels(teacher_logits, config.threshold)
        whole: tuple[Tensor, Output] | None = None
        if config.accumulate == 1:
            whole = student(micro_batches[0], self.model)
            own_mean = _probs(whole[1].logits).mean(0).detach()
        else:  # look ahead: the mean prediction of all micro-batches before the first gradient
            with torch.no_grad():
                own_mean = torch.cat([_probs(student(rows, state.student)[1].logits) for rows in micro_batches]).mean(0)
        share, batch_mean = self._over_processes(kept.float().mean(), own_mean)
        seen: list[dict[str, Tensor]] = []
        for rows in micro_batches:
            last = rows.stop == size
            with contextlib.nullcontext() if last or self.world == 1 else self.accelerator.no_sync(self.model):
                images, output = student(rows, self.model) if whole is None else whole
                losses = self._losses(output, images, None if masked is None else masked[rows])
                losses["self_training"] = self_training_loss(output.logits, labels[rows], kept[rows], share)
                losses["fairness"] = self._fairness(_probs(output.logits).mean(0), batch_mean)
                total = torch.stack([loss * getattr(config, f"{name}_weight") for name, loss in losses.items()]).sum()
                self.scaler.scale(total / config.accumulate).backward()
            agreement = (output.logits.argmax(-1) == labels[rows]).float().mean()
            seen.append({"loss": total.detach(), **{k: v.detach() for k, v in losses.items()}, "agreement": agreement})
        state.moving_mean = self._moving_mean(batch_mean)
        self.scaler.step(state.optimizer)
        self.scaler.update()
        state.optimizer.zero_grad()
        ema_update(state.teacher, state.student, config.ema_decay_at(state.step))
        state.step += 1
        probs = _probs(teacher_logits)
        means = {name: torch.stack([part[name] for part in seen]).mean() for name in seen[0]}
        return {**means, "kept": share, "confidence": probs.max(-1).values.mean(), "labels": labels, "probs": probs}

    def _attention(self) -> contextlib.AbstractContextManager[None]:
        """Of the student. PyTorch's flash attention is slow backwards in bfloat16 on a CPU over few tokens."""
        few = math.prod(self.state.student.backbone.grid) < PLAIN_BELOW
        plain = few and self.device.type == "cpu" and self.dtype == torch.bfloat16
        return sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext()

    @torch.no_grad()
    def _teacher_logits(self, weak: Tensor) -> Tensor:
        with autocast(self.device, self.dtype):
            return self.state.teacher(self.normalize(weak)).logits

    def _losses(self, output: Output, images: Tensor, masked: Tensor | None) -> dict[str, Tensor]:
        """The losses of masked patches; those that are switched off are left out."""
        losses = {}
        if output.reconstruction is not None and masked is not None:
            losses["masked_image"] = masked_image_loss(output.reconstruction, images, masked)
        if output.patches is not None and masked is not None:
            losses["alignment"] = alignment_loss(output.patches, output.embedding, masked)
        return losses

    def _fairness(self, own_mean: Tensor, batch_mean: Tensor) -> Tensor:
        """The fairness loss of the whole batch, whose gradient goes to the images behind `own_mean` (section 3.1).

        Means over micro-batches and over processes (DistributedDataParallel) of these gradients are that of the batch.
        """
        momentum = self._momentum(len(batch_mean))
        moving = self._moving_mean(batch_mean) + (1 - self._kept_of_past(momentum)) * (own_mean - own_mean.detach())
        return fairness_loss(moving, self.prior) / (1 - momentum)

    def _moving_mean(self, batch_mean: Tensor) -> Tensor:
        """The moving average of the mean prediction, which begins every epoch with the batch's own."""
        return self.state.moving_mean.lerp(batch_mean, 1 - self._kept_of_past(self._momentum(len(batch_mean))))

    def _kept_of_past(self, momentum: float) -> float:
        return momentum if self.state.step % self.steps_per_epoch else 0.0

    def _momentum(self, classes: int) -> float:
        momentum = self.config.fairness_momentum
        if momentum is None:
            momentum = 0.5 if classes >= 512 else 0.0
        return momentum

    def _over_processes(self, share: Tensor, mean_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the batches of all processes."""
        if self.world == 1:
            return share, mean_probs
        everywhere = self.accelerator.reduce(torch.cat([share[None], mean_probs]), reduction="mean")
        return everywhere[0], everywhere[1:]

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) -> what the tower expects, float32, on the device."""
        return (pixels.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def _set_rates(self) -> None:
        rate = self.config.lr_at(self.state.step / (self.steps_per_epoch * self.config.epochs))
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]


def new_state(student: MaskedClassifier, config: MustConfig) -> State:
    """Student, its copy as the EMA teacher, and AdamW with layer-wise learning rates, before the first step."""
    student.backbone.mask_token.requires_grad_(config.mask_ratio > 0)  # distributed training waits for all that learns
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(parameter_groups(student, config), lr=config.peak_lr, fused=True)
    return State(student.train(), teacher, optimizer, student.head.weight.new_zeros(len(student.head.weight)))


def parameter_groups(model: MaskedClassifier, config: MustConfig) -> list[dict[str, Any]]:
    """Parameters by layer: each layer of the tower has `layer_decay` times the rate of the one above it.

    Patch, class and position embeddings are layer 0, block i is layer i + 1, all that follows the blocks is the last.
    Parameters of one dimension do not decay.
    """
    top = len(model.backbone.visual.transformer.resblocks) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("backbone.visual.transformer.resblocks."):
            layer = int(name.split(".")[4]) + 1
        else:
            is_low = name.startswith(LOWEST) or (name == "backbone.mask_token" and config.slow_mask_token)
            layer = 0 if is_low else top
        decays = parameter.ndim > 1
        group = groups.setdefault(
            (layer, decays),
            {
                "params": [],
                "lr_scale": config.layer_decay ** (top - layer),
                "weight_decay": config.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher towards the student in place: teacher = decay · teacher + (1 − decay) · student."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - decay)


def _check_blocks(pixels: int, tower: MaskedVisual) -> None:
    (rows, columns), patch = tower.grid, tower.patch
    fitting = [n * patch for n in range(1, min(rows, columns) + 1) if rows % n == 0 and columns % n == 0]
    if pixels not in fitting:
        raise FitError(
            f"mask_block is {pixels} pixels, but the tower sees images of {columns * patch} x {rows * patch} in "
            f"patches of {patch}. Expected one of {', '.join(map(str, fitting))}."
        )


def _probs(logits: Tensor) -> Tensor:
    return to_float32(logits).softmax(-1)
