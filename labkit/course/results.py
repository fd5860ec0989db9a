"""The running results table: JSON lines on disk, where the last line of each key counts, and the table people read."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import pocket
from labkit._files import expect_regular, open_regular
from labkit.errors import DataError, quote

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

METHODS = ("zero-shot", "text-gaussians", "k-means", "turtle", "turtle-named", "must", "linear-probe")
METRICS = ("accuracy", "nmi", "ari", "mean_per_class")
PROFILE_NAMES = ("pocket", "photos", "standard", "paper")
LONGEST_LINE = 1 << 20  # bytes; a result has some hundred


# ------------------------------------------------------------------------------------ what results.schema.json asks for


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and -1 <= value <= 1


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_seed(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _is_duration(value: Any) -> bool:
    return value is None or (_is_number(value) and value >= 0)


def _one_of(*allowed: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in allowed


_ROW: dict[str, Callable[[Any], bool]] = {
    "notebook": _is_text,
    "dataset": _is_text,
    "split": _is_text,
    "method": _one_of(*METHODS),
    "variant": _is_text,
    "spaces": _is_texts,
    "metric": _one_of(*METRICS),
    "value": _is_fraction,
    "seed": _is_seed,
    "selected_without_labels": _is_flag,
    "labels_used": _is_flag,
    "seconds": _is_duration,
    "profile": _one_of(*PROFILE_NAMES),
}
_BAND: dict[str, Callable[[Any], bool]] = {
    "notebook": _is_text,
    "name": _is_text,
    "value": lambda value: value is None or _is_number(value),
    "low": _is_number,
    "high": _is_number,
    "verdict": _one_of("within", "outside", "no band"),
    "profile": _one_of(*PROFILE_NAMES),
}
_KINDS = {"row": _ROW, "band": _BAND}
ROW_KEYS = tuple(_ROW)


def _wrong_key(kind: str, entry: dict[str, Any]) -> str | None:
    """The first key that is missing, unknown or of a wrong value; None if the entry is as it should be."""
    expected = _KINDS[kind]
    unknown = [key for key in entry if key not in expected]
    wrong = [key for key, fits in expected.items() if key not in entry or not fits(entry[key])]
    return next(iter(unknown + wrong), None)


# ------------------------------------------------------------------------------------------------------------- the file


def append_result(path: Path, kind: str, entry: dict[str, Any]) -> None:
    """Add one entry, of kind "row" or "band", to a file of results.

    One write in append mode: two notebooks can write at once, and a killed one spoils at most its own line.

    Raises:
        DataError: the entry is none, or the file cannot be written.
    """
    wrong = _wrong_key(kind, entry)
    if wrong is not None:
        raise DataError(f"the {kind} cannot be kept: {wrong} is {quote(entry.get(wrong))}. See results.schema.json.")
    line = f"\n{json.dumps({kind: entry})}".encode()  # the line break first: the last line may be cut short
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            expect_regular(path)
        with path.open("ab", buffering=0) as file:
            if file.write(line) < len(line):
                raise OSError("there was room for a part of it only")
    except OSError as error:
        raise DataError(
            f"the result cannot be kept in {path} ({error}). Set the environment variable LABKIT_RESULTS to a file "
            "that can be written."
        ) from error


def read_results(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The result rows and the bands in a file of JSON lines, the last of each key; none if there is no file.

    Lines that are no results, such as one cut short when a notebook was killed, are passed over; their count is logged.

    Raises:
        DataError: there is something else than a file that can be read.
    """
    latest: dict[str, tuple[str, dict[str, Any]]] = {}
    n_odd = 0
    try:
        with open_regular(path) as file:
            while line := file.readline(LONGEST_LINE):
                found = _parse(line)
                if found is None:
                    n_odd += bool(line.strip())
                    continue
                kind, entry = found
                measured = ("value", "seconds") if kind == "row" else ("value", "low", "high", "verdict")
                key = json.dumps([kind, {name: entry[name] for name in sorted(entry) if name not in measured}])
                latest[key] = (kind, entry)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise DataError(
            f"the results in {path} cannot be read ({error}). Set the environment variable LABKIT_RESULTS to another "
            "file."
        ) from error
    if n_odd:
        logger.warning("%s has %d lines that are no results of labkit; they are passed over.", path, n_odd)
    entries = list(latest.values())
    return [entry for kind, entry in entries if kind == "row"], [entry for kind, entry in entries if kind == "band"]


def _parse(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """The kind and the entry in a line; None if it holds no result."""
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or len(found) != 1:
        return None
    [(kind, entry)] = found.items()
    if kind not in _KINDS or not isinstance(entry, dict):
        return None
    if kind == "row":
        entry = {"variant": ""} | entry
    return (kind, entry) if _wrong_key(kind, entry) is None else None


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """The results table that people read: a line for each method and spaces; values in percent, as text.

    A method that was run several times has a line for all runs, mean and standard deviation over the seeds, and one for
    the run that was chosen without labels. The notes say what a reader must know before comparing lines. Where two
    notebooks measured the same, the later one counts.
    """
    import pandas as pd

    lines = []
    keys = ["dataset", "split", "metric", "method", "variant", "spaces"]
    rows = rows.assign(spaces=[" + ".join(spaces) for spaces in rows["spaces"]])
    rows = rows.drop_duplicates([*keys, "seed", "selected_without_labels"], keep="last")
    for (*values, chosen), group in rows.groupby([*keys, "selected_without_labels"], sort=False):
        line = dict(zip(keys, map(str, values), strict=True))
        spread = f" ± {100 * group['value'].std():.1f} ({len(group)} seeds)" if len(group) > 1 else ""
        line["value (%)"] = f"{100 * group['value'].mean():.1f}{spread}"
        used, spaces = bool(group["labels_used"].any()), line["spaces"].split(" + ")
        line["notes"] = ", ".join(notes(line["dataset"], spaces, labels_used=used, chosen=bool(chosen)))
        seconds = group["seconds"].astype(float).mean()
        line["seconds"] = "" if math.isnan(seconds) else f"{seconds:.1f}"
        lines.append(line)
    return pd.DataFrame(lines, columns=[*keys, "value (%)", "notes", "seconds"])


def notes(dataset: str, spaces: Sequence[str], *, labels_used: bool, chosen: bool) -> list[str]:
    """What must be known of a result before it is compared with others.

    Args:
        dataset, spaces: what was evaluated, and the backbones whose features were used.
        labels_used: labels were used to fit.
        chosen: it is the label-free choice among several runs.
    """
    saw_target = any(dataset in pocket.SEEN.get(space, ()) for space in spaces)
    told = {"labels used": labels_used, "chosen without labels": chosen, "pretraining saw target images": saw_target}
    return [note for note, holds in told.items() if holds]
