"""The step of exercise 04.3, as its folded solution writes it, against labkit's own solver."""

from __future__ import annotations

import pytest
import torch

from labkit.course.exercises import get
from labkit.turtle import TurtleSolver
from tests.notebooks.test_exercises_in_notebooks import find

N, CLUSTERS = 30, 4


def solution() -> object:
    there = find("04.3")
    names: dict[str, object] = {"__name__": "__main__"}
    exec(f"{there.imports}\n{there.solution}", names)
    return eval(there.attempt, names)


@pytest.mark.parametrize("dims", [(5,), (5, 3), (5, 3, 2)])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0])
def test_turtle_step_equals_the_solver(dims: tuple[int, ...], gamma: float) -> None:
    """Classifiers and encoder gradient after one outer step; the solver's Adam is replaced by plain gradient steps."""
    generator = torch.Generator().manual_seed(0)
    spaces = [torch.randn(N, d, dtype=torch.float64, generator=generator) for d in dims]
    solver = TurtleSolver(
        spaces, CLUSTERS, torch.Generator().manual_seed(1), entropy_weight=gamma, n_inner_steps=4, inner_start="warm"
    )
    for layers in (solver.encoder, solver.classifier):
        for bias in layers.biases:
            bias.zero_()  # the exercise has none
    encoders = [solver.encoder.normalized_weight(k)[0].clone() for k in range(len(dims))]
    classifiers = [weight[0].clone() for weight in solver.classifier.weights]
    lr = 0.3

    def plain_step(grad: torch.Tensor) -> None:
        for bias in solver.classifier_grad.biases:
            bias.zero_()
        solver.classifier.flat.sub_(lr * grad)

    solver.inner.step = plain_step  # type: ignore[method-assign]
    solver.outer.step = lambda grad: None  # type: ignore[method-assign]
    solver.step()

    for step in (solution(), get("04.3").reference):
        moved, fitted = step(spaces, encoders, classifiers, 4, lr, gamma)
        for k in range(len(dims)):
            torch.testing.assert_close(fitted[k], solver.classifier.weights[k][0], rtol=0, atol=1e-10)
            grad = (encoders[k] - moved[k]) / lr
            # gains start at the norms of the directions, so the solver's two gradients are the parts of grad along
            # each row of weights and across it
            unit = encoders[k] / encoders[k].norm(dim=1, keepdim=True)
            along = (grad * unit).sum(1)
            torch.testing.assert_close(solver.encoder_grad.gains[k][0], along, rtol=0, atol=1e-10)
            torch.testing.assert_close(
                solver.encoder_grad.weights[k][0], grad - along[:, None] * unit, rtol=0, atol=1e-10
            )
