"""Results of reproductions: lines of JSON that are only ever added, of which the last of each key counts.

Every finished piece of work is one write of one or more lines, synced before the next piece begins. So a run that is
killed loses the piece it was at, files of two machines are merged by reading both, and nothing is ever overwritten.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import labkit
from labkit._files import expect_regular, open_regular
from labkit._inputs import is_number, is_whole
from labkit.errors import DataError, quote, shorten, shown

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FILE = "results.jsonl"
METHODS = ("zero-shot", "k-means", "linear-probe", "turtle", "turtle-published", "must")
METRICS = ("accuracy", "mean_per_class", "nmi", "ari")
KEY = ("paper", "dataset", "stand_in", "split", "method", "spaces", "metric", "settings", "seed", "n_train", "n_test")
LARGEST = 2**53  # number in a result: JSON holds all whole numbers up to it
LONGEST_LINE = 1 << 20  # bytes; a result has some hundred


def _is_count(value: object) -> bool:
    return is_whole(value, 0, LARGEST)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "paper": lambda value: value in ("turtle", "must"),
    "dataset": lambda value: isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", value) is not None,
    "split": _is_text,
    "method": lambda value: value in METHODS,
    "spaces": lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
    "metric": lambda value: value in METRICS,
    "value": lambda value: is_number(value, -1, 1),
    "seed": _is_count,
    "settings": lambda value: isinstance(value, dict),  # what the result follows from
    "chosen": lambda value: isinstance(value, dict),  # what was found out on the way, without labels
    "seconds": lambda value: is_number(value, 0, LARGEST),
    "stand_in": lambda value: isinstance(value, bool),
    "n_train": _is_count,
    "n_test": _is_count,
    "labkit": _is_text,
    "device": _is_text,
    "date": _is_text,
}
COLUMNS = tuple(_FIELDS)


def key_of(row: Mapping[str, Any]) -> str:
    """What tells a result from every other: of two rows with one key the later counts."""
    return json.dumps([row[name] for name in KEY], sort_keys=True)


class Results:
    """The results of one folder, and the only way to add to them.

    Args:
        folder: of the run; its file of results is read if it is there.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._rows = {key_of(row): row for row in _read(self.path)} if os.path.lexists(self.path) else {}

    def has(self, row: Mapping[str, Any], metrics: Iterable[str]) -> bool:
        """Whether a row is there for each metric; `row` is one without its value."""
        return all(key_of({**row, "metric": metric}) in self._rows for metric in metrics)

    def add(self, row: Mapping[str, Any], values: Mapping[str, float], **measured: Any) -> None:
        """Keep a row for each metric, all at once, and only return when they are on the disk.

        Raises:
            DataError: they are no results, or the file cannot be written.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        rest = {"chosen": {}, **measured, "labkit": labkit.__version__, "date": now}
        rows = [{**row, **rest, "metric": metric, "value": float(value)} for metric, value in values.items()]
        for one in rows:
            wrong = _wrong_field(one)
            if wrong is not None:
                raise DataError(f"a result cannot be kept: {wrong} is {quote(one.get(wrong))}.")
        lines = "".join(json.dumps({name: one[name] for name in COLUMNS}) + "\n" for one in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(self.path):
                expect_regular(self.path)
            with self.path.open("ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                torn = end > 0 and (file.seek(end - 1), file.read(1))[1] != b"\n"  # the last run was killed in a line
                content = ("\n" * torn + lines).encode()
                if file.write(content) < len(content):
                    raise OSError("there was room for a part of it only")
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"the result cannot be kept in {shown(self.path)} ({error}). Make room, or choose another "
                            "folder for it and its copy.") from error  # fmt: skip
        self._rows |= {key_of(one): one for one in rows}


def read_rows(paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> pd.DataFrame:
    """The results of one or more runs, one row a key: of two with the same key the one that was read last.

    Args:
        paths: files of results, or folders of runs.

    Returns:
        A row a result, in the order of the files; the columns are `COLUMNS`. Values are fractions.

    Raises:
        DataError: there is no such file, or it holds no result.
    """
    import pandas as pd

    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise DataError("there are no results to read. Expected files of results, or folders of runs.")
    found: dict[str, dict[str, Any]] = {}
    for path in map(Path, given):
        file = path / FILE if path.is_dir() else path
        rows = _read(file)
        if not rows:
            raise DataError(
                f"{shown(file)} holds no result of `labkit reproduce`. Give the folder that --out named, or the "
                f"{FILE} in it."
            )
        found |= {key_of(row): row for row in rows}
    return pd.DataFrame(list(found.values()), columns=list(COLUMNS))


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; lines that are none, such as one cut short by a kill, are passed over and counted."""
    rows, n_odd = [], 0
    try:
        with open_regular(path) as file:
            while line := file.readline(LONGEST_LINE):
                row = _parse(line)
                n_odd += row is None and bool(line.strip())
                if row is not None:
                    rows.append(row)
    except OSError as error:
        reason = shorten(error.strerror or str(error), 200)
        raise DataError(
            f"the results in {shown(path)} cannot be read ({reason}). Give the folder that --out named, or the {FILE} "
            "in it."
        ) from error
    if n_odd:
        logger.warning("%s has %d lines that are no results; they are passed over.", shown(path), n_odd)
    return rows


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or _wrong_field(row) is not None:
        return None
    return {name: row[name] for name in COLUMNS}


def _wrong_field(row: Mapping[str, Any]) -> str | None:
    """The first field that is missing or holds something else than it should; None where all are right."""
    return next((name for name, fits in _FIELDS.items() if name not in row or not fits(row[name])), None)
