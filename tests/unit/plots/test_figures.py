"""All figures: in one style, legible on a page; no global setting changes and nothing stays open."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from labkit import plots
from tests.unit.plots.examples import FIGURES, TYPICAL
from tests.unit.plots.legible import problems

mpl.use("agg")  # settles the backend, which is otherwise found at first use


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_a_figure_is_drawn_and_leaves_nothing_behind(draw):
    before, opened = mpl.rcParams.copy(), plt.get_fignums()
    fig = draw()
    assert isinstance(fig, Figure)
    width, height = Image.open(io.BytesIO(plots.to_png(fig))).size
    assert 200 < width <= 760  # the width of a notebook
    assert 100 < height < 1000
    assert mpl.rcParams == before
    assert plt.get_fignums() == opened


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_the_style_does_not_depend_on_global_settings(draw):
    usual = draw().axes[0]
    with mpl.rc_context({"axes.edgecolor": "red", "axes.titlesize": 40, "axes.titlelocation": "right"}):
        odd = draw().axes[0]
    assert odd.spines["left"].get_edgecolor() == usual.spines["left"].get_edgecolor()
    for place in ("left", "center", "right"):
        assert odd.get_title(loc=place) == usual.get_title(loc=place)
    assert odd.title.get_fontsize() == usual.title.get_fontsize()


@pytest.mark.parametrize("draw", TYPICAL.values(), ids=TYPICAL.keys())
def test_all_text_can_be_read_at_the_width_of_a_page(draw):
    assert problems(draw()) == []


def test_what_cannot_be_read_is_noticed():
    fig, [[ax]] = plots.figure(height=2)
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "small", fontsize=7)
    ax.text(0.2, 0.8, "one")
    ax.text(0.2, 0.8, "another")
    fig.text(0.99, 0.5, "beyond", in_layout=False)
    found = "\n".join(problems(fig))
    assert "7.3 points: 'small'" in found
    assert "cut: 'beyond'" in found
    assert "'one' over 'another'" in found
    assert len(problems(fig)) == 3


def test_every_public_plot_is_tried():
    functions = {name for name in plots.__all__ if callable(getattr(plots, name))}
    helpers = {"BLUES", "color", "figure", "to_png", "draw_embedding", "draw_strips"}
    assert functions - helpers <= set(TYPICAL)


def test_a_figure_is_not_wider_than_a_page():
    fig, _ = plots.figure(width=12, height=3)
    assert tuple(fig.get_size_inches()) == (plots.PAGE_WIDTH, 3)


@pytest.mark.parametrize("name", ["confusion", "embedding", "training_curves", "criteria", "results_bars", "strips"])
def test_axes_are_labelled(name):
    fig = FIGURES[name]()
    assert all(ax.get_xlabel() for ax in fig.axes)
    named = name in ("results_bars", "strips")  # every bar has its own name
    assert named or fig.axes[0].get_ylabel() or all(ax.get_title(loc="left") for ax in fig.axes)


def test_colors_are_distinct():
    assert len(set(plots.COLORS)) == 10
    assert plots.color(13) == plots.COLORS[3]


def test_seaborn_is_loaded_at_first_use():
    code = "import sys, labkit.plots; print('seaborn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
