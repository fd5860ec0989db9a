"""The benchmarks measure what they say: the port is TURTLE, labkit's published settings take its trajectory, and every
script runs. No time is tested here."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.oracle.turtle_numpy import TurtleOracle

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of the folder, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


# ------------------------------------------------------------------------------------------------------------ the port


@pytest.mark.parametrize("n_spaces", [1, 3])
@pytest.mark.parametrize("batch_size", [16, 40])
def test_the_port_equals_the_oracle(n_spaces: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    port_of = load("port", monkeypatch)
    generator = torch.Generator().manual_seed(1)
    spaces = [torch.randn(40, d, generator=generator, dtype=torch.float64) for d in (7, 5, 3)[:n_spaces]]
    port = port_of.Port(spaces, 4, outer_lr=0.02, inner_lr=0.01)
    encoders = [{name: part.numpy() for name, part in layer.items()} for layer in port.get_encoders()]
    oracle = TurtleOracle(encoders, [], gamma=10.0, inner_steps=10, lrs=(0.02, 0.01))
    for _ in range(30):
        rows = torch.randperm(40, generator=generator)[:batch_size]
        start = port.new_linears()
        oracle.reset_inner(
            [{"weight": w.weight.detach().numpy().copy(), "bias": w.bias.detach().numpy().copy()} for w in start]
        )
        expected = oracle.step([z[rows].numpy() for z in spaces])
        assert port.step(rows, start) == pytest.approx(expected, abs=1e-8)
    for layer, expected_layer in zip(port.get_encoders(), oracle.encoders, strict=True):
        for name, part in layer.items():
            np.testing.assert_allclose(part, expected_layer[name], atol=1e-8, err_msg=name)


def test_the_port_finds_blobs_and_the_same_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, port_of = load("bench_turtle", monkeypatch), load("port", monkeypatch)
    case = bench.made_up_case(spread=0.3)
    test = [torch.from_numpy(z) for z in case.test]
    runs = [port_of.Port(case.tensors, 4, seed=3, outer_lr=0.01, inner_lr=0.01).fit(150) for _ in range(2)]
    assert case.accuracy(runs[0].predict(test)) > 0.95
    assert torch.equal(runs[0].predict(test), runs[1].predict(test))


def test_the_constants_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    port = load("port", monkeypatch).Port([torch.randn(20_000, 2)], 2)
    (group,) = port.outer.param_groups
    assert (port.gamma, port.n_inner_steps, port.inner_lr, port.batch_size) == (10.0, 10, 1e-3, 10_000)
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-8, 0)


@pytest.mark.parametrize("dims", [(12,), (12, 7)])
@pytest.mark.parametrize("batch_size", [64, 10_000])
def test_the_published_settings_take_the_trajectory_of_the_port(
    dims: tuple[int, ...], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = load("bench_turtle", monkeypatch)
    spaces = bench.made_up_case(dims=dims).tensors
    gaps = bench.compare_trajectories(spaces, 4, batch_size=batch_size)
    assert bench.apart(gaps) < 1e-4, gaps
    assert gaps["changed"] == 0
    exact = bench.compare_trajectories([z.double() for z in spaces], 4, batch_size=batch_size)
    assert bench.apart(exact) < 1e-10, exact


def test_another_trajectory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("bench_turtle", monkeypatch)
    port = bench.Port
    monkeypatch.setattr(bench, "Port", lambda *args, **kwargs: port(*args, gamma=10.5, **kwargs))
    assert bench.apart(bench.compare_trajectories(bench.made_up_case().tensors, 4)) > 1e-4


def test_accuracies_of_the_port_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("bench_turtle", monkeypatch)
    case = bench.made_up_case()
    first = bench.port_accuracies(case, tmp_path, 5, (0, 1))
    assert [set(run) for run in first] == [{"test", "train", "seconds"}] * 2
    monkeypatch.setattr(bench, "Port", None)
    assert bench.port_accuracies(case, tmp_path, 5, (0, 1)) == first
    case.train[0][0, 0] += 1  # other features
    with pytest.raises(TypeError):
        bench.port_accuracies(case, tmp_path, 5, (0,))


@pytest.mark.parametrize(
    ("theirs", "n_seeds"), [([0.80, 0.81], 3), ([0.60, 0.62], 15), ([0.5, 0.7], 15), ([0.4, 0.41], 3)]
)
def test_the_port_gets_more_seeds_where_it_is_close(
    theirs: list[float], n_seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = load("bench_turtle", monkeypatch)
    monkeypatch.setattr(
        bench, "port_accuracies", lambda case, folder, steps, seeds: [{"test": theirs[s % 2]} for s in seeds]
    )
    given = argparse.Namespace(quick=False, out=tmp_path)
    assert len(bench.port_plateau(None, given, [0.60, 0.61, 0.62, 0.60])) == n_seeds


# --------------------------------------------------------------------------------------------------------- the scripts


def test_a_limit_is_kept_from_its_own_side(monkeypatch: pytest.MonkeyPatch) -> None:
    result = load("measure", monkeypatch).Result
    assert [result("a", value, 3.0).ok for value in (2.9, 3.0, 3.1)] == [False, True, True]
    assert [result("a", value, 3.0, "at most").ok for value in (2.9, 3.0, 3.1)] == [True, True, False]
    assert result("a", 1.0).ok is None


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("start", []),
        ("features", ["--backbone", "pixels"]),
        ("must", ["--dtype", "float32"]),
        ("spaces", []),
        ("gain", ["--only", "gain", "--datasets", "digits", "--seeds", "0"]),
        ("turtle", ["--only", "official", "default", "restarts", "baselines"]),
        ("turtle", ["--only", "scaling", "memory"]),
        ("choice_sweep", ["--seeds", "0"]),
        ("choice_count", []),
        ("choice", []),
        ("real", []),
        ("text", []),
        ("later", []),
        ("names", []),
        ("photos", []),
        ("world", ["--seeds", "0"]),
        ("map", []),
        ("folder", ["--backbone", "pixels"]),
        ("models", ["--spaces", "dinov3-vit-b16"]),
        ("scale", ["--methods", "official", "probe"]),
        ("shards", ["--backbone", "pixels"]),
    ],
)
def test_every_script_runs_and_writes_its_results(script: str, options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"bench_{script}.py"), "--quick", "--out", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / f"{script}.json").read_text("utf-8"))
    assert report["quick"]
    assert report["results"]
    for result in report["results"]:
        assert set(result) == {"name", "ratio", "limit", "want", "ok", "details"}
        assert np.isfinite(result["ratio"])
        assert result["name"] in done.stdout


def test_the_picture_shows_kept_and_missed_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, result = load("run", monkeypatch), load("measure", monkeypatch).Result
    results = [
        result("faster", 5.0, 3.0),
        result("slower", 2.0, 3.0),
        result("smaller", 0.5, 1.2, "at most"),
        result("shown only", 7.0),
        result("nothing loaded", 0, 0, "at most"),
        result("accuracy", 0.01, -0.003),
    ]
    run.draw([r.as_dict() for r in results], tmp_path / "bench.png", "one missed")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    run.draw([], tmp_path / "empty.png", "nothing")
    assert (tmp_path / "empty.png").exists()
