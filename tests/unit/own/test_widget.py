"""The review in a notebook, without a browser: what its controls do arrives in Python, and it has a still form."""

from __future__ import annotations

import json
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter

from labkit.own.clustering import Clustering
from labkit.own.review import Review, read_review, reviewed
from labkit.own.widget import PER_PAGE, ROWS, STRIP, ReviewWidget, review_widget
from tests.unit.own.clusterings import make_clustering
from tests.unit.own.fake_clusters import thumbnail

THUMBNAILS = [thumbnail(i) for i in range(12)]


@pytest.fixture
def found(tmp_path: Path) -> Clustering:
    """Twelve images in four clusters."""
    return make_clustering(tmp_path / "photos")


@pytest.fixture
def widget(found: Clustering) -> ReviewWidget:
    return review_widget(found, THUMBNAILS, {"a space": np.eye(12, dtype=np.float32)})


def operations(widget: ReviewWidget) -> list[dict]:
    return widget.review["operations"]


def test_it_begins_with_the_clusters_as_they_are(widget: ReviewWidget, found: Clustering) -> None:
    assert list(widget.rows) == [0, 1, 2, 3]
    assert [row.name.value for row in widget.rows.values()] == ["red", "green", "", "yellow"]
    assert widget.clustering() is found
    assert widget.review == {"labkit": "review", "version": 1, "run": found.report["run"], "operations": []}
    assert widget.bar.undo.disabled


def test_controls_rename_merge_split_and_reject(widget: ReviewWidget) -> None:
    widget.rows[2].name.value = "  blue\nthings "
    widget.rows[3].merge.value = 1
    widget.rows[0].reject.click()
    widget.rows[2].split.click()
    assert operations(widget) == [
        {"do": "rename", "cluster": 2, "name": "blue things"},
        {"do": "merge", "clusters": [3, 1]},
        {"do": "reject", "cluster": 0},
        {"do": "split", "cluster": 2, "into": 2},
    ]
    assert widget.labels[[0, 1, 2]].tolist() == [-1] * 3
    assert widget.labels[[3, 4, 5, 9, 10, 11]].tolist() == [1] * 6
    assert sorted(widget.labels[6:9].tolist()) in ([2, 2, 4], [2, 4, 4])
    assert widget.clustering().clusters["name"].tolist() == ["green", "blue things", ""]
    assert widget.bar.message.value == "3 clusters, 3 images rejected, 4 changes"


def test_picked_images_are_moved_or_rejected(widget: ReviewWidget, found: Clustering) -> None:
    widget.rows[1].images.click()
    assert widget.opened is not None
    assert widget.children.index(widget.opened) == widget.children.index(widget.rows[1]) + 1
    widget.opened.reject.click()
    assert widget.bar.message.value == "Pick images first."
    widget.opened.move.value = 0
    assert operations(widget) == []
    widget.opened.picks[0].value = True
    first = found.images["file"].iloc[widget.opened.shown[0]]
    widget.opened.move.value = 0
    assert operations(widget) == [{"do": "move", "cluster": 0, "files": [first]}]
    assert (widget.labels == 0).sum() == 4
    for pick in widget.opened.picks:  # of the two that are left
        pick.value = True
    widget.opened.reject.click()
    assert (widget.labels == -1).sum() == 2
    assert widget.opened is None  # the cluster is empty
    assert 1 not in widget.rows


def test_undo_gives_back_what_was(widget: ReviewWidget, found: Clustering) -> None:
    widget.rows[0].merge.value = 1
    widget.rows[0].reject.click()
    widget.bar.undo.click()
    assert widget.labels.tolist() == [0] * 6 + [2] * 3 + [3] * 3
    widget.bar.undo.click()
    assert widget.labels.tolist() == found.labels.tolist()
    assert operations(widget) == []


def test_its_review_is_that_of_the_pages(widget: ReviewWidget, found: Clustering, tmp_path: Path) -> None:
    widget.rows[2].name.value = "blue"
    widget.rows[3].merge.value = 2
    (tmp_path / "review.json").write_text(json.dumps(widget.review), "utf-8")
    review = read_review(tmp_path / "review.json")
    np.testing.assert_array_equal(reviewed(found, review, {}).labels, widget.labels)
    again = review_widget(reviewed(found, review, {}), THUMBNAILS)
    again.rows[0].reject.click()
    assert operations(again) == [*review.operations, {"do": "reject", "cluster": 0}]
    assert again.labels.tolist() == [-1] * 3 + [1] * 3 + [2] * 6


def test_what_cannot_be_done_is_said_and_changes_nothing(widget: ReviewWidget) -> None:
    widget.do({"do": "reject", "cluster": 9})
    assert "9" in widget.bar.message.value
    assert operations(widget) == []


def test_without_features_there_is_no_split(found: Clustering) -> None:
    row = review_widget(found, THUMBNAILS).rows[0]
    assert row.split not in row.children[0].children


def test_many_images_and_clusters_come_in_pages(tmp_path: Path) -> None:
    labels = [0] * (PER_PAGE + 5) + list(range(1, ROWS + 9))
    widget = review_widget(make_clustering(tmp_path, labels), [b""] * len(labels))
    assert len(widget.rows) == ROWS
    widget.bar.more.click()
    assert len(widget.rows) == ROWS + 9
    widget.rows[0].images.click()
    assert len(widget.opened.picks) == PER_PAGE
    widget.opened.after.click()
    assert len(widget.opened.picks) == 5
    assert widget.opened.after.disabled
    widget.rows[0].images.click()
    widget.rows[0].images.click()
    assert widget.opened is None


@pytest.mark.skipif(
    int(ipywidgets.__version__.partition(".")[0]) < 8, reason="ipywidgets 7 displays itself, and asks for no data"
)
def test_on_a_page_of_nbconvert_it_is_a_still_gallery(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>.png'.replace("/", "_")
    clustering = make_clustering(tmp_path, [0, 0, 1], names=("<b>bold</b>", ""), files=["a.png", hostile, "c.png"])
    data = review_widget(clustering, THUMBNAILS[:3])._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    output = nbformat.v4.new_output("display_data", data=data)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count("data:image/jpeg;base64,") == 3
    assert "cluster 0, &lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;script&gt;alert(" in page
    assert '<script>alert("x")' not in page


def test_a_strip_is_short(tmp_path: Path) -> None:
    widget = review_widget(make_clustering(tmp_path, [0] * 12), THUMBNAILS)
    assert len(widget.strip(0)) == STRIP
    assert Review("", operations(widget)).summary().startswith("nothing")
