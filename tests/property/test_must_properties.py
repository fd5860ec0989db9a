"""MUST on random masks, predictions and weights: what must hold whatever they are."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.must import (
    MustConfig,
    alignment_loss,
    block_masks,
    ema_update,
    fairness_loss,
    masked_image_loss,
    pseudo_labels,
    self_training_loss,
)

seeds = st.integers(0, 2**32 - 1)
patient = settings(deadline=None)  # the first call of anything in PyTorch is slow


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------------- masks


@patient
@given(
    n=st.integers(1, 6),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    block=st.integers(1, 4),
    percent=st.integers(0, 99),
    seed=seeds,
)
def test_masks_are_unions_of_exactly_so_many_blocks(n, blocks, block, percent, seed):
    rows, columns = blocks
    generator = torch.Generator().manual_seed(seed)
    masks = block_masks(n, (rows * block, columns * block), ratio=percent / 100, block=block, generator=generator)
    assert masks.shape == (n, rows * columns * block**2)
    tiles = masks.view(n, rows, block, columns, block).permute(0, 1, 3, 2, 4).flatten(3)
    assert (tiles == tiles[..., :1]).all()
    n_masked = math.ceil(Fraction(percent, 100) * rows * columns)  # exact, as the floating-point product is not
    assert tiles[..., 0].sum((1, 2)).tolist() == [n_masked] * n


# -------------------------------------------------------------------------------------------------------------- losses


@st.composite
def shares(draw: st.DrawFn) -> np.ndarray:
    weights = draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
    return np.array(weights) / sum(weights)


@patient
@given(shares(), seeds)
def test_fairness_is_lowest_at_the_prior(prior, seed):
    other = np.random.default_rng(seed).dirichlet(np.ones(len(prior)))
    best = fairness_loss(torch.from_numpy(prior), torch.from_numpy(prior)).item()
    assert best == pytest.approx(-(prior * np.log(prior)).sum())  # the entropy of the prior
    assert fairness_loss(torch.from_numpy(other), torch.from_numpy(prior)).item() >= best - 1e-12


@patient
@given(shares())
def test_fairness_without_a_prior_is_lowest_when_all_classes_are_equal(probs):
    uniform = torch.full((len(probs),), 1 / len(probs), dtype=torch.float64)
    best, loss = fairness_loss(uniform).item(), fairness_loss(torch.from_numpy(probs)).item()
    assert best == pytest.approx(math.log(len(probs)))
    assert loss >= best - 1e-12
    assert loss == pytest.approx(fairness_loss(torch.from_numpy(probs), uniform).item())


@patient
@given(shares(), seeds)
def test_a_step_down_the_gradient_of_fairness_goes_to_the_prior(prior, seed):
    logits = random(seed, len(prior)).requires_grad_()
    target = torch.from_numpy(prior)
    fairness_loss(logits.softmax(0), target).backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(0) - target)  # 0 only where they are equal


@st.composite
def batches(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Outputs for 1 to 6 images of 2 x 3 patches of 2 pixels, and an order of the images."""
    n, classes, seed = draw(st.integers(1, 6)), draw(st.integers(2, 5)), draw(seeds)
    return {
        "logits": 3 * random(seed, n, classes),
        "teacher": 3 * random(seed + 1, n, classes),
        "guess": random(seed + 2, n, 3, 4, 6),
        "images": random(seed + 3, n, 3, 4, 6),
        "patches": random(seed + 4, n, 6, 3),
        "embeddings": random(seed + 5, n, 3),
        "masked": random(seed + 6, n, 6) > 0,
        "order": torch.tensor(draw(st.permutations(range(n)))),
    }


def losses(batch: dict[str, torch.Tensor], threshold: float) -> torch.Tensor:
    labels, kept = pseudo_labels(batch["teacher"], threshold)
    return torch.stack(
        [
            self_training_loss(batch["logits"], labels, kept),
            fairness_loss(batch["logits"].softmax(-1).mean(0)),
            masked_image_loss(batch["guess"], batch["images"], batch["masked"]),
            alignment_loss(batch["patches"], batch["embeddings"], batch["masked"]),
        ]
    )


@patient
@given(batches(), st.floats(0, 0.99))
def test_the_order_of_the_images_does_not_matter(batch, threshold):
    shuffled = {name: values[batch["order"]] for name, values in batch.items()}
    torch.testing.assert_close(losses(shuffled, threshold), losses(batch, threshold))


@patient
@given(batches(), st.floats(0, 0.99))
def test_losses_are_finite_and_not_negative(batch, threshold):
    found = losses(batch, threshold)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert found[3] <= 4 + 1e-12  # the squared distance of opposite unit vectors


@patient
@given(batches(), st.floats(0.001, 1000))
def test_alignment_does_not_see_lengths(batch, factor):
    masked = batch["masked"]
    scaled = alignment_loss(factor * batch["patches"], batch["embeddings"] / factor, masked)
    torch.testing.assert_close(scaled, alignment_loss(batch["patches"], batch["embeddings"], masked))


@patient
@given(batches(), st.floats(0, 0.98), st.floats(0, 0.98))
def test_a_higher_threshold_keeps_a_part_of_what_a_lower_one_keeps(batch, one, other):
    low, high = (pseudo_labels(batch["teacher"], threshold)[1] for threshold in sorted((one, other)))
    assert (low | ~high).all()


# ------------------------------------------------------------------------------------------------------------- teacher


@patient
@given(seeds, st.floats(0, 0.9999))
def test_the_teacher_moves_along_the_line_to_the_student(seed, decay):
    teacher, student = (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double() for _ in range(2))
    with torch.no_grad():
        for k, parameter in enumerate([*teacher.parameters(), *student.parameters()]):
            parameter.copy_(random(seed + k, *parameter.shape))
    before = [parameter.clone() for parameter in teacher.parameters()]
    unchanged = [parameter.clone() for parameter in student.parameters()]
    ema_update(teacher, student, decay)
    for new, old, target, kept in zip(teacher.parameters(), before, student.parameters(), unchanged, strict=True):
        torch.testing.assert_close(new.detach(), decay * old + (1 - decay) * target)
        assert (new >= torch.minimum(old, target) - 1e-12).all()
        assert (new <= torch.maximum(old, target) + 1e-12).all()
        assert torch.equal(target, kept)


@patient
@given(
    decay=st.floats(0, 0.9999),
    end=st.floats(0, 0.9999),
    warmup=st.integers(0, 500),
    batch_size=st.integers(1, 4096),
    step=st.integers(0, 10_000),
)
def test_the_decay_is_a_share_and_never_falls(decay, end, warmup, batch_size, step):
    config = MustConfig(ema_decay=decay, ema_decay_end=end, ema_warmup=warmup, batch_size=batch_size)
    now, then = config.ema_decay_at(step), config.ema_decay_at(step + 1)
    assert 0 <= now <= then < 1


@patient
@given(
    lr=st.floats(1e-9, 1e-1),
    batch_size=st.integers(1, 4096),
    one=st.floats(0, 1),
    other=st.floats(0, 1),
)
def test_the_learning_rate_never_rises(lr, batch_size, one, other):
    config = MustConfig(lr=lr, batch_size=batch_size)
    early, late = sorted((one, other))
    assert 0 < config.lr_at(late) <= config.lr_at(early) * (1 + 1e-12)
    assert config.lr_at(early) <= config.peak_lr * (1 + 1e-12)
