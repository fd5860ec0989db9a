"""MUST, masked unsupervised self-training (Li et al., ICLR 2023): masks, model, losses, trainer, presets."""

from labkit.must.choosing import compare
from labkit.must.config import MustConfig
from labkit.must.estimator import MUST
from labkit.must.losses import (
    alignment_loss,
    fairness_loss,
    masked_image_loss,
    pseudo_labels,
    self_training_loss,
)
from labkit.must.masking import block_masks
from labkit.must.model import MaskedClassifier, MaskedVisual, Output
from labkit.must.presets import PRESETS, preset_for, preset_key, preset_source
from labkit.must.trainer import State, Trainer, ema_update, new_state, parameter_groups
from labkit.must.views import Views

__all__ = [
    "MUST",
    "PRESETS",
    "MaskedClassifier",
    "MaskedVisual",
    "MustConfig",
    "Output",
    "State",
    "Trainer",
    "Views",
    "alignment_loss",
    "block_masks",
    "compare",
    "ema_update",
    "fairness_loss",
    "masked_image_loss",
    "new_state",
    "parameter_groups",
    "preset_for",
    "preset_key",
    "preset_source",
    "pseudo_labels",
    "self_training_loss",
]
