"""The bilevel problem of TURTLE on given features, one outer step at a time; shapes as in `labkit.turtle.objective`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.turtle.objective import (
    cross_entropy,
    divergence,
    entropy,
    inner_grad_logits,
    linear,
    linear_grad,
    outer_grad_logits,
)
from labkit.turtle.parallel import Whole
from labkit.turtle.streaming import SolverSpace, select


class Adam:
    """Adam (Kingma & Ba, 2015) on one flat tensor, updated in place; betas 0.9 and 0.999, eps 1e-8.

    `lr` is one learning rate, or a tensor of the parameters' shape.
    """

    def __init__(self, parameters: Tensor, lr: float | Tensor) -> None:
        self.parameters, self.lr = parameters, lr
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = 0

    def reset(self) -> None:
        """Forget all past gradients."""
        self.mean.zero_()
        self.square.zero_()
        self.steps = 0

    def keep(self, layers: Layers, restarts: Tensor, kept: Layers) -> None:
        """Go on with some restarts of the layers that are trained, which `kept` has become."""
        self.parameters = kept.flat
        self.mean, self.square = layers.of_restarts(self.mean, restarts), layers.of_restarts(self.square, restarts)
        if isinstance(self.lr, Tensor):
            self.lr = layers.of_restarts(self.lr, restarts)

    def step(self, grad: Tensor) -> None:
        """One update with `grad`, of the same shape as the parameters."""
        self.steps += 1
        self.mean.lerp_(grad, 1 - 0.9)
        self.square.mul_(0.999).addcmul_(grad, grad, value=1 - 0.999)
        scale = self.square.sqrt().div_(math.sqrt(1 - 0.999**self.steps)).add_(1e-8)
        if isinstance(self.lr, Tensor):
            self.parameters.addcdiv_(self.mean * self.lr, scale, value=-1 / (1 - 0.9**self.steps))
        else:
            self.parameters.addcdiv_(self.mean, scale, value=-self.lr / (1 - 0.9**self.steps))


@dataclass
class Layers:
    """One linear layer per space, stored as views of one flat tensor so that one Adam step updates all of them."""

    flat: Tensor
    weights: list[Tensor]  # (R, C, d_k)
    biases: list[Tensor]  # (R, C)
    gains: list[Tensor]  # (R, C); only where the layer is weight-normalized, else empty

    @property
    def views(self) -> list[Tensor]:
        """All of them, in the order that they have in the flat tensor."""
        return [*self.weights, *self.biases, *self.gains]

    @classmethod
    def zeros(cls, dims: Sequence[int], restarts: int, clusters: int, *, gains: bool, like: Tensor) -> Layers:
        """Layers of zeros with the dtype and device of `like`."""
        shapes = [(restarts, clusters, d) for d in dims] + [(restarts, clusters)] * (len(dims) * (2 if gains else 1))
        sizes = [math.prod(shape) for shape in shapes]
        flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        views = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        k = len(dims)
        return cls(flat, views[:k], views[k : 2 * k], views[2 * k :])

    def per_restart(self, values: Tensor) -> Tensor:
        """A number for each restart, (R,), repeated for all of its parameters: of the shape of `flat`."""
        values = values.to(self.flat.dtype).to(self.flat.device)
        return torch.cat([values.view(-1, *[1] * (view.ndim - 1)).expand_as(view).flatten() for view in self.views])

    def of_restarts(self, flat: Tensor, restarts: Tensor) -> Tensor:
        """What a tensor of the shape of `flat`, which need not be it, holds for some restarts, in their order."""
        parts = zip(flat.split([view.numel() for view in self.views]), self.views, strict=True)
        return torch.cat([part.view(view.shape)[restarts].flatten() for part, view in parts])

    def put(self, restarts: Tensor, layers: Layers) -> None:
        """Write the layers of other restarts in place of some of these."""
        for mine, its in zip(self.views, layers.views, strict=True):
            mine[restarts] = its

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw weights and biases from U(−1/√d, 1/√d), as torch.nn.Linear does; gains become the weights' norms."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[-1])
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        for gain, weight in zip(self.gains, self.weights, strict=False):
            gain.copy_(weight.norm(dim=-1))

    def normalized_weight(self, k: int) -> Tensor:
        """Weight of space k: gain times direction where the layer is weight-normalized (Salimans & Kingma, 2016)."""
        direction = self.weights[k]
        if not self.gains:
            return direction
        return direction * (self.gains[k] / direction.norm(dim=-1))[..., None]


class TurtleSolver:
    """The bilevel problem on given features, one outer step at a time.

    Args:
        spaces: K tensors (n, d_k) on one device, or what stands for them where they do not fit its memory; their dtype
            is that of the matrix products.
        generator: source of the initial weights and of the batches, on the same device; None for PyTorch's own.
        prior: shares (C,) of the clusters, from which the mean labeling should not diverge; None for even ones.
        parts: how the samples are divided among processes, each of which has a solver; None for one process.
        Other arguments as in `Turtle`.
    """

    def __init__(
        self,
        spaces: Sequence[SolverSpace],
        n_clusters: int,
        generator: torch.Generator | None,
        *,
        n_restarts: int = 1,
        entropy_weight: float = 10.0,
        prior: Tensor | None = None,
        n_inner_steps: int = 10,
        outer_lr: float = 1e-3,
        inner_lr: float = 1e-3,
        inner_start: str = "cold",
        batch_size: int | None = None,
        parts: Whole | None = None,
    ) -> None:
        self.spaces, self.generator = list(spaces), generator
        self.entropy_weight: float | Tensor = entropy_weight
        self.n_inner_steps, self.inner_start = n_inner_steps, inner_start
        n_mine = len(self.spaces[0])
        self.parts = Whole(n_mine) if parts is None else parts
        n = self.parts.n
        self.batch_size = n if batch_size is None else min(batch_size, n)
        dims = [space.shape[1] for space in self.spaces]
        exact = torch.float64 if self.spaces[0].dtype == torch.float64 else torch.float32
        like = torch.empty(0, dtype=exact, device=self.spaces[0].device)
        self.log_prior = None if prior is None else prior.log().to(like)
        self.encoder = Layers.zeros(dims, n_restarts, n_clusters, gains=True, like=like)
        self.encoder_grad = Layers.zeros(dims, n_restarts, n_clusters, gains=True, like=like)
        self.classifier = Layers.zeros(dims, n_restarts, n_clusters, gains=False, like=like)
        self.classifier_grad = Layers.zeros(dims, n_restarts, n_clusters, gains=False, like=like)
        self.outer = Adam(self.encoder.flat, outer_lr)
        self.inner = Adam(self.classifier.flat, inner_lr)
        self.encoder.draw(generator)
        self.classifier.draw(generator)
        self.waiting: list[Tensor] = []  # batches of row numbers, until all samples have had their turn
        size = min(self.batch_size, n_mine) if self.batch_size < n else 0
        self.gathered = [
            torch.empty(size, space.shape[1], dtype=space.dtype, device=space.device) for space in self.spaces
        ]  # one batch, written again and again: fresh memory is slow

    def set_each(self, *, outer_lr: Tensor, inner_lr: Tensor, entropy_weight: Tensor) -> None:
        """Give every restart its own learning rates and γ, each (R,)."""
        self.outer.lr = self.encoder.per_restart(outer_lr)
        self.inner.lr = self.classifier.per_restart(inner_lr)
        like = self.encoder.flat
        self.entropy_weight = entropy_weight.to(like.dtype).to(like.device)[:, None, None]

    def keep(self, restarts: Tensor) -> None:
        """Go on with some restarts, (r,) row numbers, and forget the others."""
        dims, clusters = [space.shape[1] for space in self.spaces], self.encoder.biases[0].shape[1]
        size = (dims, len(restarts), clusters)
        for name, optimizer in (("encoder", self.outer), ("classifier", self.inner)):
            old: Layers = getattr(self, name)
            new = Layers.zeros(*size, gains=bool(old.gains), like=old.flat)
            new.flat.copy_(old.of_restarts(old.flat, restarts))
            optimizer.keep(old, restarts, new)
            setattr(self, name, new)
            setattr(self, f"{name}_grad", Layers.zeros(*size, gains=bool(old.gains), like=old.flat))
        if isinstance(self.entropy_weight, Tensor):
            self.entropy_weight = self.entropy_weight[restarts]

    def begin_with(self, batch: Sequence[Tensor], labeling: Tensor, n_steps: int) -> None:
        """Begin with a labeling (R, C, B) of a batch: linear classifiers are fitted to it, and become the task encoder.

        Args:
            batch: features of its samples in every space, the same in all processes.
            labeling: probabilities.
            n_steps: of Adam, at the inner learning rate.
        """
        n_inner_steps, self.n_inner_steps = self.n_inner_steps, n_steps
        self._fit_classifiers(batch, labeling, len(batch[0]) * self.parts.processes)
        self.n_inner_steps = n_inner_steps
        for mine, its in zip(self.encoder.views, self.classifier.views, strict=False):
            mine.copy_(its)
        for gain, weight in zip(self.encoder.gains, self.encoder.weights, strict=True):
            gain.copy_(weight.norm(dim=-1))

    def next_batch(self) -> list[Tensor]:
        """The features of `batch_size` samples, good until the next call; the stored tensors where that is all.

        Samples are drawn without replacement until fewer than a batch are left, then from all of them again. Of
        several processes each gives those that it holds.
        """
        n = self.parts.n
        if self.batch_size == n:
            return [space for space in self.spaces if isinstance(space, Tensor)]  # who takes all holds all
        if not self.waiting:
            order = torch.randperm(n, generator=self.generator, device=self.spaces[0].device)
            self.waiting = [rows for rows in order.split(self.batch_size) if len(rows) == self.batch_size]
        rows = self.parts.mine(self.waiting.pop())
        batches = [batch[: len(rows)] for batch in self.gathered]
        for space, batch in zip(self.spaces, batches, strict=True):
            select(space, rows, batch)
        return batches

    def task_probs(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """τ_k of every space (eq. 9), each (R, C, B)."""
        encoder = self.encoder
        return [linear(z, encoder.normalized_weight(k), encoder.biases[k]).softmax(1) for k, z in enumerate(batch)]

    def step(self, batch: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One outer step; returns what the outer loss consists of before it, each (R,), summed over spaces.

        That is the cross-entropy and the entropy; with a prior, the cross-entropy and minus the divergence from it.
        """
        batch = self.next_batch() if batch is None else batch
        task_probs = self.task_probs(batch)
        labeling = torch.stack(task_probs).mean(0)  # τ, (R, C, B)
        self._fit_classifiers(batch, labeling, self.batch_size)
        return self._update_encoder(batch, task_probs, labeling)

    def is_finite(self) -> bool:
        """Whether no weight, and nothing that Adam remembers, has left the range of its dtype."""
        tensors = (self.encoder.flat, self.classifier.flat, self.outer.square, self.inner.square)
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def _fit_classifiers(self, batch: Sequence[Tensor], labeling: Tensor, n: int) -> None:
        """Inner problem (of eqs. 10 to 12): `n_inner_steps` of Adam on Σ_k CE(w_k φ_k, τ), τ held fixed.

        The batch has n samples in all processes together.
        """
        if self.inner_start == "cold" and self.outer.steps > 0:
            self.classifier.draw(self.generator)
            self.inner.reset()
        layers, grads = self.classifier, self.classifier_grad
        for _ in range(self.n_inner_steps):
            for k, z in enumerate(batch):
                delta = inner_grad_logits(linear(z, layers.weights[k], layers.biases[k]), labeling)
                _copy((grads.weights[k], grads.biases[k]), linear_grad(z, delta))
            self.inner.step(self.parts.average(grads.flat, len(batch[0]), n))

    def _update_encoder(
        self, batch: Sequence[Tensor], task_probs: Sequence[Tensor], labeling: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outer problem (eqs. 12 and 13): a step of Adam on Σ_k CE(w_k φ_k, τ) − γ Σ_k H(mean τ_k), w held fixed.

        With a prior π, on Σ_k CE(w_k φ_k, τ) + γ Σ_k KL(mean τ_k ‖ π).
        """
        layers = self.classifier
        per_space = [linear(z, layers.weights[k], layers.biases[k]).log_softmax(1) for k, z in enumerate(batch)]
        log_probs = torch.stack(per_space).sum(0)  # (R, C, B)
        grad_labeling = log_probs / -(len(batch) * labeling.shape[-1])  # τ is the mean of K spaces and B samples
        size = (len(batch[0]), self.batch_size)  # here, and in all processes
        means = self.parts.average(torch.stack([probs.mean(-1) for probs in task_probs]), *size)  # (K, R, C)
        encoder, grads = self.encoder, self.encoder_grad
        for k, z in enumerate(batch):
            delta = outer_grad_logits(task_probs[k], grad_labeling, self.entropy_weight, self.log_prior, means[k])
            grad_weight, grad_bias = linear_grad(z, delta)
            norm = encoder.weights[k].norm(dim=-1, keepdim=True)
            unit = encoder.weights[k] / norm
            grad_gain = (grad_weight * unit).sum(-1)
            grad_direction = (grad_weight - grad_gain[..., None] * unit) * (encoder.gains[k][..., None] / norm)
            _copy((grads.weights[k], grads.biases[k], grads.gains[k]), (grad_direction, grad_bias, grad_gain))
        self.outer.step(self.parts.average(grads.flat, *size))
        loss = self.parts.average(cross_entropy(log_probs, labeling), *size)
        return loss, torch.stack([self._evenness(mean) for mean in means]).sum(0)

    def _evenness(self, mean: Tensor) -> Tensor:
        """What γ weighs, (R, C) -> (R,): entropy of the mean labeling, or minus its divergence from the prior."""
        return entropy(mean) if self.log_prior is None else -divergence(mean, self.log_prior)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
