"""TURTLE in plain NumPy float64, written from the paper's equations; slow, independent of labkit's code.

No closed-form gradient of labkit is used: the softmax and the weight normalization are differentiated here by their
full Jacobians, one sample and one class at a time where that is clearest.
"""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax, (n, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise log-softmax, (n, C)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


class Adam:
    """Adam with bias correction as in Kingma and Ba (2015), Algorithm 1."""

    def __init__(self, shapes: list[tuple[int, ...]], lr: float) -> None:
        self.lr, self.t = lr, 0
        self.m = [np.zeros(shape) for shape in shapes]
        self.v = [np.zeros(shape) for shape in shapes]

    def step(self, parameters: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        self.t += 1
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g * g
            m_hat = self.m[i] / (1 - 0.9**self.t)
            v_hat = self.v[i] / (1 - 0.999**self.t)
            p -= self.lr * m_hat / (np.sqrt(v_hat) + 1e-8)


class TurtleOracle:
    """One run of TURTLE; layers are dicts of direction (C, d), gain (C,), bias (C,) or weight (C, d), bias (C,)."""

    def __init__(
        self,
        encoders: list[dict],
        classifiers: list[dict],
        *,
        gamma: float,
        inner_steps: int,
        lrs: tuple,
        prior: np.ndarray | None = None,
    ) -> None:
        self.prior = prior
        self.encoders, self.classifiers = encoders, classifiers
        self.gamma, self.inner_steps, (self.outer_lr, self.inner_lr) = gamma, inner_steps, lrs
        self.outer = Adam(
            [layer[key].shape for layer in encoders for key in ("direction", "bias", "gain")], self.outer_lr
        )
        self.reset_inner(classifiers)

    def reset_inner(self, classifiers: list[dict]) -> None:
        """Cold start: new classifiers and a new optimizer."""
        self.classifiers = classifiers
        self.inner = Adam([layer[key].shape for layer in classifiers for key in ("weight", "bias")], self.inner_lr)

    @staticmethod
    def task_logits(layer: dict, z: np.ndarray) -> np.ndarray:
        """θ φ(x) + b with θ_c = gain_c · direction_c / |direction_c|."""
        logits = np.empty((len(z), len(layer["bias"])))
        for c in range(logits.shape[1]):
            theta = layer["gain"][c] * layer["direction"][c] / np.sqrt((layer["direction"][c] ** 2).sum())
            logits[:, c] = z @ theta + layer["bias"][c]
        return logits

    def step(self, batch: list[np.ndarray]) -> tuple[float, float]:
        """One outer step on a batch; returns the cross-entropy and the entropy, both summed over spaces.

        With a prior, minus the Kullback-Leibler divergence of the marginals from it is in the place of the entropy.
        """
        n, n_spaces = len(batch[0]), len(batch)
        tau_k = [softmax(self.task_logits(layer, z)) for layer, z in zip(self.encoders, batch, strict=True)]
        tau = sum(tau_k) / n_spaces
        for _ in range(self.inner_steps):
            gradients = []
            for layer, z in zip(self.classifiers, batch, strict=True):
                residual = (softmax(z @ layer["weight"].T + layer["bias"]) - tau) / n
                gradients += [residual.T @ z, residual.sum(axis=0)]
            self.inner.step([layer[key] for layer in self.classifiers for key in ("weight", "bias")], gradients)

        log_p = [log_softmax(z @ w["weight"].T + w["bias"]) for w, z in zip(self.classifiers, batch, strict=True)]
        loss = sum(-(tau * lp).sum() / n for lp in log_p)
        marginals = [t.mean(axis=0) for t in tau_k]
        if self.prior is None:
            entropies = sum(-(m * np.log(m)).sum() for m in marginals)
            slopes = [np.log(m) + 1 for m in marginals]
        else:
            entropies = -sum((m * np.log(m / self.prior)).sum() for m in marginals)
            slopes = [np.log(m / self.prior) + 1 for m in marginals]

        gradients = []
        for k, (layer, z) in enumerate(zip(self.encoders, batch, strict=True)):
            d_tau_k = sum(-lp for lp in log_p) / n / n_spaces + self.gamma * slopes[k] / n
            d_logits = np.empty_like(tau_k[k])
            for i in range(n):
                jacobian = np.diag(tau_k[k][i]) - np.outer(tau_k[k][i], tau_k[k][i])
                d_logits[i] = jacobian @ d_tau_k[i]
            d_theta = d_logits.T @ z
            d_direction, d_gain = np.empty_like(layer["direction"]), np.empty_like(layer["gain"])
            for c, direction in enumerate(layer["direction"]):
                norm = np.sqrt((direction**2).sum())
                jacobian = np.eye(len(direction)) / norm - np.outer(direction, direction) / norm**3
                d_direction[c] = layer["gain"][c] * jacobian @ d_theta[c]
                d_gain[c] = d_theta[c] @ direction / norm
            gradients += [d_direction, d_logits.sum(axis=0), d_gain]
        self.outer.step([layer[key] for layer in self.encoders for key in ("direction", "bias", "gain")], gradients)
        return float(loss), float(entropies)
