"""Masks of MUST: how many patches are masked, in what shapes, and from which source of chance."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.errors import FitError
from labkit.must import block_masks


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("grid", "ratio", "block", "n_masked"),
    [
        ((14, 14), 0.3, 2, 15 * 4),  # ViT-B/16, blocks of 32 pixels: ⌈14.7⌉ of 49
        ((16, 16), 0.3, 4, 5 * 16),  # ViT-L/14, blocks of 56 pixels: ⌈4.8⌉ of 16
        ((14, 14), 0.1, 1, 20),  # ⌈19.6⌉ of 196
        ((5, 5), 0.28, 1, 7),  # 0.28 · 25 is a little above 7 in floating point
        ((7, 3), 0.01, 1, 1),
        ((7, 3), 0.999, 1, 21),
    ],
)
def test_so_many_patches_are_hidden(grid: tuple[int, int], ratio: float, block: int, n_masked: int) -> None:
    masks = block_masks(50, grid, ratio=ratio, block=block, generator=seeded())
    assert masks.shape == (50, math.prod(grid))
    assert masks.dtype == torch.bool
    assert masks.sum(1).tolist() == [n_masked] * 50


def test_whole_blocks_are_hidden_row_by_row() -> None:
    masks = block_masks(20, (4, 6), ratio=0.4, block=2, generator=seeded()).view(20, 2, 2, 3, 2)
    assert (masks == masks[:, :, :1, :, :1]).all()
    assert masks[:, :, 0, :, 0].sum((1, 2)).tolist() == [3] * 20  # ⌈2.4⌉


def test_a_block_may_be_the_whole_picture() -> None:
    assert block_masks(2, (3, 3), ratio=0.2, block=3, generator=seeded()).all()


def test_ratio_zero_hides_nothing() -> None:
    assert not block_masks(3, (4, 4), ratio=0.0, block=2, generator=seeded()).any()


def test_every_picture_has_its_own_mask_and_every_block_the_same_chance() -> None:
    masks = block_masks(4000, (3, 4), ratio=0.25, generator=seeded())
    assert len(masks.unique(dim=0)) == math.comb(12, 3)  # every choice of 3 blocks occurs
    torch.testing.assert_close(masks.float().mean(0), torch.full((12,), 0.25), atol=0.03, rtol=0)


def test_the_generator_decides() -> None:
    first, again, other = (block_masks(5, (6, 6), ratio=0.5, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_with_a_generator_the_global_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    block_masks(5, (6, 6), ratio=0.5, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.0}, r"mask ratio is 1.0.*0 \(nothing masked\) to below 1"),
        ({"ratio": -0.1}, "mask ratio is -0.1"),
        ({"ratio": float("nan")}, "mask ratio is nan"),
        ({"ratio": 0.3, "block": 3}, r"blocks of 3 x 3 patches do not fill a grid of 6 x 4"),
        ({"ratio": 0.3, "block": 4}, r"blocks of 4 x 4 patches do not fill a grid of 6 x 4"),
        ({"ratio": 0.3, "block": 0}, r"blocks of 0 x 0.*divides both"),
    ],
)
def test_impossible_masks_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(FitError, match=message):
        block_masks(2, (6, 4), **settings)
