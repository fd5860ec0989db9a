"""Samples of a fit that are divided among processes: who holds which, and means and sums over all of them.

The samples of all processes are numbered through, in the order of the ranks. All processes draw the same batches of
these numbers, and each computes on the samples of a batch that it holds. What the solver adds up over a batch is small:
gradients, mean labelings, losses. The means of the processes, weighted by their samples, give the mean that one process
with all samples has, so all take the same steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from labkit._inputs import is_sharded, named_spaces
from labkit._processes import are_launched, close_at_exit
from labkit._stored import RowRange, Space
from labkit.devices import pick_device
from labkit.errors import FitError, LabkitError


class Whole:
    """All samples of a fit in one process: every mean is that of all.

    Attributes:
        n: samples of all processes together.
        processes: their number.
    """

    processes = 1

    def __init__(self, n: int) -> None:
        self.n = n

    def mine(self, numbers: Tensor) -> Tensor:
        """Which rows of this process some samples are, given the numbers of samples of all: (m,) -> (≤ m,)."""
        return numbers

    def drawn(self, numbers: Tensor) -> Whole:
        """How samples that were drawn, whose numbers are (m,) in order, are divided; they are numbered anew."""
        return type(self)(len(numbers))

    def average(self, mean: Tensor, n_mine: int, n: int) -> Tensor:
        """The mean over n samples of all processes, in the place of the mean over the n_mine that are here."""
        return mean

    def total(self, part: Tensor) -> Tensor:
        """The sum over processes, in the place of the part of it that is here."""
        return part

    def same(self, seed: int) -> int:
        """The number that the first process has."""
        return seed

    def rows(self, space: Space | Any, numbers: Tensor) -> Tensor:
        """These samples (m,) of a space of which each process has its rows: (m, d), in all processes."""
        return space[numbers]

    def sample(self, space: Space, numbers: Tensor) -> tuple[Space, Tensor]:
        """A space that holds these samples (m,), and the numbers of its rows that they are."""
        if isinstance(space, Tensor):
            return space, numbers
        return space[numbers], torch.arange(len(numbers))  # read once

    def agreeing(self) -> contextlib.AbstractContextManager[None]:
        """Within it, what makes one process fail makes all of them fail; it must hold no means or sums."""
        return contextlib.nullcontext()


class Part(Whole):
    """The samples of a fit of which this process holds a part.

    Args:
        counts: samples of each process.
        device: where the tensors are that are summed.
    """

    def __init__(self, counts: list[int], device: torch.device) -> None:
        super().__init__(sum(counts))
        self.counts, self.device, self.processes = counts, device, len(counts)
        rank = dist.get_rank()
        self.first, self.past = sum(counts[:rank]), sum(counts[: rank + 1])

    def mine(self, numbers: Tensor) -> Tensor:
        return numbers[(numbers >= self.first) & (numbers < self.past)] - self.first

    def drawn(self, numbers: Tensor) -> Part:
        ends = torch.tensor(self.counts).cumsum(0)
        below = torch.searchsorted(numbers, ends)  # how many of the drawn samples belong to this rank or one before
        return Part(below.diff(prepend=below.new_zeros(1)).tolist(), self.device)

    def average(self, mean: Tensor, n_mine: int, n: int) -> Tensor:
        if n_mine == 0:  # a mean of nothing
            mean.zero_()
        return self.total(mean.mul_(n_mine / n))

    def total(self, part: Tensor) -> Tensor:
        there = part.to(self.device)  # where the processes can exchange it
        dist.all_reduce(there)
        return there.to(part.device)

    def same(self, seed: int) -> int:
        seeds = [seed]
        dist.broadcast_object_list(seeds)
        return seeds[0]

    def rows(self, space: Space | Any, numbers: Tensor) -> Tensor:
        is_mine = (numbers >= self.first) & (numbers < self.past)
        own = space[self.mine(numbers)]
        exact = torch.float64 if own.dtype == torch.float64 else torch.float32
        together = torch.zeros(len(numbers), space.shape[1], dtype=exact, device=self.device)
        together[is_mine.to(self.device)] = own.to(self.device, exact)
        return self.total(together).to(space.device, space.dtype)

    def sample(self, space: Space, numbers: Tensor) -> tuple[Space, Tensor]:
        return self.rows(space, numbers), torch.arange(len(numbers))

    def agreeing(self) -> contextlib.AbstractContextManager[None]:
        return agreeing(self.device)


def own_part(spaces: Any, device: str | torch.device = "auto") -> Any:
    """The samples that are this process's among those that a launcher has started: a part in a row, all alike in size.

    Args:
        spaces: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples; np.memmap and
            `labkit.spaces.shards.ShardedFeatures` are not read.
        device: that of the fit.

    Returns:
        What `Turtle.fit_parts` takes; in one process what was given.

    Raises:
        FitError: there are fewer samples than processes, or a space is no array.
    """
    if not connect(pick_device(device)):
        return spaces
    named, rank, world = named_spaces(spaces), dist.get_rank(), dist.get_world_size()
    parts = []
    for name, space in named.items():
        n = getattr(space, "shape", (0,))[0]
        if n < world:
            raise FitError(
                f"{name} has {n} samples, for {world} processes. Expected an array with one for each of them at least."
            )
        start, stop = n * rank // world, n * (rank + 1) // world
        parts.append(RowRange(space, start, stop) if is_sharded(space) else space[start:stop])
    return parts[0] if "X" in named else parts


def part_of(spaces: list[Space], device: torch.device) -> Whole:
    """How the samples of all processes are divided, where this one has these spaces.

    Raises:
        FitError: the processes have other spaces.
    """
    n, dims = len(spaces[0]), [space.shape[1] for space in spaces]
    if not connect(device):
        return Whole(n)
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, (n, dims, [str(space.dtype) for space in spaces]))
    for rank, (_, *kind) in enumerate(everywhere):
        if kind != list(everywhere[0][1:]):
            found, expected = (f"{widths} features of {dtypes}" for widths, dtypes in (kind, everywhere[0][1:]))
            raise FitError(
                f"process {rank} has spaces with {found}, process 0 with {expected}. Expected the same spaces of "
                "other samples in every process."
            )
    return Part([count for count, *_ in everywhere], device)


def connect(device: torch.device) -> bool:
    """Whether there are other processes, which a launcher has started; connects to them if nobody has."""
    if not dist.is_available():
        return False
    if not dist.is_initialized() and are_launched():
        from accelerate import PartialState

        close_at_exit()
        PartialState(cpu=device.type == "cpu")
    return dist.is_initialized() and dist.get_world_size() > 1


@contextlib.contextmanager
def agreeing(device: torch.device) -> Iterator[None]:
    """Within it, an error of one process is raised in all of them; otherwise the others would wait for it."""
    if not connect(device):
        yield
        return
    error: LabkitError | None = None
    try:
        yield
    except LabkitError as problem:
        error = problem
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, None if error is None else str(error))
    if error is not None:
        raise error
    for rank, message in enumerate(said):
        if message is not None:
            raise FitError(f"process {rank} stopped: {message}")
