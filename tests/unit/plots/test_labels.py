"""Text that fits: what is wrapped, shortened or left out."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from labkit.plots.labels import inches_of, name_columns, name_rows, shortened, wrapped


@pytest.mark.parametrize("text", ["mum", "Ankle boot", "sport, game or party", "efficientnet-lite0 + pixels"])
def test_the_estimate_of_a_width_is_close(text):
    fig = Figure()
    drawn = fig.text(0, 0, text, fontsize=9).get_window_extent().width / fig.dpi
    assert 0.95 * drawn < inches_of(text) < 1.1 * drawn


def test_what_is_too_long_is_shortened():
    assert shortened("Ankle boot", 1) == "Ankle boot"
    one = shortened("a very long name of a class", 1)
    assert one.startswith("a very long")
    assert one.endswith("…")
    first, second = wrapped("a very long name of a class of things", 1).split("\n")
    assert first == "a very long"
    assert second.startswith("name of a")
    assert second.endswith("…")
    assert inches_of(one) <= 1
    assert inches_of(second) <= 1
    assert wrapped("T-shirt/top", 0.5) == "T-shirt/\ntop"
    assert wrapped("one\n\ntwo", 1) == "one\n\ntwo"
    assert wrapped("", 1) == ""
    assert shortened("m" * 1000, 0.01) == "…"


def ticks(name_them, inches):
    ax = Figure().subplots()
    name_them(ax, [f"class {i}" for i in range(10)], inches)
    return ax


def test_names_of_columns_lie_flat_where_they_fit_and_are_rotated_where_not():
    angles = [ticks(name_columns, inches).get_xticklabels()[0].get_rotation() for inches in (1, 0.3, 0.2)]
    assert angles == [0, 45, 90]


def test_where_rows_are_low_only_some_have_their_names():
    shown = [[text.get_text() for text in ticks(name_rows, inches).get_yticklabels()] for inches in (0.2, 0.07)]
    assert shown == [[f"class {i}" for i in range(10)], ["class 0", "class 2", "class 4", "class 6", "class 8"]]
