"""Exercises of notebook 04, TURTLE from scratch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn
from torch import Tensor

from labkit import turtle
from labkit.course.exercises import Exercise

# ------------------------------------------------------------------------------------------------- 04.1: two gradients

_TASK_LOGITS = np.array([[1.0, 0.0, -1.0], [0.2, 0.1, 0.0], [-2.0, 2.0, 0.0], [0.0, 0.5, 1.0]])  # (n, C)
_LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])  # (n, C)


def _gradients(task_logits: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labeling, price = softmax(task_logits, axis=1), -log_softmax(logits, axis=1)
    average = (labeling * price).sum(axis=1, keepdims=True)
    return (softmax(logits, axis=1) - labeling) / len(logits), labeling * (price - average) / len(logits)


def _other_average(task_logits: np.ndarray, logits: np.ndarray, average: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both gradients, the second with another average price."""
    labeling, price = softmax(task_logits, axis=1), -log_softmax(logits, axis=1)
    return _gradients(task_logits, logits)[0], labeling * (price - average(price)) / len(logits)


def _grad_of_labeling(task_logits: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _gradients(task_logits, logits)[0], -log_softmax(logits, axis=1) / len(logits)


def _grad_of_kl(task_logits: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labeling = softmax(task_logits, axis=1)
    price = log_softmax(task_logits, axis=1) - log_softmax(logits, axis=1)
    outer = labeling * (price - (labeling * price).sum(axis=1, keepdims=True)) / len(logits)
    return _gradients(task_logits, logits)[0], outer


def _along_images(task_logits: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labeling, price = softmax(task_logits, axis=0), -log_softmax(logits, axis=0)
    average = (labeling * price).sum(axis=1, keepdims=True)
    return (softmax(logits, axis=0) - labeling) / len(logits), labeling * (price - average) / len(logits)


# --------------------------------------------------------------------------------- 04.2: first-order and exact gradient


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _hypergradients(
    task_logits: Tensor,
    features: Tensor,
    n_inner: int,
    lr: float,
    *,
    inner_detached: bool = False,
    outer_detached: bool = False,
    held_fixed: bool = True,
) -> tuple[Tensor, Tensor]:
    """First-order and exact gradient; the flags are the mistakes."""
    a = task_logits.detach().requires_grad_()
    labeling = a.softmax(1)
    weight = torch.zeros(features.shape[1], labeling.shape[1], dtype=features.dtype) + 0 * labeling.sum()
    for _ in range(n_inner):
        target = labeling.detach() if inner_detached else labeling
        weight = weight - lr * features.T @ ((features @ weight).softmax(1) - target) / len(features)

    def grad(weight: Tensor) -> Tensor:
        target = labeling.detach() if outer_detached else labeling
        loss = -(target * (features @ weight).log_softmax(1)).sum(1).mean() + 0 * labeling.sum()
        return torch.autograd.grad(loss, a, retain_graph=True)[0]

    return grad(weight.detach() if held_fixed else weight), grad(weight)


# ------------------------------------------------------------------------------------------------- 04.3: one outer step

_SPACES = [_normal(8, 3, seed=0), _normal(8, 2, seed=1)]
_ENCODERS = [_normal(3, 3, seed=2), _normal(3, 2, seed=3)]
_CLASSIFIERS = [_normal(3, 3, seed=4), _normal(3, 2, seed=5)]


def _turtle_step(
    spaces: Sequence[Tensor],
    encoders: Sequence[Tensor],
    classifiers: Sequence[Tensor],
    n_inner: int,
    lr: float,
    gamma: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """One outer step out of labkit's own functions, in closed form; weights are (C, d_k)."""

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
    spaces: Sequence[Tensor],
    encoders: Sequence[Tensor],
    classifiers: Sequence[Tensor],
    n_inner: int,
    lr: float,
    gamma: float,
    mistake: str,
) -> tuple[list[Tensor], list[Tensor]]:
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


def _mistaken(mistake: str) -> Any:
    def step(
        spaces: Sequence[Tensor],
        encoders: Sequence[Tensor],
        classifiers: Sequence[Tensor],
        n_inner: int,
        lr: float,
        gamma: float,
    ) -> tuple[list[Tensor], list[Tensor]]:
        return _wrong_step(spaces, encoders, classifiers, n_inner, lr, gamma, mistake)

    return step


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


def _choose(spaces: Sequence[np.ndarray], labelings: Sequence[np.ndarray], n_folds: int, mistake: str = "") -> int:
    """The labeling with the best generalization score among those that use the most clusters."""
    scores = []
    for labels in labelings:
        used = spaces[:1] if mistake == "first space" else spaces
        if mistake == "same samples":
            scores.append(np.mean([LogisticRegression().fit(space, labels).score(space, labels) for space in used]))
        else:
            scores.append(
                np.mean([cross_val_score(LogisticRegression(), space, labels, cv=n_folds).mean() for space in used])
            )
    if mistake == "no guard":
        return int(np.argmax(scores))
    n_found = np.array([int(labels.max()) + 1 if mistake == "largest" else len(set(labels)) for labels in labelings])
    return int(np.where(n_found == n_found.max(), scores, -1).argmax())


def _in_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose small matrix products do not wait for one another: threads make them many times slower."""

    def limited(*arguments: Any) -> Any:
        with threadpool_limits(1, user_api="blas"):
            return function(*arguments)

    return limited


def _chosen_wrongly(mistake: str) -> Any:
    def choose(spaces: Sequence[np.ndarray], labelings: Sequence[np.ndarray], n_folds: int) -> int:
        return _choose(spaces, labelings, n_folds, mistake)

    return choose


_TWO_SPACES, _FOUR = _labelings()

EXERCISES = (
    Exercise(
        id="04.1",
        title="One loss, two gradients",
        cases=[(_TASK_LOGITS, _LOGITS), (_TASK_LOGITS[:2, :2], _LOGITS[2:, 1:])],
        reference=_gradients,
        mistakes={
            "The first gradient has the wrong sign: where the classifier gives a class too much probability, its logit "
            "has to come down, so the gradient there is positive.": (
                lambda task_logits, logits: (
                    -_gradients(task_logits, logits)[0],
                    _gradients(task_logits, logits)[1],
                )
            ),
            "The second gradient has the wrong sign: this is the direction in which the logits move; the gradient is "
            "its opposite.": (
                lambda task_logits, logits: (
                    _gradients(task_logits, logits)[0],
                    -_gradients(task_logits, logits)[1],
                )
            ),
            "The second is the gradient with respect to the labeling, not to the task encoder's logits. The softmax "
            "lies between them.": _grad_of_labeling,
            "The probabilities of an image sum to one: more for one cluster is less for the others. Subtract the "
            "average price that the image pays now.": (
                lambda task_logits, logits: _other_average(task_logits, logits, lambda price: 0.0)
            ),
            "You subtract the plain mean of the prices. An image pays each price with the probability that it gives "
            "to the cluster: weight the prices by the labeling.": (
                lambda task_logits, logits: _other_average(
                    task_logits, logits, lambda price: price.mean(axis=1, keepdims=True)
                )
            ),
            "The second is the gradient of KL(τ ‖ p), which holds log τ as well. The loss is the cross-entropy: the "
            "price is −log p alone.": _grad_of_kl,
            "Both losses are means over n images, so each image counts 1/n: divide by len(logits).": (
                lambda task_logits, logits: tuple(len(logits) * grad for grad in _gradients(task_logits, logits))
            ),
            "The classes of one image stand in a row: take every softmax along axis 1.": _along_images,
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
            "back through them. Leave the labeling attached inside the loop.": (
                lambda task_logits, features, n_inner, lr: _hypergradients(
                    task_logits, features, n_inner, lr, inner_detached=True
                )
            ),
            "Your first-order gradient is the exact one: the trained classifier still depends on the labeling. Detach "
            "its weight before the outer loss.": (
                lambda task_logits, features, n_inner, lr: _hypergradients(
                    task_logits, features, n_inner, lr, held_fixed=False
                )
            ),
            "The labeling is detached in the outer loss. What is left is the indirect part alone; the loss also "
            "depends on the labeling directly.": (
                lambda task_logits, features, n_inner, lr: _hypergradients(
                    task_logits, features, n_inner, lr, outer_detached=True
                )
            ),
            "The two are in the wrong order: return the first-order gradient, then the exact one.": (
                lambda task_logits, features, n_inner, lr: _hypergradients(task_logits, features, n_inner, lr)[::-1]
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
            "labeling.detach().": _mistaken("no stop-gradient"),
            "The entropy has the wrong sign: the loss to minimize is cross-entropy − γ · entropy. Yours empties "
            "clusters.": _mistaken("entropy sign"),
            "You take the entropy of every image and average it, which rewards undecided images. Take the entropy of "
            "the mean over the images, probs.mean(0).": _mistaken("per image"),
            "The labeling is the mean over the spaces, not the sum: divide by the number of spaces.": _mistaken("sum"),
            "The entropy is one of each space's own τ_k, summed over the spaces; yours is that of their mean τ.": (
                _mistaken("entropy of the mean over spaces")
            ),
            "Each classifier learns its own space's τ_k. All of them learn the one labeling τ, the mean over the "
            "spaces: that is what joins the spaces.": _mistaken("own labeling"),
            "The classifiers take one inner step, whatever n_inner is.": _mistaken("one step"),
            "The encoders go uphill: subtract lr times the gradient.": _mistaken("uphill"),
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
            "A labeling that lost a cluster is easy to predict and won. Only labelings with the most clusters may be "
            "chosen.": _chosen_wrongly("no guard"),
            "You count clusters by the largest number, which misses an empty cluster in between. Count the different "
            "labels: len(set(labels)).": _chosen_wrongly("largest"),
            "You score the classifier on the samples that it was trained on, where random labels can be fitted too. "
            "Use cross_val_score.": _chosen_wrongly("same samples"),
            "You score in the first space only. Average the score over all spaces.": _chosen_wrongly("first space"),
        },
        hints=(
            "Two steps: which labelings may be chosen at all, and which of them is predicted best?",
            "cross_val_score(LogisticRegression(), space, labels, cv=n_folds).mean() is the score in one space.",
            "np.where(n_found == n_found.max(), scores, -1).argmax(), with n_found the number of different labels of "
            "each labeling and scores the means over the spaces.",
        ),
        difficulty=3,
        importance=5,
        minutes=12,
        observe=_in_one_thread,
    ),
)
