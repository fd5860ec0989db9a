"""The pages that a run of the series leaves: each executed notebook, and an index with results, bands and timings.

A page is one file that needs no network and no script. The HTML is in templates/, which escape every value; outputs of
notebooks are as nbconvert shows them.
"""

from __future__ import annotations

import base64
import functools
import math
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import nbformat

from labkit._pages import templates, write_text
from labkit.course.notebook_files import notebook_title
from labkit.course.report import describe_failure
from labkit.course.results import ROW_KEYS, summarize

if TYPE_CHECKING:
    import pandas as pd
    from nbconvert import HTMLExporter

_BADGE = re.compile(r"!\[([^]]*)\]\([^)]*badge\.svg\)")
_NOTEBOOK_LINK = re.compile(r'href="(\d\d_\w+)\.ipynb"')


def write_notebook_page(path: Path) -> None:
    """Write an executed notebook as a page beside it.

    Raises:
        OSError: it cannot be written.
    """
    notebook = nbformat.read(path, as_version=4)
    figure = templates("labkit.course").get_template("figure.html.j2")
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt and "image/png" in output.get("data", {}):  # nbconvert would leave the <img> without the text
            png = base64.b64decode(output.data["image/png"])
            output.data = {"text/html": figure.render(alt=alt, png=png)}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _BADGE.sub(r"\1", cell.source)  # a badge is from the network, so the words in its place
    page, _ = _exporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    write_text(
        path.with_suffix(".html"), _NOTEBOOK_LINK.sub(r'href="\1.html"', page)
    )  # to the page of another notebook


def write_index(out: Path, report: dict[str, Any]) -> None:
    """Write index.html: verdict, results, bands and timings, with links to the pages of the notebooks in `out`.

    Args:
        out: the folder of the run.
        report: what results.json holds.

    Raises:
        OSError: it cannot be written.
    """
    import pandas as pd

    rows = pd.DataFrame(report["results"], columns=list(ROW_KEYS))
    is_accuracy = rows["metric"] == "accuracy"
    values = {
        "report": report,
        "details": _details(report["environment"]),
        "failures": [describe_failure(failure) for failure in report["failures"]],
        "notebooks": list(_notebooks(out, report)),
        "accuracies": list(_accuracies(rows[is_accuracy])),
        "other_metrics": None if is_accuracy.all() else _table(summarize(rows[~is_accuracy])),
        "bands": _table(pd.DataFrame(report["bands"]).drop(columns="profile")) if report["bands"] else None,
    }
    write_text(out / "index.html", templates("labkit.course").get_template("index.html.j2").render(values))


# ----------------------------------------------------------------------------------------------- what the index shows


def _details(environment: dict[str, Any]) -> list[str]:
    """What the numbers were measured with, in a few words each."""
    details = [environment["system"], f"{environment['cpus']} CPUs", f"device {environment['device']}"]
    details += [f"Python {environment['python']}"]
    details += [f"{package} {version}" for package, version in environment["packages"].items()]
    return details + ([f"revision {environment['git_revision']}"] if environment["git_revision"] else [])


def _notebooks(out: Path, report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Title, link, verdict and times of each notebook."""
    failed = {failure["notebook"] for failure in report["failures"]}
    for name, timing in report["timings"].items():
        seconds, cell = max((s or 0.0, i) for i, s in enumerate([*timing["cells"], 0.0], 1))
        has_page = (out / f"{name}.html").exists()
        yield {
            "title": notebook_title(out / f"{name}.ipynb"),
            "link": f"{urllib.parse.quote(os.fsencode(name))}.html" if has_page else None,
            "failed": name in failed,
            "seconds": timing["seconds"],
            "slowest": {"seconds": seconds, "cell": cell} if timing["cells"] else None,
        }


def _accuracies(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Title, bars (PNG) and table of the accuracies on each split of a dataset."""
    from labkit import plots

    for (dataset, split), group in rows.groupby(["dataset", "split"], sort=False):
        yield {
            "title": f"{dataset}, accuracy on the {split} split",
            "png": plots.to_png(plots.results_bars(group)),
            "table": _table(summarize(group).drop(columns=["dataset", "split", "metric"])),
        }


def _table(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns and rows of a table, as text."""
    return {"columns": list(frame.columns), "rows": [list(map(_text, row)) for row in frame.itertuples(index=False)]}


def _text(value: Any) -> str:
    """Numbers with four significant digits, and nothing where there is none: JSON has no NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ----------------------------------------------------------------------------------------------------------- templates


@functools.cache
def _exporter() -> HTMLExporter:
    """nbconvert's, with formulas as MathML in place of MathJax, and without its scripts."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return str(convert(body))

        def block_math(self, body: str) -> str:
            return str(convert(body, display="block"))

    ours = jinja2.PrefixLoader({"labkit": jinja2.PackageLoader("labkit.course")})  # nbconvert has an index.html.j2 too
    exporter = HTMLExporter(extra_loaders=[ours], template_file="labkit/notebook.html.j2")
    exporter.register_filter(
        "markdown2html", lambda source: MarkdownWithMath(renderer=Renderer(escape=False)).render(source)
    )
    return exporter
