"""MUST from its equations, slow and plain, independent of labkit's code: losses in NumPy, a whole step in float64.

Every gradient of a loss is written down by hand, one image, pixel or patch at a time where that is clearest. The
step has its own vision transformer with its own matrix products, and its own AdamW, cosine and moving average; only
the gradient of the whole is left to PyTorch's autograd. Parameters are named as in labkit's classifier, so that both
can be laid side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# -------------------------------------------------------------------------------------- losses and gradients, in NumPy


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax, (B, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def self_training(logits: np.ndarray, teacher: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """L_st and its gradient for the student's logits: mean cross-entropy with the teacher's confident labels."""
    loss, gradient = 0.0, np.zeros_like(logits)
    kept = [i for i, probs in enumerate(softmax(teacher)) if probs.max() > threshold]
    for i in kept:
        label = teacher[i].argmax()
        probs = softmax(logits[i : i + 1])[0]
        loss -= math.log(probs[label]) / len(kept)
        gradient[i] = probs / len(kept)
        gradient[i, label] -= 1 / len(kept)
    return loss, gradient


def fairness(
    logits: np.ndarray, prior: np.ndarray | None = None, before: np.ndarray | None = None, memory: float = 0.0
) -> tuple[float, np.ndarray]:
    """L_fair = −Σ_c π_c log p̄_c and its gradient for the logits; with a memory p̄ = m · before + (1 − m) · batch mean.

    With a memory the loss is divided by 1 − m, so that its gradient is as large as without.
    """
    n, classes = logits.shape
    prior = np.full(classes, 1 / classes) if prior is None else prior
    probs = softmax(logits)
    mean = probs.mean(axis=0) if before is None else memory * before + (1 - memory) * probs.mean(axis=0)
    loss = -sum(prior[c] * math.log(mean[c]) for c in range(classes)) / (1 - memory)
    d_mean = -prior / mean / (1 - memory)
    gradient = np.empty_like(logits)
    for i in range(n):
        jacobian = np.diag(probs[i]) - np.outer(probs[i], probs[i])
        gradient[i] = jacobian @ d_mean * (1 - memory) / n
    return loss, gradient


def masked_image(guess: np.ndarray, images: np.ndarray, masked: np.ndarray, patch: int) -> tuple[float, np.ndarray]:
    """L_mim = Σ(mask · |x̂ − x|) / Σ mask / 3 and its gradient for the guess, pixel by pixel."""
    total, count, gradient = 0.0, 0, np.zeros_like(guess)
    n, _, height, width = images.shape
    for i in range(n):
        for row in range(height):
            for column in range(width):
                if masked[i, row // patch * (width // patch) + column // patch]:
                    gap = guess[i, :, row, column] - images[i, :, row, column]
                    total += np.abs(gap).sum()
                    count += 1
                    gradient[i, :, row, column] = np.sign(gap)
    return total / count / 3, gradient / count / 3


def alignment(patches: np.ndarray, embeddings: np.ndarray, masked: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """L_align = mean over masked patches of ‖unit(patch) − unit(image)‖², and its gradients for both."""
    loss, d_patches, d_embeddings = 0.0, np.zeros_like(patches), np.zeros_like(embeddings)
    count = masked.sum()
    for i, j in zip(*np.nonzero(masked), strict=True):
        a, b = patches[i, j], embeddings[i]
        gap = a / np.linalg.norm(a) - b / np.linalg.norm(b)
        loss += gap @ gap / count
        d_patches[i, j] += _unit_jacobian(a) @ (2 * gap) / count
        d_embeddings[i] -= _unit_jacobian(b) @ (2 * gap) / count
    return loss, d_patches, d_embeddings


def _unit_jacobian(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    return np.eye(len(vector)) / norm - np.outer(vector, vector) / norm**3


# ------------------------------------------------------------------------------------------------------------ the step


@dataclass
class Recipe:
    """The settings of a run, by the letters of the paper; `token_scale` is that of the mask token's rate."""

    batch: int
    steps: int
    lr: float
    threshold: float
    w_fair: float = 1.0
    w_align: float = 0.2
    d0: float = 0.999
    d_end: float = 0.9998
    warm: int = 2000
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    memory: float = 0.0
    prior: Tensor | None = None
    slow_token: bool = False
    epoch: int = 1000  # steps in one, after which the moving mean begins anew


@dataclass
class MustReference:
    """Student, teacher and optimizer in float64; `step` changes all three."""

    student: dict[str, Tensor]
    recipe: Recipe
    heads: int
    patch: int
    scale: float
    quick_gelu: bool = False
    t: int = 0
    teacher: dict[str, Tensor] = field(init=False)
    m: dict[str, Tensor] = field(init=False)
    v: dict[str, Tensor] = field(init=False)
    before: Tensor | None = None

    def __post_init__(self) -> None:
        self.student = {name: value.detach().double().clone() for name, value in self.student.items()}
        self.teacher = dict(self.student)  # nothing here is changed in place
        self.m, self.v = (dict.fromkeys(self.student, torch.zeros((), dtype=torch.float64)) for _ in range(2))
        self.layers = 1 + max(int(name.split(".")[4]) for name in self.student if ".resblocks." in name)

    # ------------------------------------------------------------------------------------------------------- the model

    def forward(self, w: dict[str, Tensor], x: Tensor, masked: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, C), images (B, D), patches (B, N, D) in the shared space, and guessed pixels (B, 3, h, w)."""
        p, (n, _, height, width) = self.patch, x.shape
        rows, columns = height // p, width // p
        tower = "backbone.visual."
        cut = x.reshape(n, 3, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, 3 * p * p)
        tokens = cut @ w[tower + "conv1.weight"].reshape(-1, 3 * p * p).T
        if masked is not None:
            m = masked[:, :, None].double()
            tokens = tokens * (1 - m) + w["backbone.mask_token"] * m
        first = w[tower + "class_embedding"].repeat(n, 1, 1)
        z = torch.cat([first, tokens], dim=1) + w[tower + "positional_embedding"]
        z = _layer_norm(z, w, tower + "ln_pre")
        for layer in range(self.layers):
            block = f"{tower}transformer.resblocks.{layer}."
            z = z + self._attention(_layer_norm(z, w, block + "ln_1"), w, block + "attn.")
            h = _layer_norm(z, w, block + "ln_2") @ w[block + "mlp.c_fc.weight"].T + w[block + "mlp.c_fc.bias"]
            h = h / (1 + torch.exp(-1.702 * h)) if self.quick_gelu else h * (1 + torch.erf(h / math.sqrt(2))) / 2
            z = z + h @ w[block + "mlp.c_proj.weight"].T + w[block + "mlp.c_proj.bias"]
        picture = _layer_norm(z, w, tower + "ln_post")[:, 0] @ w[tower + "proj"]
        logits = self.scale * _unit(picture) @ w["head.weight"].T
        inner = _layer_norm(z[:, 1:], w, "backbone.ln_patch")  # feeds both the alignment and the decoder
        patches = inner @ w[tower + "proj"]
        kernel = w["backbone.decoder.0.weight"].reshape(3 * p * p, -1)
        pixels = (inner @ kernel.T + w["backbone.decoder.0.bias"]).reshape(n, rows, columns, 3, p, p)
        return logits, picture, patches, pixels.permute(0, 3, 1, 4, 2, 5).reshape(n, 3, height, width)

    def _attention(self, z: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
        width = z.shape[-1]
        size = width // self.heads
        qkv = z @ w[name + "in_proj_weight"].T + w[name + "in_proj_bias"]
        out = torch.empty_like(z)
        for head in range(self.heads):
            q, k, v = (qkv[..., i * width + head * size : i * width + (head + 1) * size] for i in range(3))
            weights = torch.exp(q @ k.transpose(1, 2) / math.sqrt(size))
            out[..., head * size : (head + 1) * size] = weights @ v / weights.sum(-1, keepdim=True)
        return out @ w[name + "out_proj.weight"].T + w[name + "out_proj.bias"]

    # -------------------------------------------------------------------------------------------------------- the step

    def losses(self, weak: Tensor, strong: Tensor, masked: Tensor | None) -> dict[str, Tensor]:
        """The four losses of a batch, for normalized views in float64, and the share that is kept."""
        recipe = self.recipe
        with torch.no_grad():
            q = torch.softmax(self.forward(self.teacher, weak, None)[0], 1)
        logits, picture, patches, guess = self.forward(self.student, strong, masked)
        kept = [i for i in range(len(q)) if q[i].max() > recipe.threshold]
        log_p = torch.log_softmax(logits, 1)
        found = {"kept": torch.tensor(len(kept) / len(q), dtype=torch.float64)}
        found["self_training"] = -sum(log_p[i, q[i].argmax()] for i in kept) / max(1, len(kept)) + 0 * logits.sum()
        mean = torch.softmax(logits, 1).mean(0)
        if recipe.memory:
            if self.t % recipe.epoch:
                mean = recipe.memory * self.before + (1 - recipe.memory) * mean
            self.before = mean.detach()
        prior = torch.full_like(mean, 1 / len(mean)) if recipe.prior is None else recipe.prior.double()
        found["fairness"] = -(prior * mean.log()).sum() / (1 - recipe.memory)
        if masked is not None:
            side = strong.shape[-1] // self.patch
            mask = masked.reshape(-1, 1, side, 1, side, 1).expand(-1, 1, side, self.patch, side, self.patch)
            mask = mask.reshape(-1, 1, *strong.shape[2:]).double()
            found["masked_image"] = (mask * (guess - strong).abs()).sum() / mask.sum() / 3
            gaps = (_unit(patches) - _unit(picture)[:, None]).pow(2).sum(-1)
            found["alignment"] = gaps[masked].mean()
        return found

    def step(self, weak: Tensor, strong: Tensor, masked: Tensor | None) -> dict[str, float]:
        """One step for normalized views in float64, always of the whole batch."""
        recipe = self.recipe
        self.student = {name: value.detach().requires_grad_() for name, value in self.student.items()}
        weights = {"self_training": 1, "fairness": recipe.w_fair, "masked_image": 1, "alignment": recipe.w_align}
        found = self.losses(weak, strong, masked)
        found["loss"] = sum(weights[name] * loss for name, loss in found.items() if name in weights)
        found["loss"].backward()
        with torch.no_grad():
            self._adamw()
            decay = recipe.d0 + (recipe.d_end - recipe.d0) * min(1, self.t * recipe.batch / 1024 / recipe.warm)
            decay = decay ** (recipe.batch / 1024)
            for name, value in self.student.items():
                self.teacher[name] = decay * self.teacher[name] + (1 - decay) * value
        self.t += 1
        return {name: value.item() for name, value in found.items()}

    def _adamw(self) -> None:
        """Loshchilov and Hutter (2019), Algorithm 2, with a rate for every layer and no decay of vectors."""
        recipe, t = self.recipe, self.t + 1
        end = 1e-6 * recipe.batch / 256
        rate = end + (recipe.lr * recipe.batch / 256 - end) * (1 + math.cos(math.pi * self.t / recipe.steps)) / 2
        for name, value in self.student.items():
            g = value.grad
            if g is None:
                continue
            lr = rate * recipe.layer_decay ** (self.layers + 1 - self._layer(name))
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
            m_hat, v_hat = self.m[name] / (1 - 0.9**t), self.v[name] / (1 - 0.999**t)
            decay = recipe.weight_decay if value.dim() > 1 else 0.0
            self.student[name] = value - lr * (m_hat / (v_hat.sqrt() + 1e-8) + decay * value)

    def _layer(self, name: str) -> int:
        """0: embeddings; 1 … L: the blocks; L + 1: what comes after them, and the head."""
        name = name.removeprefix("backbone.").removeprefix("visual.")
        if name.startswith("transformer.resblocks."):
            return int(name.split(".")[2]) + 1
        first = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
        return 0 if name.startswith(first) or (name == "mask_token" and self.recipe.slow_token) else self.layers + 1


def _layer_norm(z: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centered = z - z.mean(-1, keepdim=True)
    deviation = (centered.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return centered / deviation * w[name + ".weight"] + w[name + ".bias"]


def _unit(z: Tensor) -> Tensor:
    return z / z.pow(2).sum(-1, keepdim=True).sqrt()
