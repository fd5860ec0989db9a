"""The series runner on tiny notebooks: one good, and others that fail in every way that notebooks do."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labkit._files import PACKAGE_DIR, locked_folder
from labkit.course import execution, notebook_files, pages, series
from labkit.course.report import describe_failure, new_report, validate_results
from labkit.errors import DataError, LabkitError

PARAMETERS = 'profile = "auto"'
LAB = """
import os, sys
from pathlib import Path
from labkit.course.profiles import PROFILES
from labkit.course.setup import Lab, show
lab = Lab(PROFILES[profile], "cpu", {notebook!r}, Path(os.environ["LABKIT_RESULTS"]))
"""
GOOD = [
    f"assert sys.executable == {sys.executable!r}\nassert Path.cwd() != Path({str(Path.cwd())!r})",
    'lab.record(dataset="digits", split="test", method="k-means", spaces=["pixels"], metric="nmi", value=0.5, seed=3)',
    'lab.band("k-means", 0.5, 0.4, 0.6)',
    "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()",
    'show(figure, alt="An empty <plot> & nothing else.")',
]


HEAD = """# About {name}

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://example.org) [next](04_good.ipynb)

$\\tau_k$ is a labeling.

$$\\frac{{a}}{{b}}$$"""


def write_notebook(folder: Path, name: str, sources: list[str], parameters: str = PARAMETERS) -> Path:
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    codes = [new_code_cell(source) for source in [LAB.format(notebook=name), *sources]]
    notebook = new_notebook(cells=[new_markdown_cell(HEAD.format(name=name)), first, *codes])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def write_executed(out: Path, name: str) -> Path:
    """A notebook as a run leaves it, or nearly so."""
    path = write_notebook(out, name, ["1 + 1"])
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["labkit"] = {"sources": notebook_files.sources_digest(notebook)}
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report and the folder of one run over good and bad notebooks, on a machine with a broken python3 kernel."""
    folder, out = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("out")
    write_notebook(folder, "01_raises", ["1 + 1", 'raise ValueError("boom")', "2 + 2"])
    write_notebook(folder, "02_ignores_profile", [], parameters="prof = 1")
    write_notebook(folder, "03_dies", ["os._exit(1)"])
    write_notebook(folder, "04_good", GOOD)
    write_notebook(folder, "05_outside", ['lab.band("accuracy", 0.2, 0.7, 0.8)'])
    (folder / "06_broken.ipynb").write_text("{")
    write_executed(out, "06_broken")  # of an earlier run
    (out / "06_broken.html").write_text("of an earlier run")
    stray = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    stray.mkdir(parents=True)
    (stray / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "stray", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(stray.parents[1]))
        return series.run_series(out, profile="pocket", notebooks=folder), out


def test_failures_are_named_and_do_not_hide_the_others(run: tuple[dict[str, Any], Path]) -> None:
    report, _ = run
    failures = {failure.pop("notebook"): failure for failure in copy.deepcopy(report["failures"])}
    assert failures["01_raises"] == {"cell": 4, "error": "ValueError: boom"}
    assert "does not set `profile`" in failures["02_ignores_profile"]["error"]
    assert failures["03_dies"]["cell"] == 3
    assert failures["03_dies"]["error"].startswith("DeadKernelError")
    assert failures["05_outside"]["error"] == "band 'accuracy': 0.2000 is outside 0.7 to 0.8"
    assert failures["06_broken"]["cell"] is None
    assert "04_good" not in failures
    assert describe_failure(report["failures"][0]) == "01_raises, code cell 4: ValueError: boom"


def test_results_of_the_others_are_kept(run: tuple[dict[str, Any], Path]) -> None:
    report, out = run
    assert json.loads((out / "results.json").read_text()) == report
    validate_results(report)
    [row] = report["results"]
    assert row == {
        "notebook": "04_good", "dataset": "digits", "split": "test", "method": "k-means", "variant": "",
        "spaces": ["pixels"], "metric": "nmi", "value": 0.5, "seed": 3, "selected_without_labels": False,
        "labels_used": False, "seconds": None, "profile": "pocket",
    }  # fmt: skip
    assert [band["verdict"] for band in report["bands"]] == ["within", "outside"]
    assert report["environment"]["profile"] == "pocket"
    assert "torch" in report["environment"]["packages"]


def test_timings(run: tuple[dict[str, Any], Path]) -> None:
    timings = run[0]["timings"]
    assert len(timings["04_good"]["cells"]) == 2 + len(GOOD)
    assert timings["04_good"]["seconds"] >= sum(timings["04_good"]["cells"]) - 0.1
    assert [seconds is None for seconds in timings["01_raises"]["cells"]] == [False] * 4 + [True]
    assert timings["06_broken"] == {"seconds": 0.0, "cells": []}


def test_pages(run: tuple[dict[str, Any], Path]) -> None:
    _, out = run
    page = (out / "index.html").read_text()
    assert "5 failed" in page
    assert 'href="04_good.html"' in page
    assert 'href="06_broken.html"' not in page
    assert not (out / "06_broken.html").exists()
    assert not (out / "06_broken.ipynb").exists()
    assert "01_raises, code cell 4: ValueError: boom" in page
    assert not re.search(r'(src|href)="https?:', page)
    assert '<a href="04_good.html">About 04_good</a>' in page
    notebook = (out / "04_good.html").read_text()
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)=["']https?:""", notebook)
    assert ">Open in Colab</a>" in notebook
    assert notebook.count("<math") == 2
    assert "<mfrac>" in notebook
    assert '<img alt="An empty &lt;plot&gt; &amp; nothing else." src="data:image/png;base64,' in notebook
    assert "ValueError" in (out / "01_raises.html").read_text()
    assert 'href="04_good.html"' in notebook  # pages lead to pages
    assert 'href="04_good.ipynb"' not in notebook
    assert not [path.name for path in out.glob("*.html") if "<script" in path.read_text()]


def test_the_index_shows_every_text_as_text(tmp_path: Path) -> None:
    odd = """<script>alert("1") 'x' & <title>"""
    notebook = new_notebook(cells=[new_markdown_cell(f"# {odd}")])
    nbformat.write(notebook, tmp_path / "01_odd.ipynb")
    (tmp_path / "01_odd.html").write_text("")
    report = new_report("pocket")
    report["environment"]["device"] = odd
    report["timings"] = {"01_odd": {"seconds": 1.0, "cells": [0.25, None, 0.5]}, odd: {"seconds": 0.0, "cells": []}}
    report["failures"] = [{"notebook": odd, "cell": 1, "error": f"ValueError: {odd}"}]
    row = {
        "notebook": odd, "dataset": odd, "split": odd, "method": odd, "variant": odd, "spaces": [odd], "value": 0.5,
        "seed": None, "selected_without_labels": False, "labels_used": False, "seconds": None, "profile": "pocket",
    }  # fmt: skip
    report["results"] = [{**row, "metric": metric} for metric in ("accuracy", "nmi")]
    report["bands"] = [
        {
            "notebook": odd,
            "name": odd,
            "value": value,
            "low": 0.0,
            "high": 0.123456,
            "verdict": odd,
            "profile": "pocket",
        }
        for value in (0.25, None)
    ]
    pages.write_index(tmp_path, report)
    page = (tmp_path / "index.html").read_text()
    shown = html.escape(odd).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    assert "<script" not in page
    assert page.count("<title>") == 1
    assert f'<a href="01_odd.html">{shown}</a></td>\n<td>ok</td>\n<td>1.0</td>\n<td>0.5 s (cell 3)</td>' in page
    assert f'<td>{shown}</td>\n<td><span class="bad">failed</span></td>\n<td>0.0</td>\n<td></td>' in page
    assert f'<img alt="Bars of {shown}, accuracy on the {shown} split: the numbers of the table below."' in page
    assert "<td>0.25</td><td>0</td><td>0.1235</td>" in page
    assert "<td></td><td>0</td><td>0.1235</td>" in page  # a value that was not finite
    assert {"All 2 bands", "Other metrics"} <= set(re.findall("<summary>(.*)</summary>", page))


def test_every_dataset_has_its_bars_and_its_table(tmp_path: Path) -> None:
    record = (
        'lab.record(dataset={!r}, split="test", method="turtle", spaces=["hog"], metric="accuracy", value={}, seed=0)'
    )
    write_notebook(tmp_path, "01_two", [record.format("digits", 0.961), record.format("fashion-mini", 0.629)])
    series.run_series(tmp_path / "out", profile="pocket", notebooks=tmp_path)
    page = (tmp_path / "out" / "index.html").read_text()
    sections = page.split("<h3>")[1:]
    assert [section.split("</h3>")[0] for section in sections] == [
        "digits, accuracy on the test split", "fashion-mini, accuracy on the test split"
    ]  # fmt: skip
    for section, value in zip(sections, ("96.1", "62.9"), strict=True):
        assert section.count('src="data:image/png;base64,') == section.count("<table") == 1
        assert f"<td>{value}</td>" in section


def test_bands_are_no_failure_under_other_profiles(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_outside", ['lab.band("accuracy", 0.2, 0.7, 0.8)'])
    report = series.run_series(tmp_path / "out", profile="standard", notebooks=tmp_path, only=["1"])
    assert report["failures"] == []
    assert report["bands"][0]["verdict"] == "no band"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "every band was met" in page
    assert "No notebook recorded a result" in page


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path, name, [])

    def run_notebook(path: Path, *args: Any) -> dict[str, Any]:
        if path.stem == "02_b":
            raise KeyboardInterrupt
        return {"notebook": path.stem, "cell": None, "error": "as if"}

    monkeypatch.setattr(execution, "execute_notebook", run_notebook)
    with pytest.raises(KeyboardInterrupt):
        series.run_series(tmp_path / "out", notebooks=tmp_path)
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [failure["notebook"] for failure in report["failures"]] == ["01_a"]


def test_a_notebook_whose_name_is_not_utf8_fails_in_one_line_and_has_its_place_in_the_page(tmp_path: Path) -> None:
    name = os.fsdecode(b"01_caf\xe9")
    write_notebook(tmp_path, "01_cafe", []).rename(tmp_path / f"{name}.ipynb")
    report = series.run_series(tmp_path / "out", notebooks=tmp_path)
    assert [failure["notebook"] for failure in report["failures"]] == [name]
    assert "01_caf" in (tmp_path / "out" / "index.html").read_bytes().decode()


def test_a_disk_that_is_full_costs_no_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(tmp_path, "01_a", [])
    out = tmp_path / "out"
    series.run_series(out, notebooks=tmp_path)
    before = snapshot(out)

    def full(path: Path) -> None:
        raise OSError("No space left on device")

    for module in ("course.notebook_files", "_pages", "course.report"):
        monkeypatch.setattr(f"labkit.{module}.atomic_write", full)
    with pytest.raises(DataError, match="No space left on device"):
        series.run_series(out, notebooks=tmp_path)
    assert snapshot(out) == before


def test_find_notebooks(tmp_path: Path) -> None:
    with pytest.raises(LabkitError, match="no notebooks named"):
        series.find_notebooks(tmp_path)
    for name in ("02_b.ipynb", "00_a.ipynb", "draft.ipynb"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in series.find_notebooks(tmp_path)] == ["00_a.ipynb", "02_b.ipynb"]
    assert [path.name for path in series.find_notebooks(tmp_path, ["2"])] == ["02_b.ipynb"]
    with pytest.raises(LabkitError, match=r"no notebook 07\. Expected some of: 00, 02"):
        series.find_notebooks(tmp_path, ["02", "07"])


def test_bad_arguments_leave_nothing_behind(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_a", [])
    with pytest.raises(LabkitError, match="Expected one of pocket"):
        series.run_series(tmp_path / "out", profile="huge", notebooks=tmp_path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        series.run_series(tmp_path / "file" / "out", notebooks=tmp_path)


def test_results_never_replace_the_notebooks(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "01_good", [])
    before = path.read_bytes()
    with pytest.raises(LabkitError, match=r"would replace the notebooks in .*Expected another folder"):
        series.run_series(tmp_path / "here" / "..", notebooks=tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_page_that_cannot_be_written_is_an_error_but_costs_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_page(path: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pages, "write_notebook_page", write_page)
    write_notebook(tmp_path, "01_good", GOOD[1:3])
    out = tmp_path / "out"
    with pytest.raises(DataError, match="disk full"):
        series.run_series(out, profile="pocket", notebooks=tmp_path)
    assert len(json.loads((out / "results.json").read_text("utf-8"))["results"]) == 1
    assert (out / "index.html").exists()


def test_the_schema_refuses_what_is_wrong(run: tuple[dict[str, Any], Path]) -> None:
    import jsonschema

    path = Path(series.__file__).with_name("results.schema.json")
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text("utf-8")))
    for change in ({"value": 72}, {"method": "guess"}, {"extra": 1}, {"spaces": "pixels"}):
        report = copy.deepcopy(run[0])
        report["results"][0].update(change)
        with pytest.raises(DataError, match=r"schema at \$\.results\[0\]"):
            validate_results(report)


def test_kernels_are_headless_and_the_tests_of_stored_outputs_also_offline_and_without_a_gpu(tmp_path: Path) -> None:
    plain = execution.kernel_environment(tmp_path / "r.jsonl")
    alike = execution.kernel_environment(tmp_path / "r.jsonl", alike_everywhere=True)
    assert plain["LABKIT_RESULTS"] == str(tmp_path / "r.jsonl")
    assert plain["LABKIT_HEADLESS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in plain  # a run of the series uses the GPU that is there
    assert plain.items() <= alike.items()
    assert (alike["CUDA_VISIBLE_DEVICES"], alike["HF_HUB_OFFLINE"], alike["LABKIT_PROFILE"]) == ("", "1", "pocket")


# ---------------------------------------------------------------------------------------- what somebody wrote or edited


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def edit(path: Path, source: str = "my own solution") -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = source
    nbformat.write(notebook, path)


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every notebook ended at once with an error, before its first cell."""
    monkeypatch.setattr(execution, "execute_notebook", lambda path, *args: None)


@pytest.mark.parametrize("notebook", ["01_a", "02_b"])
def test_notebooks_that_somebody_edited_stop_the_run_before_it_begins(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path, name, ["1 + 1", "1 / 0"] if name == "02_b" else ["1 + 1"])
    out = tmp_path / "out"
    series.run_series(out, notebooks=tmp_path)
    written = nbformat.read(out / "02_b.ipynb", as_version=4)
    assert any("papermill-error-cell-tag" in cell.metadata.get("tags", ()) for cell in written.cells)
    for cell in written.cells:  # run again in JupyterLab, which is no edit
        cell.pop("outputs", None) if cell.cell_type == "markdown" else cell.update(outputs=[], execution_count=None)
    nbformat.write(written, out / "02_b.ipynb")
    series.run_series(out, notebooks=tmp_path)
    edit(out / f"{notebook}.ipynb")
    before = snapshot(out)
    monkeypatch.setattr(execution, "execute_notebook", None)
    with pytest.raises(LabkitError, match=rf"edited.*: {notebook}\.ipynb\. Move them"):
        series.run_series(out, notebooks=tmp_path)
    assert snapshot(out) == before


def test_other_notebooks_may_run_beside_an_edited_one(tmp_path: Path, no_run: None) -> None:
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path, name, [])
    out = tmp_path / "out"
    out.mkdir()
    edit(write_executed(out, "01_a"))
    (out / "notes.txt").write_text("mine")
    before = snapshot(out)
    series.run_series(out, notebooks=tmp_path, only=["02"])
    assert before.items() <= snapshot(out).items()


FOREIGN = {
    "a copy": ("01_a.ipynb", None),
    "no notebook": ("01_a.ipynb", "{"),
    "no cells": ("01_a.ipynb", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}'),
    "odd tags": (
        "01_a.ipynb",
        '{"nbformat": 4, "nbformat_minor": 4, "metadata": {"papermill": {}}, "cells": [{"cell_type": "raw", "source": '
        '"", "metadata": {"tags": 3}}]}',
    ),
    "not UTF-8": ("01_a.ipynb", b"\xff\xfe"),
    "a page": ("01_a.html", "<p>mine"),
    "an index": ("index.html", "<p>mine"),
    "other results": ("results.json", '{"mine": 1}'),
    "results of a list": ("results.json", "[]"),
    "half of results": ("results.json", '{"schema": 1, '),
}


@pytest.mark.parametrize("case", [*FOREIGN, "pipe", "folder"])
def test_files_that_labkit_did_not_write_stop_the_run(case: str, tmp_path: Path, no_run: None) -> None:
    source = write_notebook(tmp_path, "01_a", [])
    out = tmp_path / "out"
    out.mkdir()
    name, content = FOREIGN.get(case, ("01_a.ipynb", None))
    if case == "pipe":
        os.mkfifo(out / name)
    elif case == "folder":
        (out / name).mkdir()
    elif content is None:
        (out / name).write_bytes(source.read_bytes())
    else:
        (out / name).write_bytes(content.encode() if isinstance(content, str) else content)
    before = snapshot(out) if case != "pipe" else None
    with pytest.raises(LabkitError, match=f"labkit did not write: {re.escape(name)}\\. Move them"):
        series.run_series(out, notebooks=tmp_path)
    assert case == "pipe" or snapshot(out) == before


@pytest.mark.parametrize("edited", [False, True])
def test_a_run_of_labkit_0_1_is_replaced_where_nobody_edited_it(edited: bool, tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_a", ["1 + 1"])
    out = tmp_path / "out"
    series.run_series(out, notebooks=tmp_path)
    notebook = nbformat.read(out / "01_a.ipynb", as_version=4)
    del notebook.metadata["labkit"]
    nbformat.write(notebook, out / "01_a.ipynb")
    if edited:
        edit(out / "01_a.ipynb")
        with pytest.raises(LabkitError, match=r"edited.*01_a\.ipynb"):
            series.run_series(out, notebooks=tmp_path)
    else:
        assert series.run_series(out, notebooks=tmp_path)["failures"] == []


def test_what_may_not_be_replaced_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(tmp_path, "01_a", [])
    out = tmp_path / "out"
    out.mkdir()
    write_executed(out, "01_a").chmod(0o400)
    monkeypatch.setattr(execution, "execute_notebook", None)
    with pytest.raises(DataError, match="read-only"):
        series.run_series(out, notebooks=tmp_path)


# ------------------------------------------------------------------------------------------------- several, and killed


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(tmp_path, "01_a", [])
    monkeypatch.setattr(execution, "execute_notebook", None)
    with (
        locked_folder(tmp_path / "out", wait=False),
        pytest.raises(DataError, match=r"another run writes to .*Wait for its end, or choose another folder"),
    ):
        series.run_series(tmp_path / "out", notebooks=tmp_path)


def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebooks, out, temporary = tmp_path / "notebooks", tmp_path / "out", tmp_path / "tmp"
    notebooks.mkdir()
    temporary.mkdir()
    write_notebook(notebooks, "01_good", GOOD[1:3])
    wait = write_notebook(notebooks, "02_waits", ["Path('began').touch()\nimport time\ntime.sleep(600)"])
    code = "import sys\nfrom labkit.course.series import run_series\nrun_series(sys.argv[1], notebooks=sys.argv[2])"
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(PACKAGE_DIR.parent)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(out), str(notebooks)], env=environment, stdout=log, stderr=log
        )
        try:
            until = time.monotonic() + 120
            while not list(temporary.glob("labkit-*/began")) and time.monotonic() < until:
                time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert list(temporary.glob("labkit-*/began")), (tmp_path / "log").read_text()
    assert len(json.loads((out / "results.json").read_text())["results"]) == 1
    wait.unlink()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    report = series.run_series(out, notebooks=notebooks)
    assert report["failures"] == []
    assert len(report["results"]) == 1
    assert not list(temporary.glob("labkit-*"))
    assert {path.name for path in out.iterdir() if path.name != ".labkit-lock"} == {
        "01_good.ipynb", "01_good.html", "index.html", "results.json"
    }  # fmt: skip


def test_a_killed_test_of_the_notebooks_leaves_nothing_that_the_next_one_does_not_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = PACKAGE_DIR.parent / "notebooks" / "conftest.py"
    code = (
        f"import importlib.util, os, types\nspec = importlib.util.spec_from_file_location('c', {str(path)!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nends = []\n"
        "option = types.SimpleNamespace(nbval=True, nbval_sanitize_with=None, nbval_kernel_name=None)\n"
        "module.pytest_configure(types.SimpleNamespace(option=option, add_cleanup=ends.append))\n"
        "print(os.environ['LABKIT_RESULTS'])\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    for end, left in (("os._exit(0)", 1), ("[end() for end in ends]", 0)):
        command = [sys.executable, "-c", f"{code}import sys; sys.stdout.flush(); {end}"]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert said.startswith(str(tmp_path / "labkit-nbval-"))
        assert len(list(tmp_path.iterdir())) == left
