"""Where MUST starts: the head and the prior, from prompts or initial labels; on several processes only once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn
from torch import Tensor

from labkit._inputs import plain_array
from labkit.data.images import ImageDataset
from labkit.errors import FitError
from labkit.must.config import MustConfig
from labkit.must.processes import from_main_process
from labkit.spaces.backbones import Backbone
from labkit.spaces.features import encode_images
from labkit.zeroshot.classifier import text_classifier
from labkit.zeroshot.prompts import Prompts


def head_and_prior(
    backbone: Backbone,
    prompts: Prompts,
    images: ImageDataset,
    labeling: np.ndarray | None,
    config: MustConfig,
    accelerator: Any = None,
) -> tuple[Tensor, Tensor | None]:
    """The head's weights (C, D) and the prior (C,) or None, on the CPU, the same on every process.

    Args:
        backbone: the image-text model.
        prompts: of the C classes.
        images: the n images to train on; encoded only where `labeling` or the prior needs it, each process a share.
        labeling: initial labels (n,), -1 for unknown, or None for the zero-shot classifier of the prompts.
        config: whose `prior` is asked for.
        accelerator: Hugging Face's, or None for one process.
    """
    embeddings: np.ndarray | None = None
    if labeling is not None or config.prior == "estimated":
        embeddings = _encode_shares(backbone, images, accelerator)

    def compute() -> tuple[Tensor, Tensor | None]:
        weights = torch.from_numpy(text_classifier(backbone, prompts))
        if embeddings is not None and labeling is not None:
            weights = _fit_head(embeddings, labeling, weights, backbone.logit_scale)
        prior = _predicted_shares(embeddings, weights) if embeddings is not None and config.prior != "uniform" else None
        return weights, prior

    return from_main_process(accelerator, compute)


def read_labeling(initial_labels: ArrayLike | None, n: int, classes: int) -> np.ndarray | None:
    """Initial labels (n,) as class numbers, checked; -1 is unknown.

    Raises:
        FitError: another shape or type, numbers that are no class, or fewer than two classes.
    """
    if initial_labels is None:
        return None
    labeling = plain_array("initial_labels", initial_labels, f"Expected a class number for each of the {n} images.")
    if labeling.shape != (n,) or not np.issubdtype(labeling.dtype, np.integer):
        raise FitError(
            f"initial_labels has shape {labeling.shape} and dtype {labeling.dtype}. Expected a class number for each "
            f"of the {n} images, (n,) of integers."
        )
    if labeling.min() < -1 or labeling.max() >= classes:
        raise FitError(
            f"initial_labels holds class numbers from {labeling.min()} to {labeling.max()}. Expected 0 to "
            f"{classes - 1}, the number of a class in the prompts, or -1 for unknown."
        )
    if len(np.unique(labeling[labeling >= 0])) < 2:
        raise FitError("initial_labels holds fewer than two classes. Expected labels that tell images apart.")
    return labeling


def _encode_shares(backbone: Backbone, images: ImageDataset, accelerator: Any) -> np.ndarray:
    """Embeddings of all images, (n, D); every process encodes its share of them and gets those of the others."""
    if accelerator is None:
        return encode_images(backbone, images)
    n, world, rank = len(images), accelerator.num_processes, accelerator.process_index
    own = encode_images(backbone, images.subset(range(rank, n, world)))
    padded = np.zeros((-(-n // world), own.shape[1]), own.dtype)  # as many on each
    padded[: len(own)] = own
    everywhere = accelerator.gather(torch.from_numpy(padded).to(accelerator.device)).cpu().numpy()
    return everywhere.reshape(world, *padded.shape).swapaxes(0, 1).reshape(-1, padded.shape[1])[:n]


def _fit_head(embeddings: np.ndarray, labeling: np.ndarray, weights: Tensor, scale: float) -> Tensor:
    """A head (C, D) that tells images apart as a labeling does; classes without images keep their prompts'.

    Logistic regression on the normalized embeddings times the logit scale. It knows only how classes differ, so what
    their prompts have in common is added: else a class without images, whose prompt is like every image a little,
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


def _predicted_shares(embeddings: np.ndarray, weights: Tensor) -> Tensor:
    """The share of images that are predicted for each class, each counted once more than it was met: (C,)."""
    predicted = (torch.from_numpy(embeddings).to(weights) @ weights.T).argmax(1)
    counts = torch.bincount(predicted, minlength=len(weights)).float() + 1
    return counts / counts.sum()
