"""The papers' numbers as tables: equal to copies of the papers' own, each other one with its source."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.data.manifests import load_manifest
from labkit.papers.published import must_rows, turtle_rows

HERE = Path(__file__).parent


def rows_of(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def turtle() -> pd.DataFrame:
    return turtle_rows()


@pytest.fixture(scope="module")
def must() -> pd.DataFrame:
    return must_rows()


def test_turtle_rows_are_the_papers(turtle: pd.DataFrame) -> None:
    papers = rows_of("paper_results.csv")
    assert len(turtle) == len(papers) == 26
    assert list(turtle["dataset"]) == [row["dataset"] for row in papers]
    for column in ("n_classes", "n_train", "n_test"):
        assert list(turtle[column]) == [int(row[column]) for row in papers]
    for column, theirs in (("accuracy", "turtle_clipL14_dinov2g14_acc"), ("nmi", "nmi"), ("ari", "ari")):
        expected = [float(row[theirs] or "nan") / 100 for row in papers]
        np.testing.assert_allclose(turtle[column], expected, atol=1e-9)
    assert turtle["accuracy"].notna().all()
    assert turtle["nmi"].notna().sum() == turtle["ari"].notna().sum() == 4


def test_must_rows_are_the_papers(must: pd.DataFrame) -> None:
    ours = must.set_index(["dataset", "model"])
    papers = rows_of("must_results.csv")
    assert len(ours) == 2 * len(papers) == 12
    for row in papers:
        for model, short in (("clip-vit-b16", "b16"), ("clip-vit-l14", "l14")):
            found = ours.loc[(row["dataset"], model)]
            assert found["zero_shot"] == pytest.approx(float(row[f"clip_{short}"]) / 100)
            assert found["must"] == pytest.approx(float(row[f"must_{short}"]) / 100)


def test_numbers_of_others_have_a_source_each(turtle: pd.DataFrame) -> None:
    table = turtle.set_index("dataset")
    sources = table.attrs["sources"]
    assert set(sources) == {"zero_shot", "linear_probe", "kmeans"}
    for column, by_dataset in sources.items():
        assert set(table.index[table[column].notna()]) == set(by_dataset)
        assert all(source.strip() for source in by_dataset.values())
    assert (len(sources["zero_shot"]), len(sources["linear_probe"])) == (22, 9)
    # what is measured on another draw of the test images says so
    drawn = {name for name, source in sources["zero_shot"].items() if "another draw" in source}
    assert drawn == {"caltech101", "clevr-counts", "eurosat", "kitti-distance"}


def test_zero_shot_of_two_sources_agree(turtle: pd.DataFrame, must: pd.DataFrame) -> None:
    """Others measured what MUST's authors measured: a number in a wrong row would differ by far more."""
    beside = turtle.set_index("dataset")["zero_shot"]
    theirs = must[must["model"] == "clip-vit-l14"].set_index("dataset")["zero_shot"]
    np.testing.assert_allclose(beside[theirs.index], theirs, atol=0.015)


def test_stand_ins_do_not_change_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turtle: pd.DataFrame, must: pd.DataFrame
) -> None:
    content = {"format": 1, "splits": {"dtd": {"train": 94, "test": 47}}}
    (tmp_path / "stand-ins.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert load_manifest("dtd").stand_in
    assert turtle_rows().equals(turtle)
    assert must_rows().equals(must)
