"""labkit's solver against the NumPy oracle and against PyTorch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.turtle import Layers, TurtleSolver, cross_entropy, entropy, linear
from tests.oracle.turtle_numpy import TurtleOracle

N, C, DIMS = 43, 4, (7, 5, 3)  # 43 samples: blocks of equal size and some that are left over


def make_spaces(n_spaces: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(C, sum(DIMS), generator=generator, dtype=torch.float64)
    mixed = centers[torch.arange(N) % C] + 0.6 * torch.randn(N, sum(DIMS), generator=generator, dtype=torch.float64)
    return list(mixed.split(DIMS, dim=1))[:n_spaces]


def as_dicts(layers: Layers, restart: int) -> list[dict]:
    first = "direction" if layers.gains else "weight"
    dicts = []
    for k, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        dicts.append({first: weight[restart].numpy().copy(), "bias": bias[restart].numpy().copy()})
        if layers.gains:
            dicts[-1]["gain"] = layers.gains[k][restart].numpy().copy()
    return dicts


@pytest.mark.parametrize("prior", [None, (0.55, 0.25, 0.15, 0.05)], ids=["even", "shares"])
@pytest.mark.parametrize("n_spaces", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("inner_start", ["cold", "warm"])
def test_sixty_outer_steps_equal_the_oracle(
    inner_start: str, batch_size: int | None, n_spaces: int, prior: tuple[float, ...] | None
) -> None:
    spaces = make_spaces(n_spaces)
    shares = None if prior is None else np.array(prior)
    solver = TurtleSolver(
        spaces, C, torch.Generator().manual_seed(0), n_restarts=2, inner_start=inner_start, batch_size=batch_size,
        outer_lr=0.02, inner_lr=0.01, prior=None if shares is None else torch.from_numpy(shares),
    )  # fmt: skip
    oracles = [
        TurtleOracle(
            as_dicts(solver.encoder, r),
            as_dicts(solver.classifier, r),
            gamma=10.0,
            inner_steps=10,
            lrs=(0.02, 0.01),
            prior=shares,
        )
        for r in range(2)
    ]
    redraw, drawn = Layers.zeros(DIMS[:n_spaces], 2, C, gains=False, like=spaces[0]), torch.Generator()
    for step in range(60):
        batch = solver.next_batch()
        drawn.set_state(solver.generator.get_state())
        losses, entropies = solver.step(batch)
        if inner_start == "cold" and step > 0:
            redraw.draw(drawn)
        for r, oracle in enumerate(oracles):
            if inner_start == "cold" and step > 0:
                oracle.reset_inner(as_dicts(redraw, r))
            loss, marginal_entropy = oracle.step([z.numpy() for z in batch])
            assert losses[r].item() == pytest.approx(loss, abs=1e-6)
            assert entropies[r].item() == pytest.approx(marginal_entropy, abs=1e-6)
    for r, oracle in enumerate(oracles):
        for mine, its in zip(as_dicts(solver.encoder, r), oracle.encoders, strict=True):
            for key in mine:
                np.testing.assert_allclose(mine[key], its[key], atol=1e-6, err_msg=f"encoder {key}")
        for mine, its in zip(as_dicts(solver.classifier, r), oracle.classifiers, strict=True):
            for key in mine:
                np.testing.assert_allclose(mine[key], its[key], atol=1e-6, err_msg=f"classifier {key}")


@pytest.mark.parametrize("shares", [None, (0.55, 0.25, 0.15, 0.05)], ids=["even", "shares"])
def test_the_outer_gradient_equals_autograd(shares: tuple[float, ...] | None) -> None:
    spaces = make_spaces(2)
    prior = None if shares is None else torch.tensor(shares, dtype=torch.float64)
    solver = TurtleSolver(spaces, C, torch.Generator().manual_seed(0), n_restarts=3, prior=prior)
    flat = solver.encoder.flat.clone().requires_grad_(True)
    sizes = [t.numel() for t in (*solver.encoder.weights, *solver.encoder.biases, *solver.encoder.gains)]
    parts = flat.split(sizes)
    task_probs = []
    for k, z in enumerate(spaces):
        direction, bias, gain = (parts[k + 2 * i].view(3, C, -1) for i in range(3))
        weight = direction * gain / direction.norm(dim=-1, keepdim=True)
        task_probs.append(linear(z, weight, bias[..., 0]).softmax(1))
    labeling = torch.stack(task_probs).mean(0)
    solver.step(spaces)
    log_probs = [
        linear(z, w, b).log_softmax(1)
        for z, w, b in zip(spaces, solver.classifier.weights, solver.classifier.biases, strict=True)
    ]
    loss = sum(cross_entropy(lp, labeling).sum() for lp in log_probs)
    means = [probs.mean(-1) for probs in task_probs]
    if prior is None:
        loss = loss - 10.0 * sum(entropy(mean).sum() for mean in means)
    else:
        loss = loss + 10.0 * sum(torch.nn.functional.kl_div(prior.log(), mean, reduction="sum") for mean in means)
    loss.backward()
    torch.testing.assert_close(solver.encoder_grad.flat, flat.grad, rtol=1e-9, atol=1e-12)


def test_at_the_inner_optimum_the_first_order_gradient_is_the_true_one() -> None:
    """Envelope theorem: differentiating through the inner argmin changes nothing, since both levels share the loss."""
    (z,) = make_spaces(1)
    target_logits = torch.randn(1, C, N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def inner_optimum(labeling: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.zeros(1, C, z.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(1, C, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(linear(z, weight, bias).log_softmax(1), labeling).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return weight.detach(), bias.detach()

    def value(logits: torch.Tensor) -> float:
        labeling = logits.softmax(1)
        return cross_entropy(linear(z, *inner_optimum(labeling)).log_softmax(1), labeling).item()

    logits = target_logits.clone().requires_grad_(True)
    labeling = logits.softmax(1)
    cross_entropy(linear(z, *inner_optimum(labeling.detach())).log_softmax(1), labeling).sum().backward()
    for c, i in ((0, 0), (1, 7), (3, 21)):
        step = torch.zeros_like(target_logits)
        step[0, c, i] = 1e-4
        numeric = (value(target_logits + step) - value(target_logits - step)) / 2e-4
        assert logits.grad[0, c, i].item() == pytest.approx(numeric, abs=2e-6)
