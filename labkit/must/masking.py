"""Which patches of an image are masked from the student: random blocks of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labkit.errors import FitError


def generator_for(*numbers: int) -> torch.Generator:
    """A generator on the CPU whose stream these numbers determine: a seed, and the number of a step or an epoch."""
    return torch.Generator().manual_seed(hash(numbers) & 0x7FFF_FFFF_FFFF_FFFF)


def block_masks(
    n: int, grid: tuple[int, int], *, ratio: float, block: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Random masks made of square blocks of patches, each with ⌈ratio · blocks⌉ of them masked.

    Li et al. (MUST, ICLR 2023), section 3.2: neighboring patches say much the same, so whole blocks are masked.

    Args:
        n: number of masks.
        grid: rows and columns of patches in an image.
        ratio: fraction of blocks that is masked, from 0 (none) to below 1.
        block: side of a block in patches; divides both sides of the grid.
        generator: source of the choice, on the CPU.

    Returns:
        True where a patch is masked, bool (n, rows · columns), patches row by row.

    Raises:
        FitError: the ratio is not in [0, 1), or the block does not divide the grid.
    """
    rows, columns = grid
    if not 0 <= ratio < 1:
        raise FitError(f"mask ratio is {ratio!r}. Expected a number from 0 (nothing masked) to below 1.")
    if block < 1 or rows % block or columns % block:
        raise FitError(
            f"blocks of {block} x {block} patches do not fill a grid of {rows} x {columns} patches. Expected a whole "
            f"number that divides both; 1 always does."
        )
    shape = (rows // block, columns // block)
    n_masked = math.ceil(ratio * math.prod(shape) - 1e-9)  # as 0.28 · 25 is 7.000000000000001
    order = torch.rand(n, math.prod(shape), generator=generator).argsort(1)
    masked = (order < n_masked).view(n, *shape)
    return masked.repeat_interleave(block, 1).repeat_interleave(block, 2).flatten(1)
