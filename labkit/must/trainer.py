"""MUST: a zero-shot classifier teaches itself on pictures without labels.

Li, Savarese and Hoi, ICLR 2023 (arXiv 2206.02967). One step, for a batch of pictures:

1. the teacher, a slow average of the student, sees a weak view and gives pseudo-labels;
2. the student sees a strong view with some patches hidden, in one pass;
3. its prediction shall be the teacher's where that is sure (self-training), spread over all classes (fairness), its
   hidden patches shall be guessed (masked image) and say what the whole picture says (alignment);
4. AdamW updates the student, and the teacher follows.

Everything random is a function of the seed and of the number of the epoch, step or picture. So a run that was stopped
and goes on, and a run on several processes, take the very same steps as one that was not.
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

from labkit.errors import FitError
from labkit.must.config import MustConfig
from labkit.must.losses import (
    alignment_loss,
    at_least_single,
    fairness_loss,
    masked_image_loss,
    pseudo_labels,
    self_training_loss,
)
from labkit.must.masking import block_masks, generator_for
from labkit.must.model import MaskedClassifier, MaskedVisual, Output

LOWEST = tuple(f"backbone.visual.{part}" for part in ("conv1", "class_embedding", "positional_embedding", "ln_pre"))
PLAIN_BELOW = 128  # patches; with more of them flash attention is as fast, and needs less memory


@dataclasses.dataclass
class State:
    """All that a step changes: with it and the settings, training goes on as if it had never stopped."""

    student: MaskedClassifier
    teacher: MaskedClassifier
    optimizer: torch.optim.AdamW
    memory: Tensor  # the moving mean prediction, (C,)
    step: int = 0


class Trainer:
    """The steps of MUST, on one process or many.

    Args:
        state: from `new_state`.
        config: the settings.
        mean, std: of the pixels, as the tower expects them.
        total_steps: where the learning rate ends.
        prior: expected share of each class, (C,), or None for equal ones.
        seed: of the masks.
        accelerator: Hugging Face's, which knows of the other processes; None for one process.
        dtype: of the autocast forward passes; float32 for none.

    Raises:
        FitError: blocks of the masks do not fill the tower's pictures.
    """

    def __init__(
        self,
        state: State,
        config: MustConfig,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        total_steps: int,
        prior: Tensor | None = None,
        seed: int = 0,
        accelerator: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if config.mask_ratio:
            _check_blocks(config.mask_block, state.student.backbone)
        self.state, self.config, self.total_steps, self.seed = state, config, total_steps, seed
        self.accelerator, self.dtype, self.prior = accelerator, dtype, prior
        self.device = state.memory.device
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1) * 255
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1) * 255
        self.model: nn.Module = state.student if accelerator is None else accelerator.prepare_model(state.student)
        self.world = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def masks(self) -> Tensor:
        """Which patches of the next batch are hidden: bool (all pictures of all processes, N); the same on each."""
        config, tower = self.config, self.state.student.backbone
        generator, block = generator_for(self.seed, self.state.step), config.mask_block // tower.patch
        return block_masks(config.batch_size, tower.grid, ratio=config.mask_ratio, block=block, generator=generator)

    def step(self, weak: Tensor, strong: Tensor) -> dict[str, Tensor]:
        """Train student and teacher on one batch.

        Args:
            weak, strong: this process's pictures, uint8 (B, 3, h, w); B times the processes is `config.batch_size`.

        Returns:
            Scalars on the device: the losses, and what is known without labels ("kept", "confidence", "agreement");
            and the teacher's "labels" (B,) int64 and "probs" (B, C).
        """
        state, config = self.state, self.config
        self._set_rates()
        size = len(weak)
        hidden: Tensor | None = None
        if config.mask_ratio:
            hidden = self.masks()[self.rank * size : (self.rank + 1) * size].to(self.device, non_blocking=True)
        parts = []
        for i in range(config.accumulate):
            rows = slice(i * size // config.accumulate, (i + 1) * size // config.accumulate)
            last = i + 1 == config.accumulate
            with contextlib.nullcontext() if last or self.world == 1 else self.accelerator.no_sync(self.model):
                part, loss = self._losses(weak[rows], strong[rows], None if hidden is None else hidden[rows])
                self.scaler.scale(loss / config.accumulate).backward()
            parts.append(part)
        self.scaler.step(state.optimizer)
        self.scaler.update()
        state.optimizer.zero_grad()
        follow(state.teacher, state.student, config.ema_decay_at(state.step))
        state.step += 1
        several = {"labels", "probs"}
        return {k: (torch.cat if k in several else _mean)([part[k] for part in parts]) for k in parts[0]}

    def _attention(self) -> contextlib.AbstractContextManager[None]:
        """Of the student. PyTorch's flash attention is slow backwards in bfloat16 on a CPU over few tokens."""
        few = math.prod(self.state.student.backbone.grid) < PLAIN_BELOW
        plain = few and self.device.type == "cpu" and self.dtype == torch.bfloat16
        return sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext()

    def _losses(self, weak: Tensor, strong: Tensor, hidden: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        config, images = self.config, self.normalise(strong)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            with torch.no_grad():
                teacher_logits = self.state.teacher(self.normalise(weak)).logits
            with self._attention():
                output: Output = self.model(images, hidden)
        labels, kept = pseudo_labels(teacher_logits, config.threshold)
        probs = at_least_single(output.logits).softmax(-1)
        share, mean_probs = self._over_processes(kept.float().mean(), probs.mean(0))
        losses = {"self_training": self_training_loss(output.logits, labels, kept, share)}
        losses["fairness"] = self._fairness(mean_probs)
        if output.reconstruction is not None and hidden is not None:
            losses["masked_image"] = masked_image_loss(output.reconstruction, images, hidden)
        if output.patches is not None and hidden is not None:
            losses["alignment"] = alignment_loss(output.patches, output.embedding, hidden)
        total = torch.stack([loss * getattr(config, f"{name}_weight") for name, loss in losses.items()]).sum()
        teacher_probs = at_least_single(teacher_logits).softmax(-1)
        seen = {
            "loss": total,
            **losses,
            "kept": share,
            "confidence": teacher_probs.max(-1).values.mean(),
            "agreement": (output.logits.argmax(-1) == labels).float().mean(),
        }
        return {k: v.detach() for k, v in seen.items()} | {"labels": labels, "probs": teacher_probs}, total

    def _fairness(self, mean_probs: Tensor) -> Tensor:
        """The fairness loss, with the memory of past batches where there is one (section 3.1)."""
        memory = self.config.fairness_memory
        if memory is None:
            memory = 0.5 if len(mean_probs) >= 512 else 0.0
        if not memory:
            return fairness_loss(mean_probs, self.prior)
        moving = memory * self.state.memory + (1 - memory) * mean_probs
        self.state.memory = moving.detach()
        return fairness_loss(moving, self.prior) / (1 - memory)

    def _over_processes(self, share: Tensor, mean_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the batches of all processes, whose gradient each process takes for its own pictures only.

        DistributedDataParallel averages gradients, so this gives the gradient of the global mean.
        """
        if self.world == 1:
            return share, mean_probs
        own = torch.cat([share[None], mean_probs.detach()])
        everywhere = self.accelerator.reduce(own, reduction="mean")
        return everywhere[0], everywhere[1:] + (mean_probs - mean_probs.detach())

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) -> what the tower expects, float32, on the device."""
        return (pixels.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def _set_rates(self) -> None:
        rate = self.config.lr_at(self.state.step / max(1, self.total_steps))
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]


def new_state(student: MaskedClassifier, config: MustConfig) -> State:
    """Student, its copy as the teacher, and AdamW with layer-wise learning rates, before the first step."""
    student.backbone.mask_token.requires_grad_(config.mask_ratio > 0)  # distributed training waits for all that learns
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(parameter_groups(student, config), lr=config.peak_lr, fused=True)
    classes, device = student.head.weight.shape[0], student.head.weight.device
    return State(student.train(), teacher, optimizer, torch.full((classes,), 1 / classes, device=device))


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
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher towards the student in place: teacher = decay · teacher + (1 − decay) · student."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - decay)


def _check_blocks(pixels: int, tower: MaskedVisual) -> None:
    (rows, columns), patch = tower.grid, tower.patch
    fitting = [n * patch for n in range(1, min(rows, columns) + 1) if rows % n == 0 and columns % n == 0]
    if pixels not in fitting:
        raise FitError(
            f"mask_block is {pixels} pixels, but the tower sees pictures of {columns * patch} x {rows * patch} in "
            f"patches of {patch}. Expected one of {', '.join(map(str, fitting))}."
        )


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()
