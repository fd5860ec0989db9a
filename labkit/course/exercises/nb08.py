"""Exercises of notebook 08, both papers beside yours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from labkit.course.exercises import TODO, Exercise
from labkit.evaluation.metrics import clustering_accuracy

# ------------------------------------------------------------------------------------------------- 08.1 above chance

_UNEVEN = np.repeat([0, 1, 2], [14, 6, 4])
_EVEN = np.repeat([0, 1], 15)


def _guesses(truth: np.ndarray, n_guesses: int) -> np.ndarray:
    """Random clusters (R, n) of the sizes of the classes."""
    random = np.random.default_rng(8)
    return np.stack([random.permutation(truth) for _ in range(n_guesses)])


def _above_chance(accuracy: float, truth: np.ndarray, guesses: np.ndarray, *, mistake: str = "") -> float:
    matched = [clustering_accuracy(truth, guess) for guess in guesses]
    shares = np.bincount(truth) / len(truth)
    chance = {
        "uniform": 1 / len(shares),
        "majority": shares.max(),
        "unmatched": np.mean(guesses == truth),
        "luckiest": max(matched),
        "purity": np.mean([_purity(truth, guess) for guess in guesses]),
    }.get(mistake, np.mean(matched))
    return float((accuracy - chance) / (1.0 if mistake == "difference" else 1 - chance))


def _purity(truth: np.ndarray, guess: np.ndarray) -> float:
    return sum(np.bincount(truth[guess == c]).max() for c in np.unique(guess)) / len(truth)


# --------------------------------------------------------------------------------------- 08.2 what forbids a comparison

_PAPER = {
    "method": "A", "value": 0.82, "dataset": "gtsrb", "split": "test", "metric": "accuracy", "matched on": "test",
    "chosen by": "last step",
}  # fmt: skip
_OTHER = {
    "method": "B", "value": 0.79, "dataset": "gtsrb", "split": "test", "metric": "mean per class", "matched on": None,
    "chosen by": "test labels",
}  # fmt: skip
_SILENT = {"method": "C", "value": 0.79, "dataset": "gtsrb", "split": "test", "chosen by": None}
_MUTE = {"method": "D", "value": 0.81, "dataset": "gtsrb", "split": "test", "chosen by": None, "seeds": 3}


def _conflicts(one: Mapping[str, Any], other: Mapping[str, Any], *, mistake: str = "") -> list[str]:
    skipped = set() if mistake == "results" else {"method", "value"}
    fields = {"first": set(one), "common": set(one) & set(other)}.get(mistake, set(one) | set(other)) - skipped
    agree = {field for field in fields if one.get(field) == other.get(field)}
    if mistake == "agree":
        return sorted(agree)
    if mistake != "silence":
        agree = {field for field in agree if one.get(field) is not None}
    return sorted(fields - agree)


# ------------------------------------------------------------------------------------------ 08.3 optimism of a maximum


def _runs(n_runs: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images (n_runs, n) each of some runs has right, and which are in the first half."""
    random = np.random.default_rng(seed)
    hard = random.random(n)
    return hard + 0.25 * random.normal(size=(n_runs, n)) < 0.7, np.arange(n) % 2 == 0


def _optimism(correct: np.ndarray, half: np.ndarray, *, mistake: str = "") -> float:
    gaps = []
    for mine in (half, ~half):
        here, there = correct[:, mine].mean(axis=1), correct[:, ~mine].mean(axis=1)
        chosen = here.argmax()
        worth = {"both best": there.max(), "average": there.mean()}.get(mistake, there[chosen])
        gaps.append((there[chosen] - here[chosen]) if mistake == "sign" else here[chosen] - worth)
    return float(gaps[0] if mistake == "one way" else np.mean(gaps))


# ------------------------------------------------------------------------------------- 08.4 reproducibility statement

_RUN = {
    "method": "TURTLE",
    "dataset": "digits",
    "seeds": [0, 1, 2],
    "accuracies": [0.947, 0.961, 0.953],
    "seconds": 21.0,
    "device": "2 CPU cores",
    "restart": "the most confident of 8, on train, without labels",
    "versions": {"labkit": "0.1.0", "torch": "2.4.0"},
}
_SHORT_RUN = {**_RUN, "seeds": [7, 11], "accuracies": [0.9, 0.94], "seconds": 4.5, "versions": {"labkit": "0.2.1"}}


def _says(statement: Mapping[str, Any], item: str, pattern: str) -> bool:
    return re.search(pattern, str(statement.get(item) or ""), re.IGNORECASE) is not None


def _same_numbers(given: Any, wanted: Any) -> bool:
    try:
        numbers = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        return False
    return numbers.shape == np.shape(wanted) and bool(np.allclose(numbers, wanted, atol=5e-4))


def _result(statement: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    mean = np.mean(run["accuracies"])
    return any(_same_numbers(statement.get("result"), [mean, np.std(run["accuracies"], ddof=d)]) for d in (0, 1))


ITEMS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "data": lambda s, run: _says(s, "data", re.escape(run["dataset"])),
    "split": lambda s, run: _says(s, "split", r"\btrain") and _says(s, "split", r"\btest"),
    "metric": lambda s, run: _says(s, "metric", r"accuracy|nmi|ari\b"),
    "matching": lambda s, run: _says(s, "matching", r"\btest\b|\btrain\b"),
    "checkpoint": lambda s, run: _says(s, "checkpoint", r"label|confiden"),
    "runs": lambda s, run: _same_numbers(s.get("runs"), len(run["seeds"])),
    "seeds": lambda s, run: _same_numbers(s.get("seeds"), run["seeds"]),
    "result": _result,
    "compute": lambda s, run: (
        _says(s, "compute", r"\d.*(s\b|sec|min|h\b|hour)") and _says(s, "compute", r"core|cpu|gpu")
    ),
    "versions": lambda s, run: all(_says(s, "versions", re.escape(version)) for version in run["versions"].values()),
}


def missing(statement: Any, run: Mapping[str, Any]) -> Any:
    """The items that a reproducibility statement of a run leaves out or leaves vague; none where it is complete.

    Args:
        statement: a dict from item (see `ITEMS`) to text or numbers; `TODO` is handed through.
        run: what is known of the run: "dataset", "seeds", "accuracies" (one a seed), "versions".
    """
    if statement is TODO:
        return TODO
    if not isinstance(statement, Mapping):
        return list(ITEMS)
    return [item for item, is_there in ITEMS.items() if not is_there(statement, run)]


def _statement(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": f"labkit's manifest {run['dataset']}",
        "split": "fitted on train without labels, scored on test",
        "metric": "clustering accuracy",
        "matching": "one to one, on the test labels",
        "checkpoint": f"last step; {run['restart']}",
        "runs": len(run["seeds"]),
        "seeds": run["seeds"],
        "result": (np.mean(run["accuracies"]), np.std(run["accuracies"])),
        "compute": f"{run['seconds']} seconds on {run['device']}",
        "versions": run["versions"],
    }


def _with(**changes: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda run: {**_statement(run), **changes}


EXERCISES = (
    Exercise(
        id="08.1",
        title="A fair distance from chance",
        cases=[(0.6, _UNEVEN, _guesses(_UNEVEN, 8)), (0.9, _EVEN, _guesses(_EVEN, 5))],
        reference=lambda accuracy, truth, guesses: _above_chance(accuracy, truth, guesses),
        mistakes={
            "Your chance is one over the number of classes. A labeling is scored *after* matching, and so must be the "
            "guesses: match each of them first.": partial(_above_chance, mistake="uniform"),
            "Your chance is the share of the largest class. That is what one constant answer reaches; here the guesses "
            "are given.": partial(_above_chance, mistake="majority"),
            "You compare the numbers of guesses and classes as they are. Clusters are matched before they are scored: "
            "lk.clustering_accuracy does both.": partial(_above_chance, mistake="unmatched"),
            "You took the luckiest guess. Chance is the mean over the guesses.": (
                partial(_above_chance, mistake="luckiest")
            ),
            "You let several clusters have the same class (purity). The matching is one to one.": (
                partial(_above_chance, mistake="purity")
            ),
            "You subtract chance but do not rescale: a perfect labeling should score 1. Divide by 1 − chance.": (
                partial(_above_chance, mistake="difference")
            ),
        },
        hints=(
            "What would the same scoring rule give to somebody who knows nothing?",
            "chance is the mean of lk.clustering_accuracy(truth, guess) over the rows of guesses.",
            "(accuracy - chance) / (1 - chance), with chance = np.mean([lk.clustering_accuracy(truth, guess) for guess "
            "in guesses]).",
        ),
        difficulty=2,
        importance=5,
        minutes=8,
    ),
    Exercise(
        id="08.2",
        title="May these two numbers stand in one column?",
        cases=[
            (_PAPER, _OTHER),
            (_SILENT, _MUTE),
            (_PAPER, {**_PAPER, "method": "E", "value": 0.5}),
            (_PAPER, _SILENT),
        ],
        reference=lambda one, other: _conflicts(one, other),
        mistakes={
            "You listed what is compared. Method and value are meant to differ; everything else should not.": (
                partial(_conflicts, mistake="results")
            ),
            "None on both sides is not agreement: neither row says. What is not stated forbids the comparison.": (
                partial(_conflicts, mistake="silence")
            ),
            "You looked at the fields of the first row only. The second may state something that the first does not.": (
                partial(_conflicts, mistake="first")
            ),
            "You looked at the fields that both rows have. What one of them leaves out is unknown, and counts.": (
                partial(_conflicts, mistake="common")
            ),
            "You listed the fields on which the rows agree. Wanted are the others.": (
                partial(_conflicts, mistake="agree")
            ),
        },
        hints=(
            "Which fields does at least one of the rows have? Which of these may differ?",
            "row.get(field) is None both where the field is missing and where it says None.",
            "sorted(f for f in set(one) | set(other) if f not in ('method', 'value') and (one.get(f) is None or "
            "one.get(f) != other.get(f))).",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
    Exercise(
        id="08.3",
        title="How optimistic is the best checkpoint?",
        cases=[(*_runs(6, 60, 0),), (*_runs(12, 40, 1),), (*_runs(3, 90, 2),)],
        reference=lambda correct, half: _optimism(correct, half),
        mistakes={
            "Exactly 0: your two gaps cancel. Either you chose by all images, or you subtracted the best of the other "
            "half. Choose by one half, and ask the other what the *chosen* one is worth.": (
                partial(_optimism, mistake="both best")
            ),
            "You subtract the average checkpoint. That is what choosing gains and what it pretends, together: subtract "
            "the chosen one's accuracy on the other half.": partial(_optimism, mistake="average"),
            "You went one way only. Let the two halves change places, and average.": (
                partial(_optimism, mistake="one way")
            ),
            "The sign is reversed: what is promised comes first, what it is worth is subtracted.": (
                partial(_optimism, mistake="sign")
            ),
        },
        hints=(
            "Which images may say what the chosen checkpoint is worth? Those that had no say in the choice.",
            "here = correct[:, half].mean(axis=1) are k accuracies on one half. Choose by them, and look the chosen "
            "one up on the other half.",
            "For mine in (half, ~half): here and there as above; gap = here.max() - there[here.argmax()]. Return the "
            "mean of the two gaps.",
        ),
        difficulty=3,
        importance=5,
        minutes=12,
    ),
    Exercise(
        id="08.4",
        title="Write the reproducibility statement",
        cases=[(_RUN,), (_SHORT_RUN,)],
        reference=lambda run: _statement(run),
        mistakes={
            "data: say which dataset.": _with(data=""),
            "split: say on which split you fitted *and* on which you scored. 'test' alone leaves open where the fit "
            "came from.": _with(split="test"),
            "metric: a percentage of what? Name it: clustering accuracy, NMI, ARI.": _with(metric="score"),
            "matching: say on which images' labels clusters were matched to classes. The name does not tell.": (
                _with(matching="Hungarian")
            ),
            "checkpoint: say who chose the restart, and whether labels had a say. 'best' is what everybody writes.": (
                _with(checkpoint="best")
            ),
            "runs: give the number of runs, as a number. Somebody who reads 'several' cannot compute an error.": (
                _with(runs="several")
            ),
            "seeds: give every seed, as a list. 'fixed' is not a seed, and one of three is not all.": (
                _with(seeds="fixed")
            ),
            "result: give mean and standard deviation over *all* runs. You gave the best one.": (
                lambda run: {**_statement(run), "result": (np.max(run["accuracies"]), np.std(run["accuracies"]))}
            ),
            "compute: say how long it took, and on what.": _with(compute="a laptop"),
            "versions: give the version of every package in run['versions']. 'latest' was something else last year.": (
                _with(versions="latest")
            ),
        },
        hints=(
            "What would you ask the author of a table if your number were three points lower?",
            "The facts are in `run`. The rest you know from the cells above: how we split, fitted, matched and chose.",
            "'runs': len(run['seeds']), 'seeds': run['seeds'], 'versions': run['versions'], 'result': "
            "(np.mean(run['accuracies']), np.std(run['accuracies'])); the other items are sentences.",
        ),
        difficulty=2,
        importance=5,
        minutes=15,
        observe=lambda attempt: lambda run: missing(attempt(run), run),
    ),
)
