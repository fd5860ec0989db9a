"""Devices that this machine may not have: which dtype they compute in, what they say when memory is full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

import labkit.devices
from labkit.devices import (
    autocast,
    autocast_dtype,
    can_autocast,
    cpu_count,
    exact_products,
    explain_out_of_memory,
    fast_dtype,
    fast_matmul,
    onednn_multiplies,
    pick_device,
)
from labkit.errors import FitError

CUDA, MPS, CPU = torch.device("cuda"), torch.device("mps"), torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "products", "forward"),
    [
        ((6, 1), torch.float32, torch.float32),  # GTX 1080: float16 is slower than float32
        ((7, 0), torch.float32, torch.float16),  # V100
        ((7, 5), torch.float32, torch.float16),  # T4, Colab's
        ((8, 0), torch.bfloat16, torch.bfloat16),  # A100
        ((8, 9), torch.bfloat16, torch.bfloat16),  # RTX 4090
        ((9, 0), torch.bfloat16, torch.bfloat16),  # H100
        ((12, 0), torch.bfloat16, torch.bfloat16),  # RTX 5090
    ],
)
def test_the_dtype_is_one_that_the_gpu_multiplies_in_hardware(
    capability: tuple, products: torch.dtype, forward: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: capability)
    assert fast_dtype(CUDA) == products
    assert autocast_dtype(CUDA) == forward


@pytest.mark.parametrize("bf16", [True, False])
def test_a_cpu_computes_in_bfloat16_where_it_can_and_mps_never(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.devices, "cpu_has_bf16", lambda: bf16)
    assert fast_dtype(CPU) == autocast_dtype(CPU) == (torch.bfloat16 if bf16 else torch.float32)
    assert fast_dtype(MPS) == autocast_dtype(MPS) == torch.float32


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setattr("torch.empty", lambda *size, device: None)  # nothing is allocated there
    assert pick_device("auto") == torch.device(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(FitError, match=r"'cuda' cannot be used here.*\"auto\" takes the best"):
        pick_device("cuda")


def test_autocast_is_left_alone_where_pytorch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_autocast(CPU)
    assert can_autocast(CUDA)
    asked = []
    monkeypatch.setattr("torch.amp.is_autocast_available", lambda kind: asked.append(kind))  # as PyTorch 2.4 on MPS
    assert not can_autocast(MPS)
    assert asked == ["mps"]
    with autocast(MPS, torch.bfloat16):
        assert not torch.is_autocast_enabled("cpu")


def test_autocast_is_pytorchs_for_low_precision_only() -> None:
    x = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32


def test_products_are_exact_whatever_is_allowed_and_then_as_before() -> None:
    before = torch.get_float32_matmul_precision()
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    exact = x.double() @ x.double()
    try:
        for allowed in ("medium", "high", "highest"):
            torch.set_float32_matmul_precision(allowed)
            with contextlib.suppress(KeyError), exact_products():
                torch.testing.assert_close((x @ x).double(), exact, atol=1e-3, rtol=0)  # 0.1 in bfloat16
                raise KeyError
            assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="is new in PyTorch 2.9")
def test_products_are_exact_where_a_backend_was_told_otherwise_by_itself() -> None:
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        with contextlib.suppress(KeyError), exact_products():
            assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
            raise KeyError
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="is new in PyTorch 2.9")
def test_what_was_allowed_for_all_and_for_one_backend_is_as_before() -> None:
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    before = torch.get_float32_matmul_precision(), *(backend.fp32_precision for backend in backends)
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        with exact_products():
            assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
        assert [backend.fp32_precision for backend in backends] == ["ieee", "tf32"]
    finally:
        torch.set_float32_matmul_precision(before[0])
        for backend, precision in zip(backends, before[1:], strict=True):
            backend.fp32_precision = precision


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    assert cpu_count() == 2
    monkeypatch.delattr(os, "process_cpu_count")
    assert cpu_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_count() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count() == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB). Tried to allocate 2 GB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: 2 bytes"),
        MemoryError(),
    ],
)
def test_full_memory_is_explained(error: Exception) -> None:
    said = r"memory does not suffice \(.+\)\. Lower batch_size \(now 64\)\.$"
    with pytest.raises(FitError, match=said) as caught, explain_out_of_memory("Lower batch_size (now 64)."):
        raise error
    assert caught.value.__cause__ is error


def test_the_memory_of_this_machine_is_a_case_of_it() -> None:
    with pytest.raises(FitError, match="memory does not suffice"), explain_out_of_memory("Lower it."):
        torch.empty(2**60)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_out_of_memory("Lower it."):
        raise error
    assert caught.value is error


@pytest.fixture
def fresh_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The private operator is tried anew, on matrices of any size."""
    monkeypatch.setattr(labkit.devices, "LARGE_MATRIX", 1)
    onednn_multiplies.cache_clear()
    yield
    onednn_multiplies.cache_clear()


@pytest.mark.usefixtures("fresh_check")
@pytest.mark.parametrize("r", [1, 3, 10, 80])
def test_the_fast_product_is_the_product(r: int) -> None:
    generator = torch.Generator().manual_seed(r)
    rows, features = torch.randn(r, 12, generator=generator), torch.randn(33, 12, generator=generator)
    torch.testing.assert_close(fast_matmul(rows, features.T), rows @ features.T)
    wide = torch.randn(r, 33, generator=generator)
    torch.testing.assert_close(fast_matmul(wide, features), wide @ features)
    torch.testing.assert_close(fast_matmul(wide, features[:, ::2]), wide @ features[:, ::2])


@pytest.mark.usefixtures("fresh_check")
@pytest.mark.parametrize("fault", ["missing", "other signature", "wrong result", "no MKL"])
def test_the_private_operator_is_not_used_where_it_does_not_work(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        if fault == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        if fault == "other signature":
            raise RuntimeError("mkldnn::_linear_pointwise() is missing value for argument 'algorithm'")
        return rows @ matrix + (1 if fault == "wrong result" else 0)

    monkeypatch.setattr(labkit.devices, "_onednn_product", product)
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: fault != "no MKL")
    assert not onednn_multiplies()
    rows, matrix = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(fast_matmul(rows, matrix), rows @ matrix)


@pytest.mark.usefixtures("fresh_check")
def test_where_gradients_are_wanted_the_product_has_them() -> None:
    rows, matrix = torch.ones(2, 3, requires_grad=True), torch.ones(3, 4)
    fast_matmul(rows, matrix).sum().backward()
    assert torch.equal(rows.grad, torch.full((2, 3), 4.0))
    with torch.no_grad():
        assert not fast_matmul(rows, matrix).requires_grad
