"""What tests of exercises share: an answer is the registered reference, or what a notebook's solution defines."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.course.exercises import get
from tests.notebooks.test_exercises_in_notebooks import find


def solution(exercise_id: str) -> Any:
    there = find(exercise_id)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(f"{there.imports}\n{there.solution}", names)
    return eval(there.attempt, names)


@pytest.fixture(params=["reference", "solution"])
def answer(request: pytest.FixtureRequest) -> Any:
    """The registered reference of an exercise, or what its notebook's folded solution defines, by id."""
    return solution if request.param == "solution" else lambda exercise_id: get(exercise_id).reference
