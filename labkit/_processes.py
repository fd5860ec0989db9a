"""Several processes of one run: whether a launcher has started others, and how this one leaves them."""

from __future__ import annotations

import atexit
import functools
import os


def is_first() -> bool:
    """Whether this is the first process of a run, which speaks for all."""
    return int(os.environ.get("RANK", "0")) == 0


def are_launched() -> bool:
    """Whether `accelerate launch`, `torchrun` or `notebook_launcher` has started more processes than this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@functools.cache
def close_at_exit() -> None:
    """Destroy the process group when Python exits, if it is still there and one of Gloo.

    Gloo's threads hold tensors of the last exchange. Where one lets go of them while the interpreter shuts down, the
    process aborts with "terminate called without an active exception", about once in six exits, and its launcher takes
    that for a failure. Destroying the group waits for these threads. NCCL has none of them, and there a process that
    destroys waits for all others: after an error of one of them, for ever.
    """
    atexit.register(_close)


def _close() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
