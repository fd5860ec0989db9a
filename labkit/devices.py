"""Which device to compute on, and which dtype is fastest there without changing the result that matters."""

from __future__ import annotations

import torch

from labkit.errors import FitError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(device: str = "auto") -> torch.device:
    """The torch device for a name; "auto" is CUDA, else Apple's MPS, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise FitError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}). "
            'Expected "auto", "cpu", "cuda", "cuda:1", "mps"; "auto" takes the best that is there.'
        ) from error
    return picked


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_bf16 = device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if has_bf16 else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    has_avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(has_avx512() or has_amx())
