"""Charts of accuracies: means, seeds, choices and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from labkit import plots
from labkit.errors import DataError
from tests.unit.plots.examples import FIGURES, NAMES, SCORES, texts


def test_bars_show_mean_seeds_choice_and_whether_labels_were_used():
    fig = FIGURES["results_bars"]()
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "k-means (raw), a",
        "turtle, a + b",
        "linear-probe, a",
    ]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [50, 65, 90])
    assert [len(dots.get_offsets()) for dots in ax.collections] == [1, 2, 1, 1]  # seeds, and the choice
    assert [text.get_text() for text in ax.texts] == ["50.0", "68.0", "90.0 (labels used)"]


def test_criteria_tell_the_correlation_or_that_there_is_none():
    fig = FIGURES["criteria"]()
    assert fig.axes[0].get_title(loc="left") == "r = 0.99"
    assert fig.axes[1].get_title(loc="left") == "does not vary"
    assert "chosen" in texts(fig)
    assert plots.criteria(SCORES[["confidence"]], [4, 3, 2, 1]).axes[0].get_title(loc="left") == "r = −1.00"


def test_a_method_has_the_same_color_in_every_chart():
    bar = FIGURES["results_bars"]().axes[0].patches[1]  # turtle
    dots = FIGURES["strips"]().axes[0].collections[0]
    assert bar.get_facecolor()[:3] == pytest.approx(tuple(dots.get_facecolors()[0][:3]))


def test_strips_show_each_seed_and_the_mean():
    ax = FIGURES["strips"]().axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["turtle", "k-means"]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[60, 0], [70, 0], [80, 0]])
    np.testing.assert_allclose([line.get_xdata()[0] for line in ax.lines], [70, 55])
    assert [text.get_text() for text in ax.texts] == ["70.0", "55.0"]


def test_bars_stand_in_groups_with_their_numbers():
    fig = FIGURES["bars"]()
    heights = [[bar.get_height() for bar in container] for container in fig.axes[0].containers]
    np.testing.assert_allclose(heights, [[50, 25], [75, 100]])
    assert [text.get_text() for text in fig.axes[0].texts] == ["50", "25", "75", "100"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["before", "after"]


@pytest.mark.parametrize("wrong", [{}, None, [0.5], {"a": [0.5]}, {"a": [0.5, np.nan]}, {"a": "text"}])
def test_bars_of_what_is_no_table_are_refused(wrong):
    with pytest.raises(DataError):
        plots.bars(wrong, NAMES[:2])


@pytest.mark.parametrize("wrong", [{}, None, [0.5], {"a": []}, {"a": [[0.5]]}, {"a": "text"}])
def test_strips_of_what_is_no_table_are_refused(wrong):
    with pytest.raises(DataError):
        plots.strips(wrong)
