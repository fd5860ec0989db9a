"""Exercises of notebook 08 against independent calculations, and what its text says of the published rows."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

import labkit as lk
from labkit.course.exercises import get
from labkit.course.exercises.nb08 import ITEMS, missing
from labkit.papers.published import must_rows, turtle_rows

RUN = get("08.4").cases[0][0]


def test_chance_is_the_mean_over_guesses_of_the_best_of_all_renamings(answer: Any) -> None:
    random = np.random.default_rng(0)
    truth, guesses = random.integers(3, size=20), random.integers(3, size=(6, 20))
    truth[:3] = [0, 1, 2]
    best = [max(np.mean(np.array(names)[guess] == truth) for names in permutations(range(3))) for guess in guesses]
    assert answer("08.1")(float(np.mean(best)), truth, guesses) == pytest.approx(0)
    assert answer("08.1")(1.0, truth, guesses) == 1
    assert answer("08.1")(0.9, truth, guesses) == pytest.approx(1 - 0.1 / (1 - np.mean(best)))


def test_conflicts_do_not_depend_on_the_order_of_the_rows(answer: Any) -> None:
    for one, other in get("08.2").cases:
        assert answer("08.2")(one, other) == answer("08.2")(other, one)
    row = {"method": "A", "value": 0.5, "split": "test"}
    assert answer("08.2")(row, {**row, "method": "B", "value": 0.9}) == []
    assert answer("08.2")(row, {**row, "seeds": 3}) == ["seeds"]


def test_optimism_of_equal_checkpoints_is_the_expected_maximum(answer: Any) -> None:
    """Ten that err independently: 1.539 standard deviations of an accuracy on half of the images."""
    random, n, optimism = np.random.default_rng(1), 200, answer("08.3")
    found = [optimism(random.random((10, n)) < 0.7, np.arange(n) < n // 2) for _ in range(800)]
    assert np.mean(found) == pytest.approx(1.539 * np.sqrt(0.7 * 0.3 / (n // 2)), rel=0.05)


def test_one_checkpoint_has_no_optimism(answer: Any) -> None:
    assert answer("08.3")(np.random.default_rng(2).random((1, 51)) < 0.5, np.arange(51) < 20) == pytest.approx(0)


def test_a_complete_statement_lacks_nothing_and_each_item_is_asked_for(answer: Any) -> None:
    whole = answer("08.4")(RUN)
    assert missing(whole, RUN) == []
    for item in ITEMS:
        assert missing({name: value for name, value in whole.items() if name != item}, RUN) == [item]
    assert missing({}, RUN) == list(ITEMS)
    assert missing("94 %", RUN) == list(ITEMS)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("runs", 1), ("runs", None), ("seeds", [0]), ("seeds", 42), ("result", 0.95), ("result", (0.95, "small")),
        ("compute", "21"), ("compute", "two cores"), ("versions", {"labkit": "0.1.0"}), ("checkpoint", "the best one"),
        ("matching", "one to one"), ("split", "train"), ("metric", "95 percent"), ("data", None),
    ],
)  # fmt: skip
def test_what_is_vague_is_missing(item: str, value: Any) -> None:
    assert missing({**get("08.4").reference(RUN), item: value}, RUN) == [item]


def test_several_missing_items_are_listed_together() -> None:
    whole = get("08.4").reference(RUN)
    verdict = get("08.4").grade(lambda run: {k: v for k, v in whole.items() if k not in ("seeds", "compute")})
    assert "['seeds', 'compute']" in verdict


def test_the_text_agrees_with_the_published_rows() -> None:
    """Sections 1 to 4 name these numbers."""
    turtle, must = turtle_rows().set_index("dataset"), must_rows()
    assert (turtle["accuracy"] > 0.95).sum() == 5
    wanted = {"clevr-counts": 0.24, "country211": 0.111, "pcam": 0.52, "rendered-sst2": 0.516}
    assert {name: turtle["accuracy"][name] for name in wanted} == pytest.approx(wanted)
    assert turtle["zero_shot"]["rendered-sst2"] == pytest.approx(0.69, abs=0.005)
    assert turtle["linear_probe"]["pcam"] == pytest.approx(0.85, abs=0.005)
    large = must[must["model"] == "clip-vit-l14"].set_index("dataset")
    assert (large["must"] > turtle["accuracy"][large.index]).all()
    removed = (large["must"] - large["zero_shot"]) / (1 - large["zero_shot"])
    assert removed.nsmallest(2).round(2).to_dict() == {"dtd": 0.16, "sun397": 0.22}
    assert removed["food101"] == pytest.approx(removed["gtsrb"], abs=0.03)


def test_five_rows_lie_within_a_tenth_of_the_way_from_chance() -> None:
    fair, low = get("08.1").reference, set()
    for row in turtle_rows().itertuples():
        if row.n_classes <= 250 and row.accuracy < 0.6:
            random, truth = np.random.default_rng(3), np.arange(row.n_test) % row.n_classes
            guesses = np.stack([random.permutation(truth) for _ in range(10)])
            low |= {row.dataset} if fair(row.accuracy, truth, guesses) < 0.1 else set()
    assert low == {"rendered-sst2", "pcam", "hateful-memes", "clevr-counts", "country211"}


def test_every_published_configuration_is_evaluated_as_often_as_the_text_says() -> None:
    """Epochs over the interval between two evaluations, 1, 2 or 5 epochs, in the published code."""
    evaluations = {"imagenet": 20, "sun397": 10, "food101": 20, "gtsrb": 10, "dtd": 12, "ucf101": 12}
    for name, count in evaluations.items():
        epochs = lk.must.PRESETS[f"{name}/ViT-L-14"].epochs
        assert epochs % count == 0
        assert epochs // count in (1, 2, 5)
