"""Exercises of notebook 06, masked self-training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.course.exercises import TODO, Exercise
from labkit.course.exercises.must_step import (
    CONFIG,
    BatchLoss,
    Network,
    after_two_steps,
    fair_loss,
    losses_observed,
    mistaken_losses,
    step_losses,
    step_update_with,
    tiny_state,
    views_and_masks,
)
from labkit.must import losses

# ------------------------------------------------------------------------------------------- 06.1 self-training loss

# Large logits in the first row, which is undecided all the same; the last row is the one least like the student's.
_TEACHER = torch.tensor(
    [[6.0, 5.8, 5.7], [0.2, 3.5, -1.0], [0.6, 0.5, 0.4], [-3.0, -4.0, 1.5], [2.5, 0.0, 0.0]], requires_grad=True
)
_STUDENT = torch.tensor(  # (B, C)
    [[2.0, 0.0, -1.0], [0.5, 0.4, 0.0], [-1.0, 0.0, 3.0], [0.0, 1.0, 1.0], [1.0, -2.0, 0.0]], requires_grad=True
)


def _self_training(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """A loss computed from the errors (B,) and from which pseudo-labels are kept (B,)."""

    def loss(student_logits: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
        labels, kept = losses.pseudo_labels(teacher_logits.detach(), threshold)
        return of(F.cross_entropy(student_logits, labels, reduction="none"), kept)

    return loss


def _with_gradients(loss_of: Callable[..., Any]) -> Callable[..., Any]:
    """The loss of a function of both logits and a threshold, with its gradients; what is not written stays so."""

    def observed(student_logits: Tensor, teacher_logits: Tensor, threshold: float) -> Any:
        loss = loss_of(student_logits, teacher_logits, threshold)
        return (
            loss if loss is TODO or loss is None else _gradients(loss, student=student_logits, teacher=teacher_logits)
        )

    return observed


def _gradients(loss: Any, **inputs: Tensor) -> dict[str, Any]:
    """A loss and its gradient in each of its inputs, by name; 0 where it does not depend on them."""
    connected = loss + sum(0 * value.sum() for value in inputs.values())  # so that a plain 0 has a gradient, too
    found = torch.autograd.grad(connected, tuple(inputs.values()))
    return {"loss": connected.item()} | {
        f"gradient in {name}": g.tolist() for name, g in zip(inputs, found, strict=True)
    }


def _kept_by_logits(student_logits: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
    best, labels = teacher_logits.detach().max(1)
    return losses.self_training_loss(student_logits, labels, best > threshold)


def _kept_by_student(student_logits: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
    labels, _ = losses.pseudo_labels(teacher_logits.detach(), threshold)
    _, kept = losses.pseudo_labels(student_logits.detach(), threshold)
    return losses.self_training_loss(student_logits, labels, kept)


def _soft_labels(student_logits: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
    probs = teacher_logits.softmax(1)
    kept = probs.max(1).values > threshold
    return (F.cross_entropy(student_logits, probs, reduction="none") * kept).sum() / kept.sum().clamp_min(1)


# ------------------------------------------------------------------------------------------------- 06.2 fairness loss

_UNEVEN = torch.tensor([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]], requires_grad=True)
_COLLAPSED = torch.tensor([[0.98, 0.01, 0.01]] * 4, requires_grad=True)
_PAST = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)


def _fairness_of_each(probs: Tensor, past_mean: Tensor | None, momentum: float) -> tuple[Tensor, Tensor]:
    _, mean = fair_loss(probs, past_mean, momentum)
    return -probs.log().mean() / (1 - momentum), mean


def _fairness_observed(fairness: Callable[..., Any]) -> Callable[..., Any]:
    """The loss, its gradients, and the mean that is handed on."""

    def observed(probs: Tensor, past_mean: Tensor | None, momentum: float) -> Any:
        answer = fairness(probs, past_mean, momentum)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            return answer
        inputs = {"probs": probs} if past_mean is None else {"probs": probs, "past_mean": past_mean}
        return _gradients(answer[0], **inputs) | {"mean": answer[1].tolist()}

    return observed


EXERCISES = (
    Exercise(
        id="06.1",
        title="The self-training loss, even when nothing is kept",
        observe=_with_gradients,
        cases=[(_STUDENT, _TEACHER, 0.7), (_STUDENT, _TEACHER, 0.99), (_STUDENT, _TEACHER, 0.2)],
        reference=_self_training(lambda errors, kept: (errors * kept).sum() / kept.sum().clamp_min(1)),
        mistakes={
            "You compared logits with the threshold. A logit has no upper limit: apply the softmax over the classes "
            "first.": _kept_by_logits,
            "You thresholded the student's confidence on the strong view. Which labels are kept is decided by the "
            "teacher's confidence on the weak view.": _kept_by_student,
            "You used the teacher's probabilities as targets, and a gradient flows into the teacher. A pseudo-label is "
            "one class, the argmax, and the teacher gets no gradient.": _soft_labels,
            "Right, unless no label is kept: then you take the mean of an empty set, which is nan. It should be 0.": (
                _self_training(lambda errors, kept: errors[kept].mean())
            ),
            "Right, unless no label is kept: then you divide 0 by 0. Keep the denominator away from 0.": (
                _self_training(lambda errors, kept: (errors * kept).sum() / kept.sum())
            ),
            "The loss is right, but its gradient is nan when no label is kept: 0/0 was computed and then replaced. "
            "Avoid the division by 0 instead of repairing its result.": (
                _self_training(lambda errors, kept: ((errors * kept).sum() / kept.sum()).nan_to_num())
            ),
            "You divided by the number of all images. Divide by the number of kept ones.": (
                _self_training(lambda errors, kept: (errors * kept).mean())
            ),
            "You used every label. Only the kept ones should count.": (
                _self_training(lambda errors, kept: errors.mean())
            ),
        },
        hints=(
            "Pseudo-labels first: the teacher's softmax gives a confidence and a class for each image. Then average "
            "the student's cross-entropy over the images whose confidence is above the threshold.",
            "confidence, labels = teacher_logits.detach().softmax(dim=1).max(dim=1), and "
            'errors = torch.nn.functional.cross_entropy(student_logits, labels, reduction="none").',
            "Multiply the errors by kept, sum, and divide by kept.sum().clamp_min(1): never by 0.",
        ),
        difficulty=2,
        importance=5,
        minutes=10,
    ),
    Exercise(
        id="06.2",
        title="The fairness loss and its moving mean",
        observe=_fairness_observed,
        cases=[(_UNEVEN, _PAST, 0.5), (_UNEVEN, _PAST, 0.8), (_COLLAPSED, None, 0.5), (_UNEVEN, None, 0.0)],
        reference=fair_loss,
        mistakes={
            "You used the mean of this batch alone. From the second step on, mix it with the moving mean.": (
                lambda probs, past_mean, momentum: fair_loss(probs, None, momentum)
            ),
            "You swapped the weights: the past keeps the share `momentum`, the batch gets the rest.": (
                lambda *case: fair_loss(*case, swap=True)
            ),
            "The loss is not divided by 1 - momentum, so the gradient that reaches the batch shrinks with the "
            "momentum.": lambda *case: fair_loss(*case, rescale=False),
            "A gradient flows into the past. The mean of the earlier steps is a constant: detach it.": (
                lambda *case: fair_loss(*case, detach=False)
            ),
            "You took the logarithm before the mean over the images. That asks every *single* prediction to be "
            "undecided. Average over the images first.": _fairness_of_each,
            "This is minus the entropy of the mean, as in TURTLE. Here every class counts the same: leave out the "
            "factor in front of the logarithm, and take the mean over the classes.": (
                lambda *case: fair_loss(*case, of=lambda mean: (mean * mean.log()).sum())
            ),
            "You summed over the classes. Take the mean over them: the factor 1/C.": (
                lambda *case: fair_loss(*case, of=lambda mean: -mean.log().sum())
            ),
        },
        hints=(
            "First the mean prediction of the batch, one share per class; then mix it with the past, if there is one; "
            "then the logarithms.",
            "mean = probs.mean(dim=0). Unless past_mean is None: mean = momentum * past_mean.detach() + (1 - momentum) "
            "* mean.",
            "return -mean.log().mean() / (1 - momentum), mean.detach()",
        ),
        difficulty=3,
        importance=5,
        minutes=12,
    ),
    Exercise(
        id="06.3",
        title="The four losses of one step",
        observe=losses_observed,
        cases=[
            (Network(0), Network(1), *views_and_masks(0), torch.tensor([0.2, 0.5, 0.3]), CONFIG),
            (Network(2), Network(3), *views_and_masks(1), torch.tensor([0.6, 0.1, 0.3]), CONFIG),
            (Network(2), Network(3), *views_and_masks(2), None, CONFIG),
        ],
        reference=step_losses,
        mistakes={
            "A gradient flows into the teacher: you trained on its probabilities. Take its labels, under "
            "torch.no_grad().": mistaken_losses("soft"),
            "The threshold is on the wrong view: which labels are kept is decided by the teacher's confidence on the "
            "weak view, not by the student's.": mistaken_losses("confident student"),
            "Your teacher sees the strong view. It predicts the labels from the weak one.": mistaken_losses(
                "teacher view"
            ),
            "Your fairness loss uses this batch alone. Mix the batch's mean with past_mean, as in 06.2.": (
                mistaken_losses("batch")
            ),
            "Your masked-image loss counts all patches. Only masked ones should: visible ones could be copied.": (
                mistaken_losses("pixels")
            ),
            "Your alignment loss counts all patches. Only masked ones should count.": mistaken_losses("patches"),
            "The weights are missing: config.fairness_weight and config.alignment_weight.": mistaken_losses("weights"),
        },
        hints=(
            "Run the teacher once on weak, without gradients, and the student once on strong with its masks. "
            "Everything else is computed from these two outputs.",
            "labels, kept = lk.must.pseudo_labels(teacher(weak).logits, config.threshold) under torch.no_grad(), and "
            "output = student(strong, masked).",
            "lk.must.self_training_loss(output.logits, labels, kept); your 06.2 on output.logits.softmax(1); "
            "lk.must.masked_image_loss(output.reconstruction, strong, masked); "
            "lk.must.alignment_loss(output.patches, output.embedding, masked); multiply two of them by their weights.",
        ),
        difficulty=4,
        importance=5,
        minutes=15,
    ),
    Exercise(
        id="06.4",
        title="Update the student, then the EMA teacher",
        observe=after_two_steps,
        cases=[
            (tiny_state(), BatchLoss(), 0.9, 1024),
            (tiny_state(), BatchLoss(), 0.25, 512),
            (tiny_state(), BatchLoss(), 0.9, 4096),
        ],
        reference=step_update_with(),
        mistakes={
            "The weights of the EMA are swapped: the teacher keeps `decay` times its old value and adds 1 - decay "
            "times the student's.": step_update_with(lambda slow, fast, d: slow.mul_(1 - d).add_(d * fast.detach())),
            "The decay is meant for batches of 1,024: convert it to `batch_size` with a power.": (
                step_update_with(scale=lambda decay, share: decay)
            ),
            "You scaled the decay in proportion. With smaller batches the teacher would then forget faster; it should "
            "forget *less* at each step, as there are more steps.": step_update_with(
                scale=lambda decay, share: decay * share
            ),
            "Your exponent is inverted. Two batches of 512 make one of 1,024: each gets the exponent *one half*.": (
                step_update_with(scale=lambda decay, share: decay ** (1 / share))
            ),
            "The gradient of the previous step was still there and was added in: call zero_grad() before backward().": (
                step_update_with(clear=False)
            ),
            "You moved the teacher before the student. It should move toward the student *after* the step.": (
                step_update_with(teacher_first=True)
            ),
            "Your teacher has a gradient history: every step would keep the previous student in memory. Work under "
            "torch.no_grad().": step_update_with(lambda slow, fast, d: slow.mul_(d).add_((1 - d) * fast)),
            "The teacher has not moved. `slow = ...` only binds the name to a new tensor: change the values in place, "
            "as with slow.mul_(...).": step_update_with(lambda slow, fast, d: d * slow + (1 - d) * fast),
            "You moved the student toward the teacher. The EMA update moves the teacher.": (
                step_update_with(lambda slow, fast, d: fast.data.mul_(1 - d).add_(d * slow))
            ),
        },
        hints=(
            "Three lines of ordinary PyTorch update the student; after them the teacher moves, tensor by tensor, in "
            "place and without gradients.",
            "state.optimizer.zero_grad(), loss.backward(), state.optimizer.step(). Then d = decay ** (batch_size / "
            "1024): 1024 / batch_size such steps then shrink the old teacher by `decay`.",
            "Under torch.no_grad(): slow.mul_(d).add_((1 - d) * fast) for each pair of "
            "zip(state.teacher.parameters(), state.student.parameters()).",
        ),
        difficulty=3,
        importance=5,
        minutes=12,
    ),
)
