"""A sweep: every run is what Turtle would do with its settings, scores need no label, and labels judge afterwards."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

import labkit as lk
import labkit.turtle.sweep
from labkit.errors import CollapseWarning, DataError, FitError
from labkit.turtle import CRITERIA, DEFAULT_GRID, PAPER_GRID, Sweep, Turtle, TurtleSolver
from labkit.turtle.rows import SideBySide

X, Y = make_blobs(240, 8, centers=4, cluster_std=1.0, random_state=0)
X = X.astype(np.float32)
SPACES = [X, X[:, :3]]
GRID = {"outer_lr": [0.005, 0.02], "inner_start": ["warm", "cold"], "entropy_weight": [3.0, 10.0]}
QUICK: dict[str, Any] = {"n_outer_steps": 40, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def swept() -> Sweep:
    return lk.sweep(SPACES, 4, GRID, inner_lr=0.01, **QUICK)


def test_a_row_for_each_run_the_best_first(swept: Sweep) -> None:
    table = swept.table
    assert list(table.columns) == [*GRID, "n_found", *CRITERIA]
    assert sorted(table.index) == list(range(16))  # 8 settings, 2 restarts
    found = sorted(map(tuple, table[list(GRID)].to_numpy().tolist()), key=str)
    assert found == sorted([*itertools.product(*GRID.values())] * 2, key=str)
    eligible = table[table["n_found"] == table["n_found"].max()]
    assert eligible.index.equals(table.index[: len(eligible)])
    assert eligible[swept.criterion].is_monotonic_decreasing
    assert swept.labelings.shape == (16, len(X))
    assert np.isfinite(table[list(CRITERIA)].to_numpy()).all()


def test_the_best_is_a_fitted_turtle(swept: Sweep, tmp_path: Path) -> None:
    for criterion in (None, *CRITERIA):
        turtle = swept.best(criterion)
        table = swept.table[swept.table["n_found"] == swept.table["n_found"].max()]
        first = table.sort_index()[criterion or swept.criterion].idxmax()
        assert type(turtle) is Turtle
        np.testing.assert_array_equal(turtle.labels_, swept.labelings[first])
        np.testing.assert_array_equal(turtle.predict(SPACES), turtle.labels_)
        assert {name: getattr(turtle, name) for name in GRID} == table.loc[first, list(GRID)].to_dict()
        assert turtle.confidence_.tolist() == [table.loc[first, "confidence"]]
        assert turtle.confidence_[0] == pytest.approx(turtle.predict_proba(SPACES).max(1).mean(), abs=1e-5)
        outer = turtle.history_["inner_loss"] - turtle.entropy_weight * turtle.history_["entropy"]
        np.testing.assert_allclose(turtle.history_["outer_loss"], outer)
        turtle.save(tmp_path / "best")
        np.testing.assert_array_equal(Turtle.load(tmp_path / "best").predict(SPACES), turtle.labels_)


def test_runs_side_by_side_are_the_runs_alone() -> None:
    spaces = [torch.from_numpy(space).double() for space in SPACES]
    settings = [(0.01, 0.02, 10.0), (0.03, 0.005, 2.0)]

    def solver(n: int, **rates: float) -> TurtleSolver:
        return TurtleSolver(spaces, 4, torch.Generator().manual_seed(0), n_restarts=n, inner_start="warm", **rates)

    both = solver(2)
    outer, inner, gamma = (torch.tensor(values) for values in zip(*settings, strict=True))
    both.set_each(outer_lr=outer, inner_lr=inner, entropy_weight=gamma)
    alone = []
    for row, (outer_lr, inner_lr, entropy_weight) in enumerate(settings):
        one = solver(1, outer_lr=outer_lr, inner_lr=inner_lr, entropy_weight=entropy_weight)
        for mine, theirs in ((one.encoder, both.encoder), (one.classifier, both.classifier)):
            for name in ("weights", "biases", "gains"):
                for own, all_rows in zip(getattr(mine, name), getattr(theirs, name), strict=True):
                    own.copy_(all_rows[row : row + 1])
        alone.append(one)
    for _ in range(20):
        together = both.step()
        for row, one in enumerate(alone):
            for found, expected in zip(together, one.step(), strict=True):
                assert found[row].item() == pytest.approx(expected[0].item(), rel=1e-6)


def test_agreement_is_what_it_says() -> None:
    fitted = SideBySide(4, **QUICK).fit_runs(SPACES, [{"outer_lr": 0.01}, {"outer_lr": 0.002}])
    turtle = fitted.run(1)
    assert turtle.outer_lr == 0.002
    alone = [
        (z @ w[0].T + b[0]).argmax(1) == turtle.labels_ for z, (w, b) in zip(SPACES, turtle.restarts_, strict=True)
    ]
    assert fitted.agreement_[1] == pytest.approx(np.mean(alone))


def test_a_sweep_takes_no_labels(swept: Sweep) -> None:
    assert not {"y", "labels", "y_true"} & set(inspect.signature(lk.sweep).parameters)
    with pytest.raises(FitError, match="setting 'y'"):
        lk.sweep(SPACES, 4, GRID, y=Y, **QUICK)
    before = swept.table.copy()
    chosen = swept.best().labels_.copy()
    swept.regret(Y)
    swept.regret(np.random.default_rng(0).permutation(Y))
    assert before.equals(swept.table)
    np.testing.assert_array_equal(swept.best().labels_, chosen)


def test_regret_is_the_distance_to_the_best(swept: Sweep) -> None:
    regret = swept.regret(Y)
    accuracy = [lk.clustering_accuracy(Y, labels) for labels in swept.labelings]
    assert set(regret.index) == set(CRITERIA)
    assert regret["regret"].is_monotonic_increasing
    for name in CRITERIA:
        mine = lk.clustering_accuracy(Y, swept.best(name).labels_)
        expected = [mine, max(accuracy), np.mean(accuracy), max(accuracy) - mine]
        np.testing.assert_allclose(regret.loc[name, ["accuracy", "best", "mean", "regret"]].astype(float), expected)
    with pytest.raises(DataError):
        swept.regret(Y[:-1])


def test_a_collapsed_run_comes_last() -> None:
    grid = [{"entropy_weight": [10.0]}, {"entropy_weight": [0.0], "outer_lr": [0.1]}]
    table = lk.sweep(X, 4, grid, criterion="generalization", n_outer_steps=100, random_state=0, device="cpu").table
    assert table["entropy_weight"].tolist() == [10.0, 10.0, 0.0, 0.0]
    assert table["n_found"].iloc[-1] < 4


def test_a_sweep_that_collapsed_throughout_says_so() -> None:
    with pytest.warns(CollapseWarning, match="all runs of the sweep"):
        swept = lk.sweep(np.ones((40, 3), np.float32), 4, {"outer_lr": [0.1, 0.2]}, **QUICK)
    assert (swept.table["n_found"] == 1).all()
    assert swept.table["generalization"].isna().all()
    assert swept.best("generalization").n_found_[0] == 1


def test_the_same_seed_gives_the_same_sweep(swept: Sweep) -> None:
    again = lk.sweep(SPACES, 4, GRID, inner_lr=0.01, **QUICK)
    np.testing.assert_array_equal(again.labelings, swept.labelings)
    assert again.table.equals(swept.table)
    other = lk.sweep(SPACES, 4, GRID, inner_lr=0.01, **{**QUICK, "random_state": 1})
    assert not other.table["confidence"].sort_index().equals(swept.table["confidence"].sort_index())


def test_what_cannot_be_computed_is_left_out() -> None:
    one_space = lk.sweep(X, 4, {"outer_lr": [0.01, 0.02]}, n_restarts=1, **QUICK)
    assert not {"agreement", "stability"} & set(one_space.criteria)
    with pytest.raises(FitError, match="agreement"):
        one_space.best("agreement")
    one_run = lk.sweep(X, 4, {"outer_lr": [0.01]}, n_restarts=1, criterion="generalization", **QUICK)
    assert "consensus" not in one_run.criteria


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"grid": {"outer_lr": 0.01}}, "grid is"),
        ({"grid": {"outer_lr": []}}, "grid is"),
        ({"grid": []}, "grid is"),
        ({"grid": "all"}, "grid is"),
        ({"grid": {"learning_rate": [0.1]}}, "learning_rate"),
        ({"grid": {"n_clusters": [3, 4]}}, "n_clusters"),
        ({"grid": {"outer_lr": [0.01, -1]}}, "outer_lr is -1"),
        ({"grid": {"outer_lr": [0.01]}, "outer_lr": 0.02}, "in the grid"),
        ({"n_restarts": 0}, "n_restarts is 0"),
        ({"criterion": "accuracy"}, "criterion is 'accuracy'"),
        ({"random_state": "seed"}, "random_state"),
        ({"progress": 1}, "progress is 1"),
        ({"speed": 1}, "speed"),
    ],
)
def test_what_is_no_sweep_is_refused_before_the_work(given: dict[str, Any], says: str) -> None:
    with pytest.raises(FitError, match=says):
        lk.sweep(SPACES, 4, **{"grid": GRID, **QUICK, **given})


def test_the_grids_have_the_sizes_that_are_written() -> None:
    sizes = [np.prod([len(values) for values in grid.values()]) for grid in (DEFAULT_GRID, PAPER_GRID)]
    assert sizes == [18, 18]


def test_it_works_with_one_fifth_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(labkit.turtle.sweep.MOST_ENTRIES, "cpu", 3 * 4 * len(X))
    table = lk.sweep(SPACES, 4, {"outer_lr": [0.01, 0.02, 0.03, 0.04]}, **QUICK).table
    assert sorted(table["outer_lr"]) == [0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.04, 0.04]
