"""The linear probe of many features: read in blocks, it ends where scikit-learn's does with all of them in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from scipy.special import log_softmax, xlog1py, xlogy
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from labkit.errors import FitError
from labkit.evaluation import large, probe
from labkit.evaluation.baselines import LinearProbe
from labkit.spaces.shards import ShardedFeatures

N, D = 1500, 30
PENALTY = 1e-2
WORDS = np.array(["ant", "bee", "cat", "dog", "elk", "fox", "gnu"])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand numbers are many; a block has 200 rows, the last one fewer."""
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "BLOCK", 200 * D)
    monkeypatch.setattr(probe, "CACHED", 1)
    monkeypatch.setattr(probe, "LEAST_ROWS", 200)


def overlapping(n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) in half precision of unlike sizes and far from 0, and classes that they predict in part."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=N)
    x = rng.normal(size=(n_classes, D))[y] * 0.3 + rng.normal(size=(N, D))
    return ((x + rng.normal(size=D) * 3) * rng.uniform(0.1, 5, size=D)).astype(np.float16), y


def in_memory(x: np.ndarray, y: np.ndarray, tolerance: float) -> Pipeline:
    """scikit-learn's own fit, of all features in float64."""
    regression = LogisticRegression(C=PENALTY, max_iter=2000, tol=tolerance)
    with threadpool_limits(1, user_api="blas"):
        return make_pipeline(StandardScaler(), regression).fit(x.astype(np.float64), y)


def objective(pipeline: Pipeline, x: np.ndarray, y: np.ndarray) -> float:
    """Σ cross-entropy + ‖w‖² / 2C in float64, of labels y from the coefficients as scikit-learn documents them."""
    logits = pipeline.decision_function(x.astype(np.float64))
    codes = np.searchsorted(pipeline.classes_, y)
    if logits.ndim == 1:
        second = 1 / (1 + np.exp(-logits))
        entropy = -(xlogy(codes, second) + xlog1py(1 - codes, -second)).sum()
    else:
        entropy = -log_softmax(logits, 1)[np.arange(len(y)), codes].sum()
    return float(entropy + (pipeline[-1].coef_ ** 2).sum() / (2 * PENALTY))


def expect_alike(ours: Pipeline, theirs: Pipeline, x: np.ndarray, y: np.ndarray) -> None:
    for name in ("coef_", "intercept_"):
        found, expected = getattr(ours[-1], name), getattr(theirs[-1], name)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert objective(ours, x, y) == pytest.approx(objective(theirs, x, y), rel=1e-6)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    found, expected = ours.predict(x.astype(np.float32)), theirs.predict(x.astype(np.float64))
    assert (found == expected).mean() > 0.995


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_it_ends_where_scikit_learn_does(n_classes: int, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the tolerance of always, and at the optimum."""
    monkeypatch.setattr(probe, "TOLERANCE", tolerance)
    x, y = overlapping(n_classes)
    model = LinearProbe().fit(x, y)
    expected = in_memory(x, y, tolerance)
    expect_alike(model.estimator_, expected, x, y)
    if tolerance == 1e-3:  # the other is as far as float32 goes
        assert model.estimator_[-1].n_iter_[0] == pytest.approx(expected[-1].n_iter_[0], abs=2)
    np.testing.assert_array_equal(model.predict(x), model.estimator_.predict(x.astype(np.float32)))
    np.testing.assert_array_equal(model.predict(x[:3]), model.predict(x)[:3])  # few: not in blocks
    assert 0.5 < (model.predict(x) == y).mean() < 1  # classes overlap, or the fit would prove little


def test_labels_are_texts_or_numbers_with_gaps() -> None:
    x, y = overlapping(7)
    for names in (WORDS, np.array([0, 5, 6, 40, 41, 77, 2**29])):
        model = LinearProbe().fit(x, names[y])
        np.testing.assert_array_equal(model.classes_, names)
        expect_alike(model.estimator_, in_memory(x, names[y], 1e-3), x, names[y])
    two = LinearProbe().fit(x, WORDS[y // 4])
    assert two.estimator_[-1].coef_.shape == (1, D)
    expect_alike(two.estimator_, in_memory(x, WORDS[y // 4], 1e-3), x, WORDS[y // 4])


def test_a_feature_that_never_varies_is_not_divided_by_nothing() -> None:
    x, y = overlapping(3)
    x = x.astype(np.float32)
    x[:, 4], x[:, 9] = 0.1, 0
    model = LinearProbe().fit(x, y)
    expected = in_memory(x, y, 1e-3)
    np.testing.assert_allclose(model.estimator_[0].scale_, expected[0].scale_, rtol=1e-6)
    np.testing.assert_allclose(model.estimator_[0].mean_, expected[0].mean_, rtol=1e-6)
    assert model.estimator_[0].scale_[4] == model.estimator_[0].scale_[9] == 1
    assert np.abs(model.estimator_[-1].coef_[:, [4, 9]]).max() < 1e-6
    expect_alike(model.estimator_, expected, x, y)


def test_features_may_stay_on_disk(tmp_path: Path) -> None:
    x, y = overlapping(7)
    np.save(tmp_path / "first.npy", x[:, :11])
    spaces = [
        np.load(tmp_path / "first.npy", mmap_mode="r"),
        ShardedFeatures.write(tmp_path / "shards", [x[:, 11:25]], dtype="float16", shard=333),
        torch.from_numpy(x[:, 25:].astype(np.float64)),
    ]
    model = LinearProbe().fit(spaces, y)
    held = LinearProbe().fit([x[:, :11], x[:, 11:25], x[:, 25:]], y)
    np.testing.assert_allclose(model.estimator_[-1].coef_, held.estimator_[-1].coef_, atol=1e-6)
    np.testing.assert_array_equal(model.predict(spaces), held.estimator_.predict(x.astype(np.float32)))
    expect_alike(model.estimator_, in_memory(x, y, 1e-3), x, y)


def test_bfloat16_is_read_as_it_is() -> None:
    x, y = overlapping(3)
    rounded = torch.from_numpy(x).bfloat16()
    model = LinearProbe().fit(rounded, y)
    expect_alike(model.estimator_, in_memory(rounded.float().numpy(), y, 1e-3), rounded.float().numpy(), y)


def test_extreme_sizes_are_those_of_ordinary_ones() -> None:
    x, y = overlapping(3)
    halves = [x[:, :10].astype(np.float64), x[:, 10:].astype(np.float64)]
    expected = LinearProbe().fit(halves, y)
    extreme = [halves[0] * 2.0**600, halves[1] * 2.0**-500]
    model = LinearProbe().fit(extreme, y)
    np.testing.assert_allclose(model.estimator_[-1].coef_, expected.estimator_[-1].coef_, atol=1e-5)
    np.testing.assert_array_equal(model.predict(extreme), expected.predict(halves))
    halves[0][7] *= 1e200
    with pytest.raises(FitError, match="row 7 of space 0"):
        LinearProbe().fit(halves, y)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_gradient_is_autograds(n_classes: int) -> None:
    x, y = overlapping(n_classes)
    problem = probe._Problem(probe._Rows([torch.from_numpy(x)], [0], torch.device("cpu")), y, PENALTY)
    point = np.random.default_rng(1).normal(size=problem.n_outputs * (D + 1)) * 0.3
    loss, gradient = problem.loss_and_gradient(point)
    z = torch.from_numpy(StandardScaler().fit_transform(x.astype(np.float64)))
    layer = torch.from_numpy(point).requires_grad_()
    weights, bias = layer.view(-1, D + 1).split([D, 1], dim=1)
    logits, codes = z @ weights.T + bias.T, torch.from_numpy(y)
    if n_classes == 2:
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], codes.double())
    else:
        entropy = torch.nn.functional.cross_entropy(logits, codes)
    expected = entropy + (weights**2).sum() / (2 * N * PENALTY)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, layer.grad.numpy(), atol=1e-6)  # entries reach 0.1


def test_more_memory_than_there_is_makes_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = overlapping(3)
    expected = LinearProbe().fit(x, y).estimator_[-1]
    multinomial, most = probe._multinomial, 60

    def limited(logits: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(logits) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return multinomial(logits, codes)

    monkeypatch.setattr(probe, "_multinomial", limited)
    np.testing.assert_allclose(LinearProbe().fit(x, y).estimator_[-1].coef_, expected.coef_, atol=1e-6)
    most = 0
    with pytest.raises(FitError, match=r"memory does not suffice .*fewer samples or features"):
        LinearProbe().fit(x, y)

    def broken(*_: Any) -> Any:
        raise RuntimeError("another matter")

    monkeypatch.setattr(probe, "_multinomial", broken)
    with pytest.raises(RuntimeError, match="another matter"):
        LinearProbe().fit(x, y)


def test_products_are_taken_in_float32_whatever_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = overlapping(3)
    seen = set()
    multinomial = probe._multinomial

    def watched(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        matmul: Any = torch.backends.cuda.matmul
        seen.add(getattr(matmul, "fp32_precision", None) or torch.get_float32_matmul_precision())
        return multinomial(*given)

    monkeypatch.setattr(probe, "_multinomial", watched)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        LinearProbe().fit(x, y)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen in ({"ieee"}, {"highest"})  # from PyTorch 2.9 on, and before


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_what_a_device_has_room_for_is_read_once(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = overlapping(3)
    given = x.astype(dtype) * (2.0**90 if dtype == np.float64 else 1)
    expected = LinearProbe().fit(given, y).estimator_
    room_for, asked = probe._room_for, 0

    def on_cpu(spaces: Any, exponents: Any, device: torch.device) -> Any:
        monkeypatch.setattr(probe.torch, "empty", lambda *shape, dtype, device: empty(*shape, dtype=dtype))
        found = room_for(spaces, exponents, torch.device("cuda"))
        monkeypatch.setattr(probe.torch, "empty", empty)
        return found

    class Counted:
        shape, dtype = given.shape, given.dtype

        def read(self, rows: np.ndarray) -> np.ndarray:
            nonlocal asked
            asked += len(rows)
            return given[rows]

        def blocks(self, size: int) -> Any:
            raise AssertionError

    empty, size = torch.empty, x.size * (2 if dtype == np.float16 else 4)
    monkeypatch.setattr(probe, "_room_for", on_cpu)
    times = 1 if dtype == np.float16 else 3  # numbers of other types are looked at first: how large, and is one far off
    for free, held in ((2 * size, True), (2 * size - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**40))
        asked = 0
        found = LinearProbe().fit(Counted(), y).estimator_
        assert (asked == times * N) is held
        np.testing.assert_allclose(found[-1].coef_, expected[-1].coef_, atol=1e-6)


def test_nothing_is_held_but_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = overlapping(3)
    asked = []

    class Counted:
        shape, dtype = x.shape, x.dtype

        def read(self, rows: np.ndarray) -> np.ndarray:
            asked.append(len(rows))
            return x[rows]

        def blocks(self, size: int) -> Any:
            raise AssertionError

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise AssertionError("the whole was read")

    model = LinearProbe().fit(Counted(), y)
    assert max(asked) == 200
    reads = -(-N // 200) * (model.estimator_[-1].n_iter_[0] + 1)
    assert len(asked) >= reads  # the scaler's, and one for each gradient at least
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])


def test_memory_does_not_grow_with_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 MB in half precision on disk, and 400 in float32; a twentieth was fitted before."""
    monkeypatch.undo()
    monkeypatch.setattr(large, "LARGE", 2**20)
    monkeypatch.setattr(large, "BLOCK", 2**20)
    n, d = 200_000, 500
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (n, d))
    noise = np.random.default_rng(0).normal(size=(1000, d)).astype(np.float16)
    for start in range(0, n, 1000):
        file[start : start + 1000] = noise
    file.flush()
    del file
    labels = np.tile(noise[:, 0] > 0, n // 1000).astype(int)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    LinearProbe().fit(stored[:10_000], labels[:10_000])
    memory, ended = psutil.Process().memory_info, threading.Event()
    before = most = memory().rss

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.002):
            most = max(most, memory().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        model = LinearProbe().fit(stored, labels)
    finally:
        ended.set()
        watcher.join()
    assert most - before < 100e6
    assert (model.estimator_.predict(noise.astype(np.float32)) == labels[:1000]).mean() > 0.9


def test_many_classes_go_in_blocks_where_memory_would_hold_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", N * D)
    x, y = overlapping(7)
    taken = []
    in_blocks = probe.fit_in_blocks

    def counted(*given: Any) -> Pipeline:
        taken.append(1)
        return in_blocks(*given)

    monkeypatch.setattr(probe, "fit_in_blocks", counted)
    for most, expected in ((N * D * 7, 0), (N * D * 7 - 1, 1)):
        monkeypatch.setattr(probe, "MUCH", most)
        expect_alike(LinearProbe().fit(x, y).estimator_, in_memory(x, y, 1e-3), x, y)
        assert len(taken) == expected


def test_where_classes_are_many_the_gradient_must_be_smaller() -> None:
    assert probe.tolerance(2) == probe.tolerance(100) == 1e-3
    assert probe.tolerance(1000) == pytest.approx(1e-4)
    x, y = overlapping(3)
    y[:150] = np.arange(150) + 3
    fitted = LinearProbe().fit(x, y).estimator_
    expect_alike(fitted, in_memory(x, y, 0.1 / len(np.unique(y))), x, y)


def test_a_fit_says_what_it_took_and_warns_where_it_did_not_converge(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = overlapping(3)
    with caplog.at_level(logging.INFO, logger="labkit"):
        LinearProbe().fit(x, y)
    assert "a linear probe of 1,500 samples took" in caplog.text
    monkeypatch.setattr(probe, "ITERATIONS", 1)
    with pytest.warns(
        ConvergenceWarning, match=r"ended after 1 steps at a gradient of .*lower inverse_penalty"
    ) as seen:
        LinearProbe().fit(x, y)
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda x, y: LinearProbe().fit(x, y[1:]), f"{N - 1} labels for {N}"),
        (lambda x, y: LinearProbe().fit(x, y * 0), "all labels are 0"),
        (lambda x, y: LinearProbe().fit(x, y - 1), "labels from 0"),
        (lambda x, y: LinearProbe(inverse_penalty=0).fit(x, y), "inverse_penalty is 0"),
        (lambda x, y: LinearProbe().fit([x, x[1:]], y), "rows"),
        (lambda x, y: LinearProbe().fit(np.where(np.arange(N) == N - 1, np.nan, x.T).T, y), "contains NaN"),
        (lambda x, y: LinearProbe().fit(np.where(x == x[-1, -1], np.float16(np.inf), x), y), "contains infinity"),
        (lambda x, y: LinearProbe().fit(x, y).predict([x, x]), rf"{D} \+ {D} features together. Expected {D}"),
        (lambda x, y: LinearProbe().fit(x, y).predict(x * np.float32(np.nan)), "contains NaN"),
    ],
)
def test_what_cannot_be_fitted_is_named(fit: Callable[[Any, Any], Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        fit(*overlapping(3))
