"""What a command says of the files that it left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.errors import printable, shown

if TYPE_CHECKING:
    from labkit.own.reading import Reading

MANY = 20  # files that are named


def left_out_lines(reading: Reading) -> list[str]:
    """Lines for people: each file that could not be read, with the reason, and how many were taken for no images."""
    below = {
        path.relative_to(reading.root) if path.is_relative_to(reading.root) else path: reason
        for path, reason in reading.left_out.items()
    }
    lines = [printable(f"left out: {shown(path)}: {reason}") for path, reason in list(below.items())[:MANY]]
    if len(below) > MANY:
        lines.append(f"left out: {len(below) - MANY} more")
    if reading.others:
        others = (f"{n} {ending or 'without ending'}" for ending, n in reading.others.items())
        lines.append(printable(f"not opened: {', '.join(others)}"))
    return lines
