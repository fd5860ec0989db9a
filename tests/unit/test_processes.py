"""How a process leaves the others of its run."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from labkit import _processes


@pytest.mark.parametrize(("backend", "destroyed"), [("gloo", 1), ("nccl", 0), ("cpu:gloo,cuda:nccl", 0)])
def test_a_group_of_gloo_alone_is_destroyed(backend: str, destroyed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of NCCL would wait for a process that an error has ended."""
    done: list[int] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append(1))
    _processes._close()
    assert len(done) == destroyed


def test_no_group_is_no_error() -> None:
    assert not dist.is_initialized()
    _processes._close()


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("3", False)])
def test_the_first_process_speaks(rank: str | None, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert _processes.is_first() == first
