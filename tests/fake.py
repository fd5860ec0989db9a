"""A CUDA device that is not there, as PyTorch's fake tensors have it."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def _works() -> bool:
    try:
        with FakeTensorMode():
            torch.empty(2, 2, device="cuda").uniform_()
    except RuntimeError:
        return False
    return hasattr(torch.ones(1, requires_grad=True).sum().grad_fn, "_input_metadata")


needed = pytest.mark.skipif(not _works(), reason="this PyTorch computes on no fake GPU without a driver")
