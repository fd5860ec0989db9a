"""Notebook 01's loss against two other implementations of it, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from labkit.course import exercises


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_the_loss_is_that_of_pytorch_and_open_clip(temperature: float) -> None:
    from open_clip.loss import ClipLoss

    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(16, 8)), rng.normal(size=(16, 8))
    loss = exercises.get("01.2").reference(images, texts, temperature)
    x, t = (F.normalize(torch.from_numpy(rows), dim=1) for rows in (images, texts))
    logits, own = x @ t.T / temperature, torch.arange(16)
    both = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert both.dtype == torch.float64
    assert loss == pytest.approx(both.item(), rel=1e-12)
    assert loss == pytest.approx(ClipLoss()(x, t, 1 / temperature).item(), rel=1e-12)


def test_the_calibration_error_is_that_of_labkit() -> None:
    import labkit as lk

    rng = np.random.default_rng(0)
    confidence = np.append(rng.uniform(0.1, 1, 500), [0.2, 1.0])  # on the edges of bins too
    correct = rng.uniform(size=502) < confidence
    ours = exercises.get("01.4").reference(confidence, correct, 10)
    assert ours == pytest.approx(lk.expected_calibration_error(confidence, correct), abs=1e-12)
