"""The figure of a sweep: the chosen run and its regret, and no label where none is given."""

from __future__ import annotations

import numpy as np
import pytest

import labkit as lk
from labkit import plots
from labkit.errors import DataError
from tests.unit.plots.examples import Swept, texts


def test_each_panel_has_its_regret() -> None:
    result = Swept(3)
    fig = plots.sweep(result, Swept.labels)
    accuracy = np.array([lk.clustering_accuracy(Swept.labels, labeling) for labeling in result.labelings])
    full = result.table["n_found"] == 5
    for ax, name in zip(fig.axes, result.criteria, strict=True):
        chosen = int(result.table[name].where(full).idxmax())
        assert ax.get_xlabel() == name
        assert ax.get_title(loc="left") == f"regret {100 * (accuracy.max() - accuracy[chosen]):.1f}"
        np.testing.assert_allclose(
            ax.collections[-1].get_offsets(), [[result.table[name][chosen], 100 * accuracy[chosen]]]
        )
        assert [len(points.get_offsets()) for points in ax.collections] == [2, 34, 1]


def test_without_labels_scores_are_ranked_and_collapsed_runs_come_last() -> None:
    result = Swept(3)
    fig = plots.sweep(result)
    assert "accuracy" not in texts(fig)
    assert "regret" not in texts(fig)
    for ax in fig.axes:
        collapsed, others, chosen = (points.get_offsets() for points in ax.collections)
        assert sorted(collapsed[:, 0]) == [35, 36]
        order = np.argsort(others[:, 0])
        assert (np.diff(others[order, 1]) <= 0).all()
        np.testing.assert_array_equal(chosen, others[order][:1])


def test_what_is_no_sweep_is_refused() -> None:
    with pytest.raises(DataError, match=r"labkit\.sweep"):
        plots.sweep([1, 2])
    with pytest.raises(DataError):
        plots.sweep(Swept(), Swept.labels[:-1])
