"""Restarts that race: which go on, and that those which do are not changed by it."""

from __future__ import annotations

import numpy as np
import torch

from labkit.turtle import Turtle, TurtleSolver
from labkit.turtle.racing import race
from tests.unit.turtle.test_turtle import blobs


def solver(**changes: object) -> TurtleSolver:
    x, _ = blobs()
    settings: dict = {"n_restarts": 6, "outer_lr": 0.01, "inner_lr": 0.01, "inner_start": "warm", **changes}
    return TurtleSolver([torch.from_numpy(x).double()], 4, torch.Generator().manual_seed(0), **settings)


def test_half_goes_on_then_a_quarter_those_of_the_least_outer_loss() -> None:
    encoder, records = race(solver(), 100)
    running = ~records[:, 0].isnan()
    assert [int(row.sum()) for row in running] == [6] * 25 + [3] * 15 + [2] * 60  # a quarter of six, rounded up
    for step in (25, 40):
        loss = (records[step - 20 : step, 0] - 10 * records[step - 20 : step, 1]).mean(0)
        went_on, stopped = running[step], running[step - 1] & ~running[step]
        assert loss[went_on].max() < loss[stopped].min()
    assert torch.equal(records[:, 0].isnan(), records[:, 1].isnan())
    assert len(encoder.biases[0]) == 6


def test_those_that_go_on_end_where_they_would_have_without_the_others() -> None:
    raced, records = race(solver(), 100)
    alone, complete = race(solver(), 100, all_to_the_end=True)
    went_on = ~records[-1, 0].isnan()
    torch.testing.assert_close(records[:, :, went_on], complete[:, :, went_on], rtol=1e-9, atol=1e-9)
    for mine, its in zip(raced.views, alone.views, strict=True):
        torch.testing.assert_close(mine[went_on], its[went_on], rtol=1e-7, atol=1e-9)
    assert not complete.isnan().any()


def test_those_that_stopped_stay_as_they_were() -> None:
    raced, records = race(solver(), 100)
    until, _ = race(solver(), 25, all_to_the_end=True)
    stopped = records[25, 0].isnan()
    for mine, its in zip(raced.views, until.views, strict=True):
        torch.testing.assert_close(mine[stopped], its[stopped])


def test_learning_rates_of_each_restart_stay_with_it() -> None:
    rates, gammas = torch.linspace(0.002, 0.02, 6), torch.linspace(1.0, 10.0, 6)
    ends = []
    for all_to_the_end in (False, True):
        one = solver()
        one.set_each(outer_lr=rates, inner_lr=rates, entropy_weight=gammas)
        ends.append(race(one, 60, all_to_the_end=all_to_the_end))
    (raced, records), (alone, _) = ends
    went_on = ~records[-1, 0].isnan()
    torch.testing.assert_close(raced.weights[0][went_on], alone.weights[0][went_on], rtol=1e-7, atol=1e-9)


def test_few_steps_and_one_restart_are_no_race() -> None:
    assert not race(solver(), 20)[1].isnan().any()
    assert not race(solver(n_restarts=1), 60)[1].isnan().any()


def test_a_restart_that_overflowed_does_not_win() -> None:
    one = solver()
    one.encoder.biases[0][3] = torch.nan
    _, records = race(one, 60)
    assert records[-1, 0, 3].isnan()
    assert not records[-1, 0].isnan().all()


def test_the_estimator_keeps_one_that_reached_the_end() -> None:
    x, y = blobs()
    turtle = Turtle(4, random_state=0).fit(x)
    reached = ~np.isnan(turtle.history_["inner_loss"][-1])
    assert reached.sum() == 2
    assert reached[turtle.best_restart_]
    assert turtle.predict(x, restart=int(np.flatnonzero(~reached)[0])).shape == y.shape
