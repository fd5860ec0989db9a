"""Images in rows: which are drawn where, under which title, and how large."""

from __future__ import annotations

import numpy as np

from labkit import plots
from tests.unit.plots.examples import FIGURES, GRAY, NAMES, texts


def test_image_grid_shows_every_image_with_its_title():
    fig = FIGURES["image_grid"]()
    drawn = [ax for ax in fig.axes if ax.images]
    assert len(drawn) == 12
    assert len(fig.axes) == 15  # three rows of five
    np.testing.assert_array_equal(drawn[7].images[0].get_array(), np.asarray(GRAY[7]))
    assert [ax.get_title() for ax in drawn] == [f"image {i}" for i in range(12)]
    assert "Twelve" in texts(fig)


def test_image_grid_takes_color_and_few_images():
    fig = plots.image_grid([np.zeros((4, 4, 3), np.uint8)] * 3)
    assert len(fig.axes) == 3


def test_a_gallery_row_begins_with_the_most_confident_image():
    fig = FIGURES["cluster_gallery"]()
    rows = np.array(fig.axes).reshape(3, 5)
    for cluster, row in enumerate(rows):
        np.testing.assert_array_equal(row[0].images[0].get_array(), np.asarray(GRAY[9 + cluster]))
        assert [bool(ax.images) for ax in row] == [True] * 4 + [False]  # four members each
        assert row[0].get_ylabel() == f"{NAMES[cluster]}\n4"


def test_a_gallery_reads_only_the_images_it_draws():
    class Counting(list):
        read = 0

        def __getitem__(self, i):
            type(self).read += 1
            return super().__getitem__(i)

    plots.cluster_gallery(Counting(GRAY), np.arange(12) % 2, np.ones(12), n=2)
    assert Counting.read == 4


def test_small_images_are_magnified_pixel_by_pixel_and_large_ones_smoothed():
    ax = plots.image_grid([np.zeros((28, 28), np.uint8)] * 15, n_cols=15).axes[0]
    assert ax.images[0].get_interpolation() == "nearest"
    ax.figure.draw_without_rendering()
    assert ax.get_window_extent().width > 1.6 * 28
    large = plots.image_grid([np.zeros((224, 224, 3), np.uint8)]).axes[0]
    assert large.images[0].get_interpolation() == "antialiased"


def test_titles_are_wrapped_and_no_formula():
    fig = plots.image_grid(GRAY[:2], ["a title of many words", "$5 or $10"], n_cols=2)
    assert [ax.get_title() for ax in fig.axes] == ["a title of\nmany words", "$5 or $10"]
    assert not fig.axes[1].title.get_parse_math()
