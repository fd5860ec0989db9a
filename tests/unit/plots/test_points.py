"""Points in the plane: each group has its name, once and where it can be read."""

from __future__ import annotations

import numpy as np

from labkit import plots
from tests.unit.plots.examples import NAMES, RNG, Y


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
