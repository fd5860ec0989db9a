"""The widget: redraws when a control moves, is a still figure where nothing can move, and explains bad controls."""

from __future__ import annotations

import io

import ipywidgets
import pytest
from PIL import Image

from labkit.course import widgets
from labkit.errors import LabkitError
from labkit.plots import figure


def draw(width, style="solid"):
    fig, axes = figure(width=width, height=2)
    axes[0, 0].plot([0, 1], linestyle=style)
    return fig


@pytest.fixture
def shown(monkeypatch):
    """What reaches the notebook, in order."""
    objects: list = []
    monkeypatch.setattr("IPython.display.display", lambda *given, **options: objects.append((given[0], options)))
    return objects


def test_headless_shows_one_picture_of_the_first_values(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    monkeypatch.setattr(widgets, "_in_kernel", lambda: True)
    seen = []
    widgets.explore(lambda **v: seen.append(v) or draw(**v), alt="A line.", width=(3, 5), style=["solid", "dotted"])
    [(picture, options)] = shown
    assert seen == [{"width": 3, "style": "solid"}]
    assert "image/png" in picture
    assert options["metadata"] == {"image/png": {"alt": "A line."}}


def test_outside_a_notebook_shows_one_picture(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    widgets.explore(draw, alt="A line.", width=(3, 5))
    assert "image/png" in shown[0][0]


def test_in_a_notebook_shows_the_controls_and_one_image(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    monkeypatch.setattr(widgets, "_in_kernel", lambda: True)
    widgets.explore(draw, alt="A <b>line</b>.", width=(3, 5), style=["solid", "dotted"])
    [(box, _)] = shown
    slider, dropdown, image, caption = box.children
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert isinstance(dropdown, ipywidgets.Dropdown)
    assert isinstance(image, ipywidgets.Image)
    assert "A &lt;b&gt;line" in caption.value


def test_the_image_follows_the_controls():
    slider, dropdown, image, _ = widgets.explorer(draw, alt="A line.", width=(3, 5), style=["solid", "dotted"]).children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG")
    slider.value = 5
    wide = bytes(image.value)
    assert Image.open(io.BytesIO(wide)).width > Image.open(io.BytesIO(first)).width + 150
    dropdown.value = "dotted"
    assert bytes(image.value) != wide
    slider.value, dropdown.value = 3, "solid"
    assert bytes(image.value) == first  # the same values give the same image


def test_no_output_widget_is_used():
    """An output widget would put text into stored notebooks that differs from run to run."""
    box = widgets.explorer(draw, alt="A line.", width=range(3, 6))
    assert not any(isinstance(child, ipywidgets.Output) for child in box.children)


def test_a_control_without_values_is_explained(shown):
    with pytest.raises(LabkitError, match="'width' has no values"):
        widgets.explore(draw, alt="A line.", width=())
    assert shown == []


RECORDS = [{"epoch": 0.5 * i, "loss": 1 / (i + 1), "kept": 0.1 * i} for i in range(1, 4)]


def test_live_curves_are_drawn_in_one_place_and_not_too_often(shown, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    monkeypatch.setattr(widgets, "_in_kernel", lambda: True)
    now = iter([0.0, 0.0, 1.0, 9.0, 9.0])
    monkeypatch.setattr(widgets.time, "monotonic", lambda: next(now))
    curves = widgets.LiveCurves(("loss", "kept"), seconds=5)
    for n in (1, 2, 3):
        curves(RECORDS[:n])
    [(image, _)] = shown
    assert Image.open(io.BytesIO(image.value)).format == "PNG"
    assert curves.drawn == 9.0


def test_live_curves_draw_nothing_where_nobody_watches(shown, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    monkeypatch.setattr(widgets, "_in_kernel", lambda: True)
    widgets.LiveCurves()(RECORDS)
    assert not shown
