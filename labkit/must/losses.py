"""The four losses of MUST as pure functions, and the pseudo-labels that the first of them needs.

Li, Savarese and Hoi, "Masked Unsupervised Self-training for Label-free Image Classification", ICLR 2023
(arXiv 2206.02967). Shapes: B images, N patches, C classes, D dimensions of the space of images and texts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pseudo_labels(teacher_logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The class that the teacher predicts for each image, and where it is confident enough to be kept (section 3.1).

    Args:
        teacher_logits: for the weak view, (B, C).
        threshold: τ; a label is kept when its probability is above it.

    Returns:
        Class numbers (B,) int64, and whether each is kept, (B,) bool.
    """
    confidence, labels = to_float32(teacher_logits).softmax(-1).max(-1)
    return labels, confidence > threshold


def self_training_loss(logits: Tensor, labels: Tensor, kept: Tensor, kept_share: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the student with the labels that are kept; 0, with gradient 0, when none is (eq. 1).

    Args:
        logits: of the student for the strong view, (B, C).
        labels: from `pseudo_labels`, (B,).
        kept: from `pseudo_labels`, (B,) bool.
        kept_share: the share of kept labels in the global batch, a scalar, where this is only a part of it (several
            processes); None is the share in this batch.
    """
    errors = F.cross_entropy(to_float32(logits), labels, reduction="none")
    share = kept.float().mean() if kept_share is None else kept_share
    return torch.where(kept, errors, 0.0).mean() / torch.where(share > 0, share, 1.0)


def fairness_loss(mean_probs: Tensor, prior: Tensor | None = None) -> Tensor:
    """Cross-entropy of the mean prediction with the prior over classes: keeps all classes in use (eq. 2).

    Args:
        mean_probs: mean of the student's probabilities over the batch, p̄ (C,).
        prior: expected share of each class, (C,); None is 1/C for each.
    """
    logs = mean_probs.clamp_min(torch.finfo(mean_probs.dtype).tiny).log()
    return -(logs.mean() if prior is None else (prior * logs).sum())


def masked_image_loss(reconstruction: Tensor, images: Tensor, masked: Tensor) -> Tensor:
    """Mean absolute error of the predicted pixels of the masked patches; 0 when none is masked (section 3.2).

    Args:
        reconstruction: pixels guessed, normalized RGB, (B, 3, h, w).
        images: the true ones, of the same shape.
        masked: True where a patch is masked, (B, N).
    """
    pixels = _to_pixels(masked, images.shape[-2:])
    errors = (to_float32(reconstruction) - to_float32(images)).abs().mean(1)
    return torch.where(pixels, errors, 0.0).sum() / pixels.sum().clamp_min(1)


def alignment_loss(patches: Tensor, embedding: Tensor, masked: Tensor) -> Tensor:
    """Mean squared distance of masked patches and their image, both L2-normalized; 0 when none is masked (eq. 4).

    The student's embedding of a masked patch is pulled towards its embedding of the whole image. The gradient goes
    both ways.

    Args:
        patches: every patch in the space of images and texts, (B, N, D).
        embedding: the image in that space, (B, D).
        masked: True where a patch is masked, (B, N).
    """
    gaps = _unit(patches) - _unit(embedding)[:, None]
    return torch.where(masked, gaps.square().sum(-1), 0.0).sum() / masked.sum().clamp_min(1)


def to_float32(values: Tensor) -> Tensor:
    """Half precision, which autocast gives, as float32, which sums of exponentials need; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(to_float32(vectors), dim=-1)


def _to_pixels(masked: Tensor, size: torch.Size) -> Tensor:
    """A mask of patches, (B, N), as a mask of pixels, (B, h, w)."""
    height, width = size
    patch = round((height * width / masked.shape[1]) ** 0.5)
    grid = masked.view(-1, height // patch, width // patch)
    return grid.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
