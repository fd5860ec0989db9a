"""Exercises: a task, its reference, known mistakes and three hints; one module a notebook, found by id."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from labkit.errors import LabkitError, quote

__all__ = ["TODO", "Exercise", "all_exercises", "get"]


class _Todo:
    """What a stub returns until it is written."""

    def __repr__(self) -> str:
        return "TODO"

    def __reduce__(self) -> str:
        return "TODO"  # stays the one object when copied or pickled


TODO: Final = _Todo()


@dataclass(frozen=True)
class Exercise:
    """One exercise of the series.

    Attributes:
        id: notebook and number, such as "02.1".
        title: what is asked for, in a few words.
        cases: the arguments of each call that is checked; `[()]` where the answer is a value and not a function.
        reference: a right answer: a function of a case's arguments.
        mistakes: at least three likely wrong answers, each under the sentence that tells the learner what went wrong.
        hints: three, from a nudge to nearly the answer.
        difficulty, importance: 1 to 5.
        minutes: how long it takes most learners.
        observe: turns an attempt, the reference or a mistake into the function that is called, where what it returns is
            not all that counts: its gradient, or what it changes.
    """

    id: str
    title: str
    cases: Sequence[tuple[Any, ...]]
    reference: Callable[..., Any]
    mistakes: Mapping[str, Callable[..., Any]]
    hints: tuple[str, str, str]
    difficulty: int
    importance: int
    minutes: int
    observe: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function

    def grade(self, attempt: Any) -> str:
        """The verdict on an attempt, a function or a plain value; a wrong answer never raises."""
        name = f"Exercise {self.id}"
        if attempt is TODO:
            return f"{name}: not attempted yet"
        wants_value = list(self.cases) == [()]
        if not callable(attempt) and not wants_value:
            return f"{name}: not yet. Expected a function, got {_describe(attempt)}."
        answers = []
        for case in self.cases:
            try:
                answer = self.observe(attempt)(*copy.deepcopy(case)) if callable(attempt) else attempt
            except (Exception, SystemExit) as error:  # whatever a learner's code raises is an answer to explain
                called = "" if wants_value else f"\n  when called with {self._call(case)}"
                return f"{name}: your code raised {type(error).__name__}: {error}{called}"
            if answer is TODO:
                return f"{name}: not attempted yet"
            answers.append(answer)
        expected = self._answers(self.reference)
        wrong = [i for i, answer in enumerate(answers) if not _same(expected[i], answer)]
        if not wrong:
            return f"{name}: correct"
        for message, mistake in self.mistakes.items():
            if all(map(_same, self._answers(mistake), answers)):
                return f"{name}: not yet. {message}"
        i = wrong[0]
        if answers[i] is None:
            return f"{name}: not yet. Your code gives None: is there a `return`?"
        called = "" if wants_value else f"\n  called with {self._call(self.cases[i])}"
        return f"{name}: not yet.{called}\n  expected {_describe(expected[i])}\n  got      {_describe(answers[i])}"

    def _call(self, case: tuple[Any, ...]) -> str:
        """The arguments of a case by their names in the reference, which may have more of them with defaults."""
        names = inspect.signature(self.reference).parameters
        return ", ".join(f"{name}={_describe(value)}" for name, value in zip(names, case, strict=False))

    def _answers(self, function: Callable[..., Any]) -> list[Any]:
        return [
            self.observe(function)(*copy.deepcopy(case)) for case in self.cases
        ]  # a copy: nobody can spoil the cases


def get(exercise_id: str) -> Exercise:
    """The exercise with this id, such as "02.1".

    Raises:
        LabkitError: there is none; the message lists those that there are.
    """
    exercises = {exercise.id: exercise for exercise in all_exercises()}
    if not isinstance(exercise_id, str) or exercise_id not in exercises:
        raise LabkitError(f"there is no exercise {quote(exercise_id)}. Expected one of: {', '.join(exercises)}.")
    return exercises[exercise_id]


def all_exercises() -> list[Exercise]:
    """Every exercise, in the order of the series: the `EXERCISES` of each module nb00, nb02, ..."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if re.fullmatch(r"nb\d\d", module.name))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [exercise for module in modules for exercise in module.EXERCISES]


def _same(expected: Any, got: Any) -> bool:
    """Equal in shape and, to float32 accuracy, in value; arrays, tensors, numbers, text and containers of them."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(_same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(_same, expected, got))
    try:
        left, right = np.asarray(_plain(expected)), np.asarray(_plain(got))
    except (ValueError, TypeError):  # ragged, or nothing that an array can hold
        return False
    if left.dtype.kind in "biufc" and right.dtype.kind in "biufc":
        return left.shape == right.shape and bool(np.allclose(left, right, rtol=1e-4, atol=1e-6, equal_nan=True))
    return bool(np.array_equal(left, right))


def _plain(value: Any) -> Any:
    """A torch tensor as lists, whatever its device and dtype; anything else as it is."""
    return value.tolist() if hasattr(value, "detach") else value


def _describe(value: Any) -> str:
    """Short text of an argument or an answer; the shape of an array is part of it."""
    if hasattr(value, "detach"):
        value = np.asarray(value.tolist())
    with np.printoptions(precision=4, suppress=True, threshold=60):
        text = repr(value)
    text = text if len(text) <= 600 else f"{text[:600]} ..."
    return f"{text} of shape {value.shape}" if isinstance(value, np.ndarray) else text
