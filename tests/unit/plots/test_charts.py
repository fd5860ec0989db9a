"""Plots: every figure holds what it should, no global setting changes and nothing stays open."""

from __future__ import annotations

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from labkit import plots

mpl.use("agg")  # settles the backend, which is otherwise found at first use
RNG = np.random.default_rng(0)
GREY = [Image.fromarray(RNG.integers(0, 255, (8, 8), dtype=np.uint8)) for _ in range(12)]
NAMES = ["ant", "bee", "cat"]
Y = np.repeat([0, 1, 2], 10)


def results() -> pd.DataFrame:
    row = {"variant": "", "selected_without_labels": False, "labels_used": False}
    runs = [{**row, "method": "turtle", "spaces": ["a", "b"], "value": v, "seed": i} for i, v in enumerate((0.6, 0.7))]
    chosen = {**row, "method": "turtle", "spaces": ["a", "b"], "value": 0.68, "selected_without_labels": True}
    kmeans = {**row, "method": "k-means", "variant": "raw", "spaces": ["a"], "value": 0.5, "seed": 0}
    probe = {**row, "method": "linear-probe", "spaces": ["a"], "value": 0.9, "labels_used": True}
    return pd.DataFrame([kmeans, *runs, chosen, probe])


def history() -> dict[str, np.ndarray]:
    return {name: RNG.random((20, 4)) for name in ("inner_loss", "entropy", "outer_loss")}


SCORES = pd.DataFrame({"confidence": [0.5, 0.6, 0.7, 0.8], "agreement": [1.0, 1.0, 1.0, 1.0]})
SURE = np.linspace(0.3, 1, 50)
FIGURES = {
    "image_grid": lambda: plots.image_grid(GREY, [f"picture {i}" for i in range(12)], n_cols=5, title="Twelve"),
    "cluster_gallery": lambda: plots.cluster_gallery(GREY, np.arange(12) % 3, np.linspace(0, 1, 12), NAMES, n=5),
    "confusion": lambda: plots.confusion(Y, (Y + 1) % 3, NAMES),
    "embedding": lambda: plots.embedding(RNG.normal(size=(30, 2)), Y, NAMES, title="Points"),
    "training_curves": lambda: plots.training_curves(history(), best=2, title="A run"),
    "criteria": lambda: plots.criteria(SCORES, [0.5, 0.55, 0.65, 0.7], chosen=3),
    "results_bars": lambda: plots.results_bars(results(), title="Results"),
    "reliability": lambda: plots.reliability(SURE, SURE > 0.6, title="Sure and right"),
}


def texts(fig: Figure) -> str:
    """All texts of a drawn figure, one a line."""
    fig.canvas.draw()
    return "\n".join(text.get_text() for text in fig.findobj(mpl.text.Text) if text.get_visible())


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_a_figure_is_drawn_and_leaves_nothing_behind(draw):
    before, opened = mpl.rcParams.copy(), plt.get_fignums()
    fig = draw()
    assert isinstance(fig, Figure)
    png = io.BytesIO()
    fig.savefig(png, bbox_inches="tight")
    width, height = Image.open(png).size
    assert 200 < width < 1000  # readable at the width of a notebook
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


@pytest.mark.parametrize("name", ["confusion", "embedding", "training_curves", "criteria", "results_bars"])
def test_axes_are_labelled(name):
    fig = FIGURES[name]()
    assert all(ax.get_xlabel() for ax in fig.axes)
    named = name == "results_bars"  # every bar has its own name
    assert named or fig.axes[0].get_ylabel() or all(ax.get_title(loc="left") for ax in fig.axes)


def test_image_grid_shows_every_image_with_its_title():
    fig = FIGURES["image_grid"]()
    drawn = [ax for ax in fig.axes if ax.images]
    assert len(drawn) == 12
    assert len(fig.axes) == 15  # three rows of five
    np.testing.assert_array_equal(drawn[7].images[0].get_array(), np.asarray(GREY[7]))
    assert [ax.get_title() for ax in drawn] == [f"picture {i}" for i in range(12)]
    assert "Twelve" in texts(fig)


def test_image_grid_takes_colour_and_few_images():
    fig = plots.image_grid([np.zeros((4, 4, 3), np.uint8)] * 3)
    assert len(fig.axes) == 3


def test_a_gallery_row_begins_with_the_most_confident_picture():
    fig = FIGURES["cluster_gallery"]()
    rows = np.array(fig.axes).reshape(3, 5)
    for cluster, row in enumerate(rows):
        np.testing.assert_array_equal(row[0].images[0].get_array(), np.asarray(GREY[9 + cluster]))
        assert [bool(ax.images) for ax in row] == [True] * 4 + [False]  # four members each
        assert row[0].get_ylabel() == f"{NAMES[cluster]}\n4"


def test_a_gallery_reads_only_the_pictures_it_draws():
    class Counting(list):
        read = 0

        def __getitem__(self, i):
            type(self).read += 1
            return super().__getitem__(i)

    plots.cluster_gallery(Counting(GREY), np.arange(12) % 2, np.ones(12), n=2)
    assert Counting.read == 4


def test_confusion_matches_clusters_to_classes():
    fig = plots.confusion(Y, (Y + 1) % 3, NAMES)
    np.testing.assert_allclose(fig.axes[0].images[0].get_array(), 100 * np.eye(3))
    assert texts(fig).count("100") == 3
    unmatched = plots.confusion(Y, (Y + 1) % 3, NAMES, matched=False)
    np.testing.assert_allclose(unmatched.axes[0].images[0].get_array(), 100 * np.roll(np.eye(3), 1, axis=1))


def test_confusion_with_more_clusters_than_classes_and_an_absent_class():
    fig = plots.confusion([0, 0, 0, 0, 1, 1], [0, 0, 0, 3, 1, 1], NAMES)
    np.testing.assert_allclose(fig.axes[0].images[0].get_array(), [[75, 0, 0], [0, 100, 0], [0, 0, 0]])


def test_confusion_is_in_percent_of_each_class():
    y_true = np.repeat([0, 1], [90, 10])
    y_pred = np.r_[np.repeat([0, 1], [45, 45]), np.repeat([0, 1], [1, 9])]
    percent = plots.confusion(y_true, y_pred, NAMES[:2]).axes[0].images[0].get_array()
    np.testing.assert_allclose(percent, [[50, 50], [10, 90]])


def test_an_embedding_names_each_group_once_and_unknown_labels_not_at_all():
    fig = plots.embedding(RNG.normal(size=(30, 2)), np.where(Y == 2, -1, Y), NAMES)
    assert len(fig.axes[0].collections[0].get_offsets()) == 30
    assert [text.get_text() for text in fig.axes[0].texts] == ["ant", "bee"]


def test_names_of_groups_in_one_place_do_not_cover_each_other():
    points = np.r_[np.full((30, 2), 1.0) + RNG.normal(size=(30, 2)) * 1e-3, [[0, 0], [5, 5]]]
    fig = plots.embedding(points, np.r_[Y, 0, 0], NAMES)
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_training_curves_draw_every_restart_and_the_kept_one_on_top():
    told = history()
    fig = plots.training_curves(told, best=2)
    for ax, values in zip(fig.axes, told.values(), strict=True):
        assert len(ax.lines) == 5
        np.testing.assert_array_equal(ax.lines[-1].get_ydata(), values[:, 2])
    assert "kept restart" in texts(fig)
    assert all(len(ax.lines) == 4 for ax in plots.training_curves(told).axes)


def test_criteria_tell_the_correlation_or_that_there_is_none():
    fig = FIGURES["criteria"]()
    assert fig.axes[0].get_title(loc="left") == "r = 0.99"
    assert fig.axes[1].get_title(loc="left") == "does not vary"
    assert "chosen" in texts(fig)
    assert plots.criteria(SCORES[["confidence"]], [4, 3, 2, 1]).axes[0].get_title(loc="left") == "r = −1.00"


def test_bars_show_mean_seeds_choice_and_whether_labels_were_used():
    fig = FIGURES["results_bars"]()
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "k-means (raw), a",
        "turtle, a + b",
        "linear-probe, a",
    ]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [50, 65, 90])
    assert [text.get_text() for text in ax.texts] == ["50.0", "68.0", "90.0 (labels used)"]


def test_reliability_shows_accuracy_counts_and_the_error():
    confidence, correct = np.array([0.62, 0.66, 0.68, 0.96]), np.array([True, False, False, True])
    upper, lower = plots.reliability(confidence, correct).axes
    np.testing.assert_allclose([bar.get_height() for bar in upper.patches], [100 / 3, 100])
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in upper.patches], [65, 95])
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [[100 * 1.96 / 3, 100 / 3], [96, 100]])
    np.testing.assert_allclose([bar.get_height() for bar in lower.patches], [0, 0, 0, 0, 0, 0, 75, 0, 0, 25])
    assert upper.texts[0].get_text() == "expected calibration error: 25.0 %"  # 3/4 · 32 + 1/4 · 4
    assert lower.get_xlabel() == "confidence (%)"


def test_colours_are_distinct():
    assert len(set(plots.COLORS)) == 10
    assert plots.color(13) == plots.COLORS[3]


def test_metric_curves_have_a_panel_for_each_metric_that_is_there():
    records = [{"epoch": 0.5, "loss": 2.0, "kept": 0.1}, {"epoch": 1.0, "loss": 1.0, "kept": 0.4}]
    fig = plots.metric_curves(records, ("loss", "kept", "alignment"), title="A run")
    panels = {ax.get_title(loc="left"): ax.lines[0].get_xydata().tolist() for ax in fig.axes if ax.get_visible()}
    assert panels == {"loss": [[0.5, 2.0], [1.0, 1.0]], "kept": [[0.5, 0.1], [1.0, 0.4]]}
    assert plots.metric_curves([], ("loss",))
