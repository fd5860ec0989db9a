"""The undo file of a sort: for every image where it was and where it goes, written before the first is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from labkit._files import open_regular
from labkit.errors import DataError, quote, shown
from labkit.own.files import write_file

UNDO = "undo.json"
HOW = ("copy", "link", "move")
LARGEST = 1 << 30  # bytes


@dataclass(frozen=True)
class Step:
    """An image, its place "folder/file" below the new folder, and what it reads where it is a symbolic link."""

    source: Path
    target: PurePosixPath
    link: str | None = None


@dataclass(frozen=True)
class UndoFile:
    """What a sort was to do, and whether it made the new folder."""

    how: str
    made: bool
    steps: list[Step]


def write_undo(new: Path, how: str, made: bool, steps: Sequence[Step]) -> None:
    """Write the undo file into the new folder, atomically.

    Raises:
        DataError: it cannot be written.
    """
    rows = [
        {"from": os.fspath(step.source), "to": str(step.target)} | ({} if step.link is None else {"link": step.link})
        for step in steps
    ]
    content = {"labkit": "sort", "version": 1, "how": how, "made": made, "steps": rows}
    write_file(new / UNDO, (json.dumps(content, indent=0) + "\n").encode("ascii"))  # bytes of no letter as \udcXX


def read_undo(new: Path) -> UndoFile:
    """The undo file in a folder, checked: places lie in folders of the new folder, and images have full paths.

    Raises:
        DataError: there is none, or it is damaged.
    """
    expected = "Expected the folder that `labkit sort --to` filled."
    try:
        with open_regular(new / UNDO) as file:
            content = json.loads(file.read(LARGEST))
        if content["labkit"] != "sort" or content["version"] != 1 or content["how"] not in HOW:
            raise ValueError("it is of something else")
        return UndoFile(content["how"], bool(content["made"]), [_step(row) for row in content["steps"]])
    except FileNotFoundError as error:
        raise DataError(f"{shown(new)} holds no {UNDO}: nothing was sorted into it. {expected}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{shown(new / UNDO)} cannot be read ({quote(str(error))}). {expected}") from error


def _step(row: dict[str, str]) -> Step:
    step = Step(Path(row["from"]), PurePosixPath(row["to"]), row.get("link"))
    name = row["to"].split("/")
    if len(name) != 2 or {"", ".", ".."} & set(name) or "\0" in row["to"] + row["from"] or ".." in step.source.parts:
        raise ValueError(f"{quote(row['to'])} is no place in a folder")
    if not step.source.is_absolute() or not isinstance(step.link, str | None):
        raise ValueError(f"{quote(row['from'])} is no full path")
    return step
