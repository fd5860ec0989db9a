"""The diagrams of the notebooks: stored as drawn, described in words, readable at their size, light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "figures"
PATHS = sorted(FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def root(path: Path) -> ET.Element:
    return ET.fromstring(path.read_bytes())


def palettes(path: Path) -> list[dict[str, str]]:
    """The colors of a light page and of a dark one."""
    style = root(path).findtext(f"{SVG}style")
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    return [dict(re.findall(r"--([a-z-]+):(#[0-9a-fA-F]{6})", part)) for part in (light, dark)]


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_stored_files_are_what_the_script_draws() -> None:
    run = subprocess.run([sys.executable, FOLDER / "draw.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    drawn = {"clip", "must", "transfer", "turtle", *(f"map-{n:02}" for n in range(10))}
    assert {path.stem for path in PATHS} == drawn


def test_the_check_sees_a_file_that_was_changed(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "must.svg").write_text("<svg/>")
    (tmp_path / "clip.svg").unlink()
    command = [sys.executable, tmp_path / "draw.py"]
    run = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "must.svg" in run.stdout
    assert "clip.svg" in run.stdout
    assert "turtle.svg" not in run.stdout
    assert subprocess.run(command).returncode == 0
    assert (tmp_path / "must.svg").read_bytes() == (FOLDER / "must.svg").read_bytes()


@each
def test_says_in_words_what_it_shows(path: Path) -> None:
    svg = root(path)
    title, description = svg.findtext(f"{SVG}title"), svg.findtext(f"{SVG}desc")
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby").split() == [f"labkit-{path.stem}-title", f"labkit-{path.stem}-desc"]
    assert 10 < len(title) < 80
    assert 200 < len(description) < 1000
    assert description.endswith(".")


@each
def test_words_stand_inside_and_are_large_enough(path: Path) -> None:
    svg = root(path)
    _, _, width, height = map(float, svg.get("viewBox").split())
    assert width == 720
    for text in svg.iter(f"{SVG}text"):
        size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))
        words = "".join(text.itertext())
        per_letter = 0.68 if "bold" in text.get("class") else 0.6  # of the size, in a wide font
        length = len(words) * per_letter * size
        left = x - length * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        assert left >= 4, words
        assert left + length <= width - 4, words
        assert size <= y <= height - 8, words
        assert all(float(part.get("font-size", size)) >= 11 for part in text.iter()), words


@each
def test_has_colors_for_light_and_dark_pages_on_a_panel_of_its_own(path: Path) -> None:
    svg = root(path)
    light, dark = palettes(path)
    assert light.keys() == dark.keys()
    assert svg.find(f"{SVG}rect").get("class").split()[0] == "f-paper"
    used = {name for part in svg.iter() for name in re.findall(r"\b[fs]-([a-z-]+)", part.get("class", ""))}
    assert used <= light.keys()
    words = {text.get("class").split()[0].removeprefix("f-") for text in svg.iter(f"{SVG}text")} - {"paper"}
    assert words <= {"ink", "soft", "blue-text", "sky-text", "pink-text", "red-text"}
    for palette in (light, dark):
        for name in words:
            low, high = sorted(luminance(palette[color]) for color in (name, "paper"))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


@each
def test_needs_nothing_from_outside(path: Path) -> None:
    content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|href|url\(|<script|<image|@import|on[a-z]+=", content)
    assert len(content) < 40_000


@each
def test_styles_stay_inside_where_a_page_holds_the_diagram_itself(path: Path) -> None:
    style = root(path).findtext(f"{SVG}style")
    selectors = re.findall(r"([^{}]+)\{", style)
    assert all(s.strip().startswith((".labkit-diagram", "@media")) for s in selectors), selectors


@pytest.mark.parametrize("path", sorted(FOLDER.parent.glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_has_its_map_and_its_name_on_it(path: Path) -> None:
    number = path.name[:2]
    name = root(FOLDER / f"map-{number}.svg").findtext(f"{SVG}title").removeprefix("Course map: you are at ")
    assert name.replace(", ", " · ", 1) in path.read_text(encoding="utf-8")
