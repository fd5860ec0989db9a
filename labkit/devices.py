"""Devices: which one to compute on, what it computes fast, and what to do when its memory is full."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from labkit.errors import FitError, quote

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
OUT_OF_MEMORY = (  # what others than CUDA's own error say, in RuntimeErrors of any kind
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
LARGE_MATRIX = 2**20  # entries, 4 MiB: about what the caches of a core hold


# ---------------------------------------------------------------------------------------------------- device and dtype


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The torch device for a name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        FitError: there is no such device here, or it computes nothing ("meta").
    """
    expected = 'Expected "auto", "cpu", "cuda", "cuda:1", "mps"; "auto" takes the best that is there.'
    if not isinstance(device, str | torch.device):
        raise FitError(f"device is {quote(device)}. {expected}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except Exception as error:  # every kind of device refuses in its own way
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise FitError(
            f"device {quote(str(device))} cannot be used here ({quote(reason)[1:-1]}). {expected}"
        ) from error
    if picked.type == "meta":
        raise FitError(f"device {quote(str(device))} computes nothing. {expected}")
    return picked


def fast_dtype(device: torch.device) -> torch.dtype:
    """The dtype of matrix products whose results must keep float32's range: bfloat16 where the device multiplies it in
    hardware, else float32.

    Never float16: TURTLE's gradients are means over thousands of samples, and vanish below 6e-8 there. PyTorch
    multiplies bfloat16 on GPUs older than Ampere (capability 8.0) as well, but in emulation, slower than float32.
    """
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_bf16 = device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if has_bf16 else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype:
    """The dtype of a backbone's autocast forward pass: `fast_dtype`, but float16 on GPUs that have tensor cores for it
    and none for bfloat16 (capability 7.0 and 7.5: V100, T4).

    There the weights stay in float32, normalizations and softmax run in float32, and training scales its loss.
    """
    if device.type == "cuda" and (7, 0) <= torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return fast_dtype(device)


def can_autocast(device: torch.device) -> bool:
    """Whether this PyTorch knows autocast on the device at all: on MPS from 2.5 on.

    Where it does not, even `torch.autocast(..., enabled=False)` raises.
    """
    return torch.amp.is_autocast_available(device.type)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """torch.autocast to a dtype; nothing for float32, and where PyTorch has no autocast on the device."""
    if dtype == torch.float32 or not can_autocast(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within an autocast: what is computed in the precision of its inputs all the same."""
    return torch.autocast(device.type, enabled=False) if can_autocast(device) else contextlib.nullcontext()


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within it products of float32 matrices are taken in float32, whatever PyTorch was told before.

    Where `torch.set_float32_matmul_precision` allows it, a GPU takes them in TF32 and some CPUs in bfloat16, of three
    digits.
    """
    backends = (torch.backends.cuda, torch.backends.mkldnn)
    matmuls: list[Any] = [getattr(backend, "matmul", None) for backend in backends]
    if all(hasattr(matmul, "fp32_precision") for matmul in matmuls):  # from PyTorch 2.9 on, each by itself
        before = [matmul.fp32_precision for matmul in matmuls]
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            for matmul, precision in zip(matmuls, before, strict=True):
                matmul.fp32_precision = precision
        return
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    has_avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(has_avx512() or has_amx())


def cpu_count() -> int:
    """Cores that this process may use, which in a container or under a scheduler can be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --------------------------------------------------------------------------------------------------------------- memory


@contextlib.contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn "out of memory" of any device into a FitError that ends with what to do.

    Args:
        advice: a sentence that names the settings that help and their values, such as "Lower batch_size (now 64)."

    Raises:
        FitError: the memory of the device, or of the machine, did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise FitError(f"the memory does not suffice ({first_line}). {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was full: CUDA's, MPS's, the CPU's, or Python's own."""
    # `torch.OutOfMemoryError` is the same class, but only from PyTorch 2.5 on
    known = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
    return known or any(text in str(error) for text in OUT_OF_MEMORY)


# -------------------------------------------------------------------------------------------------------------- product


def fast_matmul(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix, for few rows and a large matrix: (r, n), (n, m) -> (r, m).

    PyTorch multiplies float32 on a CPU with MKL, which leaves a product of few rows mostly to one core. oneDNN, which
    PyTorch has as well, shares it among all: 1.5 to 2.5 times as fast on two cores where the matrix does not fit a
    core's caches, and no faster where it does. Its operator is the one that torch.compile uses. It is private and
    knows no gradients, so it is tried once, and `@` does what it cannot.
    """
    wanted = (
        rows.device.type == "cpu" and rows.dtype == matrix.dtype == torch.float32 and matrix.numel() >= LARGE_MATRIX
    )
    learns = torch.is_grad_enabled() and (rows.requires_grad or matrix.requires_grad)
    if wanted and not learns and onednn_multiplies():
        return _onednn_product(rows, matrix)
    return rows @ matrix


@functools.cache
def onednn_multiplies() -> bool:
    """Whether PyTorch multiplies with MKL here, and oneDNN's private operator is there and gives the same product."""
    if not torch.backends.mkl.is_available():
        return False
    rows, matrix = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4)
    try:
        return torch.equal(_onednn_product(rows, matrix), rows @ matrix)  # small whole numbers: exact in any order
    except Exception:  # a private operator may change or vanish with any release, in any way
        return False


def _onednn_product(rows: Tensor, matrix: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, matrix.T, None, "none", [], "")
