"""Choosing among fits: by a criterion that sees no label, and the same whatever the labels are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labkit.errors import FitError
from labkit.must import MUST, compare
from tests import tiny

pytestmark = pytest.mark.usefixtures("tiny_model")


def candidates() -> dict[str, MUST]:
    return {f"τ = {threshold}": tiny.must(threshold=threshold, epochs=1) for threshold in (0.2, 0.9)}


def test_the_highest_criterion_wins_and_the_candidates_stay_unfitted() -> None:
    given = candidates()
    best, fitted, table = compare(given, tiny.images())
    assert list(table.index) == list(given) == list(fitted)
    assert table["mutual_information"].idxmax() == best
    assert table.loc["τ = 0.2", "kept"] > table.loc["τ = 0.9", "kept"]
    for name, must in fitted.items():
        assert table.loc[name, "mutual_information"] == must.history_[-1]["mutual_information"]
        assert not hasattr(given[name], "model_")
    assert compare(given, tiny.images(), criterion="kept")[0] == "τ = 0.2"


def test_labels_do_not_matter() -> None:
    images = tiny.images()
    other = dataclasses.replace(images, labels=np.roll(images.labels, 1))
    (best, _, table), (again, _, same) = (compare(candidates(), given) for given in (images, other))
    assert best == again
    assert table.equals(same)


def test_what_cannot_be_compared_is_explained() -> None:
    with pytest.raises(FitError, match="nothing to compare"):
        compare({}, tiny.images())
    with pytest.raises(FitError, match="information, agreement"):
        compare(candidates(), tiny.images(), criterion="accuracy")
