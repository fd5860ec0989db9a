"""The published TURTLE loop as anyone would write it in PyTorch: what labkit's solver is measured against.

Written by us from the equations and constants of Gadetsky, Jiang and Brbić (ICML 2024), with the habits of the
published code that decide its speed: gradients by autograd, a batch gathered at every step even where it is the whole
set, and for every outer step new linear classifiers with a new optimizer. Two habits that would only make it slower are
left out: the accuracy on labels every 20 steps, and the gradient of the outer loss for the classifiers.

    spaces = [torch.from_numpy(z) for z in features]  # float32, as they are
    port = Port(spaces, n_clusters=10, seed=42).fit(6000)
    port.predict(spaces)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class Port:
    """The bilevel problem, one outer step at a time.

    Args:
        spaces: K tensors (n, d_k) on one device; weights have their dtype.
        n_clusters: C.
        seed: of the initial weights and batches; seeds PyTorch's global generator.
        gamma: weight of the entropy.
        n_inner_steps: Adam steps of the classifiers in each outer step.
        outer_lr, inner_lr: learning rates of the two Adam optimizers.
        batch_size: samples drawn without replacement at every step.
    """

    def __init__(
        self,
        spaces: Sequence[Tensor],
        n_clusters: int,
        *,
        seed: int = 42,
        gamma: float = 10.0,
        n_inner_steps: int = 10,
        outer_lr: float = 1e-3,
        inner_lr: float = 1e-3,
        batch_size: int = 10_000,
    ) -> None:
        torch.manual_seed(seed)
        self.spaces, self.n_clusters = list(spaces), n_clusters
        self.gamma, self.n_inner_steps, self.inner_lr = gamma, n_inner_steps, inner_lr
        self.batch_size = min(batch_size, len(self.spaces[0]))
        self.encoders = nn.ModuleList(weight_norm(linear) for linear in self.new_linears())
        self.outer = torch.optim.Adam(self.encoders.parameters(), lr=outer_lr, betas=(0.9, 0.999))

    def new_linears(self) -> nn.ModuleList:
        """One linear layer a space, as PyTorch draws it."""
        return nn.ModuleList(
            nn.Linear(z.shape[1], self.n_clusters, device=z.device, dtype=z.dtype) for z in self.spaces
        )

    def step(self, rows: Tensor | None = None, classifiers: nn.ModuleList | None = None) -> tuple[float, float]:
        """One outer step; returns the cross-entropy and the entropy before it, each summed over spaces.

        Args:
            rows: the samples of the batch; None draws them.
            classifiers: where the inner problem starts, trained in place; None draws them.
        """
        if rows is None:
            rows = torch.randperm(len(self.spaces[0]))[: self.batch_size]
        batch = [z[rows] for z in self.spaces]
        task_probs = [F.softmax(encoder(z), dim=1) for encoder, z in zip(self.encoders, batch, strict=True)]
        labeling = torch.stack(task_probs).mean(0)  # (B, C)

        classifiers = self.new_linears() if classifiers is None else classifiers
        inner = torch.optim.Adam(classifiers.parameters(), lr=self.inner_lr, betas=(0.9, 0.999))
        target = labeling.detach()
        for _ in range(self.n_inner_steps):
            loss = sum(F.cross_entropy(w(z), target) for w, z in zip(classifiers, batch, strict=True))
            inner.zero_grad()
            loss.backward()
            inner.step()

        classifiers.requires_grad_(False)
        error = sum(F.cross_entropy(w(z), labeling) for w, z in zip(classifiers, batch, strict=True))
        entropy = sum(torch.special.entr(probs.mean(0)).sum() for probs in task_probs)
        self.outer.zero_grad()
        (error - self.gamma * entropy).backward()
        self.outer.step()
        return error.item(), entropy.item()

    def fit(self, n_steps: int) -> Port:
        """So many outer steps more."""
        for _ in range(n_steps):
            self.step()
        return self

    @torch.no_grad()
    def task_probs(self, spaces: Sequence[Tensor]) -> list[Tensor]:
        """τ_k of every space, each (n, C)."""
        return [F.softmax(encoder(z), dim=1) for encoder, z in zip(self.encoders, spaces, strict=True)]

    def predict(self, spaces: Sequence[Tensor]) -> Tensor:
        """Cluster of each sample, (n,)."""
        return torch.stack(self.task_probs(spaces)).mean(0).argmax(1)

    # ------------------------------------------------------------------------------- weights from and to the outside

    @torch.no_grad()
    def set_encoders(self, layers: Sequence[dict[str, Tensor]]) -> None:
        """Start from given task encoders: "direction" (C, d_k), "gain" (C,) and "bias" (C,) of each space."""
        for encoder, layer in zip(self.encoders, layers, strict=True):
            stored = encoder.parametrizations.weight
            stored.original0.copy_(layer["gain"][:, None])
            stored.original1.copy_(layer["direction"])
            encoder.bias.copy_(layer["bias"])

    def get_encoders(self) -> list[dict[str, Tensor]]:
        """The task encoders, as in `set_encoders`."""
        found = []
        for encoder in self.encoders:
            stored = encoder.parametrizations.weight
            parts = {"gain": stored.original0[:, 0], "direction": stored.original1, "bias": encoder.bias}
            found.append({name: part.detach().clone() for name, part in parts.items()})
        return found

    @torch.no_grad()
    def classifiers_of(self, layers: Sequence[dict[str, Tensor]]) -> nn.ModuleList:
        """Classifiers with given "weight" (C, d_k) and "bias" (C,) of each space, for `step`."""
        linears = self.new_linears()
        for linear, layer in zip(linears, layers, strict=True):
            linear.weight.copy_(layer["weight"])
            linear.bias.copy_(layer["bias"])
        return linears
