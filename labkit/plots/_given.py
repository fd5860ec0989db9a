"""What figures are given: arrays, images, names and frames, checked, or one clear error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from labkit._inputs import plain_array, real_array
from labkit.errors import DataError, quote


def expect(holds: bool, given: str, expected: str) -> None:
    if not holds:
        raise DataError(f"a figure got {given}. Expected {expected}.")


def count(name: str, given: Any) -> int:
    """How many images or names there are, at least one."""
    counted = hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, str | Mapping)
    expect(counted and getattr(given, "ndim", 1) > 0, f"{name} {quote(given)}", "a list of them")
    expect(len(given) > 0, f"no {name}", "at least one")
    return len(given)


def numbers(name: str, given: ArrayLike, n: int | None = None) -> np.ndarray:
    """Finite numbers, (n,), n ≥ 1."""
    array = real_array(name, given, "Expected a number for each sample, (n,).", DataError)
    fits = array.ndim == 1 and len(array) > 0 and (n is None or len(array) == n) and bool(np.isfinite(array).all())
    expect(fits, f"{name} of shape {array.shape}", f"a finite number for each, ({'n' if n is None else n},)")
    return array


def whole_numbers(name: str, given: ArrayLike, n: int | None = None) -> np.ndarray:
    """The class or cluster of each sample, (n,), n ≥ 1; −1 stands for unknown."""
    array = plain_array(name, given, "Expected a whole number for each sample, (n,).", DataError)
    fits = array.ndim == 1 and len(array) > 0 and (n is None or len(array) == n)
    expected = f"a whole number from −1 on for each, ({'n' if n is None else n},)"
    expect(fits, f"{name} of shape {array.shape}", expected)
    expect(array.dtype.kind in "iu" and array.min() >= -1, f"{name} of {array.dtype}: {quote(array)}", expected)
    return array


def expect_texts(name: str, given: Any) -> int:
    """How many texts there are, at least one."""
    n = count(name, given)
    expect(all(isinstance(text, str) for text in given), f"{name} {quote(given)}", "texts")
    return n


def expect_names(name: str, names: Any, labels: np.ndarray, *, least: int = -1) -> None:
    """A name for each of the labels, which begin at `least`."""
    expect(labels.min() >= least, f"the label {labels.min()}", f"labels from {least} on")
    if names is not None:
        n = expect_texts(name, names)
        expect(labels.max() < n, f"the label {labels.max()} and {n} {name}", "a name for each")


def expect_frame(given: Any, *columns: str) -> None:
    expect(hasattr(given, "columns") and hasattr(given, "dtypes"), quote(given), "a pandas DataFrame")
    names = list(given.columns)
    expect(set(columns) <= set(names), f"a frame without {sorted(set(columns) - set(names))}", "all of these columns")
