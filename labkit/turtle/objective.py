"""The paper in functions: labelings, losses and their gradients in closed form (Gadetsky et al., ICML 2024, section 3).

Shapes: R restarts side by side as extra rows of one matrix product, C clusters, B samples, d features. Weights are
(R, C, d), biases (R, C), logits and probabilities (R, C, B): with the samples last, softmax over C runs along
contiguous memory, twenty times faster on a CPU than with C last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.devices import fast_matmul


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits of linear layers: features (B, d), weight (R, C, d), bias (R, C) -> (R, C, B).

    The product runs in the dtype of the features and is returned in the dtype of the bias.
    """
    product = fast_matmul(weight.flatten(0, 1).to(features.dtype), features.T)  # (R·C, B)
    return product.view(*bias.shape, -1).to(bias.dtype).add_(bias[..., None])  # in place: fresh memory is slow


def linear_grad(features: Tensor, grad_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `linear` for its weight (R, C, d) and bias (R, C), given those of its logits (R, C, B)."""
    grad_weight = fast_matmul(grad_logits.flatten(0, 1).to(features.dtype), features)  # (R·C, d)
    grad_weight = grad_weight.view(*grad_logits.shape[:2], -1).to(grad_logits.dtype)
    return grad_weight, grad_logits.sum(-1)


def cross_entropy(log_probs: Tensor, labeling: Tensor) -> Tensor:
    """Mean cross-entropy of soft labels, the loss of both levels: both (R, C, B) -> (R,)."""
    return -(labeling * log_probs).sum(1).mean(-1)


def entropy(mean_labeling: Tensor) -> Tensor:
    """Shannon entropy in nats of the mean labeling, what γ weighs in eq. 12: (R, C) -> (R,)."""
    return torch.special.entr(mean_labeling).sum(-1)


def divergence(mean_labeling: Tensor, log_prior: Tensor) -> Tensor:
    """KL(mean labeling ‖ prior) in nats: (R, C), log shares (C,) or (R, C) -> (R,).

    From even shares it is log C minus the entropy, so minimizing γ times it is what eq. 12 does.
    """
    return -entropy(mean_labeling) - (mean_labeling * log_prior).sum(-1)


def inner_grad_logits(logits: Tensor, labeling: Tensor) -> Tensor:
    """Gradient of the inner loss CE(logits, labeling) for the logits: all (R, C, B)."""
    return (logits.softmax(1) - labeling).div_(logits.shape[-1])


def outer_grad_logits(
    task_probs: Tensor,
    grad_labeling: Tensor,
    entropy_weight: float | Tensor,
    log_prior: Tensor | None = None,
    mean_probs: Tensor | None = None,
) -> Tensor:
    """Gradient of the outer loss for the logits of one space's task encoder (eqs. 12 and 13).

    With a prior π, − γ H(mean τ_k) of eq. 12 becomes + γ KL(mean τ_k ‖ π), whose gradient for τ_k(x) is
    γ/B · (log mean τ_k + 1 − log π).

    Args:
        task_probs: τ_k, this space's softmax, (R, C, B).
        grad_labeling: gradient of the cross-entropies for τ_k, (R, C, B); the same for every space.
        entropy_weight: γ, a number or (R, 1, 1).
        log_prior: log π, (C,) or (R, C); None is the published entropy, the same as even shares.
        mean_probs: mean of τ_k over the batch, (R, C), where these samples are a part of it.
    """
    mean = task_probs.mean(-1, keepdim=True) if mean_probs is None else mean_probs[..., None]
    tiny = torch.finfo(mean.dtype).tiny  # an empty cluster has log 0; its gradient is 0 · log 0 = 0
    surprise = mean.clamp_min(tiny).log() + 1
    if log_prior is not None:
        surprise = surprise - log_prior[..., None]
    grad_probs = grad_labeling + entropy_weight / max(1, task_probs.shape[-1]) * surprise
    return task_probs * (grad_probs - (task_probs * grad_probs).sum(1, keepdim=True))
