"""Devices: which one to compute on, what it computes fast, what to do when its memory is full, and what callers give,
on whatever device and of whatever type, as a plain array or number.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from labkit.errors import FitError, LabkitError, quote

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
OUT_OF_MEMORY = (  # what others than CUDA's own error say, in RuntimeErrors of any kind
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
LARGE_MATRIX = 2**20  # entries, 4 MiB: about what the caches of a core hold
LARGEST_COUNT = 10**9  # of anything that is counted; beyond, products of sizes leave what PyTorch can hold


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

    There the weights stay in float32, normalisations and softmax run in float32, and training scales its loss.
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


# ------------------------------------------------------------------------------------------------- what callers give


def is_whole(value: object, least: float, most: float = LARGEST_COUNT) -> bool:
    """Whether a setting is a whole number in a range, Python's or NumPy's; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(least <= value <= most)


def is_number(value: object, least: float, most: float) -> bool:
    """Whether a setting is a real number in a range, Python's or NumPy's; True is none."""
    return _is_real(value) and bool(least <= value <= most)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_seed(value: object) -> bool:
    """Whether scikit-learn takes it as `random_state`; True, which it takes for 1, is none."""
    return value is None or isinstance(value, np.random.RandomState) or is_whole(value, 0, 2**32 - 1)


def plain_array(name: str, given: Any, expected: str, error: type[LabkitError] = FitError) -> np.ndarray:
    """What is given as an array on the CPU in its own type, sharing its memory where it can.

    Args:
        name: what it is called in messages.
        given: an array, a tensor, a frame or lists.
        expected: a sentence that says what was expected.
        error: what is raised.

    Raises:
        error: it is no array, or one that NumPy would take for something else: sparse, masked, without values.
    """
    if isinstance(given, Tensor):
        return _of_tensor(name, given, expected, error)
    if sparse.issparse(given):
        raise error(f"{name} is sparse. {expected[:-1]}: {name}.toarray().")
    rows = given if isinstance(given, list | tuple) else [given]
    if any(isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row) for row in rows):
        raise error(f"{name} has masked entries, whose values mean nothing. {expected[:-1]}: leave these samples out.")
    known = hasattr(given, "__len__") or hasattr(given, "__array__")
    if not known or isinstance(given, str | bytes | set | frozenset | Mapping):
        raise error(f"{name} is {quote(given)}. {expected}")
    try:
        array = np.asarray(given)
    except Exception as problem:  # rows of unequal length, tensors that learn, whatever an object's __array__ does
        raise error(f"{name} cannot be read as an array ({type(problem).__name__}). {expected}") from problem
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def real_array(name: str, given: Any, expected: str, error: type[LabkitError] = FitError) -> np.ndarray:
    """As `plain_array`, of real numbers: integers, or floats of at most 64 bits.

    Raises:
        error: it is none, or holds something else, which is not turned into numbers: booleans, texts, complex numbers.
    """
    array = plain_array(name, given, expected, error)
    if array.dtype == object:
        array = _of_objects(name, array, expected, error)
    kinds = {"b": "booleans", "c": "complex numbers", "U": "texts", "S": "texts", "T": "texts", "V": "records"}
    if array.dtype.kind not in "iuf":
        what = kinds.get(array.dtype.kind, str(array.dtype))
        complex_data = " (Complex data not supported)" if array.dtype.kind == "c" else ""  # scikit-learn's words
        raise error(f"{name} holds {what}{complex_data}. {expected}")
    if array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity, which whoever reads numbers refuses
            return array.astype(np.float64)
    return array


def real_matrix(name: str, given: Any, expected: str, error: type[LabkitError] = FitError) -> np.ndarray:
    """As `real_array`, with a row for each sample: (n, d) with n, d ≥ 1. Whether all is finite is not looked at.

    Raises:
        error: it has another shape, or is no array of real numbers.
    """
    array = real_array(name, given, expected, error)
    if array.ndim != 2:
        cure = " Reshape your data: .reshape(-1, 1) is one feature, .reshape(1, -1) one sample."
        cure = cure if array.ndim == 1 else ""
        raise error(f"{name} has shape {array.shape}. Expected 2D array, a row for each sample.{cure}")
    for count, what in zip(array.shape, ("sample", "feature"), strict=True):
        if count == 0:
            raise error(f"{name} has 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required. {expected}")
    return array


def finite_matrix(name: str, given: Any, expected: str, error: type[LabkitError] = FitError) -> np.ndarray:
    """As `real_matrix`, of finite numbers.

    Raises:
        error: it holds NaN or infinity, or is none.
    """
    array = real_matrix(name, given, expected, error)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise error(f"{name} contains {'NaN' if np.isnan(array).any() else 'infinity'}. {expected}")
    return array


def named_spaces(spaces: Any) -> dict[str, Any]:
    """Each space by its name in messages: a list or tuple that holds a matrix is several, all else is one, "X"."""
    if not isinstance(spaces, list | tuple) or not any(map(_is_matrix, spaces)):
        return {"X": spaces}
    return {f"space {k}": space for k, space in enumerate(spaces)}


def _is_matrix(space: Any) -> bool:
    if isinstance(space, list | tuple):
        return len(space) > 0 and (isinstance(space[0], list | tuple) or getattr(space[0], "ndim", 0) == 1)
    return bool(getattr(space, "ndim", 0) == 2)


def column_names(space: Any) -> list[str] | None:
    """The names of the columns of a frame, if all are texts; None for everything else."""
    names = list(getattr(space, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def expect_columns(name: str, found: list[str] | None, fitted: list[str] | None) -> None:
    """Raise a FitError where both are frames, and the columns are not those of the fit in their order."""
    if found is not None and fitted is not None and found != fitted:
        raise FitError(
            f"{name} has the columns {quote(found)}. Expected those of the fit in the same order, {quote(fitted)}."
        )


def _of_tensor(name: str, tensor: Tensor, expected: str, error: type[LabkitError]) -> np.ndarray:
    cures = {
        "sparse": (tensor.layout != torch.strided, ".to_dense()"),
        "quantised": (tensor.is_quantized, ".dequantize()"),
        "meta": (tensor.is_meta, "it has a shape and no values"),
    }
    for kind, (holds, cure) in cures.items():
        if holds:
            raise error(f"{name} is a {kind} tensor ({cure}). {expected}")
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64):
        values = values.float()  # NumPy knows no bfloat16
    try:
        return values.numpy()
    except (TypeError, RuntimeError) as problem:
        raise error(f"{name} is a tensor of {tensor.dtype}, which NumPy does not know. {expected}") from problem


def _of_objects(name: str, array: np.ndarray, expected: str, error: type[LabkitError]) -> np.ndarray:
    """An array of Python's numbers as one of NumPy's."""
    wrong = [value for value in array.flat if not _is_real(value)]
    if wrong:
        raise error(f"{name} holds {quote(wrong[0])}. {expected}")
    whole = all(isinstance(value, int | np.integer) for value in array.flat)
    try:
        return array.astype(np.int64 if whole and array.size else np.float64)
    except OverflowError as problem:
        raise error(f"{name} holds numbers beyond those that NumPy knows. {expected}") from problem
