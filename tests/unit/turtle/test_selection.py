"""Label-free scores: what they are, and that a collapsed labeling gets no score."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from labkit.errors import FitError
from labkit.turtle import Turtle
from labkit.turtle.selection import generalization_score, label_free_scores

X, Y = make_blobs(300, 6, centers=4, cluster_std=0.5, random_state=0)
X = X.astype(np.float32)


def test_scores_have_a_row_for_each_restart() -> None:
    spaces = [X, X[:, :3]]
    settings = {"n_outer_steps": 60, "outer_lr": 0.01, "inner_lr": 0.01, "random_state": 0}
    turtle = Turtle(4, n_restarts=3, race=False, **settings).fit(spaces)
    scores = label_free_scores(turtle, spaces)
    assert list(scores.columns) == ["confidence", "agreement", "fit"]
    assert len(scores) == 3
    np.testing.assert_array_equal(scores["confidence"], turtle.confidence_)
    np.testing.assert_allclose(scores["fit"], -turtle.history_["inner_loss"][-20:].mean(0), rtol=1e-6)
    assert ((scores["agreement"] > 0) & (scores["agreement"] <= 1)).all()


def test_in_one_space_agreement_is_complete() -> None:
    turtle = Turtle(4, n_restarts=2, n_outer_steps=60, outer_lr=0.01, inner_lr=0.01, random_state=0).fit(X)
    assert (label_free_scores(turtle, [X])["agreement"] == 1).all()


def test_agreement_is_what_it_says() -> None:
    spaces = [X, X[:, :3]]
    turtle = Turtle(4, n_restarts=2, n_outer_steps=60, outer_lr=0.01, inner_lr=0.01, random_state=0).fit(spaces)
    joint = turtle.predict(spaces, restart=1)
    alone = [(z @ w[1].T + b[1]).argmax(1) == joint for z, (w, b) in zip(spaces, turtle.restarts_, strict=True)]
    assert label_free_scores(turtle, spaces)["agreement"][1] == pytest.approx(np.mean(alone))


def test_true_labels_generalise_better_than_random_ones() -> None:
    random_labels = np.random.default_rng(0).integers(0, 4, len(Y))
    assert generalization_score([X], Y) > 0.99
    assert generalization_score([X], random_labels) < 0.5
    noise = np.random.default_rng(1).normal(size=(300, 5))
    assert 0.5 < generalization_score([X, noise], Y) < 0.75  # the mean over the spaces


def test_a_collapsed_labeling_gets_no_score() -> None:
    with pytest.raises(FitError, match="fewer than two clusters"):
        generalization_score([X], np.zeros(300, dtype=int))
