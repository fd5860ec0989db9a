"""The settings of masked self-training: every constant in one place; `presets` has the published ones."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit._inputs import LARGEST_COUNT, is_number, is_whole
from labkit.errors import FitError, quote

LARGEST = sys.float_info.max
PUBLISHED_BATCH = 1024  # images in a batch that learning rates, decays and warm-ups were published for


@dataclass(frozen=True)
class MustConfig:
    """All settings of MUST. The defaults are the paper's for ImageNet with ViT-B/16, where it gives one for all.

    The learning rate is given for 256 images and follows the batch size in proportion. Decay and warm-up of the EMA
    teacher are given for a batch of 1,024, as published, and follow it as well, the decay as a power: so the same
    number of images has the same weight.

    Attributes:
        epochs: passes over the images.
        batch_size: images in one step, over all processes.
        accumulate: micro-batches that a batch is computed in, one after the other, for little memory.
        lr: learning rate for 256 images; a cosine takes it to a millionth of 1.
        layer_decay: each layer of the tower learns this much slower than the one above it.
        weight_decay: of AdamW, for parameters with two dimensions or more.
        threshold: τ, the confidence above which a pseudo-label is kept.
        ema_decay: of the EMA teacher at the first step, for a batch of 1,024; 0 makes the teacher the student of the
            step before. It grows to `ema_decay_end` over `ema_warmup` such batches.
        mask_block: side of a masked block in pixels, a multiple of the tower's patch.
        mask_ratio: fraction of blocks that is masked; 0 switches masking off.
        self_training_weight, fairness_weight, masked_image_weight, alignment_weight: of the four losses; 0 is off.
        fairness_momentum: share of the mean prediction that is kept from the step before; None is 0.5 from 512 classes
            on, where a batch holds too few images a class, else 0.
        prior: "uniform", or "estimated": the shares of the classes that the initial classifier predicts on the
            train images.
        slow_mask_token: whether the mask token learns as slowly as the lowest layer. In the published code the layer
            decay catches it, so it hardly learns; False gives it the rate of the head, as it is new.
        crop: smallest area of the image that the strong view shows.
        flip: whether the strong view may be a mirror image.
        augment: timm's description of the RandAugment of the strong view; None for none.
        patience: stop when the label-free criterion has not grown for so many epochs, and go back to the teacher where
            it was highest; None runs all epochs and takes the last.

    Raises:
        FitError: a value is out of its range.
    """

    epochs: int = 30
    batch_size: int = PUBLISHED_BATCH
    accumulate: int = 1
    lr: float = 2e-5
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    threshold: float = 0.7
    ema_decay: float = 0.999
    ema_decay_end: float = 0.9998
    ema_warmup: int = 2000
    mask_block: int = 32
    mask_ratio: float = 0.3
    self_training_weight: float = 1.0
    fairness_weight: float = 1.0
    masked_image_weight: float = 1.0
    alignment_weight: float = 0.2
    fairness_momentum: float | None = None
    prior: str = "uniform"
    slow_mask_token: bool = True
    crop: float = 0.3
    flip: bool = True
    augment: str | None = "rand-m9-mstd0.5-inc1"
    patience: int | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "accumulate", "mask_block")
        shares = ("threshold", "ema_decay", "ema_decay_end", "mask_ratio")
        weights = ("self_training_weight", "fairness_weight", "masked_image_weight", "alignment_weight")
        switches = ("slow_mask_token", "flip")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())  # checkpoints are JSON, which has no NumPy
        for name in (*counts, *(("patience",) if self.patience is not None else ())):
            self._expect(name, is_whole(getattr(self, name), 1), f"a whole number from 1 to {LARGEST_COUNT:,}")
        self._expect("ema_warmup", is_whole(self.ema_warmup, 0), f"a whole number from 0 to {LARGEST_COUNT:,}")
        for name in (*shares, *(("fairness_momentum",) if self.fairness_momentum is not None else ())):
            value = getattr(self, name)
            self._expect(name, is_number(value, 0, 1) and value < 1, "a number from 0 to below 1")
        for name in (*weights, "weight_decay"):
            self._expect(name, is_number(getattr(self, name), 0, LARGEST), "a number from 0 on")
        self._expect("lr", is_number(self.lr, math.ulp(0.0), LARGEST), "a number above 0")
        for name in ("layer_decay", "crop"):
            self._expect(name, is_number(getattr(self, name), math.ulp(0.0), 1), "a number above 0 and up to 1")
        for name in switches:
            self._expect(name, isinstance(getattr(self, name), bool), "True or False")
        is_text = self.augment is None or isinstance(self.augment, str)
        self._expect("augment", is_text, 'a description of RandAugment, such as "rand-m9-mstd0.5-inc1", or None')
        is_known = isinstance(self.prior, str) and self.prior in ("uniform", "estimated")
        self._expect("prior", is_known, '"uniform" or "estimated"')
        self._expect("accumulate", self.batch_size % self.accumulate == 0, f"a divisor of {self.batch_size}")

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise FitError(f"{name} is {quote(getattr(self, name))}. Expected {what}.")

    def replace(self, **changes: Any) -> MustConfig:
        """A copy with some settings changed; unknown names are an error."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise FitError(f"MUST has no setting {quote(name)}. Expected some of {', '.join(known)}.")
        return dataclasses.replace(self, **changes)

    @property
    def peak_lr(self) -> float:
        """The learning rate at the first step, for this batch size."""
        return self.lr * self.batch_size / 256

    def lr_at(self, progress: float) -> float:
        """The learning rate when this share of all steps is done: half a cosine down to a millionth of a full one."""
        end = min(1e-6 * self.batch_size / 256, self.peak_lr)
        return end + (self.peak_lr - end) * 0.5 * (1 + math.cos(math.pi * progress))

    def ema_decay_at(self, step: int) -> float:
        """The teacher's decay after the step of this number (from 0 on), for this batch size."""
        share = self.batch_size / PUBLISHED_BATCH
        grown = min(1.0, step * share / self.ema_warmup) if self.ema_warmup else 1.0
        end = max(self.ema_decay, self.ema_decay_end) if self.ema_decay else 0.0
        return (self.ema_decay + (end - self.ema_decay) * grown) ** share
