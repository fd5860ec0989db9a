"""Exercises of notebook 06, masked self-training."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.course.exercises import TODO, Exercise
from labkit.must import losses
from labkit.must.config import PUBLISHED_BATCH
from labkit.must.model import Output

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


def _fairness(
    probs: Tensor,
    past_mean: Tensor | None,
    momentum: float,
    *,
    of: Callable[[Tensor], Tensor] = losses.fairness_loss,
    swap: bool = False,
    detach: bool = True,
    rescale: bool = True,
) -> tuple[Tensor, Tensor]:
    mean = probs.mean(0)
    if past_mean is not None:
        share = 1 - momentum if swap else momentum
        mean = share * (past_mean.detach() if detach else past_mean) + (1 - share) * mean
    return of(mean) / (1 - momentum if rescale else 1), mean.detach()


def _fairness_of_each(probs: Tensor, past_mean: Tensor | None, momentum: float) -> tuple[Tensor, Tensor]:
    _, mean = _fairness(probs, past_mean, momentum)
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


# ---------------------------------------------------------------------------------------------- 06.3 losses of a step


class _Network(nn.Module):
    """What `lk.must.MaskedClassifier` gives, from a network of 2 x 2 patches that fits into a check."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch_state = torch.get_rng_state()
        torch.manual_seed(seed)
        self.embed, self.head, self.decoder = nn.Linear(12, 4), nn.Linear(4, 3), nn.Linear(4, 12)
        self.mask_token = nn.Parameter(torch.randn(4))
        self.head.weight.data *= 3
        torch.set_rng_state(torch_state)  # a check leaves the learner's random numbers as they were

    def forward(self, images: Tensor, masked: Tensor | None = None) -> Output:
        tokens = self.embed(F.pixel_unshuffle(images, 2).flatten(2).transpose(1, 2))  # (B, 4, 4)
        if masked is not None:
            tokens = torch.where(masked[..., None], self.mask_token, tokens)
        embedding = tokens.mean(1)
        if masked is None:
            return Output(self.head(embedding), embedding)
        patches = tokens + embedding[:, None]
        pixels = self.decoder(patches).transpose(1, 2).unflatten(2, (2, 2))
        return Output(self.head(embedding), embedding, patches, F.pixel_shuffle(pixels, 2))

    def __repr__(self) -> str:
        return "a network"


def _batch(seed: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Weak views, strong views and masks."""
    generator = torch.Generator().manual_seed(seed)
    weak = torch.randn(n, 3, 4, 4, generator=generator)
    strong = weak + 0.7 * torch.randn(n, 3, 4, 4, generator=generator)
    return weak, strong, torch.rand(n, 4, generator=generator).argsort(1) < 2


_CONFIG = SimpleNamespace(threshold=0.5, fairness_weight=2.0, alignment_weight=0.3, fairness_momentum=0.5)


def _step_losses(
    student: nn.Module,
    teacher: nn.Module,
    weak: Tensor,
    strong: Tensor,
    masked: Tensor,
    past_mean: Tensor | None,
    config: Any,
    *,
    wrong: Literal["", "soft", "confident student", "teacher view", "batch", "pixels", "patches", "weights"] = "",
) -> tuple[dict[str, Tensor], Tensor]:
    """The four weighted losses of a step, and the moving mean of the predictions; `wrong` makes one mistake."""
    output = student(strong, masked)
    logits = teacher(strong if wrong == "teacher view" else weak).logits
    labels, kept = losses.pseudo_labels(logits.detach(), config.threshold)
    if wrong == "confident student":
        _, kept = losses.pseudo_labels(output.logits.detach(), config.threshold)
    targets = logits.softmax(1) if wrong == "soft" else labels
    errors = F.cross_entropy(output.logits, targets, reduction="none")
    past = None if wrong == "batch" else past_mean
    fairness, mean = _fairness(output.logits.softmax(1), past, config.fairness_momentum)
    everywhere = torch.ones_like(masked)
    found = {
        "self_training": (errors * kept).sum() / kept.sum().clamp_min(1),
        "fairness": fairness,
        "masked_image": losses.masked_image_loss(
            output.reconstruction, strong, everywhere if wrong == "pixels" else masked
        ),
        "alignment": losses.alignment_loss(
            output.patches, output.embedding, everywhere if wrong == "patches" else masked
        ),
    }
    weight = {} if wrong == "weights" else {"fairness": config.fairness_weight, "alignment": config.alignment_weight}
    return {name: weight.get(name, 1.0) * loss for name, loss in found.items()}, mean


def _wrong(what: Any) -> Callable[..., Any]:
    return lambda *case: _step_losses(*case, wrong=what)


def _losses_observed(step_losses: Callable[..., Any]) -> Callable[..., Any]:
    """The four losses, the mean that is handed on, and the gradient of their sum in both networks."""

    def observed(student: nn.Module, teacher: nn.Module, *rest: Any) -> Any:
        answer = step_losses(student, teacher, *rest)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            return answer
        terms, mean = answer
        sum(terms.values()).backward()
        gradients = {
            name: [torch.zeros_like(p).tolist() if p.grad is None else p.grad.tolist() for p in network.parameters()]
            for name, network in (("student", student), ("teacher", teacher))
        }
        return {
            "losses": {name: torch.as_tensor(loss).item() for name, loss in terms.items()},
            "mean": mean.tolist(),
        } | gradients

    return observed


# ---------------------------------------------------------------------------------------------- 06.4 update of a step


class _Loss:
    """A loss that is recomputed at each step."""

    def __call__(self, student: nn.Module) -> Tensor:
        return (student(torch.tensor([[1.0, 2.0], [-1.0, 0.5]])) - 1).square().mean()

    def __repr__(self) -> str:
        return "the loss of a batch, with its graph"


def _state() -> Any:
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    student.weight.data[:], student.bias.data[:] = torch.tensor([[2.0, -1.0], [0.5, 1.0]]), torch.tensor([1.0, -2.0])
    teacher.weight.data[:], teacher.bias.data[:] = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([3.0, 0.0])
    return SimpleNamespace(student=student, teacher=teacher, optimizer=torch.optim.SGD(student.parameters(), lr=0.1))


def _after_two_steps(step_update: Callable[..., Any]) -> Callable[..., Any]:
    """What two steps leave: teacher, student, whether the teacher has a history of gradients."""

    def after(state: Any, loss: _Loss, decay: float, batch_size: int) -> Any:
        for _ in range(2):
            if step_update(state, loss(state.student), decay, batch_size) is TODO:
                return TODO
        teacher, student = list(state.teacher.parameters()), list(state.student.parameters())
        moved = {"teacher": [p.tolist() for p in teacher], "student": [p.tolist() for p in student]}
        return moved | {"has a history": any(p.requires_grad for p in teacher)}

    return after


def _update(
    ema: Callable[[Tensor, Tensor, float], object] = lambda slow, fast, d: slow.mul_(d).add_((1 - d) * fast.detach()),
    *,
    scale: Callable[[float, float], float] = lambda decay, share: decay**share,
    clear: bool = True,
    teacher_first: bool = False,
) -> Callable[..., Any]:
    """One step of the optimizer and the EMA update of the teacher; each argument can make a mistake."""

    def step_update(state: Any, loss: Tensor, decay: float, batch_size: int) -> None:
        def ema_update() -> None:
            for slow, fast in zip(state.teacher.parameters(), state.student.parameters(), strict=True):
                ema(slow, fast, scale(decay, batch_size / PUBLISHED_BATCH))

        if clear:
            state.optimizer.zero_grad()
        loss.backward()
        if teacher_first:
            ema_update()
        state.optimizer.step()
        if not teacher_first:
            ema_update()

    return step_update


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
        reference=_fairness,
        mistakes={
            "You used the mean of this batch alone. From the second step on, mix it with the moving mean.": (
                lambda probs, past_mean, momentum: _fairness(probs, None, momentum)
            ),
            "You swapped the weights: the past keeps the share `momentum`, the batch gets the rest.": (
                lambda *case: _fairness(*case, swap=True)
            ),
            "The loss is not divided by 1 - momentum, so the gradient that reaches the batch shrinks with the "
            "momentum.": lambda *case: _fairness(*case, rescale=False),
            "A gradient flows into the past. The mean of the earlier steps is a constant: detach it.": (
                lambda *case: _fairness(*case, detach=False)
            ),
            "You took the logarithm before the mean over the images. That asks every *single* prediction to be "
            "undecided. Average over the images first.": _fairness_of_each,
            "This is minus the entropy of the mean, as in TURTLE. Here every class counts the same: leave out the "
            "factor in front of the logarithm, and take the mean over the classes.": (
                lambda *case: _fairness(*case, of=lambda mean: (mean * mean.log()).sum())
            ),
            "You summed over the classes. Take the mean over them: the factor 1/C.": (
                lambda *case: _fairness(*case, of=lambda mean: -mean.log().sum())
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
        observe=_losses_observed,
        cases=[
            (_Network(0), _Network(1), *_batch(0), torch.tensor([0.2, 0.5, 0.3]), _CONFIG),
            (_Network(2), _Network(3), *_batch(1), torch.tensor([0.6, 0.1, 0.3]), _CONFIG),
            (_Network(2), _Network(3), *_batch(2), None, _CONFIG),
        ],
        reference=_step_losses,
        mistakes={
            "A gradient flows into the teacher: you trained on its probabilities. Take its labels, under "
            "torch.no_grad().": _wrong("soft"),
            "The threshold is on the wrong view: which labels are kept is decided by the teacher's confidence on the "
            "weak view, not by the student's.": _wrong("confident student"),
            "Your teacher sees the strong view. It predicts the labels from the weak one.": _wrong("teacher view"),
            "Your fairness loss uses this batch alone. Mix the batch's mean with past_mean, as in 06.2.": (
                _wrong("batch")
            ),
            "Your masked-image loss counts all patches. Only masked ones should: visible ones could be copied.": (
                _wrong("pixels")
            ),
            "Your alignment loss counts all patches. Only masked ones should count.": _wrong("patches"),
            "The weights are missing: config.fairness_weight and config.alignment_weight.": _wrong("weights"),
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
        observe=_after_two_steps,
        cases=[(_state(), _Loss(), 0.9, 1024), (_state(), _Loss(), 0.25, 512), (_state(), _Loss(), 0.9, 4096)],
        reference=_update(),
        mistakes={
            "The weights of the EMA are swapped: the teacher keeps `decay` times its old value and adds 1 - decay "
            "times the student's.": _update(lambda slow, fast, d: slow.mul_(1 - d).add_(d * fast.detach())),
            "The decay is meant for batches of 1,024: convert it to `batch_size` with a power.": (
                _update(scale=lambda decay, share: decay)
            ),
            "You scaled the decay in proportion. With smaller batches the teacher would then forget faster; it should "
            "forget *less* at each step, as there are more steps.": _update(scale=lambda decay, share: decay * share),
            "Your exponent is inverted. Two batches of 512 make one of 1,024: each gets the exponent *one half*.": (
                _update(scale=lambda decay, share: decay ** (1 / share))
            ),
            "The gradient of the previous step was still there and was added in: call zero_grad() before backward().": (
                _update(clear=False)
            ),
            "You moved the teacher before the student. It should move toward the student *after* the step.": (
                _update(teacher_first=True)
            ),
            "Your teacher has a gradient history: every step would keep the previous student in memory. Work under "
            "torch.no_grad().": _update(lambda slow, fast, d: slow.mul_(d).add_((1 - d) * fast)),
            "The teacher has not moved. `slow = ...` only binds the name to a new tensor: change the values in place, "
            "as with slow.mul_(...).": _update(lambda slow, fast, d: d * slow + (1 - d) * fast),
            "You moved the student toward the teacher. The EMA update moves the teacher.": (
                _update(lambda slow, fast, d: fast.data.mul_(1 - d).add_(d * slow))
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
