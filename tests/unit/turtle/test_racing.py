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


def test_a_quarter_goes_on_and_has_the_least_outer_loss_when_the_race_is_decided() -> None:
    encoder, records = race(solver(), 100)
    stopped = records[-1, 0].isnan()
    assert int((~stopped).sum()) == 2  # of six, rounded up
    assert not records[:20].isnan().any()
    assert records[20:, :, stopped].isnan().all()
    loss = (records[:20, 0] - 10 * records[:20, 1]).mean(0)
    assert loss[~stopped].max() < loss[stopped].min()
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
    until, _ = race(solver(), 20, all_to_the_end=True)
    stopped = records[-1, 0].isnan()
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
    _, records = race(one, 40)
    assert records[-1, 0, 3].isnan()


def test_the_estimator_keeps_one_that_reached_the_end() -> None:
    x, y = blobs()
    turtle = Turtle(4, random_state=0).fit(x)
    reached = ~np.isnan(turtle.history_["inner_loss"][-1])
    assert reached.sum() == 2
    assert reached[turtle.best_restart_]
    assert turtle.predict(x, restart=int(np.flatnonzero(~reached)[0])).shape == y.shape
