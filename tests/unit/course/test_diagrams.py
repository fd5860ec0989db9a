"""Diagrams in notebooks: an image with its description, wherever the notebooks stand."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

import pytest

import labkit as lk
from labkit.course import diagrams

NAMES = ("clip", "must", "transfer", "turtle", "map-00", "map-07", "map-08", "map-09")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What went to display."""
    calls: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: calls.append(data))
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_shows_the_file_with_its_title_and_description(name: str, shown: list[dict[str, str]]) -> None:
    lk.diagram(name)
    [data] = shown
    assert data.keys() == {"text/html", "text/plain"}
    [source] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', data["text/html"])
    svg = base64.b64decode(source)
    assert svg == (Path(__file__).resolve().parents[3] / "notebooks" / "figures" / f"{name}.svg").read_bytes()
    [alt] = re.findall(r'alt="([^"]+)"', data["text/html"])
    assert html.unescape(alt) == data["text/plain"]
    for tag in ("title", "desc"):
        [words] = re.findall(rf"<{tag}[^>]*>([^<]+)</{tag}>", svg.decode())
        assert html.unescape(words) in data["text/plain"]


@pytest.mark.parametrize("name", ["tortoise", "", "turtle.svg", "../figures/turtle", "map-10", None, 4, ["turtle"]])
def test_an_unknown_name_says_what_there_is(name: Any, shown: list[dict[str, str]]) -> None:
    with pytest.raises(lk.LabkitError, match=r"there is no diagram .* Expected one of: clip, map-00, .*, turtle\."):
        lk.diagram(name)
    assert not shown


def test_describes_in_text_that_html_could_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: list[dict[str, str]]
) -> None:
    (tmp_path / "figures").mkdir()
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><title>Odd</title><desc>a &lt; b, "c" &amp; d.</desc></svg>'
    (tmp_path / "figures" / "odd.svg").write_text(svg)
    monkeypatch.setattr(diagrams, "shipped_dir", lambda name: tmp_path if name == "notebooks" else None)
    diagrams.diagram("odd")
    assert shown[0]["text/plain"] == 'Odd. a < b, "c" & d.'
    assert 'alt="Odd. a &lt; b, &quot;c&quot; &amp; d."' in shown[0]["text/html"]
