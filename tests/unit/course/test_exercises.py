"""The exercise framework: verdicts on right, wrong, unwritten and broken attempts, and the registry."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

from labkit.course import exercises
from labkit.course.exercises import TODO, Exercise, all_exercises
from labkit.errors import LabkitError

HALF = Exercise(
    id="99.1",
    title="Halve",
    cases=[(4.0,), (np.array([1.0, 2.0]),)],
    reference=lambda x: x / 2,
    mistakes={
        "You doubled.": lambda x: x * 2,
        "You took the root.": np.sqrt,
        "You returned the input.": lambda x: x,
    },
    hints=("a", "b", "c"),
    difficulty=1,
    importance=1,
    minutes=1,
)
VALUE = Exercise(
    id="99.2",
    title="How many?",
    cases=[()],
    reference=lambda: 10,
    mistakes={"From 0.": lambda: 9, "Twice.": lambda: 20, "None at all.": lambda: 0},
    hints=("a", "b", "c"),
    difficulty=1,
    importance=1,
    minutes=1,
)


@pytest.mark.parametrize(
    "attempt", [lambda x: x * 0.5, lambda x: torch.as_tensor(x, dtype=torch.bfloat16) / 2, lambda x: x / 2 + 1e-8]
)
def test_right_answers_of_any_kind_are_correct(attempt: object) -> None:
    assert HALF.grade(attempt) == "Exercise 99.1: correct"


def test_a_stub_is_not_attempted() -> None:
    assert HALF.grade(lambda x: TODO) == HALF.grade(TODO) == "Exercise 99.1: not attempted yet"
    assert VALUE.grade(TODO) == "Exercise 99.2: not attempted yet"
    assert copy.deepcopy(TODO) is TODO is pickle.loads(pickle.dumps(TODO))
    assert repr(TODO) == "TODO"


def test_known_mistakes_are_named() -> None:
    assert HALF.grade(lambda x: 2 * x) == "Exercise 99.1: not yet. You doubled."
    assert VALUE.grade(9) == "Exercise 99.2: not yet. From 0."


def test_other_wrong_answers_show_the_first_case_that_differs() -> None:
    verdict = HALF.grade(lambda x: x / 2 if np.isscalar(x) else x / 3)
    assert verdict.startswith(
        "Exercise 99.1: not yet.\n  called with x=array([1., 2.]) of shape (2,)\n  expected array([0.5, 1. ])"
    )
    assert "got      array([0.3333, 0.6667])" in verdict
    assert VALUE.grade(11) == "Exercise 99.2: not yet.\n  expected 10\n  got      11"


def test_a_wrong_shape_is_wrong_and_shown() -> None:
    verdict = HALF.grade(lambda x: np.asarray(x)[..., None] / 2)
    assert "not yet" in verdict
    assert "of shape (1,)" in verdict


def test_what_an_attempt_raises_is_explained() -> None:
    verdict = HALF.grade(lambda x: x.nonsense)
    assert verdict == (
        "Exercise 99.1: your code raised AttributeError: 'float' object has no attribute 'nonsense'\n"
        "  when called with x=4.0"
    )
    assert "TypeError" in HALF.grade(lambda: 1)


def test_a_forgotten_return_and_a_value_for_a_function() -> None:
    assert "is there a `return`?" in HALF.grade(lambda x: None)
    assert HALF.grade(2.0) == "Exercise 99.1: not yet. Expected a function, got 2.0."


def test_an_attempt_cannot_spoil_the_cases() -> None:
    def spoil(x: np.ndarray | float) -> np.ndarray | float:
        x /= 2  # in place for arrays
        return x

    assert HALF.grade(spoil) == HALF.grade(spoil) == "Exercise 99.1: correct"


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1.0}, {"b": 1}, False),
        ((1, [2, 3]), [1, (2, 3)], True),
        ((1, 2), (1, 2, 3), False),
        ("word", "word", True),
        ("word", "ward", False),
        (None, 0, False),
        (True, np.True_, True),
        (np.nan, np.nan, True),
        (3, "3", False),
        ([1, 2], np.array([1, 2]), True),
        (np.array([1, 2]), [[1, 2], [3]], False),
        ({1, 2}, {2, 1}, True),
        (np.zeros(3), np.zeros((3, 1)), False),
    ],
)
def test_same(expected: object, got: object, same: bool) -> None:
    assert exercises._same(expected, got) is same


def test_registry() -> None:
    ids = [exercise.id for exercise in all_exercises()]
    assert "00.1" in ids
    assert ids == sorted(set(ids))
    assert exercises.get("00.1").title
    with pytest.raises(LabkitError, match=r"no exercise '42\.1'.*00\.1"):
        exercises.get("42.1")


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.id)
def test_every_exercise_keeps_its_promises(exercise: Exercise) -> None:
    assert type(exercise).__module__ == "labkit.course.exercises"
    assert len(exercise.hints) == len(set(exercise.hints)) == 3
    assert len(exercise.mistakes) >= 3
    assert exercise.difficulty in range(1, 6)
    assert exercise.importance in range(1, 6)
    assert exercise.minutes > 0
    assert exercise.grade(exercise.reference).endswith(": correct")
    for message, mistake in exercise.mistakes.items():
        assert exercise.grade(mistake) == f"Exercise {exercise.id}: not yet. {message}"


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.id)
def test_a_nonsense_answer_gets_a_verdict(exercise: Exercise) -> None:
    """Also where the arguments of the case have to be shown."""
    attempt = "nonsense" if list(exercise.cases) == [()] else lambda *arguments: "nonsense"
    verdict = exercise.grade(attempt)
    assert verdict.startswith(f"Exercise {exercise.id}: ")
    assert verdict != f"Exercise {exercise.id}: correct"


def test_an_answer_that_ends_the_program_is_only_wrong() -> None:
    verdict = exercises.get("02.1").grade(lambda *arguments: sys.exit())
    assert "SystemExit" in verdict
