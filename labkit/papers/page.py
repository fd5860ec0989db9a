"""The page of one or several runs, and their table as Markdown and CSV.

The page is one file that needs no network and no script, light or dark as the reader's system is. The HTML is in
templates/, which escape every value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labkit._files import user_path
from labkit._pages import templates, write_text
from labkit.errors import DataError, shown
from labkit.papers.figures import by_dataset, ours_against_published
from labkit.papers.report import Section, duration, sections
from labkit.papers.results import read_rows
from labkit.plots.style import to_png

if TYPE_CHECKING:
    import pandas as pd

DEVIATIONS = (
    "The generalization score is taken on a sample of the train split (10,000 rows or 20 a cluster, whichever is more; "
    "2,000 in the small profiles) in 128 principal directions of each space; the authors take all rows as they are.",
    "Values of the sweep are ours: the paper gives its axes, and 0.001 for both learning rates.",
    "The linear probe has one penalty for all datasets and standardized features; the authors choose it by validation.",
    "K-means searches its starts in 64 principal directions, and is then run to the end on the features.",
    "On a GPU networks compute in float16, as CLIP's own weights do; the authors run DINOv2 in float32.",
    "MUST is scored at its last epoch; the authors' code keeps the epoch that is best on the labels of the test split.",
)


def write_report(
    paths: Sequence[str | os.PathLike[str]],
    page: str | os.PathLike[str],
    *,
    tables: str | os.PathLike[str] | None = None,
) -> list[Section]:
    """Write the page of some results, and return its tables.

    Args:
        paths: files of results, or folders of runs; of two results with the same key the later counts.
        page: the HTML file.
        tables: a folder for table.md and table.csv, or None.

    Raises:
        DataError: there are no results, or a file cannot be written.
    """
    rows = read_rows(paths)
    found = sections(rows)
    html = templates("labkit.papers").get_template("report.html.j2").render(**_values(rows, found))
    try:
        write_text(user_path(page), html)
        if tables is not None:
            folder = user_path(tables)
            write_text(folder / "table.md", "\n".join(section.markdown() for section in found))
            write_text(folder / "table.csv", _csv(found))
    except OSError as error:
        raise DataError(
            f"{shown(error.filename or page)} cannot be written ({error}). Choose another place."
        ) from error
    return found


def _csv(found: Sequence[Section]) -> str:
    """All tables as one, numbers in full; a column that a paper has not is empty."""
    import pandas as pd

    joined = pd.concat([section.frame for section in found], ignore_index=True)
    first = ["paper", "profile", "stand_in", "dataset", *(["model"] if "model" in joined else [])]
    return joined[[*first, *(name for name in joined if name not in first)]].to_csv(index=False, lineterminator="\n")


def _values(rows: pd.DataFrame, found: Sequence[Section]) -> dict[str, Any]:
    seconds = rows.drop_duplicates(["paper", "dataset", "stand_in", "method", "date"])["seconds"].sum()
    return {
        "n_results": len(rows),
        "devices": sorted(set(rows["device"])),
        "versions": sorted(set(rows["labkit"])),
        "dates": [min(rows["date"])[:10], max(rows["date"])[:10]],
        "time": duration(seconds / 3600),
        "sections": [
            {"section": section, "id": f"table-{i}", "figures": list(_figures(section))}
            for i, section in enumerate(found, 1)
        ],
        "deviations": DEVIATIONS,
    }


def _figures(section: Section) -> Iterator[dict[str, Any]]:
    """PNG and alternative text of the figures of a table; none where nothing of a kind was run."""
    frame, method = section.frame, section.paper
    both = frame["difference"].notna()
    if both.any():
        alt = f"Scatter of our accuracy against the published one, {int(both.sum())} points; the numbers of the table."
        yield {"png": to_png(ours_against_published(frame[both], method)), "alt": alt}
    ours = ["zero_shot", "must"] if method == "must" else ["zero_shot", "k_means", "turtle", "linear_probe"]
    run = frame[frame[ours].notna().any(axis=1)]
    if len(run):
        columns = [*ours, *([f"{method}_published"] if run[f"{method}_published"].notna().any() else [])]
        names = [" ".join(row[: 2 if method == "must" else 1]) for row in section.rows]
        chosen = [names[i] for i in frame.index.get_indexer(run.index)]
        yield {
            "png": to_png(by_dataset(run, columns, chosen)),
            "alt": f"Bars of every method for {len(run)} rows: the numbers of the table.",
        }
