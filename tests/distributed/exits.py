"""How a process leaves the others: an open group of Gloo aborts about one exit in six."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

import torch.distributed as dist


def note_group_at_exit(folder: Path) -> None:
    """Write whether the process group is still there after everything that is registered later has run."""

    def write() -> None:
        (folder / f"group-{os.environ['RANK']}.txt").write_text("open" if dist.is_initialized() else "closed", "utf-8")

    atexit.register(write)


def groups(folder: Path) -> list[str]:
    """What the processes wrote, in the order of their ranks."""
    return [path.read_text("utf-8") for path in sorted(folder.glob("group-*.txt"))]
