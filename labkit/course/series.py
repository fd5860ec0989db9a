"""The series runner: every notebook through papermill, and one page and one file of results, timings and failures."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit._files import expect_writable, locked_folder, shipped_dir, temporary_folder, user_path
from labkit.course import execution, pages
from labkit.course.notebook_files import is_unedited, publish
from labkit.course.profiles import pick_profile
from labkit.course.report import is_report, missed_band, new_report, write_report
from labkit.course.results import read_results
from labkit.errors import DataError, LabkitError


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
    is written atomically, and what a killed run left is removed by the next.

    Args:
        out: folder for the results; files of an earlier run are replaced, but nothing that somebody edited.
        profile: "pocket", "photos", "standard", "paper" or "auto".
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
    out = Path(os.path.realpath(user_path(out)))  # which also resolves a link to itself
    if out == paths[0].parent.resolve():
        raise LabkitError(f"the results would replace the notebooks in {out}. Expected another folder for them.")
    expect_replaceable(out, paths)
    report = new_report(name)
    try:
        with (
            locked_folder(out, wait=False),
            _scratch_folder() as scratch,
            concurrent.futures.ThreadPoolExecutor(1) as writer,
        ):
            written = []
            for path in paths:
                executed, published = scratch / "executed" / path.name, out / path.name
                failure = execution.execute_notebook(path, executed, name, scratch)
                report["failures"] += [failure] if failure else []
                report["timings"][path.stem] = execution.timings(executed)
                report["results"], report["bands"] = read_results(scratch / "results.jsonl")
                if publish(executed, published):  # its page is written while the next notebook begins
                    written.append(writer.submit(pages.write_notebook_page, published))
                write_report(out / "results.json", report)
            report["failures"] += [missed_band(band) for band in report["bands"] if band["verdict"] == "outside"]
            write_report(out / "results.json", report)
            concurrent.futures.wait(written)  # the index links to the pages that exist
            pages.write_index(out, report)
            for page in written:
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


# ------------------------------------------------------------------------------------------------ what may be replaced


def expect_replaceable(out: Path, paths: Sequence[Path]) -> None:
    """Refuse to replace what no earlier run wrote, and notebooks that somebody edited since; before any notebook runs.

    Raises:
        LabkitError: there are such files; the message names them.
        DataError: a file may not be written.
    """
    report, index = out / "results.json", out / "index.html"
    foreign = [out / path.name for path in paths if not is_unedited(out / path.name, path)]
    # a page carries no digest: it is an earlier run's where its notebook is
    foreign += [
        page
        for page in [(out / path.name).with_suffix(".html") for path in paths]
        if os.path.lexists(page) and not page.with_suffix(".ipynb").exists()
    ]
    is_ours = is_report(report)
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
