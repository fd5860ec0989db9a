"""What a command says of the files that it left out."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.errors import printable

MANY = 20  # files that are named


def left_out_lines(left_out: Mapping[str, str], others: Mapping[str, int]) -> list[str]:
    """Lines for people.

    Args:
        left_out: why each file could not be read.
        others: how many files of each ending were taken for no images.
    """
    lines = [printable(f"left out: {file}: {why}").replace("\n", "\\n") for file, why in list(left_out.items())[:MANY]]
    if len(left_out) > MANY:
        lines.append(f"left out: {len(left_out) - MANY} more")
    if others:
        counts = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in others.items())
        lines.append(printable(f"not opened: {counts}"))
    return lines
