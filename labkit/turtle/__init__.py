"""TURTLE: the labeling of an unlabeled dataset that linear classifiers fit with the largest margin.

Gadetsky, Jiang and Brbić, "Let Go of Your Labels with Unsupervised Transfer", ICML 2024 (arXiv 2406.07236).

Given frozen features φ_k(x) of the same images in K spaces, a *task encoder* proposes a soft labeling τ (eq. 9)

    τ_k(x) = softmax(θ_k φ_k(x) + b_k)        τ(x) = mean over k of τ_k(x)

and is trained so that a linear classifier w_k in every space can reproduce it, found by M Adam steps (eqs. 10-12):

    inner:  minimize over w   Σ_k CE(w_k φ_k(x), τ(x))
    outer:  minimize over θ   Σ_k CE(w_k φ_k(x), τ(x)) − γ Σ_k H(mean over x of τ_k(x))

The outer gradient reaches θ through τ alone (eq. 13). Every layer here is linear and every loss a cross-entropy,
so all gradients are written in closed form; `tests/oracle/` holds an independent float64 NumPy version of the whole.
"""

from labkit.turtle.estimator import Turtle
from labkit.turtle.objective import (
    cross_entropy,
    divergence,
    entropy,
    inner_grad_logits,
    linear,
    linear_grad,
    outer_grad_logits,
)
from labkit.turtle.parallel import own_part
from labkit.turtle.priors import power_law
from labkit.turtle.solver import Adam, Layers, TurtleSolver
from labkit.turtle.sweep import CRITERIA, DEFAULT_GRID, PAPER_GRID, Sweep
from labkit.turtle.transform import FeatureTransform

__all__ = [
    "CRITERIA",
    "DEFAULT_GRID",
    "PAPER_GRID",
    "Adam",
    "FeatureTransform",
    "Layers",
    "Sweep",
    "Turtle",
    "TurtleSolver",
    "cross_entropy",
    "divergence",
    "entropy",
    "inner_grad_logits",
    "linear",
    "linear_grad",
    "outer_grad_logits",
    "own_part",
    "power_law",
]
