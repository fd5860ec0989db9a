"""labkit's solver against numbers of the authors' published program: 40 outer steps from the same weights and batches.

`turtle_golden.safetensors` was made by running that program on tiny random features (float32, CPU). For every case it
holds the initial weights, each draw of the classifiers, the rows of every batch, and the task encoders at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from labkit.turtle import Layers, TurtleSolver

HERE = Path(__file__).parent
CASES = json.loads((HERE / "turtle_golden.json").read_text("utf-8"))
ROUNDING = 2e-6  # five times what float32 makes of the order of additions


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(HERE / "turtle_golden.safetensors")


def golden_solver(case: str, tensors: dict[str, Tensor], device: str = "cpu", **changes: Any) -> TurtleSolver:
    """labkit's solver as the published program begins the case; `changes` to its settings are mistakes on purpose."""
    golden = CASES[case]
    settings = {
        "entropy_weight": golden["gamma"],
        "n_inner_steps": golden["M"],
        "outer_lr": golden["outer_lr"],
        "inner_lr": golden["inner_lr"],
        "inner_start": "warm" if golden["warm"] else "cold",
    }
    spaces = [tensors[f"features/{space}"][: golden["n"]].to(device) for space in golden["spaces"]]
    solver = TurtleSolver(spaces, golden["clusters"], torch.Generator(device), **{**settings, **changes})
    for k in range(len(spaces)):
        _set_layer(solver.encoder, k, tensors[f"{case}/encoder/{k}/weight"], tensors[f"{case}/encoder/{k}/bias"])
        solver.encoder.gains[k].copy_(solver.encoder.weights[k].norm(dim=-1))
    draws = _draws(case, tensors, solver.classifier)
    if not golden["warm"]:
        next(draws)  # the published program draws once more before its first step
    next(draws)
    solver.classifier.draw = lambda generator: next(draws)  # type: ignore[method-assign]
    return solver


def _draws(case: str, tensors: dict[str, Tensor], classifier: Layers) -> Iterator[None]:
    """Sets the classifiers to one published draw after the other."""
    for i in range(len(tensors[f"{case}/classifier/0/weight"])):
        for k in range(len(classifier.weights)):
            weight, bias = (tensors[f"{case}/classifier/{k}/{name}"][i] for name in ("weight", "bias"))
            _set_layer(classifier, k, weight, bias)
        yield


def _set_layer(layers: Layers, k: int, weight: Tensor, bias: Tensor) -> None:
    layers.weights[k][0] = weight
    layers.biases[k][0] = bias


def largest_difference(case: str, tensors: dict[str, Tensor], device: str = "cpu", **changes: Any) -> float:
    """Of the task encoders' weights and biases after all steps of a case, labkit's from the published ones."""
    solver = golden_solver(case, tensors, device, **changes)
    for rows in tensors[f"{case}/rows"].to(device):
        solver.step([space[rows] for space in solver.spaces])
    gaps = []
    for k in range(len(solver.spaces)):
        weight, bias = solver.encoder.normalized_weight(k)[0].cpu(), solver.encoder.biases[k][0].cpu()
        gaps += [weight - tensors[f"{case}/after/{k}/weight"], bias - tensors[f"{case}/after/{k}/bias"]]
    return max(gap.abs().max().item() for gap in gaps)


@pytest.mark.parametrize("case", CASES)
def test_forty_steps_equal_the_golden_ones(case: str, tensors: dict[str, Tensor]) -> None:
    assert largest_difference(case, tensors) < ROUNDING


@pytest.mark.parametrize(
    "mistake",
    [
        {"entropy_weight": 9.9},
        {"n_inner_steps": 4},
        {"outer_lr": 0.0101},
        {"inner_lr": 0.0202},
        {"inner_start": "warm"},
    ],
)
def test_the_golden_numbers_tell_a_wrong_setting(mistake: dict, tensors: dict[str, Tensor]) -> None:
    assert largest_difference("two_cold", tensors, **mistake) > 50 * ROUNDING
