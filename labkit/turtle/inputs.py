"""Feature spaces as tensors that share the memory of what was given, where they can; what is on disk stays there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit._inputs import SPACES_EXPECTED, real_matrix
from labkit._scales import ORDINARY
from labkit._stored import Space, stored_space
from labkit.errors import FitError


def as_spaces(named: Mapping[str, Any]) -> list[Space]:
    """Spaces, by their names in messages, as tensors (n, d_k) on the CPU, or as what reads like one from disk.

    Whether all is finite is looked at later, block by block.

    Raises:
        FitError: one is no matrix of real numbers, or they differ in length.
    """
    spaces = [stored_space(name, space) or _to_tensor(name, space) for name, space in named.items()]
    lengths = [len(space) for space in spaces]
    if len(set(lengths)) > 1:
        raise FitError(
            f"the spaces have {lengths} rows. Expected the same samples in the same order in every space: "
            "extract all of them from the same split."
        )
    return spaces


def _to_tensor(name: str, space: Any) -> Tensor:
    array = real_matrix(name, space, SPACES_EXPECTED)
    if isinstance(space, Tensor) and space.dtype == torch.bfloat16:
        return space.detach().cpu()  # NumPy has no such type
    if array.dtype not in (np.float16, np.float32, np.float64) or not hasattr(space, "shape"):
        ordinary = max(abs(float(array.min())), abs(float(array.max()))) < ORDINARY
        array = array.astype(np.float32 if ordinary else np.float64)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # PyTorch knows no backward steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor do we write to it
        return torch.from_numpy(array)
