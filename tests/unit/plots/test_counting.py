"""The figure of an estimated number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from labkit import plots
from labkit.errors import DataError
from tests.unit.plots.examples import counting


def test_scores_are_drawn_from_their_lowest_to_their_highest_value_and_the_mean_as_it_is():
    curve = counting()
    ax = plots.counting_curve(curve, 10, (8, 14)).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    for name in ("silhouette", "gap", "stability"):
        assert lines[name].min() == 0
        assert lines[name].max() == 1
        assert lines[name].argmax() == curve[name].argmax()
    np.testing.assert_array_equal(lines["their mean"], curve["score"])
    assert set(lines["estimate 10"]) == {0, 1}


@pytest.mark.parametrize("given", [(counting(), 0, (8, 14)), (counting(), 10, 8), ({}, 10, (8, 14))])
def test_what_is_no_curve_is_named(given):
    with pytest.raises(DataError, match="a figure got"):
        plots.counting_curve(*given)
