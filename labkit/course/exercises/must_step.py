"""One step of MUST for exercises 06.2 to 06.4: tiny networks, references, and what an attempt leaves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.course.exercises import TODO
from labkit.must import losses
from labkit.must.config import PUBLISHED_BATCH
from labkit.must.model import Output


def fair_loss(
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


# ---------------------------------------------------------------------------------------------- 06.3 losses of a step


class Network(nn.Module):
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


def views_and_masks(seed: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Weak views, strong views and masks."""
    generator = torch.Generator().manual_seed(seed)
    weak = torch.randn(n, 3, 4, 4, generator=generator)
    strong = weak + 0.7 * torch.randn(n, 3, 4, 4, generator=generator)
    return weak, strong, torch.rand(n, 4, generator=generator).argsort(1) < 2


CONFIG = SimpleNamespace(threshold=0.5, fairness_weight=2.0, alignment_weight=0.3, fairness_momentum=0.5)


def step_losses(
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
    fairness, mean = fair_loss(output.logits.softmax(1), past, config.fairness_momentum)
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


def mistaken_losses(what: Any) -> Callable[..., Any]:
    return lambda *case: step_losses(*case, wrong=what)


def losses_observed(step_losses: Callable[..., Any]) -> Callable[..., Any]:
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


class BatchLoss:
    """A loss that is recomputed at each step."""

    def __call__(self, student: nn.Module) -> Tensor:
        return (student(torch.tensor([[1.0, 2.0], [-1.0, 0.5]])) - 1).square().mean()

    def __repr__(self) -> str:
        return "the loss of a batch, with its graph"


def tiny_state() -> Any:
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    student.weight.data[:], student.bias.data[:] = torch.tensor([[2.0, -1.0], [0.5, 1.0]]), torch.tensor([1.0, -2.0])
    teacher.weight.data[:], teacher.bias.data[:] = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([3.0, 0.0])
    return SimpleNamespace(student=student, teacher=teacher, optimizer=torch.optim.SGD(student.parameters(), lr=0.1))


def after_two_steps(step_update: Callable[..., Any]) -> Callable[..., Any]:
    """What two steps leave: teacher, student, whether the teacher has a history of gradients."""

    def after(state: Any, loss: BatchLoss, decay: float, batch_size: int) -> Any:
        for _ in range(2):
            if step_update(state, loss(state.student), decay, batch_size) is TODO:
                return TODO
        teacher, student = list(state.teacher.parameters()), list(state.student.parameters())
        moved = {"teacher": [p.tolist() for p in teacher], "student": [p.tolist() for p in student]}
        return moved | {"has a history": any(p.requires_grad for p in teacher)}

    return after


def step_update_with(
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
