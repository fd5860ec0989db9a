"""Logistic regression on more features than are put side by side in memory: they are read in blocks of rows.

The objective is that of scikit-learn's LogisticRegression on features that StandardScaler has standardized,

    1/n Σ cross-entropy + ‖W‖² / (2 n · inverse_penalty),

without a penalty on intercepts, and with one row of weights for two classes. So is the solver, SciPy's L-BFGS-B with
scikit-learn's settings: it ends where no entry of the gradient is above a tolerance, or where float32 sees no progress,
which is at about 1e-5. What differs is who computes loss and gradient: PyTorch in float32, on a GPU where there is one,
block by block; sums over blocks are taken in float64. Blocks are standardized as they are read, so that no standardized
copy of all features exists. A GPU keeps the features as they are stored where they take at most half of its free
memory; otherwise, as on a CPU, they are read anew for every gradient.

A loss with its gradient is 4 · n · Σ d_k · C operations, twice a product of all features with all weights: for ImageNet
(1.28 million samples, 2,304 features, 1000 classes) 1.2e13, which is an **estimate** of half a second on a GPU that
reaches 25 TFLOP/s in float32, and of two minutes on two cores that reach 0.1. No fit with so many weights was made.
Memory is that of a block, and what L-BFGS-B works with, 25 numbers in float64 for each weight: 0.5 GB for ImageNet.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import softplus

from labkit._inputs import SPACES_EXPECTED, finite_matrix
from labkit._scales import exponent_of_number, largest
from labkit._stored import Space
from labkit.devices import exact_products, explain_out_of_memory, is_out_of_memory, pick_device
from labkit.evaluation import large

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the gradient's largest entry; see `tolerance`
FEW_CLASSES = 100
ITERATIONS = 2000  # at most
MUCH = 2**34  # n · Σ d_k · C; from there on blocks pay where memory would hold all
CACHED = 2**21  # numbers that a CPU computes with at a time, 8 MiB: about what its caches hold
LEAST_ROWS = 1024  # of a block at least, or adding up the gradients of blocks takes as long as they do
SHARE = 0.5  # of a GPU's free memory that features may take


def pays_in_blocks(n_numbers: int, n_classes: int) -> bool:
    """Whether a gradient over so many numbers and classes takes so long that blocks pay, in memory too."""
    return n_numbers * n_classes > MUCH


def tolerance(n_classes: int) -> float:
    """Of the gradient's largest entry, at which a fit ends: 1e-3, or 0.1 / C for more than 100 classes.

    Entries are means over all samples, of which 1 / C are of a class, so that all are small from the start where there
    are many classes. On 60,000 made-up samples of 1000 classes (one seed) a fit to 1e-3 took 6 steps and predicted 0.3
    points worse than one to 1e-5, in 24; to 1e-4 it took 15, and predicted as well.
    """
    return TOLERANCE * min(1.0, FEW_CLASSES / n_classes)


def exponents_of(spaces: Sequence[Space]) -> tuple[int, ...]:
    """Of the power of two by which each space (n, d_k) becomes of ordinary size; 0 where it is.

    Raises:
        FitError: a number is not finite.
    """
    return tuple(map(_exponent, spaces))


def _exponent(space: Space) -> int:
    if space.dtype == torch.float16:  # always of ordinary size
        return 0
    size = max(1, large.BLOCK // space.shape[1])
    parts = (finite_matrix("a space", part, SPACES_EXPECTED) for part in space.split(size))
    return exponent_of_number(max(map(largest, parts)))


def fit_in_blocks(
    spaces: Sequence[Space], exponents: Sequence[int], labels: np.ndarray, inverse_penalty: float
) -> Pipeline:
    """scikit-learn's StandardScaler and LogisticRegression, fitted to spaces that stay where they are.

    Args:
        spaces: K spaces (n, d_k).
        exponents: of the power of two that each is divided by.
        labels: class of each sample, (n,), of two classes at least.
        inverse_penalty: C of LogisticRegression.

    Raises:
        FitError: a number is not finite, or the memory does not suffice for the smallest block.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    device, most, began = pick_device(), tolerance(len(classes)), time.perf_counter()
    with explain_out_of_memory("Give the probe fewer samples or features."), exact_products():
        problem = _Problem(_Rows(spaces, exponents, device), codes, inverse_penalty)
        found = minimize(
            problem.loss_and_gradient,
            np.zeros(problem.n_outputs * problem.width),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "maxls": 50, "gtol": most, "ftol": 64 * np.finfo(float).eps},
        )
    steepest, seconds = float(np.abs(found.jac).max()), time.perf_counter() - began
    logger.info(
        f"a linear probe of {len(labels):,} samples took {found.nit} steps, {found.nfev} gradients and {seconds:.0f} s "
        f"on {device}; the gradient is {steepest:.0e}"
    )
    if not found.success:
        warnings.warn(
            f"the linear probe ended after {found.nit} steps at a gradient of {steepest:.0e}. Expected at most "
            f"{most:.0e}: lower inverse_penalty (now {inverse_penalty:g}), which makes the fit easier.",
            ConvergenceWarning,
            stacklevel=4,
        )
    layer = found.x.reshape(problem.n_outputs, problem.width)
    regression = LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS, tol=most)
    regression.classes_, regression.n_features_in_ = classes, problem.width - 1
    regression.coef_, regression.intercept_ = layer[:, :-1].copy(), layer[:, -1].copy()
    regression.n_iter_ = np.array([found.nit], np.int32)
    return make_pipeline(problem.rows.scaler, regression)


class _Rows:
    """Spaces (n, d_k) side by side, standardized, some rows at a time, on a device.

    Attributes:
        scaler: scikit-learn's, fitted in blocks, with sums in float64.
        spaces: the spaces, on the GPU where they fit there.
    """

    def __init__(self, spaces: Sequence[Space], exponents: Sequence[int], device: torch.device) -> None:
        self.device, self.exponents, self.spaces = device, exponents, list(spaces)
        self.scaler = StandardScaler()
        held = _room_for(spaces, exponents, device)
        size = max(1, large.BLOCK // sum(space.shape[1] for space in spaces))
        for start in range(0, len(self), size):
            parts = self._read(start, start + size)
            for part, kept in zip(parts, held or (), strict=held is not None):
                kept[start : start + size] = part
            joined = torch.cat([part.float() for part in parts], 1).numpy()
            self.scaler.partial_fit(finite_matrix("a space", joined, SPACES_EXPECTED))
        if held:
            self.spaces, self.exponents = list(held), [0] * len(held)
        self.mean, self.scale = (
            torch.from_numpy(given.astype(np.float32)).to(device) for given in (self.scaler.mean_, self.scaler.scale_)
        )

    def __len__(self) -> int:
        return len(self.spaces[0])

    def _read(self, start: int, stop: int) -> list[Tensor]:
        """Rows of all spaces as they are stored, or divided by powers of two in float32."""
        parts = [space[start:stop] for space in self.spaces]
        return [
            torch.from_numpy(np.ldexp(part.double().numpy(), -exponent)).float()
            if exponent or part.dtype == torch.float64
            else part
            for part, exponent in zip(parts, self.exponents, strict=True)
        ]

    def standardized(self, start: int, stop: int) -> Tensor:
        """Rows (m, Σ d_k) float32."""
        parts = [part.to(self.device).float() for part in self._read(start, stop)]
        return torch.cat(parts, 1).sub_(self.mean).div_(self.scale)


def _room_for(spaces: Sequence[Space], exponents: Sequence[int], device: torch.device) -> list[Tensor] | None:
    """Tensors on a GPU for all spaces, as they are stored, or in float32; None where they would not fit."""
    if device.type != "cuda":
        return None
    dtypes = [
        torch.float32 if exponent or space.dtype == torch.float64 else space.dtype
        for space, exponent in zip(spaces, exponents, strict=True)
    ]
    taken = sum(len(space) * space.shape[1] * dtype.itemsize for space, dtype in zip(spaces, dtypes, strict=True))
    if taken > SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    return [torch.empty(*space.shape, dtype=dtype, device=device) for space, dtype in zip(spaces, dtypes, strict=True)]


class _Problem:
    """The objective, as a function of weights and intercepts (outputs · (Σ d_k + 1),) in float64."""

    def __init__(self, rows: _Rows, codes: np.ndarray, inverse_penalty: float) -> None:
        self.rows, self.codes = rows, torch.from_numpy(codes.astype(np.int64)).to(rows.device)
        n_classes = int(codes.max()) + 1
        self.n_outputs = 1 if n_classes == 2 else n_classes
        self.width = len(rows.mean) + 1
        self.penalty = 1 / (inverse_penalty * len(rows))
        on_cpu = rows.device.type == "cpu"
        self.size = max(LEAST_ROWS, (CACHED if on_cpu else large.BLOCK) // (self.width + self.n_outputs))

    def loss_and_gradient(self, given: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective, and its gradient (outputs · (Σ d_k + 1),); in smaller blocks where memory does not suffice."""
        layer = given.reshape(self.n_outputs, self.width)
        while True:
            try:
                loss, gradient = self._sums(layer)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            self.size = -(-self.size // 2)
            logger.info("the memory does not suffice: blocks of %d rows from here on", self.size)
            if self.rows.device.type == "cuda":
                torch.cuda.empty_cache()
        loss, gradient = loss / len(self.rows), gradient / len(self.rows)
        weights = layer[:, :-1]
        gradient[:, :-1] += self.penalty * weights
        return loss + self.penalty / 2 * float((weights**2).sum()), gradient.ravel()

    @torch.inference_mode()
    def _sums(self, layer: np.ndarray) -> tuple[float, np.ndarray]:
        """Over all rows: the cross-entropy, and its gradient (outputs, Σ d_k + 1)."""
        device = self.rows.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        weights = torch.from_numpy(layer[:, :-1].astype(np.float32)).to(device)
        bias = torch.from_numpy(layer[:, -1].astype(np.float32)).to(device)
        loss = torch.zeros((), dtype=exact, device=device)
        gradient = torch.zeros(self.n_outputs, self.width, dtype=exact, device=device)
        for start in range(0, len(self.rows), self.size):
            z = self.rows.standardized(start, start + self.size)  # (m, d)
            entropy = _binary if self.n_outputs == 1 else _multinomial
            losses, error = entropy(torch.addmm(bias, z, weights.T), self.codes[start : start + self.size])
            loss += losses.sum(dtype=exact)
            gradient[:, :-1] += error.T @ z
            gradient[:, -1] += error.sum(0)
        return float(loss), gradient.cpu().numpy().astype(np.float64)


def _multinomial(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each row (m,), and its gradient by the logits (m, C)."""
    log_probs = logits.log_softmax(1)
    losses = -log_probs.gather(1, codes[:, None])[:, 0]
    error = log_probs.exp_()
    error[torch.arange(len(codes), device=codes.device), codes] -= 1
    return losses, error


def _binary(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """As `_multinomial`, of logits (m, 1) of the second of two classes."""
    second = codes[:, None].to(logits.dtype)
    return (softplus(logits) - second * logits)[:, 0], logits.sigmoid() - second
