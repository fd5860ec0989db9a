"""A fitted Turtle as a file, and back; what is read is checked before it becomes one."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from labkit._saved import MALFORMED, read_saved, write_saved
from labkit.errors import CheckpointError, FitError, quote
from labkit.turtle.priors import shares_of
from labkit.turtle.settings import check_settings

if TYPE_CHECKING:
    from labkit.turtle.estimator import Turtle

HISTORIES = ({"inner_loss", "entropy", "outer_loss"}, {"inner_loss", "divergence", "outer_loss"})
ARRAYS = ("labels_", "confidence_", "n_found_", "prior_")


def write_turtle(turtle: Turtle, path: str | os.PathLike[str]) -> None:
    if not hasattr(turtle, "labels_"):
        raise CheckpointError("this Turtle was read from a released labeling, without a fit to keep. Keep that file.")
    arrays = {f"history/{name}": turtle.history_[name] for name in turtle.history_}
    for k, (weight, bias) in enumerate(turtle.restarts_):
        arrays |= {f"weight/{k}": weight, f"bias/{k}": bias, f"mean/{k}": turtle.means_[k]}
    arrays |= {name: getattr(turtle, name) for name in ARRAYS}
    settings = {name: plain for name, value in turtle.get_params().items() if (plain := _plain(value)) is not ...}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    try:
        write_saved(
            path,
            "Turtle",
            {"settings": settings, "best_restart": turtle.best_restart_, "columns": turtle.columns_},
            tensors,
        )
    except OSError as error:
        raise CheckpointError(f"the Turtle cannot be written to {path} ({error}). Choose another place.") from error


def read_turtle(cls: type[Turtle], path: str | os.PathLike[str]) -> Turtle:
    kept, tensors = read_saved(path, "Turtle", "Fit and save it again.")
    try:
        return _restored(cls, kept, {name: tensor.numpy() for name, tensor in tensors.items()})
    except MALFORMED as error:  # its digest is right, so it was made like that
        raise CheckpointError(f"{path} holds no whole Turtle ({error}). Fit and save it again.") from error


def _restored(cls: type[Turtle], kept: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Turtle:
    unknown = sorted(set(kept["settings"]) - set(cls().get_params()))
    if unknown:
        raise ValueError(f"it has settings that this labkit does not know: {quote(unknown)}")
    turtle = cls(**kept["settings"])
    n_spaces = sum(name.startswith("weight/") for name in arrays)
    turtle.restarts_ = [(arrays[f"weight/{k}"], arrays[f"bias/{k}"]) for k in range(n_spaces)]
    turtle.means_ = [arrays[f"mean/{k}"] for k in range(n_spaces)]
    turtle.history_ = {name[8:]: array for name, array in arrays.items() if name.startswith("history/")}
    for name in ARRAYS:
        setattr(turtle, name, arrays[name])
    turtle.best_restart_, turtle.columns_ = kept["best_restart"], kept["columns"]
    restarts, clusters = len(turtle.confidence_), len(turtle.prior_)
    _expect(turtle.n_clusters in (clusters, "auto"), "a share of each cluster")
    turtle.n_clusters_ = clusters
    _expect(isinstance(turtle.columns_, list) and len(turtle.columns_) == n_spaces, "columns of each space")
    _expect(n_spaces > 0 and turtle.labels_.ndim == 1, "a space and a label for each sample")
    for (weight, bias), mean in zip(turtle.restarts_, turtle.means_, strict=True):
        shapes = (weight.shape, bias.shape, mean.shape)
        _expect(shapes == ((restarts, clusters, len(mean)), (restarts, clusters), (len(mean),)), "weights that fit")
    _expect(set(turtle.history_) in HISTORIES, "the parts of the loss as history")
    _expect(all(values.shape[1:] == (restarts,) for values in turtle.history_.values()), "a history of each restart")
    _expect(turtle.n_found_.shape == turtle.confidence_.shape == (restarts,), "scores of each restart")
    _expect(isinstance(turtle.best_restart_, int) and 0 <= turtle.best_restart_ < restarts, "a restart that was kept")
    _expect(turtle.labels_.dtype == np.int64 and len(turtle.labels_) > 0, "class numbers")
    _expect(bool(((turtle.labels_ >= 0) & (turtle.labels_ < clusters)).all()), f"clusters from 0 to {clusters - 1}")
    exact = [*turtle.means_, *(array for layer in turtle.restarts_ for array in layer)]
    _expect(all(array.dtype == np.float64 for array in exact), "weights and means in float64")
    floats = [*exact, turtle.confidence_, turtle.prior_]
    _expect(all(array.dtype.kind == "f" and np.isfinite(array).all() for array in floats), "finite numbers")
    histories = turtle.history_.values()
    _expect(all(h.dtype.kind == "f" and not np.isinf(h).any() for h in histories), "numbers as history")
    _expect(turtle.prior_.shape == (clusters,) and bool((turtle.prior_ > 0).all()), "positive shares")
    named = [names for names in turtle.columns_ if names is not None]
    _expect(all(isinstance(name, str) for names in named for name in names), "texts as names of columns")
    try:
        check_settings(turtle, len(turtle.labels_))
        shares_of(turtle.prior, clusters)
    except FitError as error:
        raise ValueError(str(error)) from error
    turtle.n_features_in_ = sum(len(mean) for mean in turtle.means_)
    return turtle


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"expected {what}")


def _plain(value: object) -> Any:
    """A setting as JSON holds it; `...` where it cannot, as with a NumPy RandomState."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(v, numbers.Real) for v in value):
        return [float(v) for v in value]
    return value if value is None or isinstance(value, bool | str) else ...
