"""The exercises of notebook 06 are MUST: their references, put together, take the trainer's steps."""

from __future__ import annotations

import open_clip
import pytest
import torch

from labkit.course.exercises import get
from labkit.must import MaskedClassifier, MustConfig, State, Trainer, new_state, parameter_groups
from tests import tiny

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_references_take_the_steps_of_the_trainer(momentum: float) -> None:
    config = tiny.config(fairness_momentum=momentum, threshold=0.6, fairness_weight=2.0, lr=3.2)
    trainer = Trainer(state(config), config, MEAN, STD, steps_per_epoch=6)
    by_hand, past, kept = state(config), None, []
    for step in range(3):
        weak, strong = views(2 * step), views(2 * step + 1)
        masked = trainer.masks()
        for group in by_hand.optimizer.param_groups:
            group["lr"] = config.lr_at(step / 12) * group["lr_scale"]
        pixels = [trainer.normalize(images) for images in (weak, strong)]
        losses, past = get("06.3").reference(by_hand.student, by_hand.teacher, *pixels, masked, past, config)
        seen = trainer.step(weak, strong)
        total = sum(losses.values())
        assert torch.allclose(total, seen["loss"], atol=1e-5)
        kept.append(seen["kept"].item())
        # the decay of a batch of 1,024, as the settings give it; it grows over the first steps
        decay = config.ema_decay_at(step) ** (1024 / config.batch_size)
        get("06.4").reference(by_hand, total, decay, config.batch_size)
        assert torch.allclose(past, trainer.state.moving_mean, atol=1e-5)
    assert 0 < kept[0] < 1
    for part in ("student", "teacher"):
        pairs = zip(getattr(by_hand, part).parameters(), getattr(trainer.state, part).parameters(), strict=True)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


def test_the_reference_losses_are_those_of_labkit() -> None:
    from labkit.must import fairness_loss, pseudo_labels, self_training_loss

    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 32, 5, generator=generator)
    ours = get("06.1").reference(student, teacher, 0.5)
    assert torch.allclose(ours, self_training_loss(student, *pseudo_labels(teacher, 0.5)), atol=1e-5)
    probs = student.softmax(1)
    assert torch.allclose(get("06.2").reference(probs, None, 0.0)[0], fairness_loss(probs.mean(0)), atol=1e-5)


def state(config: MustConfig) -> State:
    torch.manual_seed(0)
    visual = open_clip.CLIP(16, tiny.VISION, tiny.TEXT).visual
    fresh = new_state(MaskedClassifier(visual, torch.randn(3, 16), 3.0), config)
    # not AdamW, whose first steps have one length for all gradients, also for those that are only rounding errors
    fresh.optimizer = torch.optim.SGD(parameter_groups(fresh.student, config), lr=config.peak_lr)  # type: ignore[assignment]
    return fresh


def views(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)
