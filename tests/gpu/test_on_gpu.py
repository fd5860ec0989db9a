"""What runs on a CPU everywhere gives the same on a GPU: TURTLE, a step of MUST, features, and what full memory says.

`make gpu` runs these. With LABKIT_GPU_TESTS=cpu they run on the CPU instead, which only shows that they run.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import adjusted_rand_score

import labkit as lk
from labkit.devices import explain_out_of_memory
from labkit.errors import FitError
from labkit.evaluation import large, probe
from labkit.must import MaskedClassifier
from labkit.spaces.features import encode_images
from tests import tiny
from tests.golden import test_must_golden as must_golden
from tests.golden import test_turtle_golden as turtle_golden
from tests.unit.turtle.test_turtle import blobs, quick

DEVICE = os.environ.get("LABKIT_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("case", turtle_golden.CASES)
def test_turtle_takes_the_published_steps(case: str) -> None:
    tensors = load_file(turtle_golden.HERE / "turtle_golden.safetensors")
    assert turtle_golden.largest_difference(case, tensors, DEVICE) < 1e-4


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("inner_start", ["cold", "warm"])
def test_turtle_finds_blobs_and_predicts_alike_on_both_devices(dtype: str, inner_start: str) -> None:
    x, y = blobs()
    spaces = [x, x[:, :4]]
    turtle = quick(device=DEVICE, dtype=dtype, inner_start=inner_start, batch_size=200).fit(spaces)
    assert adjusted_rand_score(y, turtle.labels_) > 0.95
    on_gpu = turtle.predict_proba(spaces)
    np.testing.assert_array_equal(on_gpu.argmax(1), turtle.labels_)
    np.testing.assert_allclose(on_gpu, turtle.set_params(device="cpu").predict_proba(spaces), atol=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.0])  # held on the device, or read anew for every gradient
@pytest.mark.parametrize("n_classes", [2, 20])
def test_the_linear_probe_of_many_features_is_that_of_a_cpu(
    share: float, n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=20_000)
    x = (rng.normal(size=(n_classes, 100))[y] * 0.3 + rng.normal(size=(len(y), 100)) + 5).astype(np.float16)
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "BLOCK", 2**18)
    monkeypatch.setattr(probe, "SHARE", share)
    allowed, fits = torch.get_float32_matmul_precision(), []
    torch.set_float32_matmul_precision("high")  # TF32, which the probe must not take
    try:
        for device in ("cpu", DEVICE):
            monkeypatch.setattr(probe, "pick_device", lambda device=device: torch.device(device))
            fits.append(lk.LinearProbe().fit([x[:, :40], x[:, 40:]], y))
    finally:
        torch.set_float32_matmul_precision(allowed)
    expected, found = (fit.estimator_[-1] for fit in fits)
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4 * np.abs(expected.coef_).max())
    assert (fits[1].predict([x[:, :40], x[:, 40:]]) == fits[0].predict([x[:, :40], x[:, 40:]])).mean() > 0.999


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("case", must_golden.CASES)
def test_must_takes_the_published_steps(case: str, accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = must_golden.classifier

    def on_device(case: str) -> MaskedClassifier:
        return on_cpu(case).to(DEVICE)

    monkeypatch.setattr(must_golden, "classifier", on_device)
    monkeypatch.setattr("labkit.must.config.PUBLISHED_BATCH", must_golden.settings("small")["batch"])
    trainer = must_golden.trainer(case, accumulate=accumulate)
    seen = must_golden.train(case, trainer)
    for name, here in must_golden.LOSSES.items():
        expected = must_golden.golden()[f"{case}/losses/{name}"].tolist()
        assert [line[here].item() for line in seen] == pytest.approx(expected, abs=1e-4), name
    for who in ("student", "teacher"):
        found = getattr(trainer.state, who).state_dict()
        must_golden.assert_golden(found, must_golden.part(f"{case}/after/{who}/"), 1e-4)


def test_features_are_those_of_the_cpu() -> None:
    dataset = tiny.images(12)
    found = {
        (device, dtype): encode_images(
            lk.load_backbone("efficientnet-lite0", image_size=96, device=device, dtype=dtype), dataset, batch_size=5
        )
        for device, dtype in ((DEVICE, "float32"), (DEVICE, None), ("cpu", "float32"))
    }
    expected = found["cpu", "float32"]
    np.testing.assert_allclose(found[DEVICE, "float32"], expected, atol=1e-3 * np.abs(expected).max())
    low = found[DEVICE, None]
    cosine = (low * expected).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99


def test_full_memory_is_explained() -> None:
    with pytest.raises(FitError, match="memory does not suffice"), explain_out_of_memory("Lower batch_size."):
        torch.empty(2**45, device=DEVICE)


def test_a_fit_that_was_too_large_leaves_the_device_usable(tmp_path: Path) -> None:
    x, _ = blobs()
    with pytest.raises(FitError, match=r"Lower batch_size \(now 2000\) or n_restarts \(now 1000000000\)"):
        quick(device=DEVICE, n_restarts=10**9).fit(x)
    quick(device=DEVICE, n_outer_steps=2).fit(x).save(tmp_path / "turtle.safetensors")
