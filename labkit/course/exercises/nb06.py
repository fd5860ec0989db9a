"""Exercises of notebook 06, masked self-training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from labkit.course.exercises import TODO, Exercise

# Large logits in the first row and small ones in the third: in neither is a class probable.
_LOGITS = np.array([[6.0, 5.8, 5.7, 1.0], [0.2, 2.5, -1.0, -2.0], [0.6, 0.5, 0.4, 0.3], [-3.0, -4.0, 1.5, -2.0]])
_STUDENT = torch.tensor(  # (B, C)
    [[2.0, 0.0, -1.0], [0.5, 0.4, 0.0], [-1.0, 0.0, 3.0], [0.0, 1.0, 1.0], [1.0, -2.0, 0.0]], requires_grad=True
)
_LABELS = torch.tensor([0, 2, 2, 1, 1])
_SOME = torch.tensor([True, False, True, True, False])

_UNEVEN = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])  # (B, C)
_COLLAPSED = np.tile([0.98, 0.01, 0.01], (4, 1))
_SURE_AND_EQUAL = np.eye(3)[[0, 1, 2]] * 0.94 + 0.02

_SLOW = [torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([3.0])]  # the parameters of a teacher
_FAST = [torch.tensor([[2.0, 2.0], [-1.0, 0.0]], requires_grad=True), torch.tensor([-1.0], requires_grad=True)]


def _pseudo_labels(logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    probs = softmax(logits, axis=1)
    return probs.argmax(axis=1), probs.max(axis=1) > threshold


def _over_the_pictures(logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    probs = softmax(logits, axis=0)
    return probs.argmax(axis=1), probs.max(axis=1) > threshold


def _with_gradient(loss_of: Callable[..., Any]) -> Callable[..., Any]:
    """A loss (of logits, labels, kept) that gives its gradient in the logits, too; what is not written stays so."""

    def both(logits: Tensor, labels: Tensor, kept: Tensor) -> Any:
        loss = loss_of(logits, labels, kept)
        if loss is TODO or loss is None:
            return loss
        whole = loss + 0 * logits.sum()  # so that a plain 0 has a gradient, too
        return {"loss": whole.item(), "gradient": torch.autograd.grad(whole, logits)[0].numpy()}

    return both


def _after_two_steps(follow: Callable[..., Any]) -> Callable[..., Any]:
    """What two steps of a teacher leave: teacher, student, whether the teacher has a history of gradients."""

    def after(teacher: list[Tensor], student: list[Tensor], decay: float) -> Any:
        for _ in range(2):
            if follow(list(teacher), list(student), decay) is TODO:  # a new tensor in a list moves no network
                return TODO
        moved = [p.tolist() for p in teacher], [p.tolist() for p in student]
        return {"teacher": moved[0], "student": moved[1], "has a history": any(p.requires_grad for p in teacher)}

    return after


def _loss(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """A loss of the errors (B,) and of which are kept (B,)."""
    errors = torch.nn.functional.cross_entropy
    return lambda logits, labels, kept: of(errors(logits, labels, reduction="none"), kept)


def _steps(move: Callable[[Tensor, Tensor, float], object]) -> Callable[..., Any]:
    """A step that changes one tensor of the teacher after the other."""

    def follow(teacher: list[Tensor], student: list[Tensor], decay: float) -> None:
        for slow, fast in zip(teacher, student, strict=True):
            move(slow, fast, decay)

    return follow


EXERCISES = (
    Exercise(
        id="06.1",
        title="Which answers to believe",
        cases=[(_LOGITS, 0.7), (_LOGITS, 0.3)],
        reference=_pseudo_labels,
        mistakes={
            "You compared logits with the threshold. A logit has no upper end: turn every row into probabilities "
            "first.": lambda logits, threshold: (logits.argmax(axis=1), logits.max(axis=1) > threshold),
            "Your softmax runs over the pictures. The classes compete for one picture: take it along axis 1.": (
                _over_the_pictures
            ),
            "You kept the answers that the teacher is unsure of. Keep those *above* the threshold.": (
                lambda logits, threshold: (logits.argmax(axis=1), softmax(logits, axis=1).max(axis=1) <= threshold)
            ),
        },
        hints=(
            "Two arrays of length B: which class is the most probable, and whether its probability is high enough.",
            "softmax(logits, axis=1) gives probabilities (B, C). One row is one picture.",
            "return probs.argmax(axis=1), probs.max(axis=1) > threshold",
        ),
        difficulty=1,
        importance=5,
        minutes=5,
    ),
    Exercise(
        id="06.2",
        title="The loss of self-training, even of nothing",
        observe=_with_gradient,
        cases=[
            (_STUDENT, _LABELS, _SOME),
            (_STUDENT, _LABELS, torch.zeros(5, dtype=torch.bool)),
            (_STUDENT, _LABELS, torch.ones(5, dtype=torch.bool)),
        ],
        reference=_loss(lambda errors, kept: (errors * kept).sum() / kept.sum().clamp_min(1)),
        mistakes={
            "Right, until no label is kept: then you take the mean of nothing, which is nan. It should be 0.": (
                _loss(lambda errors, kept: errors[kept].mean())
            ),
            "Right, until no label is kept: then you divide 0 by 0. Keep the denominator away from 0.": (
                _loss(lambda errors, kept: (errors * kept).sum() / kept.sum())
            ),
            "The loss is right, but its gradient is nan when no label is kept: 0/0 was computed and then replaced. "
            "Never divide by 0, rather than repair what comes out.": (
                _loss(lambda errors, kept: ((errors * kept).sum() / kept.sum()).nan_to_num())
            ),
            "You divided by the number of all pictures. Divide by the number of those that are kept.": (
                _loss(lambda errors, kept: (errors * kept).mean())
            ),
            "You used every label. Those that are not kept must not count.": (
                _loss(lambda errors, kept: errors.mean())
            ),
        },
        hints=(
            "The error of one picture is minus the log-probability of its pseudo-label. Average it over the kept ones.",
            'errors = torch.nn.functional.cross_entropy(logits, labels, reduction="none") are all of them, (B,).',
            "Multiply the errors by kept, add up, and divide by kept.sum().clamp_min(1): never by 0.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="06.3",
        title="Fair to all classes",
        cases=[(_UNEVEN,), (_COLLAPSED,), (_SURE_AND_EQUAL,)],
        reference=lambda probs: float(-np.log(probs.mean(axis=0)).mean()),
        mistakes={
            "You took the logarithm before the mean over the pictures. That asks every *single* picture to be "
            "undecided. Average the pictures first.": lambda probs: float(-np.log(probs).mean()),
            "This is minus the entropy of the mean, as TURTLE has it. Here every class counts the same: leave out the "
            "factor in front of the logarithm, and take the mean.": (
                lambda probs: float((probs.mean(axis=0) * np.log(probs.mean(axis=0))).sum())
            ),
            "You added the classes up. Take the mean over them: -(1/C) times the sum.": (
                lambda probs: float(-np.log(probs.mean(axis=0)).sum())
            ),
        },
        hints=(
            "First ask how often each class is said in this batch, with all its doubts counted.",
            "probs.mean(axis=0) is that share, (C,). Each class pays minus the logarithm of its share.",
            "-np.log(share).mean(): the mean over the classes, not the sum.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="06.4",
        title="The teacher follows",
        observe=_after_two_steps,
        cases=[(_SLOW, _FAST, 0.9), (_SLOW, _FAST, 0.25)],
        reference=_steps(lambda slow, fast, decay: slow.mul_(decay).add_((1 - decay) * fast.detach())),
        mistakes={
            "Your teacher has a gradient history: every step would keep the whole student before it in memory. Work "
            "under torch.no_grad().": _steps(lambda slow, fast, decay: slow.mul_(decay).add_((1 - decay) * fast)),
            "The teacher has not moved. `slow = ...` only gives the name to a new tensor: change its numbers in place, "
            "as with slow.mul_(...).": _steps(lambda slow, fast, decay: decay * slow + (1 - decay) * fast),
            "The wrong way round: the teacher keeps the share `decay` of itself and takes 1 - decay of the student.": (
                _steps(lambda slow, fast, decay: slow.mul_(1 - decay).add_(decay * fast.detach()))
            ),
            "The student is added whole. Its weight is 1 - decay, so that both weights add up to 1.": (
                _steps(lambda slow, fast, decay: slow.mul_(decay).add_(fast.detach()))
            ),
            "That copies the student. The teacher keeps the share `decay` of itself.": (
                _steps(lambda slow, fast, decay: slow.copy_(fast.detach()))
            ),
            "You moved the student. It is the teacher that follows.": (
                _steps(lambda slow, fast, decay: fast.data.mul_(1 - decay).add_(decay * slow))
            ),
        },
        hints=(
            "Go through both lists together. Of each pair only the teacher's tensor changes; nothing needs a gradient.",
            "In-place methods end in _: slow.mul_(a) multiplies the numbers of slow by a, slow.add_(b) adds b to them.",
            "Under torch.no_grad(): slow.mul_(decay).add_((1 - decay) * fast), for each pair of the two lists.",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="06.5",
        title="The same memory with another batch",
        cases=[(0.9, 256), (0.5, 512), (0.99, 4096), (0.9, 1024)],
        reference=lambda decay, batch_size: decay ** (batch_size / 1024),
        mistakes={
            "You scaled the decay itself. Smaller batches would then forget faster; they have to forget *less* at each "
            "step, because they take more steps.": lambda decay, batch_size: decay * batch_size / 1024,
            "You scaled what is forgotten, 1 - decay. That is nearly right for decays near 1 and small batches, but "
            "forgetting is repeated, and repeating is a power.": (
                lambda decay, batch_size: 1 - (1 - decay) * batch_size / 1024
            ),
            "Your exponent is turned round. Four batches of 256 make one of 1,024: each has a *fourth* as exponent.": (
                lambda decay, batch_size: decay ** (1024 / batch_size)
            ),
        },
        hints=(
            "How many steps with the small batch see as many pictures as one step with 1,024?",
            "After k steps with decay d, the share d**k of the old teacher is left. It should equal `decay` when "
            "k = 1024 / batch_size.",
            "Solve d ** (1024 / batch_size) = decay for d.",
        ),
        difficulty=2,
        importance=4,
        minutes=6,
    ),
)
