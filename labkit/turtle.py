"""TURTLE: the labeling of an unlabelled dataset that linear classifiers fit with the largest margin.

Gadetsky, Jiang and Brbić, "Let Go of Your Labels with Unsupervised Transfer", ICML 2024 (arXiv 2406.07236).

Given frozen features φ_k(x) of the same images in K spaces, a *task encoder* proposes a soft labeling τ (eq. 9)

    τ_k(x) = softmax(θ_k φ_k(x) + b_k)        τ(x) = mean over k of τ_k(x)

and is trained so that a linear classifier w_k in every space can reproduce it, found by M Adam steps (eqs. 10-12):

    inner:  minimise over w   Σ_k CE(w_k φ_k(x), τ(x))
    outer:  minimise over θ   Σ_k CE(w_k φ_k(x), τ(x)) − γ Σ_k H(mean over x of τ_k(x))

The outer gradient reaches θ through τ alone (eq. 13). Every layer here is linear and every loss a cross-entropy,
so all gradients are written in closed form; `tests/oracle/` holds an independent float64 NumPy version of the whole.

Shapes: R restarts run side by side as extra rows of one matrix product, C clusters, B samples, d features.
Weights are (R, C, d), biases (R, C), logits and probabilities (R, C, B): with the samples last, softmax over C runs
along contiguous memory, twenty times faster on a CPU than with C last.
"""

from __future__ import annotations

import functools
import json
import math
import numbers
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, validate_data
from torch import Tensor
from tqdm.auto import tqdm

from labkit._files import atomic_write
from labkit.devices import DTYPES, explain_out_of_memory, fast_dtype, fast_matmul, pick_device
from labkit.errors import CheckpointError, CollapseWarning, FitError

# ---------------------------------------------------------------------------------------------- the paper in functions


def linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits of linear layers: features (B, d), weight (R, C, d), bias (R, C) -> (R, C, B).

    The product runs in the dtype of the features and is returned in the dtype of the bias.
    """
    product = fast_matmul(weight.flatten(0, 1).to(features.dtype), features.T)  # (R·C, B)
    return product.view(*bias.shape, -1).to(bias.dtype) + bias[..., None]


def linear_grad(features: Tensor, grad_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `linear` for its weight (R, C, d) and bias (R, C), given those of its logits (R, C, B)."""
    grad_weight = fast_matmul(grad_logits.flatten(0, 1).to(features.dtype), features)  # (R·C, d)
    grad_weight = grad_weight.view(*grad_logits.shape[:2], -1).to(grad_logits.dtype)
    return grad_weight, grad_logits.sum(-1)


def cross_entropy(log_probs: Tensor, labeling: Tensor) -> Tensor:
    """Mean cross-entropy of soft labels: both (R, C, B) -> (R,)."""
    return -(labeling * log_probs).sum(1).mean(-1)


def entropy(mean_labeling: Tensor) -> Tensor:
    """Shannon entropy in nats of the mean labeling: (R, C) -> (R,)."""
    return torch.special.entr(mean_labeling).sum(-1)


def inner_grad_logits(logits: Tensor, labeling: Tensor) -> Tensor:
    """Gradient of the inner loss CE(logits, labeling) for the logits: all (R, C, B)."""
    return (logits.softmax(1) - labeling) / logits.shape[-1]


def outer_grad_logits(task_probs: Tensor, grad_labeling: Tensor, entropy_weight: float) -> Tensor:
    """Gradient of the outer loss for the logits of one space's task encoder (eqs. 12 and 13).

    Args:
        task_probs: τ_k, this space's softmax, (R, C, B).
        grad_labeling: gradient of the cross-entropies for τ_k, (R, C, B); the same for every space.
        entropy_weight: γ.
    """
    mean = task_probs.mean(-1, keepdim=True)
    tiny = torch.finfo(mean.dtype).tiny  # an empty cluster has log 0; its gradient is 0 · log 0 = 0
    grad_probs = grad_labeling + entropy_weight / task_probs.shape[-1] * (mean.clamp_min(tiny).log() + 1)
    return task_probs * (grad_probs - (task_probs * grad_probs).sum(1, keepdim=True))


class Adam:
    """Adam (Kingma & Ba, 2015) on one flat tensor, updated in place; betas 0.9 and 0.999, eps 1e-8."""

    def __init__(self, parameters: Tensor, lr: float) -> None:
        self.parameters, self.lr = parameters, lr
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = 0

    def reset(self) -> None:
        """Forget all past gradients."""
        self.mean.zero_()
        self.square.zero_()
        self.steps = 0

    def step(self, grad: Tensor) -> None:
        """One update with `grad`, of the same shape as the parameters."""
        self.steps += 1
        self.mean.lerp_(grad, 1 - 0.9)
        self.square.mul_(0.999).addcmul_(grad, grad, value=1 - 0.999)
        scale = self.square.sqrt().div_(math.sqrt(1 - 0.999**self.steps)).add_(1e-8)
        self.parameters.addcdiv_(self.mean, scale, value=-self.lr / (1 - 0.9**self.steps))


@dataclass
class Layers:
    """One linear layer per space, stored as views of one flat tensor so that one Adam step updates all of them."""

    flat: Tensor
    weights: list[Tensor]  # (R, C, d_k)
    biases: list[Tensor]  # (R, C)
    gains: list[Tensor]  # (R, C); only where the layer is weight-normalised, else empty

    @classmethod
    def zeros(cls, dims: Sequence[int], restarts: int, clusters: int, *, gains: bool, like: Tensor) -> Layers:
        """Layers of zeros with the dtype and device of `like`."""
        shapes = [(restarts, clusters, d) for d in dims] + [(restarts, clusters)] * (len(dims) * (2 if gains else 1))
        sizes = [math.prod(shape) for shape in shapes]
        flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        views = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        k = len(dims)
        return cls(flat, views[:k], views[k : 2 * k], views[2 * k :])

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw weights and biases from U(−1/√d, 1/√d), as torch.nn.Linear does; gains become the weights' norms."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[-1])
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        for gain, weight in zip(self.gains, self.weights, strict=False):
            gain.copy_(weight.norm(dim=-1))

    def normalised_weight(self, k: int) -> Tensor:
        """Weight of space k: gain times direction where the layer is weight-normalised (Salimans & Kingma, 2016)."""
        direction = self.weights[k]
        if not self.gains:
            return direction
        return direction * (self.gains[k] / direction.norm(dim=-1))[..., None]


class TurtleSolver:
    """The bilevel problem on given features, one outer step at a time.

    Args:
        spaces: K tensors (n, d_k) on one device; their dtype is that of the matrix products.
        generator: source of the initial weights and of the batches, on the same device; None for PyTorch's own.
        Other arguments as in `Turtle`.
    """

    def __init__(
        self,
        spaces: Sequence[Tensor],
        n_clusters: int,
        generator: torch.Generator | None,
        *,
        n_restarts: int = 1,
        entropy_weight: float = 10.0,
        n_inner_steps: int = 10,
        outer_lr: float = 1e-3,
        inner_lr: float = 1e-3,
        inner_start: str = "cold",
        batch_size: int | None = None,
    ) -> None:
        self.spaces, self.generator = list(spaces), generator
        self.entropy_weight, self.n_inner_steps, self.inner_start = entropy_weight, n_inner_steps, inner_start
        n = len(self.spaces[0])
        self.batch_size = n if batch_size is None else min(batch_size, n)
        dims = [space.shape[1] for space in self.spaces]
        exact = torch.float64 if self.spaces[0].dtype == torch.float64 else torch.float32
        like = torch.empty(0, dtype=exact, device=self.spaces[0].device)
        self.encoder = Layers.zeros(dims, n_restarts, n_clusters, gains=True, like=like)
        self.encoder_grad = Layers.zeros(dims, n_restarts, n_clusters, gains=True, like=like)
        self.classifier = Layers.zeros(dims, n_restarts, n_clusters, gains=False, like=like)
        self.classifier_grad = Layers.zeros(dims, n_restarts, n_clusters, gains=False, like=like)
        self.outer = Adam(self.encoder.flat, outer_lr)
        self.inner = Adam(self.classifier.flat, inner_lr)
        self.encoder.draw(generator)
        self.classifier.draw(generator)
        self.waiting: list[Tensor] = []  # batches of row numbers, until all samples have had their turn
        self.gathered = [
            space.new_empty(self.batch_size if self.batch_size < n else 0, space.shape[1]) for space in self.spaces
        ]  # one batch, written again and again: fresh memory is slow

    def next_batch(self) -> list[Tensor]:
        """The features of `batch_size` samples, good until the next call; the stored tensors where that is all.

        Samples are drawn without replacement until fewer than a batch are left, then from all of them again.
        """
        n = len(self.spaces[0])
        if self.batch_size == n:
            return self.spaces
        if not self.waiting:
            order = torch.randperm(n, generator=self.generator, device=self.spaces[0].device)
            self.waiting = [rows for rows in order.split(self.batch_size) if len(rows) == self.batch_size]
        rows = self.waiting.pop()
        for space, batch in zip(self.spaces, self.gathered, strict=True):
            torch.index_select(space, 0, rows, out=batch)
        return self.gathered

    def task_probs(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """τ_k of every space, each (R, C, B)."""
        encoder = self.encoder
        return [linear(z, encoder.normalised_weight(k), encoder.biases[k]).softmax(1) for k, z in enumerate(batch)]

    def step(self, batch: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One outer step; returns the cross-entropy and the entropy before it, each (R,), summed over spaces."""
        batch = self.next_batch() if batch is None else batch
        task_probs = self.task_probs(batch)
        labeling = torch.stack(task_probs).mean(0)  # τ, (R, C, B)
        self._fit_classifiers(batch, labeling)
        return self._update_encoder(batch, task_probs, labeling)

    def is_finite(self) -> bool:
        """Whether no weight, and nothing that Adam remembers, has left the range of its dtype."""
        tensors = (self.encoder.flat, self.classifier.flat, self.outer.square, self.inner.square)
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def _fit_classifiers(self, batch: Sequence[Tensor], labeling: Tensor) -> None:
        """Inner problem: `n_inner_steps` of Adam on Σ_k CE(w_k φ_k, τ), τ held fixed."""
        if self.inner_start == "cold" and self.outer.steps > 0:
            self.classifier.draw(self.generator)
            self.inner.reset()
        layers, grads = self.classifier, self.classifier_grad
        for _ in range(self.n_inner_steps):
            for k, z in enumerate(batch):
                delta = inner_grad_logits(linear(z, layers.weights[k], layers.biases[k]), labeling)
                _copy((grads.weights[k], grads.biases[k]), linear_grad(z, delta))
            self.inner.step(grads.flat)

    def _update_encoder(
        self, batch: Sequence[Tensor], task_probs: Sequence[Tensor], labeling: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outer problem: one step of Adam on Σ_k CE(w_k φ_k, τ) − γ Σ_k H(mean τ_k), w held fixed."""
        layers = self.classifier
        per_space = [linear(z, layers.weights[k], layers.biases[k]).log_softmax(1) for k, z in enumerate(batch)]
        log_probs = torch.stack(per_space).sum(0)  # (R, C, B)
        grad_labeling = -log_probs / (len(batch) * labeling.shape[-1])  # τ is the mean of K spaces and B samples
        encoder, grads = self.encoder, self.encoder_grad
        for k, z in enumerate(batch):
            delta = outer_grad_logits(task_probs[k], grad_labeling, self.entropy_weight)
            grad_weight, grad_bias = linear_grad(z, delta)
            norm = encoder.weights[k].norm(dim=-1, keepdim=True)
            unit = encoder.weights[k] / norm
            grad_gain = (grad_weight * unit).sum(-1)
            grad_direction = (grad_weight - grad_gain[..., None] * unit) * (encoder.gains[k][..., None] / norm)
            _copy((grads.weights[k], grads.biases[k], grads.gains[k]), (grad_direction, grad_bias, grad_gain))
        self.outer.step(grads.flat)
        marginal_entropy = torch.stack([entropy(probs.mean(-1)) for probs in task_probs]).sum(0)
        return cross_entropy(log_probs, labeling), marginal_entropy


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


# ------------------------------------------------------------------------------------------------------- the estimator

EXPECTED = "Expected one space (n, d) or a list of spaces (n, d_k) of finite numbers."
SAMPLE = 8192  # rows that mean, scale and directions of a space are taken from; of fewer all
LARGEST_IN_FIT = 1e8  # Adam squares gradients that hold features twice: 1e32 of float32's 3e38
LARGEST_SETTING = 1e30  # that float32 holds, divided by anything that it is divided by
LARGEST_IN_PREDICTION = 1e30  # a sum of such features times weights near 1 is far from 3e38
ORDINARY = 2.0**40  # numbers within this factor of 1 need no rescaling


@dataclass
class FeatureTransform:
    """What the solver gets for a space: centred, in directions of large variance, partly whitened, and scaled.

    All is computed on deviations from the mean in units near the largest of them. So neither the scale of the
    features, nor an offset that is large beside their spread, costs precision or overflows.
    """

    mean: Tensor  # (d,) float64
    factor: Tensor  # (d,) float64: one over the unit, a power of two; 0 where a feature is constant
    directions: Tensor | None  # (d, k): orthogonal columns, longer where the variance is small if it is whitened
    scale: float
    dtype: torch.dtype  # of the results: float32 or float64

    @classmethod
    def from_rows(
        cls,
        space: Tensor,
        rows: Tensor,
        n_components: int | None,
        whitening: float,
        feature_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> FeatureTransform:
        """The transform of a space (n, d) by some of its rows, whose numbers are (m,); settings as in `Turtle`.

        Raises:
            FitError: the rows hold NaN or infinity.
        """
        if n_components is None and feature_scale is None and not whitening:
            nothing = torch.zeros(space.shape[1], dtype=torch.float64)
            return cls(nothing, torch.ones_like(nothing), None, 1.0, dtype)
        mean, deviation = _mean_and_deviation(space, rows)
        unit = max(_power_of_two(float(deviation.max())), 2.0**-900)  # 1e30 times the inverse is a number as well
        factor = (deviation > 0).double() / unit
        sample = torch.empty(len(rows), space.shape[1], dtype=dtype)
        for part, some in _blocks(sample, rows, space.shape[1]):
            part.copy_(_centred(space[some], mean, factor, dtype))
        directions = None
        if whitening or (n_components is not None and n_components < min(sample.shape)):
            directions = _principal_directions(sample, n_components)
            spread = (sample @ directions).square().mean(0).sqrt()
            varies = spread > 1e-5 * spread.max()
            directions = directions * torch.where(varies, spread**-whitening, 0.0)
            sample = sample @ directions
        size = float(sample.square().sum(1).mean().sqrt())
        scale = feature_scale / size if feature_scale is not None and size > 0 else 1.0
        if feature_scale is None:
            scale = unit ** (1 - whitening)  # back to the scale as it was
        return cls(mean, factor, directions, scale, dtype)

    @property
    def is_identity(self) -> bool:
        return self.directions is None and self.scale == 1.0 and not self.mean.any() and bool((self.factor == 1).all())

    def __call__(self, rows: Tensor) -> Tensor:
        """Features (b, d) -> (b, k).

        Raises:
            FitError: they hold NaN or infinity.
        """
        rows = _centred(rows, self.mean, self.factor, self.dtype)
        return (rows if self.directions is None else rows @ self.directions) * self.scale

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A layer (R, C, k), (R, C) on the transformed features, as the float64 layer (R, C, d), (R, C) on the given.

        In float64, since the weights for features of scale 1e30 are of scale 1e-30, and the other way round.
        """
        weight, bias = weight.double(), bias.double()
        if self.directions is not None:
            weight = weight @ self.directions.double().T
        weight = weight * (self.scale * self.factor)
        return weight, bias - weight @ self.mean


def _mean_and_deviation(space: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of these rows of a space, and the largest absolute deviation from it: both (d,) float64.

    Summed are differences to the first row: a constant feature then has exactly its value as the mean.
    """
    first, blocks = space[rows[0]].double(), rows.split(_block(8 * space.shape[1]))  # small: float64, and several
    mean = first + torch.stack([(space[some].double() - first).sum(0) for some in blocks]).sum(0) / len(rows)
    return mean, torch.stack([(space[some].double() - mean).abs().amax(0) for some in blocks]).amax(0)


def _power_of_two(number: float) -> float:
    """The largest power of two that is not above a positive number; 1 where there is no such number."""
    if not 0 < number < math.inf:
        return 1.0
    return 2.0 ** (math.frexp(number)[1] - 1)


def _centred(rows: Tensor, mean: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows − mean) · factor in a dtype, by way of float64 where float32 could overflow: (b, d), (d,), (d,) -> (b, d).

    Raises:
        FitError: a result is not finite.
    """
    ordinary = rows.dtype != torch.float64 and 1 / ORDINARY < float(factor.max()) < ORDINARY
    rows = rows.to(dtype if ordinary else torch.float64)
    if mean.any() or (factor != 1).any():
        rows = (rows - mean.to(rows.dtype)).mul_(factor.to(rows.dtype))
    rows = rows.to(dtype)
    if not all(extreme.isfinite() for extreme in rows.aminmax()):  # NaN among the rows is both
        raise FitError(f"the features hold NaN or infinity, or numbers too large to compute with. {EXPECTED}")
    return rows


def _principal_directions(rows: Tensor, n_components: int | None) -> Tensor:
    """Orthonormal directions (d, k) of centred rows (m, d) in which they vary: the largest, or all.

    The eigenvectors of a covariance of rank below its size do not converge in float32; those of fewer rows than
    features are taken from the rows themselves.
    """
    m, d = rows.shape
    if n_components is not None and n_components < min(m, d):
        with torch.random.fork_rng(devices=[]):  # Halko, Martinsson and Tropp (2011): random, so always the same
            torch.default_generator.manual_seed(0)
            return torch.svd_lowrank(rows, n_components, niter=1)[2]
    exact = rows.double()
    if m <= d:
        return torch.linalg.svd(exact, full_matrices=False).Vh.T.to(rows.dtype)
    return torch.linalg.eigh(exact.T @ exact).eigenvectors.to(rows.dtype)


class Turtle(ClusterMixin, BaseEstimator):
    """Cluster with TURTLE (Gadetsky et al., ICML 2024), scikit-learn style: `fit` never sees a label.

    Args:
        n_clusters: C, the number of classes to look for.
        n_restarts: R, runs from different starts, side by side on the same batches. Kept is the labeling that is
            most confident, among those that use the most clusters (see `confidence_` and `n_found_`).
        n_outer_steps: T, steps of the task encoder.
        n_inner_steps: M, steps of the linear classifiers for each outer step.
        outer_lr, inner_lr: learning rates of the two Adam optimisers.
        inner_start: "cold" redraws the classifiers at every outer step, "warm" goes on from the last ones.
        entropy_weight: γ, how strongly unequal clusters are avoided.
        batch_size: samples in a step, drawn without replacement; None takes all. Of more samples than all steps
            together can draw, a random part is used.
        n_components: each space is rotated to its directions of largest variance, and only so many are kept: several
            times faster where features are many, and as accurate on average on the embedded datasets. None keeps all
            directions.
        whitening: α, from 0 (none) to 1 (all): in the directions that are kept a standard deviation s becomes
            s^(1 − α), before the whole is brought to `feature_scale`. Where few directions have most of the variance
            the classifiers see little else in their few steps; α lets the others have a say.
        feature_scale: each space is centred and scaled to this root mean square norm, because Adam's first steps have
            the same length whatever the gradient, so the method depends on the scale of the features. None leaves
            the scale as it is.
        dtype: of the features in the matrix products: "auto" (bfloat16 where the hardware multiplies it), "float32",
            "bfloat16", or "float64" (then everything is float64).
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        random_state: int, NumPy RandomState or None, as in scikit-learn.
        progress: show a progress bar.

    Attributes:
        labels_: cluster of each training sample, (n,).
        restarts_: weight (R, C, d_k) and bias (R, C) of every space's task encoder, for features as they were given;
            in float64, which holds them whatever the scale of the features.
        means_: mean (d_k,) of every space, which predictions subtract, so that a large offset costs no precision.
        confidence_: mean over the training set of the labeling's largest probability, (R,).
        n_found_: clusters that hold at least a tenth of an equal share of the training set, (R,).
        best_restart_: which restart was kept.
        history_: arrays (T, R): "inner_loss" (cross-entropy of the fitted classifiers), "entropy" (of the mean
            labelings), both summed over spaces, and "outer_loss" (inner_loss − γ · entropy).
        n_features_in_: features of all spaces together.

    `Turtle.official` gives the paper's settings. The defaults were chosen by their accuracy on fashion-mini and digits,
    so what they reach there is a little optimistic; they are a starting point for other data, not a promise.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_restarts: int = 8,
        n_outer_steps: int = 250,
        n_inner_steps: int = 3,
        outer_lr: float = 5e-3,
        inner_lr: float = 5e-3,
        inner_start: str = "warm",
        entropy_weight: float = 10.0,
        batch_size: int | None = 2000,
        n_components: int | None = 128,
        whitening: float = 0.5,
        feature_scale: float | None = 8.0,
        dtype: str = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_restarts = n_restarts
        self.n_outer_steps = n_outer_steps
        self.n_inner_steps = n_inner_steps
        self.outer_lr = outer_lr
        self.inner_lr = inner_lr
        self.inner_start = inner_start
        self.entropy_weight = entropy_weight
        self.batch_size = batch_size
        self.n_components = n_components
        self.whitening = whitening
        self.feature_scale = feature_scale
        self.dtype = dtype
        self.device = device
        self.random_state = random_state
        self.progress = progress

    @classmethod
    def official(cls, n_clusters: int, **changes: Any) -> Turtle:
        """The settings of the authors' published code: one run, 6,000 steps, batches of 10,000, features as given."""
        settings: dict[str, Any] = {
            "n_restarts": 1,
            "n_outer_steps": 6000,
            "n_inner_steps": 10,
            "outer_lr": 1e-3,
            "inner_lr": 1e-3,
            "inner_start": "cold",
            "entropy_weight": 10.0,
            "batch_size": 10000,
            "n_components": None,
            "whitening": 0.0,
            "feature_scale": None,
            "dtype": "float32",
            "random_state": 42,
        }
        return cls(n_clusters, **{**settings, **changes})

    # ------------------------------------------------------------------------------------------------ fit and predict

    def fit(self, X: Any, y: object = None) -> Turtle:
        """Find the labeling.

        Args:
            X: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples.
            y: ignored; there for scikit-learn's pipelines.

        Raises:
            FitError: the spaces or the settings cannot be fitted; the message says why and what to do.
        """
        spaces = self._read_spaces(X, reset=True)
        self._check_settings(len(spaces[0]))
        advice = (
            f"Lower batch_size (now {self.batch_size or 'all samples'}) or n_restarts (now {self.n_restarts}); "
            f"n_components (now {self.n_components or 'all'}) says how many features are kept of every space."
        )
        with explain_out_of_memory(advice):
            self._optimise(spaces)
            self._choose_restart(spaces)
        return self

    def _optimise(self, spaces: Sequence[Tensor]) -> None:
        """Run the solver on the transformed spaces; sets `restarts_`, `means_` and `history_`."""
        solver, transforms = self._solver(spaces)
        records = solver.encoder.flat.new_empty(self.n_outer_steps, 2, self.n_restarts)
        for record in tqdm(records, desc="TURTLE", unit="step", disable=not self.progress):
            record[0], record[1] = solver.step()
        if not solver.is_finite():
            raise FitError(
                f"the weights are not finite after {self.n_outer_steps} outer steps. Expected steps that stay within "
                f"the range of numbers: lower outer_lr (now {self.outer_lr}), inner_lr (now {self.inner_lr}) or "
                f"entropy_weight (now {self.entropy_weight})."
            )
        inner_loss, marginal_entropy = records.cpu().numpy().swapaxes(0, 1)
        self.history_ = {
            "inner_loss": inner_loss,
            "entropy": marginal_entropy,
            "outer_loss": inner_loss - self.entropy_weight * marginal_entropy,
        }
        self.means_ = [transform.mean.numpy() for transform in transforms]
        self.restarts_ = []
        for k, transform in enumerate(transforms):
            weight, bias = solver.encoder.normalised_weight(k).cpu(), solver.encoder.biases[k].cpu()
            self.restarts_.append(tuple(array.numpy() for array in transform.fold(weight, bias)))

    def _solver(self, spaces: Sequence[Tensor]) -> tuple[TurtleSolver, list[FeatureTransform]]:
        """The solver of this estimator's settings before its first step, and the transform of every space."""
        device = pick_device(self.device)
        dtype = fast_dtype(device) if self.dtype == "auto" else DTYPES[self.dtype]
        seed = int(self._random_state().randint(2**31 - 1))
        n, order = len(spaces[0]), torch.Generator().manual_seed(seed)
        sample = _some_rows(n, SAMPLE, order)
        settings = (self.n_components, self.whitening, self.feature_scale, self._exact)
        transforms = [FeatureTransform.from_rows(space, sample, *settings) for space in spaces]
        drawn = _some_rows(n, self.n_outer_steps * min(self.batch_size or n, n), order)
        solver = TurtleSolver(
            [
                self._transformed(z, transform, drawn, device, dtype)
                for z, transform in zip(spaces, transforms, strict=True)
            ],
            self.n_clusters,
            torch.Generator(device).manual_seed(seed),
            n_restarts=self.n_restarts,
            entropy_weight=self.entropy_weight,
            n_inner_steps=self.n_inner_steps,
            outer_lr=self.outer_lr,
            inner_lr=self.inner_lr,
            inner_start=self.inner_start,
            batch_size=self.batch_size,
        )
        return solver, transforms

    def predict(self, X: Any, *, restart: int | None = None) -> np.ndarray:
        """Cluster of each sample, (n,) int64; X as in `fit`, `restart` other than the one that was kept."""
        return self.predict_proba(X, restart=restart).argmax(1)

    def predict_proba(self, X: Any, *, restart: int | None = None) -> np.ndarray:
        """The labeling τ(x), (n, C); X as in `fit`, `restart` other than the one that was kept.

        Raises:
            FitError: X has other spaces than those of the fit or is not finite, or there is no such restart.
        """
        check_is_fitted(self)
        chosen, n_restarts = self.best_restart_ if restart is None else restart, len(self.confidence_)
        if not isinstance(chosen, numbers.Integral) or not 0 <= chosen < n_restarts:
            raise FitError(f"restart is {restart!r}. Expected a whole number from 0 to {n_restarts - 1}, or None.")
        spaces = self._read_spaces(X, reset=False)
        labelings = self._labelings(spaces, slice(int(chosen), int(chosen) + 1))
        return np.concatenate([probs[0].T.numpy() for probs in labelings])

    @property
    def _exact(self) -> torch.dtype:
        """Of all that is not a matrix product."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _transformed(
        self, space: Tensor, transform: FeatureTransform, rows: Tensor, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """These rows of a space as the solver gets them; the space itself where that is the same."""
        if transform.is_identity and len(rows) == len(space) and space.device == device and space.dtype == dtype:
            return self._check_range(transform(space), LARGEST_IN_FIT)
        width = space.shape[1] if transform.directions is None else transform.directions.shape[1]
        result = torch.empty(len(rows), width, dtype=dtype, device=device)
        for part, some in _blocks(result, rows, space.shape[1]):
            part.copy_(self._check_range(transform(space[some]), LARGEST_IN_FIT))
        return result

    def _check_range(self, features: Tensor, most: float) -> Tensor:
        """Features of which none is larger than `most`, beyond which products could overflow; others raise."""
        largest = max(abs(float(extreme)) for extreme in features.aminmax())
        if not largest <= most:
            raise FitError(
                f"the features reach {largest:.0e} in the matrix products. Expected at most {most:.0e}, since "
                f"larger ones overflow. Divide them, set feature_scale (now {self.feature_scale}), or leave out "
                "samples that are far from all others."
            )
        return features

    def _labelings(self, spaces: Sequence[Tensor], restarts: slice = slice(None)) -> Iterator[Tensor]:
        """τ of the chosen restarts, (R, C, b), for one block of samples after the other."""
        encoders = [self._task_encoder(k, restarts) for k in range(len(spaces))]
        block = _block(sum(space.shape[1] for space in spaces) + math.prod(self.restarts_[0][1][restarts].shape))
        for rows in zip(*(space.split(block) for space in spaces), strict=True):
            yield torch.stack([encoder(z) for encoder, z in zip(encoders, rows, strict=True)]).mean(0).cpu()

    def _task_encoder(self, k: int, restarts: slice) -> Callable[[Tensor], Tensor]:
        """τ_k of the chosen restarts, as a function of features of space k as given: (b, d_k) -> (R, C, b)."""
        device, mean = pick_device(self.device), torch.from_numpy(self.means_[k])
        weight, bias = (torch.from_numpy(array[restarts]).double() for array in self.restarts_[k])
        factor = _power_of_two(float(weight.abs().max()))  # features · weights stays, and neither can overflow
        layer = [tensor.to(self._exact).to(device) for tensor in (weight / factor, bias + weight @ mean)]
        factors = torch.full_like(mean, factor)

        def task_probs(features: Tensor) -> Tensor:
            features = self._check_range(_centred(features, mean, factors, self._exact), LARGEST_IN_PREDICTION)
            return linear(features.to(device), *layer).softmax(1)

        return task_probs

    def _choose_restart(self, spaces: Sequence[Tensor]) -> None:
        """Keep the most confident labeling among those that use the most clusters."""
        n, done = len(spaces[0]), 0
        labels = np.empty((self.n_restarts, n), np.int32)
        confidence = np.zeros(self.n_restarts)
        for probs in self._labelings(spaces):
            best = probs.max(1)
            labels[:, done : done + probs.shape[-1]] = best.indices
            confidence += best.values.double().sum(-1).numpy()
            done += probs.shape[-1]
        counts = np.stack([np.bincount(row, minlength=self.n_clusters) for row in labels])
        self.n_found_ = (counts * self.n_clusters * 10 >= n).sum(1)
        self.confidence_ = confidence / n
        most = self.n_found_.max()
        self.best_restart_ = int(np.where(self.n_found_ == most, self.confidence_, -1).argmax())
        self.labels_ = labels[self.best_restart_].astype(np.int64)
        if most < self.n_clusters:
            warnings.warn(
                f"the labeling collapsed: of {self.n_clusters} clusters at most {most} hold a tenth of an equal share, "
                f"in the best of {self.n_restarts} restarts. Raise entropy_weight (now {self.entropy_weight}) or "
                "n_outer_steps, ask for fewer clusters, or look whether the spaces separate that many classes.",
                CollapseWarning,
                stacklevel=3,
            )

    # ------------------------------------------------------------------------------------------------ checks of input

    def _read_spaces(self, X: Any, *, reset: bool) -> list[Tensor]:
        """Check X and bring it to a list of K tensors (n, d_k) that share its memory where they can."""
        several = isinstance(X, list | tuple) and len(X) > 0 and all(np.ndim(space) == 2 for space in X)
        if several:
            spaces = [_to_tensor(space, check_array) for space in X]
        else:
            spaces = [_to_tensor(X, functools.partial(validate_data, self, reset=reset))]
        lengths = [len(space) for space in spaces]
        if len(set(lengths)) > 1:
            raise FitError(
                f"the spaces have {lengths} rows. Expected the same samples in the same order in every space: "
                "extract all of them from the same split."
            )
        dims = [space.shape[1] for space in spaces]
        if reset:
            self.n_features_in_ = sum(dims)
        elif dims != [weight.shape[-1] for weight, _ in self.restarts_]:
            expected = [weight.shape[-1] for weight, _ in self.restarts_]
            raise FitError(f"the spaces have {dims} features. Expected {expected}, in the order given to fit.")
        return spaces

    def _random_state(self) -> np.random.RandomState:
        try:
            return check_random_state(self.random_state)
        except ValueError as error:
            raise FitError(
                f"random_state is {self.random_state!r}. Expected a whole number from 0 to 2**32 - 1, a NumPy "
                "RandomState or None."
            ) from error

    def _check_settings(self, n: int) -> None:
        """Raise a FitError for settings that make no sense for n samples."""
        if not isinstance(self.n_clusters, numbers.Integral) or not 2 <= self.n_clusters <= n:
            raise FitError(
                f"n_clusters is {self.n_clusters!r}. Expected a whole number from 2 to the number of samples, "
                f"n_samples = {n}."
            )
        for name in ("n_restarts", "n_outer_steps", "n_inner_steps", "batch_size", "n_components"):
            value = getattr(self, name)
            if value is None and name in ("batch_size", "n_components"):
                continue
            if not isinstance(value, numbers.Integral) or value < 1:
                raise FitError(f"{name} is {value!r}. Expected a whole number of at least 1.")
        for name in ("outer_lr", "inner_lr", "entropy_weight", "feature_scale"):
            value = getattr(self, name)
            if value is None and name == "feature_scale":
                continue
            least = 0.0 if name == "entropy_weight" else math.ulp(0.0)
            if not isinstance(value, numbers.Real) or not least <= float(value) <= LARGEST_SETTING:
                range_ = "from 0" if name == "entropy_weight" else "above 0"
                raise FitError(f"{name} is {value!r}. Expected a number {range_} and at most {LARGEST_SETTING:.0e}.")
        if not isinstance(self.whitening, numbers.Real) or not 0 <= self.whitening <= 1:
            raise FitError(f"whitening is {self.whitening!r}. Expected a number from 0 (none) to 1 (all of it).")
        if self.inner_start not in ("cold", "warm"):
            raise FitError(f'inner_start is {self.inner_start!r}. Expected "cold" or "warm".')
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise FitError(f'dtype is {self.dtype!r}. Expected "auto" or one of {sorted(DTYPES)}.')

    # -------------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings and everything fitted to one safetensors file, atomically."""
        check_is_fitted(self)
        arrays = {f"history/{name}": values for name, values in self.history_.items()}
        for k, (weight, bias) in enumerate(self.restarts_):
            arrays |= {f"weight/{k}": weight, f"bias/{k}": bias, f"mean/{k}": self.means_[k]}
        arrays |= {name: getattr(self, name) for name in ("labels_", "confidence_", "n_found_")}
        settings = {name: value for name, value in self.get_params().items() if _is_plain(value)}
        metadata = {"labkit": "turtle", "settings": json.dumps(settings), "best_restart": str(self.best_restart_)}
        with atomic_write(path) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Turtle:
        """Read what `save` wrote; the device is chosen anew where it was "auto".

        Raises:
            CheckpointError: the file is missing, damaged, or something else.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be read as a saved Turtle ({error}). Fit and save it again."
            ) from error
        if metadata.get("labkit") != "turtle":
            raise CheckpointError(f"{path} holds no saved Turtle. Expected a file written by Turtle.save.")
        turtle = cls(**json.loads(metadata["settings"]))
        n_spaces = sum(name.startswith("weight/") for name in arrays)
        turtle.restarts_ = [(arrays[f"weight/{k}"], arrays[f"bias/{k}"]) for k in range(n_spaces)]
        no_means = (np.zeros(weight.shape[-1]) for weight, _ in turtle.restarts_)  # labkit 0.1 saved none
        turtle.means_ = [arrays.get(f"mean/{k}", none) for k, none in enumerate(no_means)]
        turtle.history_ = {name: arrays[f"history/{name}"] for name in ("inner_loss", "entropy", "outer_loss")}
        turtle.labels_, turtle.confidence_, turtle.n_found_ = (
            arrays[name] for name in ("labels_", "confidence_", "n_found_")
        )
        turtle.best_restart_ = int(metadata["best_restart"])
        turtle.n_features_in_ = sum(weight.shape[-1] for weight, _ in turtle.restarts_)
        return turtle


def _to_tensor(space: Any, check: Callable[..., np.ndarray]) -> Tensor:
    """One space as a tensor on the CPU that shares its memory where it can, after scikit-learn's `check` of it.

    Whether all is finite is looked at later, block by block.
    """
    if isinstance(space, Tensor):
        space = space.detach().cpu()
        if space.dtype == torch.bfloat16 and space.ndim == 2 and min(space.shape) > 0:
            return space  # NumPy has no such type
        space = space.float().numpy() if space.dtype == torch.bfloat16 else space.numpy()
    try:
        array = check(space, dtype=[np.float32, np.float64, np.float16], ensure_all_finite=False)
    except (ValueError, OverflowError) as error:
        raise FitError(f"{error} {EXPECTED}") from error
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # PyTorch knows no backward steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor do we write to it
        return torch.from_numpy(array)


def _some_rows(n: int, most: int, generator: torch.Generator) -> Tensor:
    """Row numbers in order: all n, or a random part where there are more than `most`."""
    return torch.arange(n) if n <= most else torch.randperm(n, generator=generator)[:most].sort().values


def _blocks(result: Tensor, rows: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of a result (m, ...) with the row numbers that they are computed from, `width` features in a row."""
    block = _block(width)
    return zip(result.split(block), rows.split(block), strict=True)


def _block(width: int) -> int:
    """Rows of this width that make about 4 MiB in float32."""
    return max(1, 2**20 // width)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
