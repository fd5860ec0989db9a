"""Every exercise as it stands in its notebook: the stub is not attempted, the folded solution passes.

An exercise in a notebook is a code cell with `lk.check("02.1", attempt)`, where the attempt is defined in the same cell
or in one above, and a markdown cell with `<details><summary>Solution 02.1</summary>` and a fenced python block. Both
must work with nothing but the notebook's imports.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest

from labkit.course.exercises import Exercise, all_exercises

mpl.use("agg")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = {path.name[:2]: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}
EXERCISES = [exercise for exercise in all_exercises() if exercise.id[:2] in PATHS]


@dataclass
class InNotebook:
    """Where an exercise stands: imports above it, the cells of its stub and check, what that printed, its solution."""

    imports: str
    stub: str
    attempt: str
    stored: str
    solution: str


@functools.cache
def cells(number: str) -> list[Any]:
    return list(nbformat.read(PATHS[number], as_version=4).cells)


def find(exercise_id: str) -> InNotebook:
    number = exercise_id[:2]
    code = [cell for cell in cells(number) if cell.cell_type == "code" and "colab" not in cell.metadata.get("tags", [])]
    [at] = [i for i, cell in enumerate(code) if f'lk.check("{exercise_id}"' in cell.source]
    calls = [node for node in ast.walk(ast.parse(code[at].source)) if isinstance(node, ast.Call)]
    [call] = [node for node in calls if ast.unparse(node).startswith(f"lk.check('{exercise_id}'")]
    attempt = ast.unparse(call.args[1])
    name = attempt.split(".")[0].split("(")[0]
    defined = next((i for i in range(at, -1, -1) if name in defines(code[i].source)), at)
    stub = code[at].source if defined == at else f"{code[defined].source}\n{code[at].source}"
    tree = [node for cell in code[: at + 1] for node in ast.parse(cell.source).body]
    imports = "\n".join(ast.unparse(node) for node in tree if isinstance(node, ast.Import | ast.ImportFrom))
    stored = "".join(output.get("text", "") for output in code[at].outputs)
    solutions = [
        cell.source
        for cell in cells(number)
        if cell.cell_type == "markdown" and f"<summary>Solution {exercise_id}</summary>" in cell.source
    ]
    assert len(solutions) == 1, f"{len(solutions)} folded solutions of {exercise_id}"
    after = solutions[0].split(f"<summary>Solution {exercise_id}</summary>")[1].split("</details>")[0]
    blocks = re.findall(r"```python\n(.*?)```", after, re.DOTALL)
    assert blocks, f"the solution of {exercise_id} has no fenced python block"
    return InNotebook(imports, stub, attempt, stored, "\n".join(blocks))


def defines(source: str) -> set[str]:
    """Names that a cell binds at its top level."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_stub_is_not_attempted(exercise: Exercise) -> None:
    there = find(exercise.id)
    verdict = f"Exercise {exercise.id}: not attempted yet"
    assert verdict in there.stored
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(f"{there.imports}\n{there.stub}", {"__name__": "__main__"})
    assert verdict in printed.getvalue()


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_folded_solution_passes(exercise: Exercise) -> None:
    there = find(exercise.id)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(f"{there.imports}\n{there.solution}", names)
    assert exercise.grade(eval(there.attempt, names)) == f"Exercise {exercise.id}: correct"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_each_mistake_is_named(exercise: Exercise) -> None:
    assert len(exercise.mistakes) >= 3
    for message, mistake in exercise.mistakes.items():
        assert exercise.grade(mistake) == f"Exercise {exercise.id}: not yet. {message}"


@pytest.mark.parametrize("number", list(PATHS))
def test_notebook_and_registry_have_the_same_exercises(number: str) -> None:
    code = "\n".join(cell.source for cell in cells(number) if cell.cell_type == "code")
    registered = [exercise.id for exercise in EXERCISES if exercise.id.startswith(number)]
    assert sorted(re.findall(r'lk\.check\("([^"]+)"', code)) == sorted(registered)
