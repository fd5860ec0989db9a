"""Exercises of notebook 04, TURTLE from scratch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn
from torch import Tensor

from labkit import turtle
from labkit.course.exercises import Exercise

Many: TypeAlias = Sequence[Tensor]  # one per space
Step: TypeAlias = tuple[list[Tensor], list[Tensor]]

# ------------------------------------------------------------------------------------------------- 04.1: two gradients

_TASK_LOGITS = np.array([[1.0, 0.0, -1.0], [0.2, 0.1, 0.0], [-2.0, 2.0, 0.0], [0.0, 0.5, 1.0]])  # (n, C)
_LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])  # (n, C)


def _gradients(task_logits: np.ndarray, logits: np.ndarray, mistake: str = "") -> tuple[np.ndarray, np.ndarray]:
    axis = 0 if mistake == "along images" else 1
    labeling, price = softmax(task_logits, axis=axis), -log_softmax(logits, axis=axis)
    if mistake == "KL":
        price = price + log_softmax(task_logits, axis=1)
    average = (labeling * price).sum(axis=1, keepdims=True)
    average = {"no average": 0 * average, "plain mean": price.mean(axis=1, keepdims=True)}.get(mistake, average)
    inner = (softmax(logits, axis=axis) - labeling) / len(logits)
    outer = (price if mistake == "for the labeling" else labeling * (price - average)) / len(logits)
    signs = {"inner sign": (-1, 1), "outer sign": (1, -1), "no 1/n": (len(logits), len(logits))}.get(mistake, (1, 1))
    return signs[0] * inner, signs[1] * outer


# --------------------------------------------------------------------------------- 04.2: first-order and exact gradient


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _hypergradients(
    task_logits: Tensor, features: Tensor, n_inner: int, lr: float, *, mistake: str = ""
) -> tuple[Tensor, Tensor]:
    """First-order and exact gradient."""
    a = task_logits.detach().requires_grad_()
    labeling = a.softmax(1)
    weight = torch.zeros(features.shape[1], labeling.shape[1], dtype=features.dtype) + 0 * labeling.sum()
    for _ in range(n_inner):
        target = labeling.detach() if mistake == "inner detached" else labeling
        weight = weight - lr * features.T @ ((features @ weight).softmax(1) - target) / len(features)

    def grad(weight: Tensor) -> Tensor:
        target = labeling.detach() if mistake == "outer detached" else labeling
        loss = -(target * (features @ weight).log_softmax(1)).sum(1).mean() + 0 * labeling.sum()
        return torch.autograd.grad(loss, a, retain_graph=True)[0]

    first_order, exact = grad(weight if mistake == "both exact" else weight.detach()), grad(weight)
    return (exact, first_order) if mistake == "swapped" else (first_order, exact)


# ------------------------------------------------------------------------------------------------- 04.3: one outer step

_SPACES = [_normal(8, 3, seed=0), _normal(8, 2, seed=1)]
_ENCODERS = [_normal(3, 3, seed=2), _normal(3, 2, seed=3)]
_CLASSIFIERS = [_normal(3, 3, seed=4), _normal(3, 2, seed=5)]


def _turtle_step(spaces: Many, encoders: Many, classifiers: Many, n_inner: int, lr: float, gamma: float) -> Step:
    """One outer step built from labkit's own functions, in closed form; weights are (C, d_k)."""

    def logits(z: Tensor, weight: Tensor) -> Tensor:
        return turtle.linear(z, weight[None], weight.new_zeros(1, len(weight)))  # (1, C, n)

    task_probs = [logits(z, weight).softmax(1) for z, weight in zip(spaces, encoders, strict=True)]
    labeling = torch.stack(task_probs).mean(0)
    fitted = list(classifiers)
    for _ in range(n_inner):
        deltas = [
            turtle.inner_grad_logits(logits(z, weight), labeling) for z, weight in zip(spaces, fitted, strict=True)
        ]
        grads = [turtle.linear_grad(z, delta)[0][0] for z, delta in zip(spaces, deltas, strict=True)]
        fitted = [weight - lr * grad for weight, grad in zip(fitted, grads, strict=True)]
    log_probs = torch.stack([logits(z, weight).log_softmax(1) for z, weight in zip(spaces, fitted, strict=True)]).sum(0)
    grad_labeling = -log_probs / (len(spaces) * len(spaces[0]))
    deltas = [turtle.outer_grad_logits(probs, grad_labeling, gamma) for probs in task_probs]
    grads = [turtle.linear_grad(z, delta)[0][0] for z, delta in zip(spaces, deltas, strict=True)]
    return [weight - lr * grad for weight, grad in zip(encoders, grads, strict=True)], fitted


def _wrong_step(
    spaces: Many, encoders: Many, classifiers: Many, n_inner: int, lr: float, gamma: float, *, mistake: str
) -> Step:
    """The step by autograd, with one mistake."""
    encoders = [weight.detach().requires_grad_() for weight in encoders]
    task_probs = [(z @ weight.T).softmax(1) for z, weight in zip(spaces, encoders, strict=True)]
    labeling = sum(task_probs, torch.zeros(())) / (1 if mistake == "sum" else len(spaces))
    fitted = list(classifiers)
    for _ in range(min(n_inner, 1) if mistake == "one step" else n_inner):
        targets = task_probs if mistake == "own labeling" else [labeling] * len(spaces)
        targets = targets if mistake == "no stop-gradient" else [target.detach() for target in targets]
        fitted = [
            weight - lr * ((z @ weight.T).softmax(1) - target).T @ z / len(z)
            for z, weight, target in zip(spaces, fitted, targets, strict=True)
        ]
    loss = torch.zeros((), dtype=labeling.dtype)
    for z, weight in zip(spaces, fitted, strict=True):
        loss = loss - (labeling * (z @ weight.T).log_softmax(1)).sum(1).mean()
    entropies = [torch.special.entr(probs.mean(0)).sum() for probs in task_probs]
    if mistake == "per image":
        entropies = [torch.special.entr(probs).sum(1).mean() for probs in task_probs]
    if mistake == "entropy of the mean over spaces":
        entropies = [torch.special.entr(labeling.mean(0)).sum()]
    entropy = torch.stack(entropies).sum()
    loss = loss + gamma * entropy if mistake == "entropy sign" else loss - gamma * entropy
    grads = torch.autograd.grad(loss, encoders)
    sign = 1 if mistake == "uphill" else -1
    moved = [(weight + sign * lr * grad).detach() for weight, grad in zip(encoders, grads, strict=True)]
    return moved, [weight.detach() for weight in fitted]


# ------------------------------------------------------------------------------------- 04.4: reach of a cold classifier


def _reach(features: np.ndarray, n_steps: int, lr: float) -> np.ndarray:
    return n_steps * lr * (np.abs(features).sum(axis=1) + 1)


# -------------------------------------------------------------------------------------------- 04.5: a label-free choice


def _labelings() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two spaces of 48 samples and four labelings: random, collapsed, easy in the first space only, and fairly good."""
    random = np.random.default_rng(3)
    three, other = np.arange(48) % 3, np.arange(48) // 16
    corners = 5 * np.eye(3)
    first = np.hstack([corners[three], corners[other], random.normal(size=(48, 44))])
    second = np.hstack([corners[three], random.normal(size=(48, 47))])
    noisy = three.copy()
    noisy[[0, 7, 14, 21]] = (noisy[[0, 7, 14, 21]] + 1) % 3
    return [first, second], [random.permutation(three), np.where(three == 1, 0, three), other, noisy]


def _choose(spaces: Sequence[np.ndarray], labelings: Sequence[np.ndarray], n_folds: int, *, mistake: str = "") -> int:
    """The labeling with the best generalization score among those that use the most clusters."""

    def score(space: np.ndarray, labels: np.ndarray) -> float:
        if mistake == "same samples":
            return float(LogisticRegression().fit(space, labels).score(space, labels))
        return float(cross_val_score(LogisticRegression(), space, labels, cv=n_folds).mean())

    used = spaces[:1] if mistake == "first space" else spaces
    scores = [np.mean([score(space, labels) for space in used]) for labels in labelings]
    if mistake == "no guard":
        return int(np.argmax(scores))
    n_found = np.array([int(labels.max()) + 1 if mistake == "largest" else len(set(labels)) for labels in labelings])
    return int(np.where(n_found == n_found.max(), scores, -1).argmax())


def _in_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, limited to one thread: more threads make its small matrix products many times slower."""

    def limited(*arguments: Any) -> Any:
        with threadpool_limits(1, user_api="blas"):
            return function(*arguments)

    return limited


_TWO_SPACES, _FOUR = _labelings()

EXERCISES = (
    Exercise(
        id="04.1",
        title="One loss, two gradients",
        cases=[(_TASK_LOGITS, _LOGITS), (_TASK_LOGITS[:2, :2], _LOGITS[2:, 1:])],
        reference=lambda task_logits, logits: _gradients(task_logits, logits),
        mistakes={
            "The first gradient has the wrong sign: where the classifier gives a class too much probability, its logit "
            "has to come down, so the gradient there is positive.": partial(_gradients, mistake="inner sign"),
            "The second gradient has the wrong sign: yours is the direction in which the logits move; the gradient "
            "points the opposite way.": partial(_gradients, mistake="outer sign"),
            "The second is the gradient with respect to the labeling, not to the task encoder's logits. The softmax "
            "lies between them.": partial(_gradients, mistake="for the labeling"),
            "The probabilities of an image sum to one: more for one cluster means less for the others. Subtract "
            "the average price that the image pays now.": partial(_gradients, mistake="no average"),
            "You subtract the plain mean of the prices. An image pays each price with the probability that it gives "
            "to the cluster: weight the prices by the labeling.": partial(_gradients, mistake="plain mean"),
            "The second is the gradient of KL(τ ‖ p), which also contains log τ. The loss is the cross-entropy: the "
            "price is −log p alone.": partial(_gradients, mistake="KL"),
            "Both losses are means over n images, so each image counts 1/n: divide by len(logits).": (
                partial(_gradients, mistake="no 1/n")
            ),
            "The classes of one image are in one row: take every softmax along axis 1.": (
                partial(_gradients, mistake="along images")
            ),
        },
        hints=(
            "First gradient: zero where the classifier already predicts the labeling. Second gradient: zero where all "
            "prices −log p of an image are equal.",
            "First: the difference of two softmaxes, over n. Second: the softmax has ∂τ_c / ∂a_j = τ_c (1 if c = j "
            "else 0) − τ_c τ_j; multiply by the price −log p_c and sum over c.",
            "(p − τ) / n, and τ · (price − average) / n, where an image's average is the sum of τ · price over its "
            "clusters.",
        ),
        difficulty=3,
        importance=5,
        minutes=15,
    ),
    Exercise(
        id="04.2",
        title="First-order gradient and exact hypergradient",
        cases=[
            (_normal(6, 3, seed=6), _normal(6, 2, seed=7), 1, 1.0),
            (_normal(6, 3, seed=8), _normal(6, 2, seed=9), 4, 0.5),
            (_normal(5, 2, seed=10), _normal(5, 3, seed=11), 0, 1.0),
        ],
        reference=lambda task_logits, features, n_inner, lr: _hypergradients(task_logits, features, n_inner, lr),
        mistakes={
            "Your exact gradient is the first-order one: the inner steps see a detached labeling, so nothing flows "
            "back through them. Leave the labeling attached inside the loop.": partial(
                _hypergradients, mistake="inner detached"
            ),
            "Your first-order gradient is the exact one: the trained classifier still depends on the labeling. Detach "
            "its weight before the outer loss.": partial(_hypergradients, mistake="both exact"),
            "The labeling is detached in the outer loss, so only the indirect part is left. The loss also depends on "
            "the labeling directly.": partial(_hypergradients, mistake="outer detached"),
            "The two are in the wrong order: return the first-order gradient, then the exact one.": (
                partial(_hypergradients, mistake="swapped")
            ),
        },
        hints=(
            "Train the classifier once, without any detach and without a torch optimizer, so that its weight is a "
            "function of the labeling. Then write the outer loss twice.",
            "One inner step: weight = weight - lr * features.T @ ((features @ weight).softmax(1) - labeling) / n. The "
            "first-order loss uses (features @ weight).detach(), the exact one does not.",
            "torch.autograd.grad(loss, a, retain_graph=True)[0] for each of the two losses, where a = "
            "task_logits.detach().requires_grad_() and labeling = a.softmax(1).",
        ),
        difficulty=4,
        importance=4,
        minutes=20,
    ),
    Exercise(
        id="04.3",
        title="One outer step of TURTLE",
        cases=[
            (_SPACES, _ENCODERS, _CLASSIFIERS, 3, 0.5, 1.0),
            (_SPACES[:1], _ENCODERS[:1], _CLASSIFIERS[:1], 1, 0.5, 10.0),
        ],
        reference=_turtle_step,
        mistakes={
            "No stop-gradient: the gradient flows back through the inner steps. The classifiers learn "
            "labeling.detach().": partial(_wrong_step, mistake="no stop-gradient"),
            "The entropy has the wrong sign: the loss to minimize is cross-entropy − γ · entropy. Yours empties "
            "clusters.": partial(_wrong_step, mistake="entropy sign"),
            "You take the entropy of every image and average it, which rewards undecided images. Take the entropy of "
            "the mean over the images, probs.mean(0).": partial(_wrong_step, mistake="per image"),
            "The labeling is the mean over the spaces, not the sum: divide by the number of spaces.": partial(
                _wrong_step, mistake="sum"
            ),
            "Take the entropy of each space's τ_k and sum over the spaces. Yours is the entropy of their mean τ.": (
                partial(_wrong_step, mistake="entropy of the mean over spaces")
            ),
            "Each of your classifiers learns its own space's τ_k. All should learn the same labeling τ, the mean over "
            "the spaces: that is what connects them.": partial(_wrong_step, mistake="own labeling"),
            "Your classifiers take only one inner step, not n_inner.": partial(_wrong_step, mistake="one step"),
            "Your encoders go uphill: subtract lr times the gradient.": partial(_wrong_step, mistake="uphill"),
        },
        hints=(
            "Four parts, in this order: the labeling from the encoders; the inner loop; the outer loss with the fitted "
            "classifiers; one gradient step of the encoders.",
            "Inner step of one space, 04.1's first gradient times the features: w = w - lr * ((z @ w.T).softmax(1) - "
            "labeling.detach()).T @ z / len(z). Entropy: torch.special.entr(probs.mean(0)).sum() for each space.",
            "encoders = [theta.detach().requires_grad_() for theta in encoders] at the start, and at the end grads = "
            "torch.autograd.grad(loss - gamma * entropy, encoders); return [theta - lr * grad ...], classifiers.",
        ),
        difficulty=4,
        importance=5,
        minutes=25,
    ),
    Exercise(
        id="04.4",
        title="The largest logit of a cold classifier",
        cases=[
            (np.array([[1.0, -2.0, 3.0], [0.0, 0.5, 0.0]]), 10, 1e-3),
            (np.array([[10.0, -20.0, 30.0], [0.0, 5.0, 0.0]]), 10, 1e-3),
            (np.array([[1.0, -1.0]]), 5, 2e-3),
        ],
        reference=_reach,
        mistakes={
            "You forgot the bias. It moves as far as any weight, and its input is 1.": (
                lambda features, n_steps, lr: n_steps * lr * np.abs(features).sum(axis=1)
            ),
            "That is the Euclidean norm. Adam moves every weight by lr, so the absolute values of the features add "
            "up.": lambda features, n_steps, lr: n_steps * lr * (np.sqrt((features**2).sum(axis=1)) + 1),
            "Two things are missing: every weight moves by lr, so absolute values add up, and the bias moves too.": (
                lambda features, n_steps, lr: n_steps * lr * np.sqrt((features**2).sum(axis=1))
            ),
            "Negative features help too: their weight moves down. Take absolute values before you add.": (
                lambda features, n_steps, lr: n_steps * lr * (features.sum(axis=1) + 1)
            ),
        },
        hints=(
            "The logit is the sum of weight times feature, plus the bias. How far is each weight after n_steps?",
            "Each weight is at most n_steps · lr away from zero, in whichever direction helps.",
            "The best direction for feature x_j is its sign, and then it adds n_steps · lr · |x_j|; the bias adds "
            "n_steps · lr.",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="04.5",
        title="Choose a labeling without labels",
        cases=[(_TWO_SPACES, _FOUR, 3), (_TWO_SPACES, [_FOUR[1] // 2, *_FOUR[2:]], 4)],
        reference=lambda spaces, labelings, n_folds: _choose(spaces, labelings, n_folds),
        mistakes={
            "You chose a labeling that has lost a cluster, which makes it easy to predict. Choose only among labelings "
            "with the most clusters.": partial(_choose, mistake="no guard"),
            "You count clusters by the largest label, which overlooks an empty cluster in between. Count the distinct "
            "labels: len(set(labels)).": partial(_choose, mistake="largest"),
            "You score the classifier on the samples that it was trained on, where random labels can be fitted too. "
            "Use cross_val_score.": partial(_choose, mistake="same samples"),
            "You score in the first space only. Average the score over all spaces.": partial(
                _choose, mistake="first space"
            ),
        },
        hints=(
            "Two steps: which labelings may be chosen at all, and which of those is the easiest to predict?",
            "cross_val_score(LogisticRegression(), space, labels, cv=n_folds).mean() is the score in one space.",
            "np.where(n_found == n_found.max(), scores, -1).argmax(), where n_found is the number of distinct labels "
            "in each labeling and scores are the means over the spaces.",
        ),
        difficulty=3,
        importance=5,
        minutes=12,
        observe=_in_one_thread,
    ),
)
