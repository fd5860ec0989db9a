"""The running results table: JSON lines on disk, where the last line of each key counts, and the table people read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("zero-shot", "k-means", "turtle", "turtle-named", "must", "linear-probe")
METRICS = ("accuracy", "nmi", "ari", "mean_per_class")
ROW_KEYS = (
    "notebook", "dataset", "split", "method", "variant", "spaces", "metric", "value", "seed",
    "selected_without_labels", "labels_used", "seconds", "profile",
)  # fmt: skip


def append_result(path: Path, kind: str, entry: dict[str, Any]) -> None:
    """Add one entry, of kind "row" or "band", to a file of results.

    One write in append mode: two notebooks can write at once, and a killed one spoils at most its own line.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({kind: entry}))
    except OSError as error:
        raise DataError(
            f"the result cannot be kept in {path} ({error}). Set the environment variable LABKIT_RESULTS to a file, "
            "or LABKIT_CACHE to a folder, that can be written."
        ) from error


def read_results(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The result rows and the bands in a file of JSON lines, the last of each key; none if there is no file."""
    latest: dict[str, tuple[str, dict[str, Any]]] = {}
    text = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    for line in text.splitlines():
        try:
            [(kind, entry)] = json.loads(line).items()
        except ValueError:  # empty, or cut short when a notebook was killed
            continue
        measured = ("value", "seconds") if kind == "row" else ("value", "low", "high", "verdict")
        key = json.dumps([kind, {name: entry[name] for name in sorted(entry) if name not in measured}])
        latest[key] = (kind, entry)
    entries = list(latest.values())
    return [entry for kind, entry in entries if kind == "row"], [entry for kind, entry in entries if kind == "band"]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """The results table that people read: a line for each method and spaces; values in percent, as text.

    Mean and standard deviation are over the seeds; the label-free choice stands in a column of its own. Where two
    notebooks measured the same, the later one counts.
    """
    import pandas as pd

    lines = []
    keys = ["dataset", "split", "metric", "method", "variant", "spaces", "labels_used"]
    rows = rows.assign(spaces=[" + ".join(spaces) for spaces in rows["spaces"]])
    rows = rows.drop_duplicates([*keys, "seed", "selected_without_labels"], keep="last")
    for values, group in rows.groupby(keys, sort=False):
        is_choice = group["selected_without_labels"].astype(bool)
        chosen, runs = group["value"][is_choice], group["value"][~is_choice]
        spread = f" ± {100 * runs.std():.1f} ({len(runs)} seeds)" if len(runs) > 1 else ""
        line = dict(zip(keys, values, strict=True))
        line["labels_used"] = "yes" if line["labels_used"] else "no"
        line["runs"] = f"{100 * runs.mean():.1f}{spread}" if len(runs) else ""
        line["label-free choice"] = ", ".join(f"{100 * value:.1f}" for value in chosen)
        seconds = group["seconds"].astype(float).mean()
        line["seconds"] = "" if math.isnan(seconds) else f"{seconds:.1f}"
        lines.append(line)
    columns = [*keys, "runs", "label-free choice", "seconds"]
    return pd.DataFrame(lines, columns=columns).rename(columns={"labels_used": "labels used", "runs": "value (%)"})
