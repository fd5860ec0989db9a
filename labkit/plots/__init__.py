"""Figures of one style: every function takes arrays and returns a matplotlib Figure; nothing is shown or kept open."""

from labkit.plots.charts import (
    BLUES,
    COLORS,
    STYLE,
    cluster_gallery,
    color,
    confusion,
    criteria,
    draw_embedding,
    embedding,
    figure,
    image_grid,
    metric_curves,
    reliability,
    results_bars,
    to_png,
    training_curves,
)

__all__ = [
    "BLUES",
    "COLORS",
    "STYLE",
    "cluster_gallery",
    "color",
    "confusion",
    "criteria",
    "draw_embedding",
    "embedding",
    "figure",
    "image_grid",
    "metric_curves",
    "reliability",
    "results_bars",
    "to_png",
    "training_curves",
]
