"""One widget for all notebooks: a figure that redraws when a control moves, and a static figure where nothing can move.

Figures are drawn to PNG and put into one image widget. `interact` and output widgets would leave traces in the stored
notebooks that differ from run to run; this leaves none.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit._inputs import is_number
from labkit.errors import LabkitError, quote

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore(
    draw: Callable[..., Figure], *, alt: str, start: Mapping[str, Any] | None = None, **controls: Sequence[Any]
) -> None:
    """Show `draw(**values)` with a control for each of its arguments.

    Headless, or outside a notebook, the figure of the starting values is shown and nothing moves.

    Args:
        draw: makes the figure from one value of each control.
        alt: what the figure shows, for those who cannot see it.
        start: the value that a control starts with, by its name; of controls not named here the first.
        controls: for each argument of `draw` the values it can take, in order: a slider steps through them, a
            drop-down where they are texts.

    Raises:
        LabkitError: a control has no values, or does not have the one that it is to start with.
    """
    from IPython.display import display

    from labkit.course.profiles import headless
    from labkit.course.setup import show

    if not callable(draw):
        raise LabkitError(f"draw is {quote(draw)}. Expected a function that makes a figure.")
    for name, options in controls.items():
        if not hasattr(options, "__getitem__") or isinstance(options, str | Mapping) or len(options) == 0:
            raise LabkitError(f"the control {name!r} has no values: {quote(options)}. Expected a list of at least one.")
    first = _first_values(start, controls)
    if headless() or not _in_kernel():
        show(draw(**first), alt=alt)
        return
    display(explorer(draw, alt=alt, start=first, **controls))


def explorer(
    draw: Callable[..., Figure], *, alt: str, start: Mapping[str, Any] | None = None, **controls: Sequence[Any]
) -> Any:
    """The widget that `explore` displays: controls above, the figure below."""
    import ipywidgets

    from labkit import plots

    image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", align_self="flex-start"))
    image.add_class("labkit-figure")
    first = _first_values(start, controls)
    inputs = {name: _control(name, options, first[name]) for name, options in controls.items()}

    def redraw(_: object = None) -> None:
        image.value = plots.to_png(draw(**{name: control.value for name, control in inputs.items()}))

    for control in inputs.values():
        control.observe(redraw, names="value")
    redraw()
    caption = ipywidgets.HTML(f'<span style="font-size: 85%; color: #666">{html.escape(alt)}</span>')
    return ipywidgets.VBox([*inputs.values(), image, caption])


class LiveCurves:
    """Curves of a training that is under way, redrawn in place: `MUST(...).fit(images, on_log=LiveCurves())`.

    Headless, or outside a notebook, nothing is drawn: the fitted estimator has the whole history.

    Args:
        names: the metrics to draw, a panel each.
        seconds: the least time between two drawings.
    """

    def __init__(
        self,
        names: Sequence[str] = ("self_training", "fairness", "masked_image", "kept", "confidence", "agreement"),
        *,
        seconds: float = 2.0,
    ) -> None:
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise LabkitError(f"names is {quote(names)}. Expected a list of names of metrics.")
        if not is_number(seconds, 0, math.inf):
            raise LabkitError(f"seconds is {quote(seconds)}. Expected a number from 0 on.")
        self.names, self.seconds = tuple(names), seconds
        self.drawn = -math.inf
        self.place: Any = None

    def __call__(self, records: Sequence[Mapping[str, float]]) -> None:
        """Redraw with all metrics so far, a record each (see `MUST.fit`)."""
        from labkit import plots
        from labkit.course.profiles import headless

        if headless() or not _in_kernel() or time.monotonic() - self.drawn < self.seconds:
            return
        self.drawn = time.monotonic()
        png = plots.to_png(plots.metric_curves(records, self.names))
        if self.place is None:
            from IPython.display import display
            from ipywidgets import Image

            self.place = Image(format="png")
            display(self.place)
        self.place.value = png


def _first_values(start: Mapping[str, Any] | None, controls: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The value that each control starts with."""
    first = {name: options[0] for name, options in controls.items()} | dict(start or {})
    for name, value in first.items():
        if name not in controls or value not in controls[name]:
            raise LabkitError(f"start has {name}={quote(value)}. Expected one of the values of a control.")
    return first


def _control(name: str, options: Sequence[Any], start: Any) -> Any:
    import ipywidgets

    kind = ipywidgets.Dropdown if isinstance(options[0], str) else ipywidgets.SelectionSlider
    described = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    return kind(options=list(options), value=start, **described)


def _in_kernel() -> bool:
    """Whether this is a notebook's kernel, where a front end may draw widgets."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
