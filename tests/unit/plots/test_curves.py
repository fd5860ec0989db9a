"""Curves of a training: every restart, every metric."""

from __future__ import annotations

import numpy as np

from labkit import plots
from tests.unit.plots.examples import history, texts


def test_training_curves_draw_every_restart_and_the_kept_one_on_top():
    told = history()
    fig = plots.training_curves(told, best=2)
    for ax, values in zip(fig.axes, told.values(), strict=True):
        assert len(ax.lines) == 5
        np.testing.assert_array_equal(ax.lines[-1].get_ydata(), values[:, 2])
    assert "kept restart" in texts(fig)
    assert all(len(ax.lines) == 4 for ax in plots.training_curves(told).axes)


def test_metric_curves_have_a_panel_for_each_metric_that_is_there():
    records = [{"epoch": 0.5, "loss": 2.0, "kept": 0.1}, {"epoch": 1.0, "loss": 1.0, "kept": 0.4}]
    fig = plots.metric_curves(records, ("loss", "kept", "alignment"), title="A run")
    panels = {ax.get_title(loc="left"): ax.lines[0].get_xydata().tolist() for ax in fig.axes if ax.get_visible()}
    assert panels == {"loss": [[0.5, 2.0], [1.0, 1.0]], "kept": [[0.5, 0.1], [1.0, 0.4]]}
    assert plots.metric_curves([], ("loss",))
