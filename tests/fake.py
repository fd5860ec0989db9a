"""A CUDA device that is not there, as PyTorch's fake tensors have it."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def _works() -> bool:
    try:
        with FakeTensorMode():
            torch.empty(2, 2, device="cuda") @ torch.empty(2, 2, device="cuda")
    except (RuntimeError, AssertionError):
        return False
    return True


needed = pytest.mark.skipif(not _works(), reason="this PyTorch computes on no fake GPU without a driver")
