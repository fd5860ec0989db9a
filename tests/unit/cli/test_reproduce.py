"""`labkit reproduce` and `labkit report`: plan, questions, tables, exit statuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from labkit import cli
from labkit.papers import plan as plans
from labkit.papers import reproduce as reproducing
from labkit.papers.results import FILE, read_rows
from tests.unit.papers.conftest import datasets

__all__ = ["datasets"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured for the plan."""
    rates = plans.Rates("cpu", dict.fromkeys(("pixels", "hog", "pocket-tiny"), 0.01), frozenset(), (1e-6, 1e-7))
    monkeypatch.setattr(plans, "measure", lambda *_: rates)


def test_plan_run_and_report(
    datasets: Path, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.papers.page import write_report

    monkeypatch.setattr(reproducing, "write_report", write_report)
    out = tmp_path / "out"
    command = ["reproduce", "turtle", "--datasets", "colors", "--out", str(out)]
    assert cli.main([*command, "--plan"]) == 0
    planned = capsys.readouterr().out
    assert "turtle, profile pocket: very small" in planned
    assert "4 fits of 15 outer steps" in planned
    assert not out.exists()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(planned)
    assert "TURTLE, profile pocket, datasets" in said
    assert "birdsnap" not in said  # a terminal gets what was asked for, the page all
    assert {path.name for path in out.iterdir()} == {FILE, "fits", "table.md", "table.csv", "report.html"}
    page = tmp_path / "page.html"
    assert cli.main(["report", str(out), str(out / FILE), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "birdsnap" in said
    assert "not run" in said
    assert f"See {page}" in said
    assert "birdsnap" in page.read_text("utf-8")


def test_a_dataset_that_is_skipped_is_status_1(
    datasets: Path, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(datasets / "colors")
    out = tmp_path / "out"
    assert cli.main(["reproduce", "must", "--datasets", "colors,shades", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "labkit: skipped, for the reasons above: colors"
    assert "shades" in captured.out
    assert set(read_rows(out)["dataset"]) == {"shades"}


@pytest.mark.parametrize(("answer", "asks"), [("y\n", True), ("n\n", True), (None, False)])
def test_downloads_are_asked_for(
    answer: str | None,
    asks: bool,
    datasets: Path,
    quick: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return asks

    done = []
    monkeypatch.setattr(plans.Plan, "downloads", True)
    monkeypatch.setattr(
        reproducing, "reproduce", lambda *_, **__: done.append(1) or reproducing.Reproduced(tmp_path / "out", {})
    )
    monkeypatch.setattr(sys, "stdin", Terminal(answer or ""))
    command = ["reproduce", "turtle", "--datasets", "colors", "--out", str(tmp_path / "out")]
    assert cli.main(command) == (0 if asks else 2)
    captured = capsys.readouterr()
    assert ("Download and go on?" in captured.out) == asks
    assert len(done) == (answer == "y\n")
    if not asks:
        assert "no terminal to ask on. Add --yes." in captured.err
    assert cli.main([*command, "--yes"]) == 0
    assert len(done) == (answer == "y\n") + 1


def test_ctrl_c_says_how_to_go_on(
    datasets: Path, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(reproducing.ROWS, "turtle", stop)
    assert cli.main(["reproduce", "turtle", "--datasets", "colors", "--out", str(tmp_path / "out")]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["reproduce"], "missing: paper"),
        (["reproduce", "clip"], "invalid choice: 'clip'"),
        (["reproduce", "turtle", "--profile", "huge"], "invalid choice: 'huge'"),
        (["reproduce", "turtle", "--datasets", "colour", "--plan"], "there is no dataset 'colour'"),
        (["report", "nothing", "--out", "page.html"], "cannot be read"),
        (["report", "nothing"], "missing: --out"),
    ],
)
def test_bad_input_is_one_line(
    typed: list[str],
    said: str,
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(typed) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err
