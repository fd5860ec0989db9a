"""Features as the solver gets them: in memory where they fit, otherwise computed anew for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from labkit._stored import Space
from labkit.devices import DTYPES, fast_dtype, pick_device
from labkit.turtle.parallel import Whole
from labkit.turtle.settings import random_state_of
from labkit.turtle.transform import FeatureTransform, is_as_given, transform_rows, transformed

if TYPE_CHECKING:
    from labkit.turtle.estimator import Turtle

SAMPLE = 8192  # rows that mean, scale and directions of a space are taken from; of fewer all
SHARE = 0.25  # of the memory that is free: transformed features that take no more are held
CHECKED = 1000  # rows
CONTAINER = Path("/sys/fs/cgroup/memory.max")  # where Linux says how much memory this container may use


class StreamedSpace:
    """A space (n, k) as the solver gets it, of which batches are computed from rows as given.

    Args:
        space: as given, (m, d).
        transform: what its rows go through.
        rows: numbers (n,) of those that take part, in order.
        device, dtype: of the batches.

    Raises:
        FitError: the first rows cannot be computed with.
    """

    def __init__(
        self, space: Space, transform: FeatureTransform, rows: Tensor, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.space, self.transform, self.row_numbers = space, transform, rows
        self.device, self.dtype = device, dtype
        self.shape = (len(rows), transform.width)
        transformed(space, transform, rows[:CHECKED], device, dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows (b, k), whose numbers are (b,)."""
        result = torch.empty(len(rows), self.shape[1], dtype=self.dtype, device=self.device)
        return transform_rows(self.space, self.transform, self.row_numbers[rows.cpu()], result)


SolverSpace: TypeAlias = Tensor | StreamedSpace


def select(space: SolverSpace, rows: Tensor, batch: Tensor) -> None:
    """Write rows (b,) of a space into a batch (b, k)."""
    if isinstance(space, Tensor):
        torch.index_select(space, 0, rows, out=batch)
    else:
        transform_rows(space.space, space.transform, space.row_numbers[rows.cpu()], batch)


def solver_inputs(
    turtle: Turtle, spaces: Sequence[Space], parts: Whole
) -> tuple[list[SolverSpace], list[FeatureTransform], torch.Generator, Whole]:
    """What a fit works on.

    Returns:
        The spaces as the solver gets them, how each was transformed, the source of all that is random in the solver,
        and how the samples that the steps draw are divided among processes.

    Raises:
        FitError: features or settings that cannot be computed with.
    """
    device = pick_device(turtle.device)
    dtype = fast_dtype(device) if turtle.dtype == "auto" else DTYPES[turtle.dtype]
    exact = torch.float64 if turtle.dtype == "float64" else torch.float32  # of all that is not a matrix product
    seed = parts.same(int(random_state_of(turtle.random_state).randint(2**31 - 1)))
    n, order = parts.n, torch.Generator().manual_seed(seed)
    sample = _some_rows(n, SAMPLE, order)
    scale = None if turtle.feature_scale is None else float(turtle.feature_scale)
    transforms = [
        FeatureTransform.from_rows(
            *parts.sample(space, sample), turtle.n_components, float(turtle.whitening), scale, exact
        )
        for space in spaces
    ]
    rows = _some_rows(n, turtle.n_outer_steps * min(turtle.batch_size or n, n), order)
    batches = turtle.batch_size is not None and turtle.batch_size < len(rows)
    with parts.agreeing():
        features = solver_spaces(spaces, transforms, parts.mine(rows), device, dtype, batches=batches)
    return features, transforms, torch.Generator(device).manual_seed(seed), parts.drawn(rows)


def _some_rows(n: int, most: int, generator: torch.Generator) -> Tensor:
    """Row numbers in order: all n, or a random part where there are more than `most`."""
    return torch.arange(n) if n <= most else torch.randperm(n, generator=generator)[:most].sort().values


def solver_spaces(
    spaces: Sequence[Space],
    transforms: Sequence[FeatureTransform],
    rows: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batches: bool,
) -> list[SolverSpace]:
    """These rows of all spaces, as the solver gets them.

    Args:
        batches: whether the solver takes a part of the rows at a time. Only then can they be computed anew for each
            step, which they are where together they would take more than `SHARE` of the memory that is free.
    """
    given = list(zip(spaces, transforms, strict=True))
    if len(rows) == 0:  # of several processes one may hold none of the samples that are drawn
        return [torch.empty(0, t.width, dtype=dtype, device=device) for t in transforms]
    new = [t.width for z, t in given if not is_as_given(z, t, len(rows), device, dtype)]
    if batches and len(rows) * sum(new) * dtype.itemsize > SHARE * free_memory(device):
        return [
            transformed(z, t, rows, device, dtype)
            if is_as_given(z, t, len(rows), device, dtype)
            else StreamedSpace(z, t, rows, device, dtype)
            for z, t in given
        ]
    return [transformed(z, t, rows, device, dtype) for z, t in given]


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit = CONTAINER.read_text("utf-8").strip() if CONTAINER.exists() else "max"
    return free if limit == "max" else min(free, int(limit))
