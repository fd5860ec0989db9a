"""The labelings that the authors of TURTLE released, as fitted Turtles: their task encoders, to score on our features.

A released file (`turtle_tasks.zip` of the project page, or what the authors' `run_turtle.py` writes) is a pickle of
PyTorch: {"phi1": {"weight": (C, d_1), "bias": (C,)}, "phi2": …}, a linear layer for each space whose weight
normalization is already multiplied out. The labeling is the mean of the spaces' softmax, as in eq. 9 of Gadetsky et
al., ICML 2024.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from labkit._files import open_regular, user_path
from labkit.errors import CheckpointError, quote, shown

if TYPE_CHECKING:
    from labkit.turtle.estimator import Turtle

LARGEST_FILE = 1 << 30  # bytes; the largest that was released, 1,000 classes in 2,304 features, has 9 MB
EXPECTED = 'Expected a released labeling: {"phi1": {"weight": (C, d), "bias": (C,)}, "phi2": …}.'


def read_published(cls: type[Turtle], path: str | os.PathLike[str], **settings: Any) -> Turtle:
    """The labeling in a released file.

    It predicts for the spaces that it was found in, in that order, features as the encoders give them. Another accuracy
    than the published one on the same test split then tells of other features, not of another fit.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else than weights and biases.
    """
    layers = [_layer(user_path(path), name, layer) for name, layer in _layers(user_path(path)).items()]
    clusters = {len(bias) for _, bias in layers}
    if len(clusters) > 1:
        raise CheckpointError(f"{shown(user_path(path))} has layers of {sorted(clusters)} classes. {EXPECTED}")
    [n_clusters] = clusters
    turtle = cls.official(n_clusters, **settings)
    turtle.restarts_ = [(weight[None], bias[None]) for weight, bias in layers]
    turtle.means_ = [np.zeros(weight.shape[1]) for weight, _ in layers]
    turtle.n_features_in_ = sum(weight.shape[1] for weight, _ in layers)
    turtle.columns_ = [None] * len(layers)
    turtle.n_clusters_, turtle.best_restart_ = n_clusters, 0
    turtle.prior_ = np.full(n_clusters, 1 / n_clusters)
    turtle.confidence_ = np.full(1, np.nan)  # the file does not say
    return turtle


def _layers(path: Path) -> dict[str, Any]:
    """What is in the file: its layers in the order of the spaces."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                raise CheckpointError(f"{shown(path)} is larger than {LARGEST_FILE:,} bytes. {EXPECTED}")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
    except CheckpointError:
        raise
    except Exception as error:  # of zip, of pickle, of what a pickle may not name: its advice would be unsafe
        raise CheckpointError(
            f"{shown(path)} is damaged, or holds other things than weights ({type(error).__name__}). {EXPECTED}"
        ) from error
    names = list(found) if isinstance(found, dict) else []
    if not names or names != [f"phi{k}" for k in range(1, len(names) + 1)]:
        raise CheckpointError(f"{shown(path)} holds {quote(names or type(found).__name__)}. {EXPECTED}")
    return found


def _layer(path: Path, name: str, layer: object) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, d) and bias (C,) of a space, in float64."""
    parts = layer if isinstance(layer, dict) else {}
    weight, bias = parts.get("weight"), parts.get("bias")
    if (
        set(parts) != {"weight", "bias"}
        or not isinstance(weight, Tensor)
        or not isinstance(bias, Tensor)
        or weight.ndim != 2
        or bias.shape != weight.shape[:1]
        or not (weight.is_floating_point() and bias.is_floating_point())
        or weight.shape[1] == 0
        or len(bias) < 2
    ):
        found = {key: tuple(getattr(value, "shape", ())) for key, value in parts.items()} or type(layer).__name__
        raise CheckpointError(f"{shown(path)} has {quote(found)} as {name}. {EXPECTED}")
    arrays = weight.double().numpy(), bias.double().numpy()
    if not all(np.isfinite(array).all() for array in arrays):
        raise CheckpointError(f"{shown(path)} has numbers in {name} that are not finite. {EXPECTED}")
    return arrays
