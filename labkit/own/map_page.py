"""map.html: every image at its place on a map, to look through, search, select and review; one file, no network.

The page is templates/map.html.j2 with map.css and the three map_*.js. It holds small thumbnails in a few large JPEGs
(sheets), and the names, places and clusters as JSON. Its own script is the only one that its policy lets run.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.errors import DataError, quote, shown
from labkit.own.pages import apply_command, link, policy_hash, script_json, source, template

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.own.clustering import Clustering

SIDES = (96, 64, 48, 32, 16)  # of a thumbnail in pixels: whole blocks of a JPEG, so that neighbors do not mix
MOST_PIXELS = 47_000_000  # of all thumbnails: 20,000 have a side of 48 pixels, and the page about 20 MB
PER_SHEET = 32  # thumbnails in a row and in a column of a sheet
BLANK = "#999999"
QUALITY = 72  # of the JPEGs
FINE = 1_000_000  # steps from one side of the map to the other
SCRIPTS = ("review.js", "map_data.js", "map_view.js", "map_panels.js")


def map_page(clustering: Clustering, thumbnails: Sequence[bytes], positions: np.ndarray, out: Path) -> bytes:
    """The page of a clustering.

    Args:
        clustering: of n images. What its report says of "layout" and "run" is shown and kept.
        thumbnails: a JPEG of each image, n; an empty one leaves a gray tile.
        positions: from `layout`, (n, 2).
        out: the folder that the page is for: it links to the images from there.

    Raises:
        DataError: there is not one thumbnail and one finite position for each image.
    """
    n = len(clustering.images)
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (n, 2) or not np.isfinite(positions).all() or len(thumbnails) != n:
        raise DataError(
            f"{len(thumbnails)} thumbnails and positions of shape {quote(positions.shape)} were given for {n} images. "
            "Expected a thumbnail and two finite coordinates for each."
        )
    side = next((side for side in SIDES if n * side * side <= MOST_PIXELS), SIDES[-1])
    sheets, boxes = _sheets(thumbnails, side)
    data = _data(clustering, positions, out) | {"side": side, "perSheet": PER_SHEET, "boxes": boxes}
    style, script = source("map.css"), source(*SCRIPTS)
    page = template("map.html.j2").render(
        folder=shown(clustering.root.name),
        n=n,
        command=" ".join(apply_command(out)),
        layout=clustering.report.get("layout", ""),
        style=style,
        script=script,
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
        data=script_json(data),
        sheets=[base64.b64encode(sheet).decode() for sheet in sheets],
    )
    return page.encode("utf-8", "backslashreplace")


def _data(clustering: Clustering, positions: np.ndarray, out: Path) -> dict[str, Any]:
    """What the page knows of the images and clusters."""
    images, clusters = clustering.images, clustering.clusters
    places = np.rint((positions + 1) * (FINE / 2)).astype(np.int64)
    flagged = {i: str(flags) for i, flags in enumerate(images["flags"]) if flags}
    return {
        "run": clustering.report.get("run", ""),
        "applied": clustering.report.get("review", []),
        "fine": FINE,
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "reach": reach(places).tolist(),
        "files": [shown(str(file)) for file in images["file"]],
        "links": [link(path, out) for path in clustering.paths],
        "cluster": images["cluster"].tolist(),
        "confidence": [round(100 * float(c)) if np.isfinite(c) else None for c in images["confidence"]],
        "flags": flagged,
        "clusters": [
            {"cluster": int(row.cluster), "size": int(row.size_), "name": shown(row.name_), "suggestions": []}
            for row in clusters.rename(columns={"size": "size_", "name": "name_"}).itertuples()
        ],
    }


def reach(places: np.ndarray) -> np.ndarray:
    """How far each place is from those that come before it, when the farthest always comes next.

    The images whose reach is at least t are at least t apart from one another, and no image is farther than t from
    one of them: so the page draws at any zoom as many thumbnails as fit, and the same ones wherever it is moved to
    (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985).

    Args:
        places: (n, 2).

    Returns:
        (n,): the larger of the distances in x and y. Of the first place, the size of the map.
    """
    points = places.astype(np.float32)
    x, y = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
    reached, current = np.zeros(len(points), np.int64), 0
    gap = np.full(len(points), 2 * FINE, np.float32)
    for _ in range(len(points)):
        reached[current] = int(gap[current])
        np.minimum(gap, np.maximum(np.abs(x - x[current]), np.abs(y - y[current])), out=gap)
        gap[current] = -1
        current = int(gap.argmax())
    return reached


# -------------------------------------------------------------------------------------------------------------- sheets


def _sheets(thumbnails: Sequence[bytes], side: int) -> tuple[list[bytes], list[list[int]]]:
    """JPEGs of PER_SHEET² thumbnails each, and width and height of each thumbnail at the top left of its cell."""
    from PIL import Image

    sheets, boxes = [], []
    for start in range(0, len(thumbnails), PER_SHEET**2):
        batch = range(start, min(start + PER_SHEET**2, len(thumbnails)))
        rows = -(-len(batch) // PER_SHEET)
        sheet = Image.new("RGB", (PER_SHEET * side, rows * side), BLANK)
        for place, small in enumerate(_small(thumbnails, batch, side)):
            sheet.paste(small, (place % PER_SHEET * side, place // PER_SHEET * side))
            boxes.append(list(small.size))
        jpeg = io.BytesIO()
        sheet.save(jpeg, "JPEG", quality=QUALITY)
        sheets.append(jpeg.getvalue())
    return sheets, boxes


def _small(thumbnails: Sequence[bytes], batch: range, side: int) -> Iterator[Any]:
    """Thumbnails whose longer side is `side`."""
    from PIL import Image

    for i in batch:
        if not thumbnails[i]:
            yield Image.new("RGB", (side, side), BLANK)
            continue
        with Image.open(io.BytesIO(thumbnails[i])) as image:
            image.draft("RGB", (side, side))
            small = image.convert("RGB")
        scale = side / max(small.size)
        width, height = (max(1, round(length * scale)) for length in small.size)
        yield small.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
