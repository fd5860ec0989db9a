"""The losses of MUST on cases that can be worked out by hand, and where they must not break."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from labkit.must import alignment_loss, fairness_loss, masked_image_loss, pseudo_labels, self_training_loss


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------- pseudo-labels


def test_a_label_is_kept_when_its_probability_is_above_the_threshold() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]).log()
    labels, kept = pseudo_labels(logits, 0.6)
    assert labels[:2].tolist() == [0, 1]
    assert labels.dtype == torch.int64
    assert kept.tolist() == [True, True, False]
    assert pseudo_labels(logits, 0.75)[1].tolist() == [True, False, False]
    assert pseudo_labels(torch.zeros(1, 2), 0.5)[1].tolist() == [False]  # above, not at


def test_half_precision_decides_as_single_does() -> None:
    logits = (100 * random(200, 10)).half()
    for low, single in zip(pseudo_labels(logits, 0.7), pseudo_labels(logits.float(), 0.7), strict=True):
        assert torch.equal(low, single)


# ------------------------------------------------------------------------------------------------------- self-training


def test_self_training_is_the_mean_over_kept_images() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(9)], [5.0, -5.0]])  # 3/4, 9/10, and one left out
    loss = self_training_loss(logits, torch.tensor([0, 1, 1]), torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(9 / 10)) / 2)


def test_nothing_kept_is_zero_with_gradient_zero() -> None:
    logits = random(4, 3).requires_grad_()
    loss = self_training_loss(logits, torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_a_picture_that_is_left_out_has_no_gradient_even_when_its_logits_are_infinite() -> None:
    logits = torch.tensor([[1.0, 0.0], [math.inf, 0.0]], requires_grad=True)
    self_training_loss(logits, torch.tensor([0, 0]), torch.tensor([True, False])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad[0]).all()


def test_parts_of_a_batch_add_up_with_the_share_of_the_whole() -> None:
    logits, labels = random(8, 3), torch.arange(8) % 3
    kept = torch.tensor([True, True, True, False, False, False, False, True])
    whole = self_training_loss(logits, labels, kept)
    share = kept.float().mean()
    parts = [self_training_loss(logits[i : i + 4], labels[i : i + 4], kept[i : i + 4], share) for i in (0, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    alone = self_training_loss(logits[4:7], labels[4:7], kept[4:7], share)  # nothing kept here, but elsewhere
    assert alone.item() == 0


# ------------------------------------------------------------------------------------------------------------ fairness


def test_fairness_is_the_cross_entropy_with_the_prior() -> None:
    probs = torch.tensor([0.5, 0.25, 0.25])
    assert fairness_loss(probs).item() == pytest.approx(-(math.log(0.5) + 2 * math.log(0.25)) / 3)
    prior = torch.tensor([0.7, 0.3, 0.0])
    assert fairness_loss(probs, prior).item() == pytest.approx(-(0.7 * math.log(0.5) + 0.3 * math.log(0.25)))


def test_a_class_that_nothing_is_given_to_costs_much_but_not_infinitely() -> None:
    probs = torch.tensor([1.0, 0.0], requires_grad=True)
    loss = fairness_loss(probs)
    loss.backward()
    assert 40 < loss.item() < 50  # half of −log of the smallest normal number
    assert probs.grad is not None
    assert torch.isfinite(probs.grad).all()
    assert fairness_loss(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).item() == 0


# -------------------------------------------------------------------------------------------------------- masked image


def test_masked_image_counts_hidden_pixels_only() -> None:
    images, masked = torch.zeros(1, 3, 4, 4), torch.tensor([[True, False, False, False]])
    guess = torch.full((1, 3, 4, 4), 100.0)
    guess[0, :, :2, :2] = torch.tensor([1.0, -2.0, 6.0])[:, None, None]
    assert masked_image_loss(guess, images, masked).item() == pytest.approx(3)


def test_masked_image_knows_patches_of_a_wide_picture_row_by_row() -> None:
    images = torch.zeros(1, 3, 4, 8)  # patches of 2 pixels: 2 rows of 4
    for patch in range(8):
        guess = torch.zeros(1, 3, 4, 8)
        row, column = divmod(patch, 4)
        guess[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
        masked = torch.arange(8)[None] == patch
        assert masked_image_loss(guess, images, masked).item() == 1
        assert masked_image_loss(guess, images, ~masked).item() == 0


def test_images_with_more_hidden_patches_weigh_more() -> None:
    guess = torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 5.0)])
    masked = torch.tensor([[True, True, True, False], [True, False, False, False]])
    assert masked_image_loss(guess, torch.zeros(2, 3, 4, 4), masked).item() == pytest.approx((3 * 1 + 5) / 4)


# ----------------------------------------------------------------------------------------------------------- alignment


def test_alignment_is_the_squared_distance_of_unit_vectors() -> None:
    embedding = torch.tensor([[2.0, 0.0]])
    patches = torch.tensor([[[5.0, 0.0], [0.0, 0.1], [-3.0, 0.0], [7.0, 7.0]]])  # at 0, 90, 180 and 45 degrees
    for patch, expected in enumerate((0, 2, 4, 2 - math.sqrt(2))):
        masked = torch.arange(4)[None] == patch
        assert alignment_loss(patches, embedding, masked).item() == pytest.approx(expected, abs=1e-6)
    masked = torch.tensor([[True, True, True, False]])
    assert alignment_loss(patches, embedding, masked).item() == pytest.approx(2)


def test_alignment_moves_both_sides() -> None:
    patches, embedding = random(2, 4, 3).requires_grad_(), random(2, 3, seed=1).requires_grad_()
    alignment_loss(patches, embedding, torch.tensor([[True, False, False, False]] * 2)).backward()
    assert patches.grad is not None
    assert embedding.grad is not None
    assert (patches.grad[:, 0] != 0).any()
    assert (patches.grad[:, 1:] == 0).all()
    assert (embedding.grad != 0).any()


def test_with_nothing_hidden_masked_losses_are_zero_with_gradient_zero() -> None:
    masked = torch.zeros(2, 4, dtype=torch.bool)
    patches, guess = random(2, 4, 3).requires_grad_(), random(2, 3, 4, 4).requires_grad_()
    loss = alignment_loss(patches, random(2, 3), masked) + masked_image_loss(guess, random(2, 3, 4, 4), masked)
    loss.backward()
    assert loss.item() == 0
    assert patches.grad is not None
    assert guess.grad is not None
    assert (patches.grad == 0).all()
    assert (guess.grad == 0).all()


def test_a_zero_vector_does_not_make_nan() -> None:
    patches, embedding = torch.zeros(1, 4, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    loss = alignment_loss(patches, embedding, torch.ones(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert patches.grad is not None
    assert torch.isfinite(patches.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_inputs_give_single_precision_losses(dtype: torch.dtype) -> None:
    masked = torch.ones(2, 4, dtype=torch.bool)
    losses = [
        self_training_loss(random(2, 3).to(dtype), torch.tensor([0, 1]), torch.tensor([True, True])),
        alignment_loss(random(2, 4, 3).to(dtype), random(2, 3).to(dtype), masked),
        masked_image_loss(random(2, 3, 4, 4).to(dtype), random(2, 3, 4, 4), masked),
    ]
    assert {loss.dtype for loss in losses} == {torch.float32}
