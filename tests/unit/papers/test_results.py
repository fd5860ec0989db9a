"""The file of results: added to, torn by kills, merged, and never taken for something else."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import DataError
from labkit.papers.results import COLUMNS, FILE, KEY, Results, read_rows


def row(**changes: Any) -> dict[str, Any]:
    given = {
        "paper": "turtle",
        "dataset": "dtd",
        "stand_in": False,
        "split": "test",
        "method": "k-means",
        "spaces": ["pixels"],
        "settings": {"profile": "pocket"},
        "seed": 42,
        "n_train": 3760,
        "n_test": 1880,
    }
    return {**given, **changes}


def add(folder: Path, value: float = 0.5, **changes: Any) -> None:
    Results(folder).add(row(**changes), {"accuracy": value, "nmi": value / 2}, seconds=1.5, device="cpu")


def test_what_is_added_is_read(tmp_path: Path) -> None:
    add(tmp_path)
    table = read_rows(tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert table[["metric", "value"]].to_numpy().tolist() == [["accuracy", 0.5], ["nmi", 0.25]]
    assert all(table[name].tolist() == [value] * 2 for name, value in row().items())
    assert table.equals(read_rows(tmp_path / FILE))


@pytest.mark.parametrize("name", sorted(set(KEY) - {"metric"}))
def test_rows_differ_by_every_part_of_the_key(name: str, tmp_path: Path) -> None:
    other = {"paper": "must", "stand_in": True, "spaces": ["hog"], "settings": {"profile": "paper"}, "method": "turtle"}
    add(tmp_path, 0.5)
    add(tmp_path, 0.6, **{name: other.get(name, 7 if name in ("seed", "n_train", "n_test") else "another")})
    assert len(read_rows(tmp_path)) == 4


def test_the_last_of_a_key_counts(tmp_path: Path) -> None:
    for value in (0.5, 0.6):
        add(tmp_path / "a", value)
    add(tmp_path / "b", 0.7)
    add(tmp_path / "b", 0.9, dataset="sun397")
    assert read_rows(tmp_path / "a")["value"].tolist() == [0.6, 0.3]
    merged = read_rows([tmp_path / "a", tmp_path / "b" / FILE])
    assert merged[merged["metric"] == "accuracy"].set_index("dataset")["value"].to_dict() == {"dtd": 0.7, "sun397": 0.9}
    assert read_rows([tmp_path / "b", tmp_path / "a"])["value"].max() == 0.9


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_line_that_a_kill_cut_short_is_one_piece_lost(
    cut: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path)
    add(tmp_path, dataset="sun397")
    path = tmp_path / FILE
    os.truncate(path, path.stat().st_size - cut)
    results = Results(tmp_path)
    assert results.has(row(), ["accuracy", "nmi"])
    assert not results.has(row(dataset="sun397"), ["accuracy", "nmi"]) or cut == 1  # then only the line break is gone
    add(tmp_path, 0.8, dataset="sun397")
    table = read_rows(tmp_path)
    assert table[table["metric"] == "accuracy"].set_index("dataset")["value"].to_dict() == {"dtd": 0.5, "sun397": 0.8}
    assert ("lines that are no results" in caplog.text) == (cut > 1)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    add(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    add(tmp_path, 0.6)
    assert (tmp_path / FILE).read_bytes().startswith(before)


def test_a_piece_is_on_the_disk_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / FILE).read_bytes().count(b"\n")))
    add(tmp_path)
    assert synced == [2]


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[1]", "null", "nan", "{" * 10_000, '{"row": {}}', '{"paper": "turtle"}', "\udcff"],
)
def test_lines_that_are_no_results_are_passed_over(line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path)
    with (tmp_path / FILE).open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    with caplog.at_level(logging.WARNING):
        assert len(read_rows(tmp_path)) == 2
    assert ("has 1 lines" in caplog.text) == bool(line)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value", 2),
        ("value", None),
        ("value", float("nan")),
        ("spaces", "pixels"),
        ("method", "magic"),
        ("n_train", -1),
        ("stand_in", 1),
        ("settings", []),
        ("seconds", -1.0),
        ("seconds", float("inf")),
        ("n_test", 10**400),
        ("spaces", []),
        ("dataset", ""),
        ("dataset", "a b"),
    ],
)
def test_a_row_with_a_wrong_field_is_none(name: str, value: Any, tmp_path: Path) -> None:
    add(tmp_path)
    path = tmp_path / FILE
    lines = [json.loads(line) | {name: value} for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with pytest.raises(DataError, match="holds no result"):
        read_rows(path)


def test_no_results_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, said in (
        (tmp_path / "none", "cannot be read .No such file"),
        (tmp_path / "empty", "cannot be read"),
        ([], "no results to read"),
    ):
        with pytest.raises(DataError, match=said):
            read_rows(given)
    with pytest.raises(DataError, match="value is 3"):
        Results(tmp_path).add(row(), {"accuracy": 3.0}, seconds=1.0, device="cpu")
    assert not (tmp_path / FILE).exists()


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        add(tmp_path)
