"""The course map: the notebooks as stations, and the lines that lead from one to the next."""

from __future__ import annotations

from shapes import SMALL, Diagram

STATIONS = {  # number: name, place, hue, side of the name, what it builds on
    "00": ("Start\nhere", (68, 155), "ink", "right", ()),
    "01": ("Zero-shot\nCLIP", (198, 90), "blue", "above", ("00",)),
    "02": ("Representation\nspaces", (198, 220), "pink", "below", ("00",)),
    "03": ("Max-margin\nlabelings", (298, 220), "pink", "below", ("02",)),
    "04": ("TURTLE from\nscratch", (394, 220), "pink", "below", ("02", "03")),
    "05": ("Choosing\nwithout labels", (500, 220), "pink", "below", ("04",)),
    "06": ("Masked\nself-training", (498, 90), "red", "above", ("01", "04")),
    "07": ("MUST in\npractice", (582, 90), "red", "above", ("06",)),
    "08": ("Both papers\nbeside yours", (660, 90), "ink", "above", ("05", "07")),
    "09": ("Your own\nimages", (640, 220), "ink", "below", ("01", "05")),
}


def course_map(here: str) -> Diagram:
    """The series as lines and stations, one of them marked as the reader's."""
    names = {number: f"{number}, {station[0]}".replace("\n", " ") for number, station in STATIONS.items()}
    needs = " and ".join(names[number] for number in STATIONS[here][-1])
    where = f"{names[here]}{f', which builds on {needs}' if needs else ''}"
    d = Diagram(
        304,
        f"Course map: you are at {names[here]}",
        f"You are at {where}. From {names['00']}, two lines lead on. The line of words has one station, {names['01']}. "
        f"The line of spaces has four: {names['02']}; {names['03']}; {names['04']}; {names['05']}. After "
        f"{names['04']}, the lines meet where clusters get words, and from there the line of self-training leads to "
        f"{names['06']}, and {names['07']}, and ends at {names['08']}. The line of spaces ends at {names['09']}.",
    )
    d.arrow((68, 155), (68, 90), (394, 90), hue="blue", head=False, width=6)
    d.arrow((68, 155), (68, 220), (394, 220), (394, 90), hue="pink", head=False, width=6)
    d.arrow((394, 220), (640, 220), hue="pink", head=False, width=6)
    d.arrow((394, 90), (660, 90), hue="red", head=False, width=6)
    d.words(296, 79, "words", "blue-text", size=SMALL, at="middle")
    d.words(128, 209, "spaces", "pink-text", size=SMALL, at="middle")
    d.words(437, 79, "self-training", "red-text", size=SMALL, at="middle")
    d.words(384, 128, "clusters\nget words", "soft", size=SMALL, at="end")
    d.dot(394, 90, 6, "ink")
    for number, (name, place, hue, side, _) in STATIONS.items():
        _station(d, *place, number, name, hue, side, here=number == here)
    return d


def _station(d: Diagram, x: float, y: float, number: str, name: str, hue: str, side: str, *, here: bool) -> None:
    """A notebook: a circle with its number, its name on one side, and a flag on another if the reader is there."""
    strong = hue if hue in ("", "ink") else f"{hue}-text"
    if here:
        d.shape("circle", f"f-{hue}", cx=x, cy=y, r=27, fill_opacity=0.25)
    look = f"f-{strong} s-{strong}" if here else f"f-paper s-{hue}" if hue else "f-paper s-line dashed"
    d.shape("circle", look, cx=x, cy=y, r=19, stroke_width=3 if hue else 1.8)
    d.words(x, y + 5, number, "paper" if here else "ink" if hue else "soft", size=14, at="middle", bold=True)
    left, top, at = {
        "above": (x, y - 50, "middle"),
        "below": (x, y + 45, "middle"),
        "right": (x + 34, y - 3, "start"),
    }[side]
    d.words(left, top, name, "ink" if hue else "soft", size=12, at=at, bold=here)
    if here:
        up = 1 if side == "above" else -1  # the flag stands where the name does not
        d.shape("rect", "f-ink", x=x - 54, y=y + 48 * up - 11, width=108, height=22, rx=6)
        d.shape("path", "f-ink", d=f"M{x - 8:g} {y + 38 * up:g}l8 {-7 * up}l8 {7 * up}z")
        d.words(x, y + 48 * up + 4, "you are here", "paper", size=12, at="middle", bold=True)
