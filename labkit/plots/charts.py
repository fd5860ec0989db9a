"""Figures of one style: every function takes arrays and returns a matplotlib Figure; nothing is shown or kept open."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from labkit._inputs import is_number, is_whole, plain_array, real_array
from labkit.errors import DataError, quote
from labkit.evaluation.metrics import calibration, expected_calibration_error, match_clusters

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Okabe and Ito's palette, distinguishable with every common colour blindness, and four more for sets of ten and above.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D1F", "#999999", "#4B2E83", "#B8C12A",
)  # fmt: skip
BLUES = LinearSegmentedColormap.from_list("labkit", ["#ffffff", "#bcd8ec", "#5ba3d0", "#0072B2", "#003a5c"])

STYLE: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "gray",
}
MOST_AXES = 10_000  # in one figure
LARGEST_SIDE = 500.0  # of a figure in inches

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _in_style(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """`draw` with labkit's style, whatever the global settings are, and without changing them."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_in_style
def figure(
    n_rows: int = 1, n_cols: int = 1, *, width: float = 8.0, height: float = 3.5, **options: Any
) -> tuple[Figure, np.ndarray]:
    """An empty figure in labkit's style and its axes, (n_rows, n_cols); width and height in inches.

    Made without pyplot, so that nothing stays open and no global setting changes. `options` go to Figure.subplots.

    Raises:
        DataError: there is nothing to draw, or too much for one figure.
    """
    whole = is_whole(n_rows, 1, MOST_AXES) and is_whole(n_cols, 1, MOST_AXES) and n_rows * n_cols <= MOST_AXES
    _expect(whole, f"{quote(n_rows)} rows of {quote(n_cols)} axes", f"at least one of each, {MOST_AXES:,} axes in all")
    sides = all(is_number(side, 0.1, LARGEST_SIDE) for side in (width, height))
    _expect(sides, f"{quote(width)} by {quote(height)} inches", f"sides from 0.1 to {LARGEST_SIDE:.0f}")
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(n_rows, n_cols, squeeze=False, **options)


def to_png(fig: Figure) -> bytes:
    """The bytes of a figure as a PNG, cut to what is drawn."""
    _expect(isinstance(fig, Figure), quote(fig), "a matplotlib Figure")
    png = io.BytesIO()
    fig.savefig(png, format="png", bbox_inches="tight")
    return png.getvalue()


def color(i: int) -> str:
    """Colour of class or cluster i."""
    _expect(is_whole(i, -math.inf, math.inf), quote(i), "the number of a class or cluster")
    return COLORS[i % len(COLORS)]


@_in_style
def image_grid(
    images: Sequence[Any], titles: Sequence[str] | None = None, *, n_cols: int = 10, title: str = "", size: float = 0.9
) -> Figure:
    """Pictures (PIL images or arrays) in rows of `n_cols`, each under its title; `size` in inches."""
    n = _count("images", images)
    _expect(is_whole(n_cols, 1), f"n_cols {quote(n_cols)}", "a whole number of at least 1")
    _expect(is_number(size, 0.1, LARGEST_SIDE), f"size {quote(size)}", "inches")
    _expect(titles is None or _count("titles", titles) == n, f"other than {n} titles", "one for each image")
    n_cols = min(n_cols, n)
    n_rows = -(-len(images) // n_cols)
    per_row = size + (0.22 if titles is not None else 0.04)
    fig, axes = figure(n_rows, n_cols, width=n_cols * size, height=n_rows * per_row + (0.3 if title else 0))
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            _draw_image(ax, images[i])
            if titles is not None:
                ax.set_title(titles[i], fontsize=8, fontweight="normal", loc="center", pad=2)
    _set_title(fig, title)
    return fig


@_in_style
def cluster_gallery(
    images: Sequence[Any],
    labels: ArrayLike,
    confidence: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    n: int = 10,
    title: str = "",
) -> Figure:
    """A row for each cluster with its `n` most confident pictures.

    Args:
        images: N pictures; only those that are drawn are read.
        labels: cluster of each, (N,).
        confidence: how sure the labeling is of each, (N,).
        class_names: name of each cluster, such as the class it was matched to; its number otherwise.
    """
    shown = _count("images", images)
    cluster_of, sure = _whole_numbers("labels", labels, shown), _numbers("confidence", confidence, shown)
    clusters = np.unique(cluster_of)
    _expect(is_whole(n, 1), f"n {quote(n)}", "a whole number of at least 1")
    _expect_names("class_names", class_names, cluster_of, least=-1 if class_names is None else 0)
    fig, axes = figure(len(clusters), n, width=0.72 * n + 1.6, height=0.75 * len(clusters) + (0.3 if title else 0))
    for row, cluster in zip(axes, clusters, strict=True):
        members = np.flatnonzero(cluster_of == cluster)
        best = members[np.argsort(-sure[members], kind="stable")][:n]
        for ax, i in zip(row, best, strict=False):
            _draw_image(ax, images[i])
        for ax in row:
            _bare(ax)
        name = class_names[cluster] if class_names is not None else f"cluster {cluster}"
        row[0].set_ylabel(f"{name}\n{len(members):,}", rotation=0, ha="right", va="center", fontsize=9)
    _set_title(fig, title)
    return fig


@_in_style
def confusion(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[str], *, matched: bool = True, title: str = ""
) -> Figure:
    """Rows are true classes, columns what they were taken for, in percent of the row.

    Args:
        y_true, y_pred: class and cluster of each sample, (n,).
        classes: C names.
        matched: first rename the clusters by the best one-to-one matching; False for predictions that are classes.
    """
    true = _whole_numbers("y_true", y_true)
    found = _whole_numbers("y_pred", y_pred, len(true))
    _expect_names("classes", classes, true, least=0)
    if not matched:
        _expect_names("classes", classes, found)
    if matched:
        found = match_clusters(true, found, len(classes))[found]
    counts = np.zeros((len(classes), len(classes)))
    known = found >= 0  # a cluster beyond the number of classes has no column
    np.add.at(counts, (true[known], found[known]), 1)
    percent = 100 * counts / np.maximum(np.bincount(true, minlength=len(classes)), 1)[:, None]
    side = 2.2 + 0.42 * len(classes)
    fig, axes = figure(width=side + 0.6, height=side)
    ax = axes[0, 0]
    ax.imshow(percent, cmap=BLUES, vmin=0, vmax=100)
    for i, j in zip(*np.nonzero(percent >= 0.5), strict=True):
        value = percent[i, j]
        ink = "white" if value > 55 else "black" if value >= 5 else "#8a8a8a"
        ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, classes)) > 3 else {}
    ax.set_xticks(range(len(classes)), classes, **slant)
    ax.set_yticks(range(len(classes)), classes)
    ax.set_xlabel("found as (matched cluster)" if matched else "predicted as")
    ax.set_ylabel("true class")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    _set_title(fig, title or "Percent of each true class")
    return fig


@_in_style
def embedding(
    points: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "",
    axis_names: tuple[str, str] = ("first principal direction", "second principal direction"),
) -> Figure:
    """Points (n, 2) coloured by label, each group named where it lies."""
    fig, axes = figure(width=6.4, height=4.6)
    draw_embedding(axes[0, 0], points, labels, names)
    axes[0, 0].set(xlabel=axis_names[0], ylabel=axis_names[1], title=title)
    return fig


def draw_embedding(ax: Axes, points: ArrayLike, labels: ArrayLike, names: Sequence[str] | None = None) -> None:
    """The scatter of `embedding` on given axes."""
    xy = real_array("points", points, "Expected finite numbers, (n, 2).", DataError)
    shaped = xy.ndim == 2 and xy.shape[1] == 2 and len(xy) > 0
    _expect(shaped and bool(np.isfinite(xy).all()), f"points of shape {xy.shape}", "finite numbers, (n, 2)")
    groups = _whole_numbers("labels", labels, len(xy))
    _expect_names("names", names, groups)
    ax.scatter(xy[:, 0], xy[:, 1], s=5, c=[color(int(k)) for k in groups], alpha=0.6, linewidths=0)
    present = np.unique(groups[groups >= 0])  # −1: unknown
    if names is not None and len(present) > 0:
        places = np.stack([np.median(xy[groups == k], axis=0) for k in present])
        for k, (x, y) in zip(present, _apart(places, np.ptp(xy, axis=0)), strict=True):
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": color(int(k)), "alpha": 0.85}
            ax.text(x, y, names[k], ha="center", va="center", fontsize=8, bbox=box)
    ax.set(xticks=[], yticks=[])


def _apart(places: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Places (m, 2) of names, those that would cover each other in a plot of this extent pushed apart vertically."""
    unit = places / np.maximum(extent, 1e-12)
    for _ in range(50):
        gap = unit[:, None] - unit[None]  # (m, m, 2)
        close = (np.abs(gap[..., 0]) < 0.14) & (np.abs(gap[..., 1]) < 0.06)
        np.fill_diagonal(close, False)
        if not close.any():
            break
        order = np.arange(len(unit))
        direction = np.where(gap[..., 1] == 0, np.sign(order[:, None] - order), np.sign(gap[..., 1]))
        unit[:, 1] += 0.01 * (close * direction).sum(1)
    return unit * np.maximum(extent, 1e-12)


@_in_style
def training_curves(history: Mapping[str, np.ndarray], *, best: int | None = None, title: str = "") -> Figure:
    """Turtle's `history_` over the outer steps: a thin line for each restart, the kept one on top."""
    names = {
        "inner_loss": "inner loss (nats)",
        "entropy": "entropy of the mean (nats)",
        "outer_loss": "outer loss",
    }
    _expect(isinstance(history, Mapping) and set(names) <= set(history), quote(history), "Turtle's history_")
    curves = {name: real_array(name, history[name], "Expected numbers, (T, R).", DataError) for name in names}
    shape = curves["inner_loss"].shape
    equal = len(shape) == 2 and 0 not in shape and all(curve.shape == shape for curve in curves.values())
    _expect(equal, f"curves of shapes {[c.shape for c in curves.values()]}", "(T, R) for each")
    _expect(best is None or is_whole(best, 0, shape[1] - 1), f"best {quote(best)}", "the number of a restart")
    fig, axes = figure(1, len(names), width=9.5, height=2.9)
    for ax, (key, label) in zip(axes[0], names.items(), strict=True):
        steps = np.arange(1, len(curves[key]) + 1)
        ax.plot(steps, curves[key], color="#b5b5b5", linewidth=0.8)
        if best is not None:
            ax.plot(steps, curves[key][:, best], color=color(0))
        ax.set(xlabel="outer step", title=label)
    if best is not None:
        axes[0, 0].text(0.97, 0.93, "kept restart", color=color(0), transform=axes[0, 0].transAxes, ha="right")
        axes[0, 0].text(0.97, 0.83, "other restarts", color="#8a8a8a", transform=axes[0, 0].transAxes, ha="right")
    _set_title(fig, title)
    return fig


@_in_style
def metric_curves(records: Sequence[Mapping[str, float]], names: Sequence[str], *, title: str = "") -> Figure:
    """Metrics of a training, a panel each, over its epochs; `records` as `MUST.fit` hands them to `on_log`."""
    maps = isinstance(records, Sequence) and all(isinstance(line, Mapping) and "epoch" in line for line in records)
    _expect(maps, quote(records), "a list of records, each with its epoch")
    _expect(isinstance(names, list | tuple), quote(names), "a list of names of metrics")
    present = [name for name in names if any(name in record for record in records)]
    columns = min(3, max(1, len(present)))
    rows = -(-max(1, len(present)) // columns)
    fig, axes = figure(rows, columns, width=3.1 * columns + 0.4, height=2.2 * rows + 0.3, sharex=True)
    for ax in axes.flat[len(present) :]:
        ax.set_visible(False)
    for i, (ax, name) in enumerate(zip(axes.flat, present, strict=False)):
        lines = [record for record in records if name in record]
        ax.plot([line["epoch"] for line in lines], [line[name] for line in lines], color=color(i))
        ax.set(title=name.replace("_", " "))
        if i + columns >= len(present):
            ax.set_xlabel("epoch")
    _set_title(fig, title)
    return fig


@_in_style
def criteria(scores: pd.DataFrame, accuracy: ArrayLike, *, chosen: int | None = None, title: str = "") -> Figure:
    """Each label-free score of the restarts against their accuracy (which labels are needed for), with Pearson's r."""
    _expect_frame(scores)
    _expect(
        scores.size > 0 and all(dtype.kind in "iuf" for dtype in scores.dtypes), quote(scores), "a frame of numbers"
    )
    percent = 100 * _numbers("accuracy", accuracy, len(scores))
    _expect(chosen is None or is_whole(chosen, 0, len(scores) - 1), f"chosen {quote(chosen)}", "the number of a row")
    fig, axes = figure(1, len(scores.columns), width=3.1 * len(scores.columns) + 0.4, height=3.0, sharey=True)
    for ax, name in zip(axes[0], scores.columns, strict=True):
        values = scores[name].to_numpy()
        ax.scatter(values, percent, s=36, color=color(0), alpha=0.8, linewidths=0)
        if chosen is not None:
            ax.scatter(values[chosen], percent[chosen], s=110, facecolors="none", edgecolors=color(4), linewidths=2)
            if ax is axes[0, 0]:
                left = values[chosen] > np.median(values)  # towards the middle, where there is room
                low = percent[chosen] < np.median(percent)
                ax.annotate(
                    "chosen", (values[chosen], percent[chosen]), xytext=(-8 if left else 8, 12 if low else -12),
                    textcoords="offset points", ha="right" if left else "left", va="center", color=color(4), fontsize=9,
                )  # fmt: skip
        varies = np.std(values) > 1e-9 and np.std(percent) > 1e-9
        r = f"r = {np.corrcoef(values, percent)[0, 1]:.2f}".replace("-", "−") if varies else "does not vary"
        ax.set(xlabel=name, title=r)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].set_ylabel("accuracy (%), after the fact")
    _set_title(fig, title)
    return fig


_METHODS = ("zero-shot", "turtle-named", "k-means", "turtle", "must", "linear-probe")  # each has its colour everywhere


@_in_style
def results_bars(results: pd.DataFrame, *, title: str = "") -> Figure:
    """Accuracy of each method and choice of spaces, from `Lab.results()` of one dataset and metric.

    A bar is the mean over seeds, a dot one seed, and the open diamond the choice made without labels. Rows of one
    method stand together, and a method has the same colour in every chart.
    """
    _expect_frame(results, "method", "variant", "spaces", "value", "selected_without_labels", "labels_used")
    rows = results.assign(spaces=[" + ".join(spaces) for spaces in results["spaces"]])
    rows["label"] = [
        f"{row.method}{f' ({row.variant})' if row.variant else ''}, {row.spaces}" for row in rows.itertuples()
    ]
    methods = list(dict.fromkeys([*_METHODS, *rows["method"]]))
    rows = rows.sort_values("method", key=lambda names: names.map(methods.index), kind="stable")
    labels = list(dict.fromkeys(rows["label"]))
    fig, axes = figure(width=8.6, height=0.34 * len(labels) + 1.2)
    ax = axes[0, 0]
    for i, label in enumerate(labels):
        group = rows[rows["label"] == label]
        choice = group["selected_without_labels"].astype(bool)
        values, chosen = 100 * group["value"][~choice], 100 * group["value"][choice]
        hue = color(methods.index(group["method"].iloc[0]))
        ax.barh(i, values.mean() if len(values) else chosen.mean(), color=hue, alpha=0.35, height=0.7)
        ax.scatter(values, np.full(len(values), i), s=14, color=hue, zorder=3)
        ax.scatter(chosen, np.full(len(chosen), i), s=48, marker="D", facecolors="white", edgecolors="k", zorder=4,
                   clip_on=False)  # fmt: skip
        uses_labels = " (labels used)" if group["labels_used"].astype(bool).any() else ""
        ax.text(103, i, f"{(chosen if len(chosen) else values).mean():.1f}{uses_labels}", va="center", fontsize=9)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="accuracy (%)")
    key = "bar: mean over seeds · dot: one seed · diamond: chosen without labels · number: the choice, else the mean"
    fig.supxlabel(key, x=0.01, ha="left", fontsize=8.5, color="#666666")
    _set_title(fig, title)
    return fig


@_in_style
def reliability(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, title: str = "") -> Figure:
    """Reliability diagram (Guo et al., ICML 2017): how often predictions of each confidence are right, and how many.

    Args:
        confidence: probability of the predicted class, (n,).
        correct: whether the prediction is right, (n,) of bool.
        n_bins: equally wide bins of confidence.
    """
    _expect(is_whole(n_bins, 1, MOST_AXES), f"n_bins {quote(n_bins)}", f"a whole number from 1 to {MOST_AXES:,}")
    counts, sure, right = calibration(confidence, correct, n_bins)
    error = expected_calibration_error(confidence, correct, n_bins)
    fig, axes = figure(2, 1, width=4.6, height=5.0, sharex=True, height_ratios=[3, 1])
    upper, lower = axes[:, 0]
    filled = counts > 0
    middles = 100 * (np.arange(n_bins) + 0.5) / n_bins
    upper.bar(middles[filled], 100 * right[filled], 96 / n_bins, color=color(0), alpha=0.35)
    upper.plot(100 * sure[filled], 100 * right[filled], "o", color=color(0), markersize=5)
    upper.plot([0, 100], [0, 100], color="#8a8a8a", linewidth=1, linestyle="--")
    upper.text(3, 97, f"expected calibration error: {100 * error:.1f} %", va="top")
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}  # the diagonal
    upper.text(44, 47, "as often right as sure", ha="center", color="#6a6a6a", fontsize=9, **along)
    upper.set(xlim=(0, 100), ylim=(0, 100), ylabel="right (%)", title=title)
    lower.bar(middles, 100 * counts / counts.sum(), 96 / n_bins, color="#8a8a8a")
    lower.set(xlabel="confidence (%)", ylabel="pictures (%)")
    return fig


def _draw_image(ax: Axes, image: Any) -> None:
    pixels = np.asarray(image)
    drawable = pixels.dtype.kind in "buif" and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
    what = f"an image of {pixels.dtype} and shape {pixels.shape}"
    _expect(drawable and pixels.size > 0, what, "a PIL image, or an array (h, w) or (h, w, 3)")
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest")


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _set_title(fig: Figure, title: str) -> None:
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")


# ------------------------------------------------------------------------------------------------ what figures are of


def _expect(holds: bool, given: str, expected: str) -> None:
    if not holds:
        raise DataError(f"a figure got {given}. Expected {expected}.")


def _count(name: str, given: Any) -> int:
    """How many images or names there are, at least one."""
    counted = hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, str | Mapping)
    _expect(counted and getattr(given, "ndim", 1) > 0, f"{name} {quote(given)}", "a list of them")
    _expect(len(given) > 0, f"no {name}", "at least one")
    return len(given)


def _numbers(name: str, given: ArrayLike, n: int) -> np.ndarray:
    """Finite numbers, (n,)."""
    array = real_array(name, given, "Expected a number for each sample, (n,).", DataError)
    fits = array.shape == (n,) and bool(np.isfinite(array).all())
    _expect(fits, f"{name} of shape {array.shape}", f"a finite number for each, ({n},)")
    return array


def _whole_numbers(name: str, given: ArrayLike, n: int | None = None) -> np.ndarray:
    """The class or cluster of each sample, (n,), n ≥ 1; −1 stands for unknown."""
    array = plain_array(name, given, "Expected a whole number for each sample, (n,).", DataError)
    fits = array.ndim == 1 and len(array) > 0 and (n is None or len(array) == n)
    expected = f"a whole number from −1 on for each, ({'n' if n is None else n},)"
    _expect(fits, f"{name} of shape {array.shape}", expected)
    _expect(array.dtype.kind in "iu" and array.min() >= -1, f"{name} of {array.dtype}: {quote(array)}", expected)
    return array


def _expect_names(name: str, names: Any, labels: np.ndarray, *, least: int = -1) -> None:
    """A name for each of the labels, which begin at `least`."""
    _expect(labels.min() >= least, f"the label {labels.min()}", f"labels from {least} on")
    if names is not None:
        count = _count(name, names)
        _expect(all(isinstance(text, str) for text in names), f"{name} {quote(names)}", "texts")
        _expect(labels.max() < count, f"the label {labels.max()} and {count} {name}", "a name for each")


def _expect_frame(given: Any, *columns: str) -> None:
    _expect(hasattr(given, "columns") and hasattr(given, "dtypes"), quote(given), "a pandas DataFrame")
    names = list(given.columns)
    _expect(set(columns) <= set(names), f"a frame without {sorted(set(columns) - set(names))}", "all of these columns")
