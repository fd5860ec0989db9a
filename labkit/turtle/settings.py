"""What the settings of `Turtle` may be; anything else is named before the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_random_state

from labkit._inputs import LARGEST_COUNT, is_number, is_seed, is_whole
from labkit.devices import DTYPES
from labkit.errors import FitError, quote

if TYPE_CHECKING:
    from labkit.turtle.estimator import Turtle

LARGEST_SETTING = 1e30  # that float32 holds, divided by anything that it is divided by


def check_settings(turtle: Turtle, n: int) -> None:
    """Raise a FitError for settings that make no sense for n samples."""
    is_auto = isinstance(turtle.n_clusters, str) and turtle.n_clusters == "auto"
    if not is_auto and not is_whole(turtle.n_clusters, 2, n):
        raise FitError(
            f"n_clusters is {quote(turtle.n_clusters)}. Expected a whole number from 2 to the number of samples, "
            f'n_samples = {n}, or "auto".'
        )
    for name in ("n_restarts", "n_outer_steps", "n_inner_steps", "batch_size", "n_components"):
        value, can_be_none = getattr(turtle, name), name in ("batch_size", "n_components")
        if not is_whole(value, 1) and not (value is None and can_be_none):
            or_none = " or None" if can_be_none else ""
            raise FitError(f"{name} is {quote(value)}. Expected a whole number from 1 to {LARGEST_COUNT:,}{or_none}.")
    for name in ("outer_lr", "inner_lr", "entropy_weight", "feature_scale"):
        value = getattr(turtle, name)
        if value is None and name == "feature_scale":
            continue
        least = 0.0 if name == "entropy_weight" else math.ulp(0.0)
        if not is_number(value, least, LARGEST_SETTING):
            range_ = "from 0" if name == "entropy_weight" else "above 0"
            raise FitError(f"{name} is {quote(value)}. Expected a number {range_} and at most {LARGEST_SETTING:.0e}.")
    if not is_number(turtle.whitening, 0, 1):
        raise FitError(f"whitening is {quote(turtle.whitening)}. Expected a number from 0 (none) to 1 (all of it).")
    for name, known in (("inner_start", ("cold", "warm")), ("dtype", ("auto", *sorted(DTYPES)))):
        value = getattr(turtle, name)
        if not isinstance(value, str) or value not in known:
            raise FitError(f"{name} is {quote(value)}. Expected {_either(known)}.")
    for name in ("progress", "race"):
        if not isinstance(getattr(turtle, name), bool):
            raise FitError(f"{name} is {quote(getattr(turtle, name))}. Expected True or False.")


def random_state_of(random_state: Any) -> np.random.RandomState:
    """The generator that a `random_state` stands for, as in scikit-learn.

    Raises:
        FitError: it is none.
    """
    if not is_seed(random_state) and random_state is not np.random:
        raise FitError(
            f"random_state is {quote(random_state)}. Expected a whole number from 0 to 2**32 - 1, a NumPy "
            "RandomState or None."
        )
    return check_random_state(random_state)


def _either(names: Sequence[str]) -> str:
    *first, last = (f'"{name}"' for name in names)
    return f"{', '.join(first)} or {last}"
