"""TURTLE's steps on a CUDA device that is not there: fake tensors know device, dtype and shape, and have no numbers.

So whatever would need the numbers on the way, such as `.item()`, raises, and so does a tensor on another device. On a
GPU either would make the host wait in every step, or fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import labkit.turtle.solver
from labkit.turtle import TurtleSolver
from labkit.turtle.criteria import consensus, pairwise_nmi, silhouette, stability
from labkit.turtle.probe import cross_validated_accuracy
from tests.fake import needed

pytestmark = needed
N, DIMS, CLUSTERS, RESTARTS = 40, (12, 7), 4, 2


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def two_steps(spaces: int = 2, dtype: torch.dtype = torch.float32, **settings: Any) -> torch.Tensor:
    """What the second outer step returns."""
    features = [torch.empty(N, d, dtype=dtype, device="cuda") for d in DIMS[:spaces]]
    solver = TurtleSolver(features, CLUSTERS, None, n_restarts=RESTARTS, n_inner_steps=2, **settings)
    solver.step()
    return torch.stack(solver.step())


@pytest.mark.parametrize("inner_start", ["cold", "warm"])
@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spaces", [1, 2])
def test_outer_steps_stay_on_the_gpu(inner_start: str, batch_size: int | None, dtype: torch.dtype, spaces: int) -> None:
    losses = two_steps(spaces, dtype, inner_start=inner_start, batch_size=batch_size)
    assert losses.device.type == "cuda"
    assert losses.dtype == torch.float32
    assert losses.shape == (2, RESTARTS)


def test_a_number_on_the_way_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    entropy = labkit.turtle.solver.entropy
    monkeypatch.setattr(labkit.turtle.solver, "entropy", lambda mean: entropy(mean) / entropy(mean).max().item())
    with pytest.raises(DataDependentOutputException):
        two_steps()


def test_a_tensor_that_was_left_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    entropy = labkit.turtle.solver.entropy
    monkeypatch.setattr(labkit.turtle.solver, "entropy", lambda mean: entropy(mean) + torch.zeros(RESTARTS))
    with pytest.raises(RuntimeError, match=r"(?s)cuda.*cpu|same device"):
        two_steps()


def test_restarts_with_rates_of_their_own_stay_on_the_gpu() -> None:
    solver = TurtleSolver([torch.empty(N, d, device="cuda") for d in DIMS], CLUSTERS, None, n_restarts=RESTARTS)
    rates = torch.empty(RESTARTS, dtype=torch.float64)
    solver.set_each(outer_lr=rates, inner_lr=rates, entropy_weight=rates)
    for found in (*solver.step(), *solver.step()):
        assert (found.device.type, found.dtype) == ("cuda", torch.float32)


def test_scores_of_a_sweep_stay_on_the_gpu() -> None:
    features = torch.empty(N, DIMS[0], device="cuda")
    labelings = torch.empty(5, N, dtype=torch.int64, device="cuda")
    similarity = pairwise_nmi(labelings, CLUSTERS)
    for scores in (
        cross_validated_accuracy(features.bfloat16(), labelings, CLUSTERS),
        silhouette(features, labelings, CLUSTERS),
        consensus(similarity),
        stability(similarity, torch.zeros(5, device="cuda")),
    ):
        assert (scores.device.type, scores.shape) == ("cuda", (5,))
