"""Clusters reviewed in a notebook: the gallery as ipywidgets, whose result is at once in Python.

It needs no JavaScript of its own, so it works wherever ipywidgets do. Where nothing can move, as on a page that
nbconvert makes, the same images are a still gallery.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import ipywidgets
import numpy as np

from labkit.errors import DataError
from labkit.own.clustering import Clustering
from labkit.own.pages import template
from labkit.own.review import LONGEST_NAME, Review, reviewed

STRIP = 10  # images of a cluster in its row
PER_PAGE = 24  # images of the open cluster
NOTHING = -1  # in a drop-down of clusters: none is chosen
ROWS = 30  # clusters at first
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def review_widget(
    clustering: Clustering, thumbnails: Sequence[bytes], features: Mapping[str, np.ndarray] | None = None
) -> ReviewWidget:
    """A widget to look through clusters, and to name, merge, split, reject and move; the last line of a cell shows it.

    Args:
        clustering: n images; it is left as it is.
        thumbnails: n JPEGs; an empty one leaves a blank tile.
        features: n rows in each space, for splits; without them there is no button for it.

    Returns:
        The widget. `review`, `labels` and `clustering()` are what was decided so far.
    """
    return ReviewWidget(clustering, thumbnails, features or {})


class ReviewWidget(ipywidgets.VBox):
    """The widget of `review_widget`.

    Attributes:
        bar: the line above: `undo`, and in `message` what there is or what did not work.
        rows: by the number of a cluster its row: `name`, `merge`, `split`, `reject` and `images`.
        opened: the images of the cluster that is open, with `picks` (a checkbox each), `move` and `reject`; else None.
    """

    def __init__(self, clustering: Clustering, thumbnails: Sequence[bytes], features: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self._base, self._thumbnails, self._features = clustering, thumbnails, features
        self._applied = list(clustering.report.get("review", []))
        self._new: list[dict[str, Any]] = []
        self._now = clustering
        self.rows: dict[int, _Row] = {}
        self.opened: _Opened | None = None
        self._n_rows = ROWS
        self.bar = _Bar(self.undo, self._more)
        self._draw()

    # ------------------------------------------------------------------------------------------------- what was decided

    @property
    def review(self) -> dict[str, Any]:
        """The review as review.json holds it, with what was applied before."""
        run = self._base.report.get("run", "")
        return {"labkit": "review", "version": 1, "run": run, "operations": [*self._applied, *self._new]}

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each image, (n,) int64; −1 where it was rejected."""
        return self._now.labels

    def clustering(self) -> Clustering:
        """The clusters after the review."""
        return self._now

    def do(self, operation: dict[str, Any]) -> None:
        """Add an operation to the review; where it cannot be done, nothing is changed and the bar says why."""
        try:
            self._now = self._reviewed([*self._new, operation])
        except DataError as error:
            self.bar.say(str(error))
            return
        self._new.append(operation)
        self._draw()

    def undo(self) -> None:
        """Take the last operation back."""
        self._new = self._new[:-1]
        self._now = self._reviewed(self._new)
        self._draw()

    def _reviewed(self, new: list[dict[str, Any]]) -> Clustering:
        run = self._base.report.get("run", "")
        return reviewed(self._base, Review(run, [*self._applied, *new]), self._features) if new else self._base

    # -------------------------------------------------------------------------------------------------- what is shown

    def open_cluster(self, cluster: int | None, page: int = 0) -> None:
        """Show the images of a cluster, 24 on a page; None closes them."""
        kept = self.opened is not None and self.opened.cluster == cluster and self.opened.page == page
        self.opened = None if cluster is None or kept else _Opened(self, cluster, page)
        self._arrange()

    def members(self, cluster: int) -> np.ndarray:
        """The rows of a cluster's images, most confident first."""
        return self._now.members(cluster)

    def targets(self, without: int) -> list[tuple[str, int]]:
        """The other clusters, as the options of a drop-down."""
        return [(title, number) for number, title in self._titles().items() if number != without]

    def file(self, row: int) -> str:
        """The name of an image."""
        return str(self._base.images["file"].iloc[row])

    def image(self, row: int) -> dict[str, str]:
        """An image, for the template."""
        return {"file": self.file(row), "jpeg": base64.b64encode(self._thumbnails[row]).decode()}

    def strip(self, cluster: int) -> list[dict[str, str]]:
        """The first images of a cluster, for the template."""
        return [self.image(row) for row in self.members(cluster)[:STRIP].tolist()]

    def _titles(self) -> dict[int, str]:
        numbers, names = self._now.clusters["cluster"].tolist(), self._now.clusters["name"]
        return {n: f"cluster {n}, {name}" if name else f"cluster {n}" for n, name in zip(numbers, names, strict=True)}

    def _draw(self) -> None:
        table = self._now.clusters.sort_values("size", ascending=False, kind="stable")
        shown = zip(table["cluster"].tolist()[: self._n_rows], table["name"], table["size"], strict=False)
        self.rows = {number: _Row(self, number, name, size, bool(self._features)) for number, name, size in shown}
        self.bar.show(len(self._new), len(table), int((self.labels < 0).sum()), len(table) - len(self.rows))
        if self.opened is not None:
            there = self.opened.cluster in self.rows
            self.opened = _Opened(self, self.opened.cluster, self.opened.page) if there else None
        self._arrange()

    def _arrange(self) -> None:
        children = [self.bar]
        for number, row in self.rows.items():
            children += [row, *([self.opened] if self.opened and self.opened.cluster == number else [])]
        self.children = children

    def _more(self) -> None:
        self._n_rows += ROWS
        self._draw()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """What a notebook keeps: the widget, and the still gallery for those that cannot draw it."""
        bundle = super()._repr_mimebundle_(**kwargs)
        clusters = [
            {"title": title, "size": len(self.members(number)), "images": self.strip(number)}
            for number, title in self._titles().items()
        ]
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None:
            data["text/html"] = template("widget.html.j2").render(clusters=clusters)
        return bundle


class _Bar(ipywidgets.HBox):
    """What there is, and Undo."""

    def __init__(self, undo: Callable[[], None], more: Callable[[], None]) -> None:
        self.message = ipywidgets.Label()
        self.undo, self.more = _button("Undo", undo), _button("More clusters", more)
        super().__init__([self.message, self.undo, self.more])

    def show(self, n_changes: int, n_clusters: int, n_rejected: int, n_hidden: int) -> None:
        parts = [f"{n_clusters} clusters"] + [f"{n_rejected} images rejected"] * (n_rejected > 0)
        self.say(", ".join([*parts, f"{n_changes} changes" if n_changes != 1 else "1 change"]))
        self.undo.disabled = n_changes == 0
        self.more.layout.display = None if n_hidden else "none"

    def say(self, text: str) -> None:
        self.message.value = text


class _Row(ipywidgets.VBox):
    """A cluster: its first images, and what can be done with it."""

    def __init__(self, owner: ReviewWidget, cluster: int, name: str, size: int, can_split: bool) -> None:
        narrow = ipywidgets.Layout(width="11em")
        self.name = ipywidgets.Text(name, placeholder="name", continuous_update=False, layout=narrow)
        self.merge = ipywidgets.Dropdown(
            options=[("merge into …", NOTHING), *owner.targets(cluster)], value=NOTHING, layout=narrow
        )
        self.split = _button("Split", lambda: owner.do({"do": "split", "cluster": cluster, "into": 2}))
        self.reject = _button("Reject", lambda: owner.do({"do": "reject", "cluster": cluster}))
        self.images = _button("Images", lambda: owner.open_cluster(cluster))
        self.name.observe(lambda change: owner.do(_renamed(cluster, change["new"])), "value")
        self.merge.observe(lambda change: _merge(owner, cluster, change["new"]), "value")
        title = ipywidgets.Label(f"cluster {cluster}: {size} image{'s' if size != 1 else ''}")
        title.layout.width = "13em"
        controls = [title, self.name, self.merge, *([self.split] if can_split else []), self.reject, self.images]
        strip = ipywidgets.HTML(_strip(owner.strip(cluster)))
        super().__init__([ipywidgets.HBox(controls, layout=_WRAP), strip])


class _Opened(ipywidgets.VBox):
    """The images of a cluster, some of which can be picked, then moved or rejected."""

    def __init__(self, owner: ReviewWidget, cluster: int, page: int) -> None:
        rows = owner.members(cluster).tolist()
        n_pages = max(1, -(-len(rows) // PER_PAGE))
        self.cluster, self.page = cluster, min(page, n_pages - 1)
        self.shown = rows[self.page * PER_PAGE : (self.page + 1) * PER_PAGE]
        self.picks = [ipywidgets.Checkbox(description="pick", indent=False, layout=_TILE) for _ in self.shown]
        self.move = ipywidgets.Dropdown(options=[("move to …", NOTHING), *owner.targets(cluster)], value=NOTHING)
        self.reject = _button("Reject picked", lambda: self._act(owner, {"do": "reject"}))
        self.move.observe(lambda change: self._act(owner, {"do": "move", "cluster": change["new"]}), "value")
        self.before = _button("Previous", lambda: owner.open_cluster(cluster, self.page - 1), self.page == 0)
        self.after = _button("Next", lambda: owner.open_cluster(cluster, self.page + 1), self.page == n_pages - 1)
        place = ipywidgets.Label(f"page {self.page + 1} of {n_pages}")
        tiles = [self._tile(owner, row, pick) for row, pick in zip(self.shown, self.picks, strict=True)]
        controls = [
            self.move,
            self.reject,
            self.before,
            place,
            self.after,
            _button("Close", lambda: owner.open_cluster(None)),
        ]
        super().__init__([ipywidgets.HBox(controls, layout=_WRAP), ipywidgets.HBox(tiles, layout=_WRAP)])

    def _tile(self, owner: ReviewWidget, row: int, pick: ipywidgets.Checkbox) -> ipywidgets.VBox:
        file = owner.file(row)
        pick.tooltip = file
        image = ipywidgets.HTML(_strip([owner.image(row)]))
        caption = ipywidgets.Label(PurePosixPath(file).name, layout=_TILE)
        return ipywidgets.VBox([image, caption, pick], layout=_TILE)

    def _act(self, owner: ReviewWidget, operation: dict[str, Any]) -> None:
        files = [owner.file(row) for row, pick in zip(self.shown, self.picks, strict=True) if pick.value]
        if operation.get("cluster") == NOTHING:
            return
        if files:
            owner.do({**operation, "files": files})
        else:
            owner.bar.say("Pick images first.")
            self.move.value = NOTHING


_WRAP = {"flex_flow": "row wrap", "align_items": "center"}
_TILE = {"width": "7.5em", "margin": "0 8px 4px 0"}


def _button(text: str, act: Callable[[], None], disabled: bool = False) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, disabled=disabled, layout={"width": "auto"})
    button.on_click(lambda _: act())
    return button


def _merge(owner: ReviewWidget, cluster: int, other: int) -> None:
    if other != NOTHING:
        owner.do({"do": "merge", "clusters": [cluster, other]})


def _renamed(cluster: int, name: str) -> dict[str, Any]:
    """The operation for a name as it was typed: one line, without what would steer a table."""
    return {"do": "rename", "cluster": cluster, "name": _CONTROL.sub(" ", name).strip()[:LONGEST_NAME].strip()}


def _strip(images: list[dict[str, str]]) -> str:
    """Images beside one another, as HTML."""
    strip: str = template("widget.html.j2").module.strip(images)  # type: ignore[attr-defined]
    return strip
