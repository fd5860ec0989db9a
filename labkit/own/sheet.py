"""The contact sheet of clusters: a page or a figure of the most confident images of each."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.errors import shown

if TYPE_CHECKING:
    from PIL import Image


def make_sheet(
    suffix: str, paths: Sequence[Path], labels: np.ndarray, confidence: np.ndarray, names: Sequence[str] | None
) -> bytes:
    """What a sheet that ends in .html or .png holds."""
    make = _html_sheet if suffix == ".html" else _png_sheet
    return make(paths, labels, confidence, names)


def _html_sheet(
    paths: Sequence[Path], labels: np.ndarray, confidence: np.ndarray, names: Sequence[str] | None, n: int = 40
) -> bytes:
    """A page with the n most confident images of every cluster, largest cluster first."""
    parts = []
    for cluster in np.argsort(-np.bincount(labels), kind="stable"):
        members = np.flatnonzero(labels == cluster)
        members = members[np.argsort(-confidence[members], kind="stable")]
        title = f"Cluster {cluster}, {html.escape(names[cluster])}" if names else f"Cluster {cluster}"
        parts.append(f"<h2>{title}: {len(members)} images</h2><p>")
        for i in members[:n]:
            jpeg, name = io.BytesIO(), html.escape(shown(paths[i].name))
            _thumbnail(paths[i]).save(jpeg, "JPEG", quality=85)
            data = base64.b64encode(jpeg.getvalue()).decode()
            parts.append(f'<img alt="{name}" title="{name}, {confidence[i]:.2f}" src="data:image/jpeg;base64,{data}">')
        parts.append("</p>")
    style = "body{font:16px system-ui,sans-serif;margin:2rem}img{margin:2px;vertical-align:top}"
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Clusters</title><style>{style}</style>'
    return f"{head}</head>\n<body><h1>{len(paths)} images</h1>\n{''.join(parts)}\n</body></html>\n".encode()


def _png_sheet(paths: Sequence[Path], labels: np.ndarray, confidence: np.ndarray, names: Sequence[str] | None) -> bytes:
    """An image with a row of the most confident images for every cluster."""
    from labkit.plots import cluster_gallery, to_png

    return to_png(cluster_gallery([_thumbnail(path) for path in paths], labels, confidence, names))


def _thumbnail(path: Path) -> Image.Image:
    from labkit.data.decoding import read_image

    image = read_image(path)
    image.thumbnail((96, 96))
    return image
