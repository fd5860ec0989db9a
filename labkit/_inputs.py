"""What callers give, of whatever type and on whatever device, as plain numbers and arrays, or one clear error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import Tensor

from labkit.errors import FitError, LabkitError, quote

SPACES_EXPECTED = "Expected one space (n, d) or a list of spaces (n, d_k) of finite numbers."
LARGEST_COUNT = 10**9  # of anything that is counted; beyond, products of sizes leave what PyTorch can hold


class UnfittedError(FitError, NotFittedError):
    """What scikit-learn expects of an estimator that was not fitted."""


def expect_fitted(estimator: object, attribute: str) -> None:
    """Raise an UnfittedError unless a fit has left this attribute."""
    if not hasattr(estimator, attribute):
        raise UnfittedError(f"this {type(estimator).__name__} was not fitted. Call fit first.")


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


def read_spaces(spaces: Any) -> list[np.ndarray]:
    """One space, or several, as arrays (n, d_k) of finite real numbers.

    Raises:
        FitError: they are none, or of unequal length.
    """
    arrays = [finite_matrix(name, space, SPACES_EXPECTED) for name, space in named_spaces(spaces).items()]
    if len({len(array) for array in arrays}) != 1:
        raise FitError(f"the spaces have {[len(a) for a in arrays]} rows. Expected the same samples in every space.")
    return arrays


def read_classes(labels: ArrayLike, n: int) -> np.ndarray:
    """The class of each of n samples, (n,) of int64 or of texts.

    Raises:
        FitError: they are neither, of another length, or negative (−1 stands for an unknown class).
    """
    expected = "Expected a whole number or a text for each sample, (n,)."
    array = plain_array("labels", labels, expected)
    if array.dtype == object or (array.dtype.kind in "US" and not hasattr(labels, "dtype")):
        values = list(labels)  # type: ignore[arg-type] # NumPy would make texts of numbers beside texts
        if all(isinstance(value, str) for value in values):
            array = np.array(values, dtype=str)
        elif all(is_whole(value, -np.inf, np.inf) for value in values):
            array = np.array(values)
        else:
            raise FitError(f"labels is {quote(labels)}, of several types. {expected}")
    if array.ndim != 1:
        raise FitError(f"labels has shape {array.shape}. {expected}")
    if len(array) != n:
        raise FitError(f"there are {len(array)} labels for {n} samples. Expected one for each: the same split.")
    if array.dtype.kind not in "iuUT":
        raise FitError(f"labels holds {array.dtype}. {expected}")
    if array.dtype.kind in "iu" and array.min() < 0:
        raise FitError(
            f"labels holds {array.min()}. Expected labels from 0; −1 stands for an unknown class: fit on the samples "
            "whose class is known (y >= 0)."
        )
    return array


def is_sharded(space: Any) -> bool:
    """Whether it is a space in shards (`labkit.spaces.shards`), which is read by its rows: by its methods."""
    return all(callable(getattr(type(space), name, None)) for name in ("read", "blocks")) and hasattr(space, "shape")


def _is_matrix(space: Any) -> bool:
    if isinstance(space, list | tuple):
        return len(space) > 0 and (isinstance(space[0], list | tuple) or getattr(space[0], "ndim", 0) == 1)
    return bool(getattr(space, "ndim", 0) == 2) or is_sharded(space)


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
        "quantized": (tensor.is_quantized, ".dequantize()"),
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
