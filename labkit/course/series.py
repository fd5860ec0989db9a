"""The series runner: every notebook through papermill, and one page and one file of results, timings and failures.

The kernel is always the interpreter that runs this module, whatever kernels are registered on the machine.
"""

from __future__ import annotations

import ast
import base64
import concurrent.futures
import contextlib
import datetime
import functools
import hashlib
import html
import importlib.metadata
import importlib.resources
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from labkit._files import (
    PACKAGE_DIR,
    atomic_write,
    expect_writable,
    locked_folder,
    open_regular,
    shipped_dir,
    temporary_folder,
    user_path,
)
from labkit.course.results import ROW_KEYS, read_results, summarize
from labkit.course.setup import pick_profile
from labkit.errors import DataError, LabkitError

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

logger = logging.getLogger(__name__)

PACKAGES = ("labkit", "torch", "torchvision", "timm", "open_clip_torch", "numpy", "scikit-learn", "papermill")


def run_series(
    out: str | os.PathLike[str] = "runs/latest",
    *,
    profile: str = "pocket",
    only: Sequence[str] = (),
    notebooks: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Run the numbered notebooks one after another and collect what they record.

    Writes to `out`: each executed notebook as .ipynb and .html, results.json (rewritten after every notebook, so that
    an interrupted run keeps what it has) and index.html. A notebook that fails does not stop the others. Every file
    appears whole, and what a killed run left is swept by the next.

    Args:
        out: folder for the results; files of an earlier run are replaced, but nothing that somebody edited.
        profile: "pocket", "standard", "paper" or "auto".
        only: numbers of the notebooks to run, such as ("02", "03"); empty runs all.
        notebooks: folder of the notebooks; the series that comes with labkit unless given.

    Returns:
        What results.json holds (see results.schema.json); "failures" is empty when all went well. Under the pocket
        profile a band that was missed is a failure too.

    Raises:
        LabkitError: no such profile or notebook, or files in `out` that are not an earlier run's would be replaced.
        DataError: `out` cannot be written, or another run is writing to it.
    """
    name = pick_profile(profile).name
    paths = find_notebooks(notebooks, only)
    out = Path(os.path.realpath(user_path(out)))  # which bears a link to itself
    if out == paths[0].parent.resolve():
        raise LabkitError(f"the results would replace the notebooks in {out}. Expected another folder for them.")
    _expect_replaceable(out, paths)
    report: dict[str, Any] = {
        "schema": 1,
        "profile": name,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "environment": _environment(name),
        "results": [],
        "bands": [],
        "timings": {},
        "failures": [],
    }
    try:
        with (
            locked_folder(out, wait=False),
            _scratch_folder() as scratch,
            concurrent.futures.ThreadPoolExecutor(1) as writer,
        ):
            pages = []
            for path in paths:
                executed = scratch / "executed" / path.name
                failure = _run_notebook(path, executed, name, scratch)
                report["failures"] += [failure] if failure else []
                report["timings"][path.stem] = _timings(executed)
                report["results"], report["bands"] = read_results(scratch / "results.jsonl")
                if _publish(executed, out):
                    pages.append(writer.submit(_write_html, out / path.name))  # while the next notebook begins
                _write_results(out / "results.json", report)
            report["failures"] += [_missed(band) for band in report["bands"] if band["verdict"] == "outside"]
            _write_results(out / "results.json", report)
            concurrent.futures.wait(pages)  # to those that were written the index leads
            _write_page(out, report)
            for page in pages:
                page.result()  # raises what its writer raised
    except BlockingIOError as error:
        raise DataError(f"another run writes to {out}. Wait for its end, or choose another folder.") from error
    except OSError as error:
        raise DataError(f"the run cannot be written to {out} ({error}). Choose another folder.") from error
    return report


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Where kernels work and keep their temporary files; what killed runs left there goes."""
    with contextlib.ExitStack() as held:
        try:
            scratch = held.enter_context(temporary_folder(tempfile.gettempdir(), "labkit-"))
        except OSError as error:
            raise DataError(
                f"there is no place for temporary files ({error}). Set the environment variable TMPDIR to a folder "
                "that can be written."
            ) from error
        yield scratch


def find_notebooks(folder: str | os.PathLike[str] | None = None, only: Sequence[str] = ()) -> list[Path]:
    """Paths of the numbered notebooks, in order: inside an installed package, beside it in a checkout.

    Raises:
        LabkitError: there are none, or one of the numbers in `only` is not there.
    """
    place = user_path(folder) if folder else shipped_dir("notebooks")
    paths = sorted(place.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise LabkitError(f"no notebooks named 00_….ipynb to 99_….ipynb in {place}.")
    numbers = [path.name[:2] for path in paths]
    unknown = [number for number in only if number.zfill(2) not in numbers]
    if unknown:
        raise LabkitError(f"there is no notebook {', '.join(unknown)}. Expected some of: {', '.join(numbers)}.")
    wanted = {number.zfill(2) for number in only} or set(numbers)
    return [path for path in paths if path.name[:2] in wanted]


def kernel_environment(results_path: Path, *, alike_everywhere: bool = False) -> dict[str, str]:
    """Environment variables that make a kernel headless and repeatable and let its notebook record to `results_path`.

    Args:
        results_path: the file of results, instead of the user's own.
        alike_everywhere: the pocket profile without GPU and network too, so that any machine gives the stored outputs.
    """
    env = {
        "LABKIT_RESULTS": str(results_path),
        "LABKIT_HEADLESS": "1",
        "PYTHONHASHSEED": "0",
        "GOMP_SPINCOUNT": "10000",  # threads that spin for long while they wait stall on a busy machine
    }
    if alike_everywhere:
        env |= {"LABKIT_PROFILE": "pocket", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if (PACKAGE_DIR.parent / "pyproject.toml").exists():  # a checkout, installed or not: run the notebooks with it
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_DIR.parent), os.environ.get("PYTHONPATH")]))
    return env


# ------------------------------------------------------------------------------------------------ what may be replaced


def _expect_replaceable(out: Path, paths: Sequence[Path]) -> None:
    """Refuse to replace what no earlier run wrote, and notebooks that somebody edited since; before any notebook runs.

    Raises:
        LabkitError: there are such files; the message names them.
        DataError: a file may not be written.
    """
    report, index = out / "results.json", out / "index.html"
    foreign = [out / path.name for path in paths if not _is_as_written(out / path.name, path)]
    # a page carries no digest: it is an earlier run's where its notebook is
    foreign += [
        page
        for page in [(out / path.name).with_suffix(".html") for path in paths]
        if os.path.lexists(page) and not page.with_suffix(".ipynb").exists()
    ]
    is_ours = _is_report(report)
    foreign += [report] if os.path.lexists(report) and not is_ours else []
    foreign += [index] if os.path.lexists(index) and not is_ours else []
    if foreign:
        named = ", ".join(path.name for path in foreign)
        raise LabkitError(
            f"the run would replace files in {out} that were edited, or that labkit did not write: {named}. Move them "
            "to another place, or choose another folder for the run."
        )
    try:
        notebooks = [out / path.name for path in paths]
        for path in (report, index, *notebooks, *(path.with_suffix(".html") for path in notebooks)):
            if path.exists():
                expect_writable(path)
    except OSError as error:
        raise DataError(f"the run cannot be written to {out} ({error}). Choose another folder.") from error


def _is_as_written(executed: Path, source: Path) -> bool:
    """Whether there is no notebook, or one that a run wrote and nobody edited since (outputs do not count)."""
    if not os.path.lexists(executed):
        return True
    try:
        notebook, shipped = _read_notebook(executed), _read_notebook(source)
        digest, seal = _sources_digest(notebook), notebook.metadata.get("labkit")
        if isinstance(seal, dict):
            return bool(seal.get("sources") == digest)
        return "papermill" in notebook.metadata and digest == _sources_digest(shipped)  # labkit 0.1 left no digest
    except Exception:  # whatever a malformed notebook leads to
        return False


def _is_report(path: Path) -> bool:
    """Whether there is a results.json of labkit."""
    try:
        with open_regular(path) as file:
            validate_results(json.load(file))
    except (OSError, ValueError, RecursionError):  # DataError is a ValueError
        return False
    return True


def _read_notebook(path: Path) -> Any:
    """A notebook; None where there is none that can be read."""
    try:
        with open_regular(path) as file:
            return nbformat.reads(file.read().decode(), as_version=4)
    except Exception:  # nbformat raises whatever a malformed notebook leads to
        return None


def _sources_digest(notebook: Any) -> str:
    """SHA-256 of what an author writes: types and sources of all cells but those that papermill adds."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells if not _is_added(cell)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _is_added(cell: Any) -> bool:
    return bool({"injected-parameters", "papermill-error-cell-tag"} & set(cell.metadata.get("tags", ())))


# -------------------------------------------------------------------------------------------------------- one notebook


def _run_notebook(path: Path, executed: Path, profile: str, scratch: Path) -> dict[str, Any] | None:
    """Execute one notebook in the folder `scratch`, save it, and say what failed."""
    import papermill

    failure: dict[str, Any] | None = None
    executed.parent.mkdir(exist_ok=True)
    try:
        _check_parameters(path, ("profile",))
        papermill.execute_notebook(
            str(path),
            str(executed),
            parameters={"profile": profile},
            kernel_name="python3",
            cwd=str(scratch),
            progress_bar={"desc": path.stem, "file": sys.stderr},
            kernel_manager_class=_own_kernel(scratch / "results.jsonl"),
            shutdown_kernel="immediate",  # all is recorded by then; its own way out takes seconds
        )
    except Exception as error:  # whatever a notebook does, the others still run
        cell = _last_started(executed)
        name = getattr(error, "ename", type(error).__name__)  # papermill wraps what the cell raised
        message = getattr(error, "evalue", str(error)).strip()
        failure = {"notebook": path.stem, "cell": cell, "error": f"{name}: {message}" if message else name}
        logger.warning("%s failed in cell %s: %s", path.stem, cell, failure["error"])
    return failure


def _publish(executed: Path, out: Path) -> bool:
    """Put an executed notebook into `out`, with the digest that shows whether somebody edits it; whether it began."""
    notebook, target = _read_notebook(executed), out / executed.name
    if notebook is None:
        for stale in (target.with_suffix(".html"), target):  # a page without its notebook would be a stranger's
            stale.unlink(missing_ok=True)
        return False
    notebook.metadata["labkit"] = {"sources": _sources_digest(notebook)}
    with atomic_write(target) as temporary:
        nbformat.write(notebook, temporary)
    return True


def _check_parameters(path: Path, expected: Iterable[str]) -> None:
    """Refuse a notebook that would ignore a parameter: papermill only warns."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", ())]
    if not cells:
        raise LabkitError('no cell is tagged "parameters"')
    assigned = {node.id for node in ast.walk(ast.parse(cells[0].source)) if isinstance(node, ast.Name)}
    for name in expected:
        if name not in assigned:
            raise LabkitError(f'the cell tagged "parameters" does not set `{name}`')


def _own_kernel(results_path: Path) -> type:
    """A kernel manager whose kernel is this very interpreter and whose notebooks record to `results_path`."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    env = kernel_environment(results_path)
    env["TMPDIR"] = str(results_path.parent)  # a notebook's temporary folders, which its kernel has no time to remove
    quiet = ["--log-level=40"]  # without notes for administrators
    spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict(quiet) | {"env": env})

    class OwnKernel(AsyncKernelManager):
        kernel_spec = spec  # no look-up by name, so a stray "python3" on the machine cannot win

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.connection_file = str(results_path.with_name(f"{uuid.uuid4().hex}.json"))  # goes with the folder

    return OwnKernel


def _code_cells(notebook: Any) -> list[Any]:
    """The author's code cells of an executed notebook, without the one that papermill adds."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not _is_added(cell)]


def _last_started(executed: Path) -> int | None:
    """Number, from 1, of the code cell that ran last: papermill stops at the first that fails."""
    notebook = _read_notebook(executed)
    cells = [] if notebook is None else _code_cells(notebook)
    started = [i for i, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    return started[-1] if started else None


def _timings(executed: Path) -> dict[str, Any]:
    notebook = _read_notebook(executed)
    if notebook is None:  # it never began
        return {"seconds": 0.0, "cells": []}
    seconds = notebook.metadata.get("papermill", {}).get("duration") or 0.0
    cells = [cell.metadata.get("papermill", {}).get("duration") for cell in _code_cells(notebook)]
    return {"seconds": round(seconds, 3), "cells": [None if s is None else round(s, 3) for s in cells]}


def _missed(band: dict[str, Any]) -> dict[str, Any]:
    value = "not finite" if band["value"] is None else f"{band['value']:.4f}"
    error = f"band {band['name']!r}: {value} is outside {band['low']} to {band['high']}"
    return {"notebook": band["notebook"], "cell": None, "error": error}


# ------------------------------------------------------------------------------------------------------ what is written


def _environment(profile: str) -> dict[str, Any]:
    from labkit.devices import cpu_count, pick_device

    device = pick_device()
    name = str(device)
    if device.type == "cuda":
        import torch

        name += f" ({torch.cuda.get_device_name(device)})"
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed, or an optional package
            continue
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": cpu_count(),
        "device": name,
        "profile": profile,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Commit of the checkout that labkit runs from; None for an installed package."""
    if not (PACKAGE_DIR.parent / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE_DIR.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def validate_results(report: dict[str, Any]) -> None:
    """Check what results.json holds against results.schema.json.

    Raises:
        DataError: it does not fit; the message names the place.
    """
    import jsonschema

    schema = json.loads(importlib.resources.files("labkit.course").joinpath("results.schema.json").read_text("utf-8"))
    try:
        jsonschema.validate(report, schema)
    except jsonschema.ValidationError as error:
        raise DataError(f"results.json would not fit its schema at {error.json_path}: {error.message}.") from error


def _write_results(path: Path, report: dict[str, Any]) -> None:
    validate_results(report)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _write_html(executed: Path) -> None:
    """The executed notebook as a page; alt texts go into the <img> elements, which nbconvert leaves without."""
    notebook = nbformat.read(executed, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt and "image/png" in output.get("data", {}):
            png = base64.b64encode(base64.b64decode(output.data["image/png"])).decode()  # without line breaks
            output.data = {"text/html": f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'}
    badge = re.compile(r"!\[([^]]*)\]\([^)]*badge\.svg\)")  # from the network, so the words in its place
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = badge.sub(r"\1", cell.source)
    page, _ = _exporter().from_notebook_node(notebook, {"metadata": {"name": executed.stem}})
    page = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', page)  # to the page of another notebook
    with atomic_write(executed.with_suffix(".html")) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # an output may hold odd bytes


@functools.cache
def _exporter() -> HTMLExporter:
    """nbconvert's, with pages that need no network: formulas as MathML in place of MathJax, and no scripts."""
    import jinja2
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return str(convert(body))

        def block_math(self, body: str) -> str:
            return str(convert(body, display="block"))

    template = """{% extends "lab/index.html.j2" %}
    {% block html_head_js_requirejs %}{% endblock %}{% block html_head_js_mathjax %}{% endblock %}"""
    exporter = HTMLExporter(extra_loaders=[jinja2.DictLoader({"page.html.j2": template})], template_file="page.html.j2")
    exporter.register_filter(
        "markdown2html", lambda source: MarkdownWithMath(renderer=Renderer(escape=False)).render(source)
    )
    return exporter


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #d5d5d5; text-align: left; }
th { border-bottom: 2px solid #555; }
.bad { color: #a3140a; font-weight: 600; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
"""


def _write_page(out: Path, report: dict[str, Any]) -> None:
    """index.html: verdict, results, bands and timings with links to the executed notebooks, in one file."""
    import pandas as pd

    from labkit import plots

    def table(frame: pd.DataFrame, **options: Any) -> str:
        return f'<div class="wide">{frame.to_html(index=False, border=0, na_rep="", **options)}</div>'

    facts = report["environment"]
    failures, failed = report["failures"], {failure["notebook"] for failure in report["failures"]}
    parts = [f"<h1>labkit: {len(report['timings'])} notebooks, profile {report['profile']}</h1>"]
    details = [facts["system"], f"{facts['cpus']} CPUs", f"device {facts['device']}", f"Python {facts['python']}"]
    details += [f"{package} {version}" for package, version in facts["packages"].items()]
    details += [f"revision {facts['git_revision']}"] if facts["git_revision"] else []
    parts.append(f"<p>{html.escape(report['created'])} · {html.escape(' · '.join(details))}</p>")
    if failures:
        items = "".join(f"<li>{html.escape(describe_failure(failure))}</li>" for failure in failures)
        parts.append(f'<p class="bad">{len(failures)} failed:</p><ul>{items}</ul>')
    else:
        parts.append("<p>All notebooks ran to the end, and every band was met.</p>")
    rows = pd.DataFrame(report["results"], columns=list(ROW_KEYS))
    parts.append("<h2>Notebooks</h2><p>Each was run from its first cell to its last; the links lead to the pages.</p>")
    lines = []
    for name, timing in report["timings"].items():
        slowest = max((s or 0.0, i) for i, s in enumerate([*timing["cells"], 0.0], 1))
        title = html.escape(_title(out / f"{name}.ipynb"))
        lines.append(
            {
                "notebook": (
                    f'<a href="{urllib.parse.quote(os.fsencode(name))}.html">{title}</a>'
                    if (out / f"{name}.html").exists()
                    else title
                ),
                "verdict": '<span class="bad">failed</span>' if name in failed else "ok",
                "seconds": f"{timing['seconds']:.1f}",
                "slowest code cell": f"{slowest[0]:.1f} s (cell {slowest[1]})" if timing["cells"] else "",
            }
        )
    parts.append(table(pd.DataFrame(lines), escape=False))
    parts.append(
        "<h2>Results</h2><p><em>Value</em>: mean and standard deviation over seeds. <em>Notes</em>: whether the method "
        "saw labels when it was fitted (every row is evaluated with them), whether it is the one run that was chosen "
        "without labels, and whether the pretraining of a model saw unlabeled images of the dataset.</p>"
    )
    if not len(rows):
        parts.append("<p>No notebook recorded a result.</p>")
    is_accuracy = rows["metric"] == "accuracy"
    for (dataset, split), group in rows[is_accuracy].groupby(["dataset", "split"], sort=False):
        title = f"{dataset}, accuracy on the {split} split"
        png = base64.b64encode(plots.to_png(plots.results_bars(group))).decode()
        alt = f"Bars of {title}: the numbers of the table below."
        parts.append(f"<h3>{html.escape(title)}</h3>")
        parts.append(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">')
        parts.append(table(summarize(group).drop(columns=["dataset", "split", "metric"])))
    if not is_accuracy.all():
        parts.append(f"<details><summary>Other metrics</summary>{table(summarize(rows[~is_accuracy]))}</details>")
    if report["bands"]:
        bands = pd.DataFrame(report["bands"]).drop(columns="profile")
        parts.append(
            "<h2>Bands</h2><p>What the notebooks' text rests on: on any machine a value must lie within its band.</p>"
            f"<details><summary>All {len(bands)} bands</summary>{table(bands, float_format='{:.4g}'.format)}</details>"
        )
    body = re.sub(r"<th>", '<th scope="col">', "\n".join(parts))
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>labkit results, {report['profile']}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
    with atomic_write(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # a name may hold odd bytes


def _title(executed: Path) -> str:
    """The first heading of a notebook, or its name."""
    notebook = _read_notebook(executed)
    lines = notebook.cells[0].source.splitlines() if notebook is not None and notebook.cells else []
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else executed.stem


def describe_failure(failure: dict[str, Any]) -> str:
    """One line about a failure: notebook, cell and error."""
    cell = f", code cell {failure['cell']}" if failure["cell"] else ""
    return f"{failure['notebook']}{cell}: {failure['error']}"
