"""Figures of one style: every function takes arrays and returns a matplotlib Figure; nothing is shown or kept open."""

from labkit.plots.charts import bars, criteria, draw_strips, results_bars, strips
from labkit.plots.counting import counting_curve
from labkit.plots.curves import metric_curves, training_curves
from labkit.plots.images import cluster_gallery, image_grid
from labkit.plots.points import draw_embedding, embedding
from labkit.plots.predictions import confusion, reliability
from labkit.plots.style import BLUES, COLORS, PAGE_WIDTH, STYLE, color, figure, to_png
from labkit.plots.sweeps import sweep

__all__ = [
    "BLUES",
    "COLORS",
    "PAGE_WIDTH",
    "STYLE",
    "bars",
    "cluster_gallery",
    "color",
    "confusion",
    "counting_curve",
    "criteria",
    "draw_embedding",
    "draw_strips",
    "embedding",
    "figure",
    "image_grid",
    "metric_curves",
    "reliability",
    "results_bars",
    "strips",
    "sweep",
    "to_png",
    "training_curves",
]
