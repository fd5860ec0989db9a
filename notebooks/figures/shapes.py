"""What the diagrams are made of: boxes, arrows, towers, matrices and words, as plain SVG.

A diagram is 720 px wide and carries the colors of a light and of a dark page, a panel of its own to stand on, and a
title and a description for those who do not see it. In its words `*τ*` is a symbol in italics, and `_k_` a subscript.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape

WIDTH = 720
SMALL, NORMAL, LARGE = 11.5, 13, 15  # font sizes; a subscript has 11

# On a light page, on a dark one. The hues are Okabe and Ito's, as in labkit's charts; those with "-text" are dark, or
# light, enough for words.
COLORS = {
    "paper": ("#fdfdfb", "#1b1e23"), "rim": ("#dcdedc", "#3b4048"), "ink": ("#22262c", "#eceef1"),
    "soft": ("#59616c", "#a9b1bd"), "line": ("#7d8692", "#8f98a5"), "frozen": ("#eeefed", "#2b3037"),
    "ground": ("#2a2e35", "#070809"), "cloth": ("#dde1e6", "#c9ced6"),
    "blue": ("#0072B2", "#479fdb"), "blue-text": ("#00619a", "#6bb6ea"),
    "sky": ("#56B4E9", "#8fd2f7"), "sky-text": ("#1a6a9a", "#8fd2f7"),
    "pink": ("#CC79A7", "#dd93bb"), "pink-text": ("#9c4577", "#e6a5c8"),
    "red": ("#D55E00", "#ef8a3c"), "red-text": ("#ad4a00", "#f4a05f"),
    "orange": ("#E69F00", "#efb43c"), "green": ("#009E73", "#3cc79b"),
}  # fmt: skip

ICONS = {  # in a square of 24
    "trousers": "M7 3h10l2 18h-5L12 9l-2 12H5z",
    "shirt": "M8.5 3 2 7.2l2.6 4.2L7 9.8V21h10V9.8l2.4 1.6L22 7.2 15.5 3c-1 2.3-6 2.3-7 0z",
    "bag": "M3.5 9.5H7.5V8a4.5 4.5 0 0 1 9 0v1.5h4L21.5 21h-19zM9.5 9.5h5V8a2.5 2.5 0 0 0-5 0z",
    "boot": "M7 3h7v9.5l5 2.7c2 1.1 2.5 2.8 2.5 5.8H7z",
}

Point = tuple[float, float]


class Diagram:
    """Shapes and words, in the order in which they are drawn; (x, y) is a top left corner, of words their baseline."""

    def __init__(self, height: int, title: str, description: str) -> None:
        self.height, self.title, self.description = height, title, description
        self.parts: list[str] = []

    def svg(self, name: str) -> str:
        """The whole file."""
        light, dark = (";".join(f"--{color}:{pair[i]}" for color, pair in COLORS.items()) for i in (0, 1))
        rules = {f".f-{color}": f"fill:var(--{color})" for color in COLORS}
        rules |= {f".s-{color}": f"stroke:var(--{color})" for color in COLORS}
        rules |= {
            ".symbol": "font-family:'STIX Two Text',Georgia,'Times New Roman',serif;font-style:italic",
            ".bold": "font-weight:600",
            ".tint": "fill-opacity:var(--tint)",
            ".dashed": "stroke-dasharray:5 4",
        }
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="labkit-diagram" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" style="max-width:100%;height:auto" role="img" '
            f'aria-labelledby="labkit-{name}-title labkit-{name}-desc">',
            f'<title id="labkit-{name}-title">{escape(self.title)}</title>',
            f'<desc id="labkit-{name}-desc">{escape(self.description)}</desc>',
            "<style>",
            f".labkit-diagram{{{light};--tint:.13;fill:none;stroke-linejoin:round;stroke-linecap:round;"
            "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}",
            f"@media (prefers-color-scheme:dark){{.labkit-diagram{{{dark};--tint:.2}}}}",
            *(f".labkit-diagram {selector}{{{rule}}}" for selector, rule in rules.items()),
            "</style>",
            f'<rect class="f-paper s-rim" x=".5" y=".5" width="{WIDTH - 1}" height="{self.height - 1}" rx="14"/>',
        ]
        return "\n".join([*lines, *self.parts, "</svg>", ""])

    def shape(self, tag: str, classes: str, **attributes: float | str) -> None:
        """Any element; numbers are rounded to hundredths."""
        values = {k: v if isinstance(v, str) else f"{round(v, 2):g}" for k, v in attributes.items()}
        told = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in values.items())
        self.parts.append(f'<{tag} class="{classes}"{told}/>')

    def words(
        self, x: float, y: float, words: str, color: str = "ink", *, size: float = NORMAL, at: str = "start",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of words that starts, has its middle or ends at x; several lines for several, 1.3 sizes apart."""
        for i, line in enumerate(words.split("\n")):
            spans, shift = [], 0
            for part in re.findall(r"\*.+?\*|_.+?_|[^*_]+", line):
                is_symbol, is_subscript = part[0] == "*", part[0] == "_"
                drop, shift = 4 * is_subscript - shift, 4 * is_subscript
                tags = ' class="symbol"' if is_symbol or is_subscript else ""
                tags += f' font-size="{size + 2:g}"' if is_symbol else ' font-size="11"' if is_subscript else ""
                tags += f' dy="{drop}"' if drop else ""
                spans.append(f"<tspan{tags}>{escape(part.strip('*_'))}</tspan>" if tags else escape(part))
            self.parts.append(
                f'<text class="f-{color}{" bold" if bold else ""}" x="{x:g}" y="{y + 1.3 * size * i:g}" '
                f'font-size="{size:g}" text-anchor="{at}">{"".join(spans)}</text>'
            )

    def box(self, x: float, y: float, w: float, h: float, hue: str, *, dashed: bool = False, rx: float = 8) -> None:
        """A rectangle: a hue is learned, dashed computes without weights."""
        classes = "f-paper s-line dashed" if dashed else f"f-{hue} s-{hue} tint"
        self.shape("rect", classes, x=x, y=y, width=w, height=h, rx=rx, stroke_width=1.5)

    def band(self, y: float, h: float, hue: str) -> None:
        """A pale ground from margin to margin."""
        self.shape("rect", f"f-{hue}", x=16, y=y, width=WIDTH - 32, height=h, rx=10, fill_opacity=0.07)

    def dot(self, x: float, y: float, r: float, hue: str) -> None:
        """A point on a line."""
        self.shape("circle", f"f-paper s-{hue}", cx=x, cy=y, r=r, stroke_width=2.5)

    def tower(
        self, x: float, y: float, w: float, h: float, words: str, hue: str = "frozen", *, size: float = NORMAL,
        faint: bool = False,
    ) -> None:  # fmt: skip
        """An encoder, which makes much into little: a trapezoid with its name, and a snowflake if it is frozen."""
        slope = min(0.16 * h, 20)
        corners = f"{x:g},{y:g} {x + w:g},{y + slope:g} {x + w:g},{y + h - slope:g} {x:g},{y + h:g}"
        inside = "f-frozen s-line" if hue == "frozen" else f"f-{'paper' if faint else hue} s-{hue} tint"
        self.shape("polygon", inside, points=corners, stroke_width=1.5)
        n_lines = words.count("\n") + 1
        middle = y + h / 2 + 4.5 - 8.5 * (n_lines - 1) - 9 * (hue == "frozen")
        self.words(x + w / 2, middle, words, size=size, at="middle")
        if hue == "frozen":
            self.snowflake(x + w / 2, middle + 17 * n_lines - 4)

    def snowflake(self, x: float, y: float, r: float = 6.5) -> None:
        """The mark of what is frozen."""
        path = ""
        for turn in range(6):
            c, s = math.cos(math.pi * (turn / 3 + 0.5)), math.sin(math.pi * (turn / 3 + 0.5))
            path += f"M{x:g} {y:g}l{r * c:.2f} {r * s:.2f}"
            for side in (-1, 1):  # two barbs
                path += f"M{x + 0.55 * r * c:.2f} {y + 0.55 * r * s:.2f}"
                path += f"l{0.4 * r * (0.5 * c - side * 0.87 * s):.2f} {0.4 * r * (0.5 * s + side * 0.87 * c):.2f}"
        self.shape("path", "s-sky-text", d=path, stroke_width=1.3)

    def arrow(
        self, *points: Point, hue: str = "line", dashed: bool = False, head: bool = True, width: float = 1.8
    ) -> None:
        """A line through the points with round bends, to the last of them."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.dist((x0, y0), (x1, y1))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        end = (x1 - 6 * dx, y1 - 6 * dy) if head else (x1, y1)
        path = f"M{points[0][0]:g} {points[0][1]:g}"
        for before, bend, after in zip(points, points[1:], points[2:], strict=False):
            room = math.dist(bend, after) - 8 * (head and after == points[-1])
            radius = min(10, math.dist(before, bend) / 2, room)
            start, stop = (_toward(bend, other, radius) for other in (before, after))
            path += f"L{start[0]:g} {start[1]:g}Q{bend[0]:g} {bend[1]:g} {stop[0]:g} {stop[1]:g}"
        path += f"L{end[0]:.2f} {end[1]:.2f}"
        self.shape("path", f"s-{hue}{' dashed' * dashed}", d=path, stroke_width=width)
        if head:
            wings = ((x1 - 9 * dx - side * 4.5 * dy, y1 - 9 * dy + side * 4.5 * dx) for side in (1, -1))
            self.shape("polygon", f"f-{hue}", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in ((x1, y1), *wings)))

    def stop(self, x: float, y: float, *, upright: bool) -> None:
        """Two bars across an arrow: values pass, gradients do not."""
        for shift in (-2.5, 2.5):
            dx, dy = (0, 8) if upright else (8, 0)
            sx, sy = (shift, 0) if upright else (0, shift)
            self.shape("path", "s-ink", d=f"M{x + sx - dx:g} {y + sy - dy:g}l{2 * dx} {2 * dy}", stroke_width=2)

    def image(self, x: float, y: float, icon: str, size: float = 38, masked: Iterable[Point] = ()) -> None:
        """An image of the dataset, light on dark; some of its 4 x 4 patches may be masked."""
        self.shape("rect", "f-ground s-rim", x=x, y=y, width=size, height=size, rx=5)
        place = f"translate({x + 0.14 * size:g} {y + 0.14 * size:g}) scale({0.03 * size:.3f})"
        self.shape("path", "f-cloth", d=ICONS[icon], transform=place, fill_rule="evenodd")
        for row, column in masked:
            side = size / 4
            place = {"x": x + column * side, "y": y + row * side, "width": side, "height": side}
            self.shape("rect", "f-line s-paper", **place, stroke_width=1.2)

    def patches(self, x: float, y: float, chosen: Iterable[Point], hue: str, size: float) -> None:
        """Only some of the 4 x 4 patches of an image."""
        for row, column in chosen:
            place = {"x": x + column * size / 4, "y": y + row * size / 4, "width": size / 4, "height": size / 4}
            self.shape("rect", f"f-{hue}", **place)
        self.shape("rect", "s-line", x=x, y=y, width=size, height=size, rx=4, stroke_width=1.2)

    def cells(self, x: float, y: float, rows: Sequence[Sequence[float]], hue: str, size: float = 13) -> None:
        """A matrix of numbers from 0 to 1, the larger the darker."""
        w, h = len(rows[0]) * size, len(rows) * size
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                place = {"x": x + j * size, "y": y + i * size, "width": size, "height": size}
                self.shape("rect", f"f-{hue} s-paper", **place, fill_opacity=0.08 + 0.92 * value)
        self.shape("rect", f"s-{hue}", x=x, y=y, width=w, height=h, rx=1.5, stroke_width=1.2)

    def bars(self, x: float, y: float, values: Iterable[float], hue: str, *, height: float = 40, w: float = 11) -> None:
        """A bar for each probability, on a line at y."""
        n = 0
        for n, value in enumerate(values, 1):
            place = {"x": x + (n - 1) * (w + 4), "y": y - value * height, "width": w, "height": value * height}
            self.shape("rect", f"f-{hue}", **place, rx=1)
        self.shape("path", "s-line", d=f"M{x - 3:g} {y:g}h{n * (w + 4) + 2:g}", stroke_width=1.2)

    def chip(self, x: float, y: float, w: float, words: str, hue: str) -> None:
        """A name in a pill of width w and height 20."""
        self.box(x, y, w, 20, hue, rx=10)
        self.words(x + w / 2, y + 14, words, size=SMALL, at="middle")

    def key(self, x: float, y: float, kind: str, words: str) -> None:
        """An entry of the legend, (x, y) the middle of its left end."""
        if kind == "frozen":
            self.snowflake(x + 18, y)
        elif kind == "stop":
            self.arrow((x, y), (x + 28, y))
            self.stop(x + 11, y, upright=True)
        elif kind == "gradient":
            self.arrow((x, y), (x + 28, y), hue="red", dashed=True)
        else:
            self.box(x + 6, y - 7, 22, 14, kind, rx=4)
        self.words(x + 35, y + 4, words, "soft", size=SMALL)


def features(n: int, d: int, seed: int) -> list[list[float]]:
    """n rows of d numbers that look like features: the same at every run, and on every machine."""
    return [[(7 * i + 3 * seed + 5) * (j + 2) * 37 % 101 / 125 for j in range(d)] for i in range(n)]


def _toward(start: Point, goal: Point, distance: float) -> Point:
    share = distance / math.dist(start, goal)
    return round(start[0] + share * (goal[0] - start[0]), 2), round(start[1] + share * (goal[1] - start[1]), 2)
