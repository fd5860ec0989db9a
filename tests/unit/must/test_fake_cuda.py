"""Steps of MUST on fake CUDA tensors: PyTorch's own stand-in, which raises where a step reads a number from the device
or mixes devices, on any machine. What no stand-in shows, `make gpu` does.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from labkit.must import MaskedClassifier, MustConfig, Trainer, new_state, trainer
from tests import tiny
from tests.fake import needed
from tests.unit.must.test_model import tower

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
pytestmark = needed


def on_fake_gpu(module: torch.nn.Module) -> None:
    """Replace all parameters, as `Module.to` cannot where they are fake."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            learns = parameter.requires_grad
            setattr(part, name, torch.nn.Parameter(torch.empty(parameter.shape, device="cuda"), requires_grad=learns))


def backward(loss: torch.Tensor) -> None:
    """`loss.backward()`, node by node: PyTorch's own engine asks the driver for a device before it starts."""
    order: list[Any] = []
    waiting, met = [(loss.grad_fn, False)], set()
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif node is not None and node not in met:
            met.add(node)
            waiting += [(node, True), *((following, False) for following, _ in node.next_functions)]
    grads: dict[Any, list[torch.Tensor | None]] = {node: [None] * len(node._input_metadata) for node in order}
    grads[loss.grad_fn] = [torch.ones_like(loss)]
    for node in reversed(order):
        if hasattr(node, "variable"):
            before, [grad] = node.variable.grad, grads[node]
            node.variable.grad = grad if before is None else before + grad
            continue
        given = node(*grads[node])
        for grad, (following, i) in zip(
            given if isinstance(given, tuple) else (given,), node.next_functions, strict=True
        ):
            if following is not None and grad is not None:
                wanted, before = following._input_metadata[i], grads[following][i]
                grad = grad.sum_to_size(wanted.shape).to(wanted.dtype)  # as the engine does, after broadcasts
                grads[following][i] = grad if before is None else before + grad


def fake_steps(config: MustConfig, dtype: torch.dtype, n_steps: int = 2) -> dict[str, torch.Tensor]:
    """What the last of some steps tells, all of it on a GPU that is not there."""
    student = MaskedClassifier(tower(), torch.randn(3, 16), 10.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_fake_gpu(student)
        one = Trainer(new_state(student, config), config, MEAN, STD, steps_per_epoch=5, dtype=dtype)
        views = torch.zeros(2, config.batch_size, 3, 16, 16, dtype=torch.uint8)  # on the CPU, as a loader gives them
        for _ in range(n_steps):
            seen = one.step(*views)
        parameters = [*one.state.student.parameters(), *one.state.teacher.parameters(), one.state.moving_mean]
        assert {tensor.device.type for tensor in (*seen.values(), *parameters)} == {"cuda"}
    return seen


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.amp.grad_scaler.amp_definitely_not_available", lambda: False, raising=False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)


def test_the_walk_gives_the_gradients_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole step on the CPU."""
    found = []
    for walk in (True, False):
        if not walk:
            monkeypatch.undo()
        state = new_state(MaskedClassifier(tower(), torch.ones(3, 16).tril(), 10.0), tiny.config())
        one = Trainer(state, tiny.config(), MEAN, STD, steps_per_epoch=5)
        state.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
        pixels = torch.arange(8 * 3 * 16 * 16).view(8, 3, 16, 16).to(torch.uint8)
        one.step(pixels, pixels.flip(3))
        found.append([parameter.grad for parameter in state.student.parameters()])
    for walked, expected in zip(*found, strict=True):
        torch.testing.assert_close(walked, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "fairness_momentum": 0.5}, {"mask_ratio": 0.0}])
def test_steps_run_on_a_fake_gpu(changes: dict[str, Any], dtype: torch.dtype) -> None:
    seen = fake_steps(tiny.config(**changes), dtype)
    assert seen["loss"].dtype == seen["probs"].dtype == torch.float32
    assert seen["probs"].shape == (8, 3)


def test_reading_a_number_from_a_fake_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    original = trainer.fairness_loss
    monkeypatch.setattr(trainer, "fairness_loss", lambda *given: original(*given) * (given[0].sum().item() > 0))
    with pytest.raises(DataDependentOutputException):
        fake_steps(tiny.config(), torch.float32)


def test_another_device_on_a_fake_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer.fairness_loss
    monkeypatch.setattr(trainer, "fairness_loss", lambda mean, prior: original(mean + torch.ones(3), prior))
    with pytest.raises(Exception, match="device"):
        fake_steps(tiny.config(), torch.float32)
