"""Several processes: Accelerate's view of the others, what only one of them computes, and how they share a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from labkit._processes import are_launched, close_at_exit
from labkit.errors import FitError
from labkit.must.config import MustConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")


def accelerator_for(device: str) -> Any:
    """Accelerate's view of the other processes; None where this one is alone.

    There it would only be in the way: it settles the device and the precision for the rest of the session, and a
    notebook that has used it once cannot launch several processes any more.
    """
    if not are_launched():
        return None
    from accelerate import Accelerator

    close_at_exit()
    cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    return Accelerator(cpu=cpu, mixed_precision="no")  # precision is up to the backbone's dtype


def from_main_process(accelerator: Any, compute: Callable[[], T]) -> T:
    """What `compute` returns on the main process, on all of them; an error there is raised everywhere."""
    if accelerator is None:
        return compute()
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = compute()
        except Exception as error:  # else the others would wait for ever
            answer[1] = error
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def whole_batches(config: MustConfig, n: int, processes: int) -> MustConfig:
    """The settings with a batch that is no larger than the data and can be shared out evenly."""
    parts = processes * config.accumulate
    if config.batch_size <= n and config.batch_size % parts == 0:
        return config
    if n < parts:
        raise FitError(
            f"{n} images cannot be shared among {processes} processes in {config.accumulate} micro-batches each."
        )
    size = min(config.batch_size, n) // parts * parts
    logger.warning(
        "A batch holds %d images instead of %d: no more than there are, as many for each process and micro-batch.",
        size,
        config.batch_size,
    )
    return config.replace(batch_size=size)
