"""labkit's MUST against the reference that was written from the equations: every loss, and whole steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from labkit.must import (
    MaskedClassifier,
    MustConfig,
    Trainer,
    alignment_loss,
    fairness_loss,
    masked_image_loss,
    new_state,
    pseudo_labels,
    self_training_loss,
)
from tests.oracle import must_reference as reference
from tests.oracle.must_reference import MustReference, Recipe

B, C, D, SIDE, PATCH = 6, 5, 7, 12, 4
N = (SIDE // PATCH) ** 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(loss: Tensor, inputs: list[Tensor], expected: float, gradients: list[np.ndarray]) -> None:
    """A loss of labkit and its gradients are those of the reference."""
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    for given, gradient in zip(inputs, gradients, strict=True):
        assert given.grad is not None
        np.testing.assert_allclose(given.grad.numpy(), gradient, rtol=0, atol=1e-7)
        assert np.abs(gradient).max() > 1e-4


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


# ------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.65])
def test_self_training(threshold: float) -> None:
    logits, teacher = 2 * random(B, C), 2 * random(B, C, seed=1)
    expected, gradient = reference.self_training(logits.numpy(), teacher.numpy(), threshold)
    given = leaf(logits)
    labels, kept = pseudo_labels(teacher, threshold)
    assert 0 < kept.sum() < B or threshold == 0
    agree(self_training_loss(given, labels, kept), [given], expected, [gradient])


@pytest.mark.parametrize("prior", [None, [0.4, 0.3, 0.2, 0.1, 0.0]])
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_fairness(memory: float, prior: list[float] | None) -> None:
    logits, before = 2 * random(B, C), random(C).softmax(0)
    shares = None if prior is None else np.array(prior)
    expected, gradient = reference.fairness(logits.numpy(), shares, before.numpy(), memory)
    given = leaf(logits)
    mean = memory * before + (1 - memory) * given.softmax(-1).mean(0)
    loss = fairness_loss(mean, None if prior is None else torch.tensor(shares)) / (1 - memory)
    agree(loss, [given], expected, [gradient])


def hide(seed: int = 0) -> Tensor:
    """Other numbers of masked patches in every image, none in the last."""
    masked = random(B, N, seed=seed) > 0.5
    masked[-1] = False
    return masked


def test_masked_image() -> None:
    guess, images, masked = random(B, 3, SIDE, SIDE), random(B, 3, SIDE, SIDE, seed=1), hide()
    expected, gradient = reference.masked_image(guess.numpy(), images.numpy(), masked.numpy(), PATCH)
    given = leaf(guess)
    agree(masked_image_loss(given, images, masked), [given], expected, [gradient])


def test_alignment() -> None:
    patches, embeddings, masked = random(B, N, D), random(B, D, seed=1), hide()
    expected, *gradients = reference.alignment(patches.numpy(), embeddings.numpy(), masked.numpy())
    given = [leaf(patches), leaf(embeddings)]
    agree(alignment_loss(*given, masked), given, expected, gradients)


# --------------------------------------------------------------------------------------------------------- whole steps

POCKET_VIT = {"patch_size": 8, "width": 192, "layers": 6, "image_size": 48}
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
CLASSES, SCALE = 10, 30.0


def classifier(vision: dict[str, Any], dim: int, quick_gelu: bool) -> MaskedClassifier:
    """Random weights in float64, so that no rounding hides a difference."""
    torch.manual_seed(0)
    tower = open_clip.model._build_vision_tower(dim, vision, quick_gelu=quick_gelu)
    weights = torch.nn.functional.normalize(torch.randn(CLASSES, dim), dim=-1)
    return MaskedClassifier(tower, weights, SCALE).double()


def compare_steps(
    student: MaskedClassifier,
    config: MustConfig,
    *,
    n_steps: int,
    total: int,
    quick_gelu: bool = False,
    prior: Tensor | None = None,
) -> None:
    """Let labkit and the reference take the same steps, and compare all that each of them leaves behind."""
    tower = student.backbone.visual
    size, batch = tower.image_size[0], config.batch_size
    recipe = Recipe(
        batch,
        total,
        config.lr,
        threshold=0.0,
        w_fair=config.fairness_weight,
        w_align=config.alignment_weight,
        d0=config.ema_decay,
        warm=config.ema_warmup,
        memory=config.fairness_momentum or 0.0,
        prior=prior,
        slow_token=config.slow_mask_token,
        epoch=2,
    )
    heads, patch = tower.transformer.resblocks[0].attn.num_heads, tower.patch_size[0]
    oracle = MustReference(dict(student.named_parameters()), recipe, heads, patch, SCALE, quick_gelu)
    generator = torch.Generator().manual_seed(1)
    views = torch.randint(0, 256, (2, n_steps, batch, 3, size, size), dtype=torch.uint8, generator=generator)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    normal = (views.double() / 255 - mean) / std
    with torch.no_grad():  # a threshold that half of the images of the first batch are above
        confidence = oracle.forward(oracle.teacher, normal[0, 0], None)[0].softmax(1).max(1).values.sort().values
    recipe.threshold = float(confidence[batch // 2 - 1 : batch // 2 + 1].mean())
    state = new_state(student, config.replace(threshold=recipe.threshold))
    config = config.replace(threshold=recipe.threshold, epochs=total // 2)
    trainer = Trainer(state, config, MEAN, STD, steps_per_epoch=2, prior=prior)
    trainer.mean, trainer.std = 255 * mean, 255 * std
    for step in range(n_steps):
        masked = trainer.masks() if config.mask_ratio else None
        seen = trainer.step(*views[:, step])
        expected = oracle.step(*normal[:, step], masked)
        if step == 0:
            assert 0 < expected["kept"] < 1
        for name, value in expected.items():
            assert seen[name].item() == pytest.approx(value, abs=1e-6), name
    moments = {
        name: state.optimizer.state[parameter].get("exp_avg", torch.zeros(()))
        for name, parameter in student.named_parameters()
    }
    for name, parameter in student.named_parameters():
        close(moments[name], oracle.m[name], 1e-6, f"gradient of {name}")
        close(parameter, oracle.student[name], 1e-6, f"student's {name}")
    for name, parameter in state.teacher.named_parameters():
        close(parameter, oracle.teacher[name], 1e-6, f"teacher's {name}")


def close(ours: Tensor, theirs: Tensor, within: float, what: str) -> None:
    gap = (ours.detach() - theirs.detach()).abs().max().item()
    assert gap <= within, f"{what} is {gap:.1e} from the reference"


# A rate at which a step moves parameters by a hundredth, and a decay at which the teacher follows: far more than 1e-6
POCKET = MustConfig(batch_size=4, lr=0.64, mask_block=16, ema_decay=1e-6, ema_warmup=1)
PRIOR = torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]).double() / 12


@pytest.mark.parametrize(
    ("changes", "prior"),
    [
        ({}, None),
        ({"fairness_momentum": 0.5}, None),
        ({}, PRIOR),
        ({"mask_ratio": 0.0}, None),
        ({"slow_mask_token": False}, None),
        ({"accumulate": 2}, None),
        ({"accumulate": 2, "fairness_momentum": 0.5}, PRIOR),
    ],
    ids=["plain", "memory", "prior", "no-masking", "fast-token", "two-parts", "two-parts-memory-prior"],
)
def test_three_steps_of_pocket_vit(changes: dict, prior: Tensor | None) -> None:
    student = classifier(POCKET_VIT, 256, quick_gelu=False)
    compare_steps(student, POCKET.replace(**changes), n_steps=3, total=6, prior=prior)


def test_one_step_of_vit_b_16() -> None:
    vision = open_clip.get_model_config("ViT-B-16-quickgelu")["vision_cfg"]
    student = classifier(vision, 512, quick_gelu=True)
    assert (student.backbone.grid, len(student.backbone.visual.transformer.resblocks)) == ((14, 14), 12)
    compare_steps(student, MustConfig(batch_size=2, lr=1.28, ema_decay=1e-6), n_steps=1, total=6, quick_gelu=True)
