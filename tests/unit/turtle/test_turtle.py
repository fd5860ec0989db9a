"""The Turtle estimator: what it promises to a user, to scikit-learn and to someone with bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from labkit.errors import CheckpointError, CollapseWarning, FitError
from labkit.turtle import FeatureTransform, Turtle, TurtleSolver, linear, linear_grad
from labkit.turtle.parallel import Whole


def blobs(n: int = 300, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_blobs(n, d, centers=4, cluster_std=0.5, random_state=seed)
    return x.astype(np.float32), y


def quick(**changes: object) -> Turtle:
    settings: dict = {"n_restarts": 8, "n_outer_steps": 120, "outer_lr": 0.01, "inner_lr": 0.01, "random_state": 0}
    return Turtle(**{"n_clusters": 4, **settings, **changes})


def test_it_finds_separate_blobs_in_one_and_in_two_spaces() -> None:
    x, y = blobs()
    assert adjusted_rand_score(y, quick().fit(x).labels_) > 0.95
    assert adjusted_rand_score(y, quick().fit([x, x[:, :5] * 40 + 7]).labels_) > 0.95


def test_predict_agrees_with_labels_and_probabilities() -> None:
    x, _ = blobs()
    turtle = quick().fit([x, x[:, :3]])
    probabilities = turtle.predict_proba([x, x[:, :3]])
    assert probabilities.shape == (300, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(turtle.predict([x, x[:, :3]]), turtle.labels_)
    np.testing.assert_array_equal(probabilities.argmax(1), turtle.labels_)
    assert probabilities.max(1).mean() == pytest.approx(turtle.confidence_[turtle.best_restart_], rel=1e-5)


def test_the_most_confident_restart_that_uses_all_clusters_is_kept() -> None:
    x, _ = blobs()
    turtle = quick().fit(x)
    complete = turtle.n_found_ == turtle.n_found_.max()
    assert turtle.confidence_[turtle.best_restart_] == turtle.confidence_[complete].max()
    turtle.confidence_ = None
    turtle.restarts_[0][0][0] = 0  # restart 0: everything in one cluster, with full confidence
    turtle.restarts_[0][1][0] = 0
    turtle.restarts_[0][1][0, 0] = 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        turtle._choose_restart([torch.from_numpy(x)], Whole(len(x)))
    assert turtle.confidence_.argmax() == 0
    assert turtle.n_found_[0] == 1
    assert turtle.best_restart_ != 0


def test_without_the_entropy_term_the_labeling_collapses_and_says_so() -> None:
    x, _ = blobs()
    with pytest.warns(CollapseWarning, match=r"of 12 clusters at most \d+ hold.*Raise entropy_weight"):
        quick(n_clusters=12, entropy_weight=0.0, n_outer_steps=200).fit(x)


def test_labels_never_reach_the_fit() -> None:
    x, y = blobs()
    fits = [quick().fit(x, labels) for labels in (None, y, np.random.default_rng(0).permutation(y))]
    for other in fits[1:]:
        for (weight, bias), (other_weight, other_bias) in zip(fits[0].restarts_, other.restarts_, strict=True):
            np.testing.assert_array_equal(weight, other_weight)
            np.testing.assert_array_equal(bias, other_bias)
        assert other.best_restart_ == fits[0].best_restart_


def test_equal_seeds_give_equal_fits_and_other_seeds_others() -> None:
    x, _ = blobs()
    first, again, other = quick().fit(x), quick().fit(x), quick(random_state=1).fit(x)
    np.testing.assert_array_equal(first.restarts_[0][0], again.restarts_[0][0])
    assert not np.array_equal(first.restarts_[0][0], other.restarts_[0][0])


def test_scale_and_shift_of_the_features_do_not_matter_unless_asked_for() -> None:
    x, _ = blobs()
    plain, moved = quick(dtype="float64").fit(x), quick(dtype="float64").fit(x * 64 - 128)
    np.testing.assert_array_equal(plain.labels_, moved.labels_)
    np.testing.assert_allclose(plain.restarts_[0][0], moved.restarts_[0][0] * 64, rtol=1e-3)
    raw, raw_moved = (quick(feature_scale=None).fit(z) for z in (x, x * 64))
    assert not np.allclose(raw.restarts_[0][0], raw_moved.restarts_[0][0] * 64, rtol=1e-2)


def test_it_looks_only_at_directions_of_large_variance() -> None:
    x, y = blobs()
    noise = 0.01 * np.random.default_rng(0).normal(size=(len(x), 60)).astype(np.float32)
    wide = np.concatenate([x, noise], 1)
    turtle = quick(n_components=4).fit([wide, x])
    assert adjusted_rand_score(y, turtle.labels_) > 0.95
    (weight, _), (narrow, _) = turtle.restarts_
    assert weight.shape == (8, 4, 68)
    assert np.linalg.matrix_rank(np.concatenate(weight)) == 4
    assert np.linalg.matrix_rank(np.concatenate(narrow)) == 4
    assert np.abs(weight[..., 8:]).max() < 0.05 * np.abs(weight[..., :8]).max()


@pytest.mark.parametrize("n", [2, 4, 8, 40])
def test_fewer_samples_than_features_are_enough(n: int) -> None:
    x = 0.1 * np.random.default_rng(0).normal(size=(n, 1280)).astype(np.float32)
    x[: n // 2] += 2
    turtle = quick(n_clusters=2).fit(x)
    np.testing.assert_array_equal(turtle.labels_, np.where(np.arange(n) < n // 2, *turtle.labels_[[0, -1]]))
    assert turtle.labels_[0] != turtle.labels_[-1]
    assert np.isfinite(turtle.predict_proba(x)).all()


def test_identical_samples_are_one_cluster_and_a_warning() -> None:
    with pytest.warns(CollapseWarning, match="of 3 clusters at most 1"):
        turtle = quick(n_clusters=3).fit(np.full((12, 200), 0.1, np.float32))
    assert len(set(turtle.labels_)) == 1
    assert np.isfinite(turtle.predict_proba(np.ones((2, 200)))).all()


def test_a_large_offset_costs_no_precision() -> None:
    x, y = blobs()
    turtle = quick().fit(x.astype(np.float64) + 1e9)
    assert adjusted_rand_score(y, turtle.labels_) > 0.95
    np.testing.assert_array_equal(turtle.predict(x.astype(np.float64) + 1e9), turtle.labels_)


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_as_many_directions_as_features_change_nothing(whitening: float) -> None:
    x, _ = blobs()
    every, none = (quick(n_components=n, whitening=whitening).fit(x).restarts_[0] for n in (8, None))
    np.testing.assert_array_equal(every[0], none[0])


def test_whitening_brings_the_deviations_of_the_directions_together() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 100.0, 0.01]
    sample = torch.from_numpy(np.column_stack([x, x[:, :2].sum(1)]))  # four features, three directions
    deviations = np.sort(np.linalg.svd(sample - sample.mean(0), compute_uv=False)[:3])
    for alpha in (0.5, 1.0):
        seen = FeatureTransform.from_rows(sample, torch.arange(len(sample)), None, alpha, 8.0, torch.float64)(sample)
        assert seen.square().sum(1).mean().sqrt().item() == pytest.approx(8.0)
        found = np.sort(seen.std(0).numpy())
        assert found[0] == 0  # what does not vary is not blown up
        np.testing.assert_allclose(found[1:] / found[-1], (deviations / deviations[-1]) ** (1 - alpha), rtol=1e-6)


def test_a_whitened_layer_gives_the_same_logits_on_the_features_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    sample, bias = torch.randn(50, 6, generator=generator, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    weight = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    transform = FeatureTransform.from_rows(sample, torch.arange(len(sample)), 4, 0.5, 8.0, torch.float64)
    torch.testing.assert_close(linear(sample, *transform.fold(weight, bias)), linear(transform(sample), weight, bias))


def test_of_many_samples_it_looks_at_no_more_than_its_steps_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(4000)
    seen = []
    whole = TurtleSolver.__init__

    def watched(self: TurtleSolver, spaces: list[torch.Tensor], *args: Any, **options: Any) -> None:
        seen.append(len(spaces[0]))
        whole(self, spaces, *args, **options)

    monkeypatch.setattr(TurtleSolver, "__init__", watched)
    turtle = quick(batch_size=20).fit(x)
    assert seen == [20 * 120]
    assert len(turtle.labels_) == 4000
    assert adjusted_rand_score(y, turtle.labels_) > 0.95


def test_batches_go_through_all_samples_before_any_comes_again() -> None:
    solver = TurtleSolver([torch.arange(10.0)[:, None]], 2, torch.Generator().manual_seed(0), batch_size=3)
    for _ in range(4):
        round_ = torch.cat([solver.next_batch()[0].clone() for _ in range(3)])
        assert len(round_.unique()) == 9


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_features_of_any_type_are_read_where_they_are(dtype: type, tmp_path: Path) -> None:
    x, _ = blobs()
    np.save(tmp_path / "x.npy", (16 * x).round().astype(dtype))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = quick(n_outer_steps=20).fit(np.array(stored, np.float32)).labels_
    np.testing.assert_array_equal(quick(n_outer_steps=20).fit(stored).labels_, expected)
    np.testing.assert_array_equal(quick(n_outer_steps=20).fit(stored[::-1]).labels_, expected[::-1])


def test_bfloat16_tensors_are_welcome() -> None:
    x = torch.from_numpy(blobs()[0]).bfloat16()
    expected = quick(n_outer_steps=20).fit(x.float()).labels_
    np.testing.assert_array_equal(quick(n_outer_steps=20).fit([x]).labels_, expected)


@pytest.mark.parametrize("n", [1, 3, 8, 17, 64, 101])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_product_with_few_rows_is_the_product_whatever_the_layout(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    wide = torch.randn(n, 12, generator=generator).to(dtype)
    weight, bias, grad = (torch.randn(2, 3, *end, generator=generator).double() for end in ((6,), (), (n,)))
    atol, rtol = {torch.float64: (1e-12, 0), torch.float32: (1e-5, 0), torch.bfloat16: (0.1, 0.02)}[dtype]
    close = {"atol": atol, "rtol": rtol}
    for features in (wide[:, ::2], wide[:, :6].contiguous()):
        logits = torch.einsum("rcd,bd->rcb", weight, features.double()) + bias[..., None]
        torch.testing.assert_close(linear(features, weight, bias), logits, **close)
        grad_weight, grad_bias = linear_grad(features, grad)
        torch.testing.assert_close(grad_weight, torch.einsum("rcb,bd->rcd", grad, features.double()), **close)
        torch.testing.assert_close(grad_bias, grad.sum(-1))


@pytest.mark.parametrize("onednn", [True, False])
def test_logits_in_single_precision_have_gradients(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if onednn:
        monkeypatch.setattr("labkit.devices.LARGE_MATRIX", 1)
    generator = torch.Generator().manual_seed(0)
    features, grad = torch.randn(9, 4, generator=generator), torch.randn(2, 3, 9, generator=generator)
    weight, bias = torch.randn(2, 3, 4, generator=generator), torch.zeros(2, 3)
    plain = linear(features, weight, bias)
    for tensor in (features, weight, bias):
        tensor.requires_grad_()
    for needed in ([features], [weight, bias], [features, weight, bias]):
        inputs = [t if any(t is n for n in needed) else t.detach() for t in (features, weight, bias)]
        logits = linear(*inputs)
        torch.testing.assert_close(logits.detach(), plain)
        found = torch.autograd.grad(logits, needed, grad)
        expected = {id(features): torch.einsum("rcb,rcd->bd", grad, weight.detach())}
        expected[id(weight)], expected[id(bias)] = linear_grad(features.detach(), grad)
        for tensor, gradient in zip(needed, found, strict=True):
            torch.testing.assert_close(gradient, expected[id(tensor)])


def test_official_are_the_published_settings() -> None:
    settings = Turtle.official(10).get_params()
    assert (settings["n_outer_steps"], settings["n_inner_steps"], settings["batch_size"]) == (6000, 10, 10000)
    assert (settings["outer_lr"], settings["inner_lr"], settings["entropy_weight"]) == (1e-3, 1e-3, 10.0)
    assert (settings["inner_start"], settings["feature_scale"], settings["n_restarts"]) == ("cold", None, 1)
    assert (settings["n_components"], settings["whitening"]) == (None, 0.0)
    assert (settings["random_state"], settings["dtype"]) == (42, "float32")
    assert Turtle.official(10, n_outer_steps=5).n_outer_steps == 5


def test_history_has_one_row_a_step_and_one_column_a_restart() -> None:
    x, _ = blobs()
    history = quick(n_outer_steps=30, n_restarts=3, race=False).fit([x, x]).history_
    assert {name: values.shape for name, values in history.items()} == dict.fromkeys(
        ("inner_loss", "entropy", "outer_loss"), (30, 3)
    )
    np.testing.assert_allclose(history["outer_loss"], history["inner_loss"] - 10 * history["entropy"], rtol=1e-6)
    assert (history["entropy"] <= 2 * np.log(4) + 1e-6).all()


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    x, _ = blobs()
    turtle = quick().fit([x, x[:, :3]])
    turtle.save(tmp_path / "turtle.safetensors")
    loaded = Turtle.load(tmp_path / "turtle.safetensors")
    assert loaded.get_params() == turtle.get_params()
    np.testing.assert_array_equal(loaded.predict_proba([x, x[:, :3]]), turtle.predict_proba([x, x[:, :3]]))
    np.testing.assert_array_equal(loaded.labels_, turtle.labels_)
    np.testing.assert_array_equal(loaded.history_["entropy"], turtle.history_["entropy"])
    assert [file.name for file in tmp_path.iterdir()] == ["turtle.safetensors"]


def test_a_damaged_or_foreign_file_is_not_loaded(tmp_path: Path) -> None:
    x, _ = blobs()
    path = tmp_path / "turtle.safetensors"
    quick(n_outer_steps=2).fit(x).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Turtle.load(path)
    save_file({"a": x}, path)
    with pytest.raises(CheckpointError, match="holds no saved Turtle"):
        Turtle.load(path)
    with pytest.raises(CheckpointError):
        Turtle.load(tmp_path / "missing")


NAN = np.full((10, 2), np.nan, dtype=np.float32)
GOOD = np.arange(40, dtype=np.float32).reshape(20, 2)


@pytest.mark.parametrize(
    ("spaces", "settings", "message"),
    [
        (NAN, {}, "NaN"),
        (np.where(GOOD > 30, np.inf, GOOD), {}, "infinity"),
        ([GOOD, GOOD[:-1]], {}, r"\[20, 19\] rows.*same samples"),
        ([GOOD, np.full_like(GOOD, np.nan)], {}, "NaN"),
        (GOOD, {"n_components": 0}, "n_components is 0"),
        (GOOD, {"whitening": 1.5}, "whitening is 1.5.*from 0"),
        (GOOD, {"n_clusters": 1}, "n_clusters is 1.*from 2"),
        (GOOD, {"n_clusters": 21}, "n_samples = 20"),
        (GOOD, {"n_clusters": 2.5}, "n_clusters is 2.5"),
        (np.array([["a", "b"]] * 20), {}, "Expected one space"),
        (GOOD[0], {}, "2D array"),
        (GOOD, {"dtype": "int8"}, "bfloat16"),
        (GOOD, {"device": "abacus"}, "abacus.*cannot be used"),
        (GOOD, {"inner_start": "lukewarm"}, '"cold" or "warm"'),
        (GOOD, {"n_restarts": 0}, "n_restarts is 0"),
        (GOOD, {"random_state": -1}, "random_state is -1.*from 0"),
        (GOOD, {"batch_size": 0}, "batch_size is 0"),
        (GOOD, {"outer_lr": -1.0}, "outer_lr is -1.0"),
        (GOOD, {"feature_scale": 0.0}, "feature_scale is 0.0"),
        (GOOD, {"entropy_weight": float("nan")}, "entropy_weight is nan"),
        (GOOD, {"entropy_weight": 1e30}, r"not finite after 120 outer steps.*entropy_weight \(now 1e\+30\)"),
        (GOOD, {"inner_lr": 1e300}, r"inner_lr is 1e\+300. Expected a number above 0 and at most 1e\+30"),
        ([[10**400, 1], [2, 3]] * 9, {}, "Expected one space"),
        (
            GOOD * 1e30,
            Turtle.official(4, n_outer_steps=2).get_params(),
            r"reach 4e\+31.*set feature_scale",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(spaces: object, settings: dict, message: str) -> None:
    with pytest.raises(FitError, match=message):
        quick(**settings).fit(spaces)


@pytest.mark.parametrize("restart", [8, -1, 1.5, "0"])
def test_prediction_wants_a_restart_of_the_fit(restart: Any) -> None:
    turtle = quick(n_outer_steps=2).fit(blobs()[0])
    with pytest.raises(FitError, match=r"restart is .*Expected a whole number from 0 to 7"):
        turtle.predict(blobs()[0], restart=restart)


def test_prediction_wants_samples_that_do_not_overflow() -> None:
    turtle = quick(n_clusters=2).fit(GOOD)
    for bad, message in ((np.nan, "NaN"), (np.inf, "infinity"), (3e38, "reach .* leave out samples")):
        with pytest.raises(FitError, match=message):
            turtle.predict(np.array([[1.0, bad]], np.float32))


def test_prediction_wants_the_spaces_of_the_fit() -> None:
    turtle = quick(n_clusters=2).fit([GOOD, GOOD])
    with pytest.raises(FitError, match=r"\[2\] features. Expected \[2, 2\]"):
        turtle.predict([GOOD])


def test_tensors_and_lists_are_welcome() -> None:
    x, _ = blobs(60)
    expected = quick(n_outer_steps=5).fit(x).labels_
    np.testing.assert_array_equal(quick(n_outer_steps=5).fit(torch.from_numpy(x)).labels_, expected)
    np.testing.assert_array_equal(quick(n_outer_steps=5).fit(x.tolist()).labels_, expected)


def test_low_precision_changes_little() -> None:
    x, y = blobs()
    for dtype in ("float32", "bfloat16", "float64"):
        assert adjusted_rand_score(y, quick(dtype=dtype).fit(x).labels_) > 0.95


SKLEARN_SETS_ONE_CLUSTER = "scikit-learn sets n_clusters to 1 here; a labeling needs two clusters, so fit refuses"


def test_scikit_learn_accepts_it() -> None:
    expected_failures = dict.fromkeys(
        (
            "check_dont_overwrite_attributes",
            "check_dont_overwrite_parameters",
            "check_methods_subset_invariance",
            "check_fit2d_1feature",
            "check_fit2d_predict1d",
        ),
        SKLEARN_SETS_ONE_CLUSTER,
    ) | {"check_dtype_object": "scikit-learn wants a TypeError for features that are no numbers; ours is a FitError"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = check_estimator(
            Turtle(3, n_restarts=2, n_outer_steps=60, random_state=0), expected_failed_checks=expected_failures
        )
    assert len([check for check in outcome if check["status"] == "passed"]) > 35


def test_others_can_read_what_is_saved(tmp_path: Path) -> None:
    quick(n_outer_steps=2).fit(blobs()[0]).save(tmp_path / "turtle.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "turtle.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "turtle.safetensors"
    quick(n_outer_steps=60).fit(blobs()[0]).save(path)
    before = path.read_bytes()
    script = (
        "import sys, time, labkit._files as f\n"
        "with f.atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert path.read_bytes() == before


def test_too_little_memory_names_the_settings_that_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(solver: TurtleSolver) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(TurtleSolver, "step", step)
    with pytest.raises(FitError, match=r"20.00 GiB.*Lower batch_size \(now 2000\) or n_restarts \(now 8\)"):
        quick().fit(blobs()[0])
