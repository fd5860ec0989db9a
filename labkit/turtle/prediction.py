"""What a fitted Turtle says of samples: its task encoders on features as they are given, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from labkit._scales import block_of, power_of_two
from labkit._stored import Space
from labkit.devices import pick_device
from labkit.turtle.objective import linear
from labkit.turtle.parallel import Whole
from labkit.turtle.transform import centered, expect_range

if TYPE_CHECKING:
    from labkit.turtle.estimator import Turtle

LARGEST = 1e30  # a sum of such features times weights near 1 is far from 3e38


def labelings_of(turtle: Turtle, spaces: Sequence[Space], restarts: slice = slice(None)) -> Iterator[Tensor]:
    """τ of the chosen restarts, (R, C, b), for one block of samples after the other."""
    encoders = [task_encoder(turtle, k, restarts) for k in range(len(spaces))]
    block = block_of(sum(space.shape[1] for space in spaces) + math.prod(turtle.restarts_[0][1][restarts].shape))
    for rows in zip(*(space.split(block) for space in spaces), strict=True):
        yield torch.stack([encoder(z) for encoder, z in zip(encoders, rows, strict=True)]).mean(0).cpu()


def keep_best(turtle: Turtle, spaces: Sequence[Space], parts: Whole) -> None:
    """Compare the restarts on all samples, and keep the most confident of those that use the most clusters.

    Sets `confidence_`, `n_found_`, `best_restart_` and `labels_`, the last for the samples of this process.
    """
    n_restarts, done = turtle.restarts_[0][1].shape[0], 0
    labels = np.empty((n_restarts, len(spaces[0])), np.int32)
    confidence = torch.zeros(n_restarts, dtype=torch.float64)
    with parts.agreeing():
        for probs in labelings_of(turtle, spaces):
            best = probs.max(1)
            labels[:, done : done + probs.shape[-1]] = best.indices
            confidence += best.values.double().sum(-1)
            done += probs.shape[-1]
    turtle.n_found_ = found_clusters(labels, turtle.prior_, parts)
    turtle.confidence_ = parts.total(confidence).numpy() / parts.n
    ran = ~np.isnan(turtle.history_["inner_loss"][-1])  # to the end
    full = ran & (turtle.n_found_ == turtle.n_found_[ran].max())
    turtle.best_restart_ = int(np.where(full, turtle.confidence_, -1).argmax())
    turtle.labels_ = labels[turtle.best_restart_].astype(np.int64)


def found_clusters(labelings: np.ndarray, shares: np.ndarray, parts: Whole) -> np.ndarray:
    """Clusters of each labeling (R, n) that hold at least a tenth of their share (C,) of all samples: (R,)."""
    own = np.stack([np.bincount(labels, minlength=len(shares)) for labels in labelings])
    counts = parts.total(torch.from_numpy(own)).numpy()
    return (counts * 10 >= parts.n * shares * (1 - 1e-9)).sum(1)  # n · 1/C may be rounded up


def task_encoder(turtle: Turtle, k: int, restarts: slice) -> Callable[[Tensor], Tensor]:
    """τ_k of the chosen restarts, as a function of features of space k as given: (b, d_k) -> (R, C, b)."""
    exact = torch.float64 if turtle.dtype == "float64" else torch.float32
    device, mean = pick_device(turtle.device), torch.from_numpy(turtle.means_[k])
    weight, bias = (torch.from_numpy(array[restarts]).double() for array in turtle.restarts_[k])
    factor = power_of_two(float(weight.abs().max()))  # features · weights stays, and neither can overflow
    layer = [tensor.to(exact).to(device) for tensor in (weight / factor, bias + weight @ mean)]
    factors = torch.full_like(mean, factor)

    def task_probs(features: Tensor) -> Tensor:
        features = expect_range(centered(features, mean, factors, exact), LARGEST)
        return linear(features.to(device), *layer).softmax(1)

    return task_probs
