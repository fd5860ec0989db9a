"""Several processes of one run: whether a launcher has started others, and how this one leaves them."""

from __future__ import annotations

import atexit
import functools
import os

import torch.distributed as dist


def are_launched() -> bool:
    """Whether `accelerate launch`, `torchrun` or `notebook_launcher` has started more processes than this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@functools.cache
def close_at_exit() -> None:
    """Destroy the process group when Python exits, if it is still there.

    Gloo's threads hold tensors of the last exchange. Where one lets go of them while the interpreter shuts down, the
    process aborts with "terminate called without an active exception", about once in six exits, and its launcher takes
    that for a failure. Destroying the group waits for these threads.
    """
    atexit.register(_close)


def _close() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
