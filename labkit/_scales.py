"""Numbers of any size: powers of two that bring them near 1, rows beside which all others vanish, blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from labkit.errors import FitError

if TYPE_CHECKING:
    from labkit._stored import Space

TINY = np.finfo(np.float32).tiny
ORDINARY = 2.0**40  # numbers within this factor of 1 need no rescaling
FAR = 1e8  # times what is usual: beside such a row float32 sees no difference among the others


def largest(array: np.ndarray) -> float:
    """The largest magnitude among finite numbers."""
    return max(abs(float(array.min())), abs(float(array.max())))


def exponent_of_number(number: float) -> int:
    """Of the power of two by which a number becomes of ordinary size; 0 where it is, and for 0."""
    return 0 if number == 0 or 1 / ORDINARY <= number <= ORDINARY else math.frexp(number)[1]


def power_of_two(number: float) -> float:
    """The largest power of two that is not above a positive number; 1 where there is no such number."""
    if not 0 < number < math.inf:
        return 1.0
    return 2.0 ** (math.frexp(number)[1] - 1)


def moderate_rows(array: np.ndarray) -> np.ndarray:
    """Rows (n, d) as float32, those of extraordinary size divided by a power of two: for what knows no lengths."""
    sizes = np.abs(array if array.dtype.kind == "f" else array.astype(np.float64)).max(1).astype(np.float64)
    odd = (sizes > 0) & ((sizes < 1 / ORDINARY) | (sizes > ORDINARY))
    if odd.any():
        array = array.astype(np.float64)
        array[odd] = np.ldexp(array[odd], -np.frexp(sizes[odd])[1][:, None])
    return array.astype(np.float32, copy=False)


def exponent_of(array: np.ndarray) -> int:
    """Of the power of two by which numbers (n, d) become of ordinary size; 0 where they are, and where all are 0."""
    return exponent_of_number(largest(array))


def unit_rows(rows: np.ndarray, least: float | np.floating = TINY) -> np.ndarray:
    """Vectors along the last axis scaled to length 1; those shorter than `least` are divided by it, zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), least)


def refuse_far_rows(spaces: Sequence[Space]) -> None:
    """Look for a row beside which all others look the same, once something went wrong; spaces are (n, d_k).

    Raises:
        FitError: a row is that much larger than what is usual, the median of all rows that are not zero.
    """
    for k, space in enumerate(spaces):
        sizes = torch.cat([part.double().abs().amax(1) for part in space.split(block_of(space.shape[1]))])
        positive, row = sizes[sizes > 0], int(sizes.argmax())
        if len(positive) > 0 and sizes[row].isfinite() and sizes[row] > FAR * positive.median():
            raise FitError(
                f"row {row}{f' of space {k}' if len(spaces) > 1 else ''} reaches {sizes[row]:.0e}, where "
                f"{positive.median():.0e} is usual. Expected no row beside which all others look the same: correct it "
                "or leave it out."
            )


def block_of(width: int) -> int:
    """Rows of this width that make about 4 MiB in float32."""
    return max(1, 2**20 // width)
