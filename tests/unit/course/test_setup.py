"""Classroom helpers: stable output, the results table, bands, hints and figures with alt text."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from labkit.course import exercises
from labkit.course import results as _results
from labkit.course import setup as classroom
from labkit.course.profiles import PROFILES
from labkit.course.setup import Lab, setup
from labkit.errors import DataError, LabkitError

mpl.use("agg")

ROW: dict[str, Any] = {
    "dataset": "digits", "split": "test", "method": "turtle", "spaces": ["pixels"], "metric": "accuracy", "value": 0.5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "results.jsonl"))
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    monkeypatch.delenv("LABKIT_PROFILE", raising=False)
    classroom._hints_shown.clear()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """What went to display: (data, metadata) of each."""
    calls: list[tuple[dict[str, str], dict[str, Any]]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata=None: calls.append((data, metadata or {}))
    )
    return calls


def test_setup_prints_one_stable_line_and_can_be_called_twice(capsys: pytest.CaptureFixture[str]) -> None:
    first = setup("pocket", notebook="02_test")
    second = setup("pocket", notebook="02_test")
    line = "labkit is ready. Profile pocket: small models and data that need no download.\n"
    assert capsys.readouterr().out == 2 * line
    assert first == second
    assert first.profile.backbones == ("efficientnet-lite0", "pixels")
    assert first.device in ("cpu", "cuda", "mps")


def test_auto_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert setup().profile.name == "pocket"
    monkeypatch.setenv("LABKIT_PROFILE", "paper")
    assert setup().profile.name == "paper"
    assert setup("standard").profile.name == "standard"


@pytest.mark.parametrize("profile", ["pokcet", "", "Pocket", ["pocket"], "x" * 10_000])
def test_unknown_profiles_are_refused(profile: str) -> None:
    with pytest.raises(LabkitError, match=r"profile is .{1,60}\. Expected one of pocket, photos, standard, paper"):
        setup(profile)


def test_unknown_profile_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PROFILE", "laptop")
    with pytest.raises(LabkitError, match="LABKIT_PROFILE is 'laptop'"):
        setup()


def test_features_go_through_backbones_that_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load_backbone(name: str, *, image_size: int | None, device: str) -> str:
        loaded.append((name, image_size))
        return name

    def extract_features(backbone: str, manifest: str, *, split: str, progress: bool) -> np.ndarray:
        assert not progress
        return np.full((2, 3), len(backbone + manifest + split))

    for module, function in (("backbones", load_backbone), ("features", extract_features)):
        stub = types.SimpleNamespace(**{function.__name__: function})
        monkeypatch.setitem(sys.modules, f"labkit.spaces.{module}", stub)
    monkeypatch.setattr(Lab, "manifest", lambda self, dataset: dataset)
    lab = setup("pocket")
    spaces = lab.spaces("digits")
    assert [space.shape for space in spaces] == [(2, 3), (2, 3)]
    lab.spaces("digits", ["pixels"], split="test")
    lab.features("digits", lab.profile.image_text)
    assert loaded == [("efficientnet-lite0", 96), ("pixels", None), ("pocket-clip", None)]


def test_results_are_replaced_by_key_and_shared_between_notebooks(tmp_path: Path) -> None:
    lab, other = setup("pocket", notebook="02_a"), setup("pocket", notebook="03_b")
    assert lab.results().empty
    lab.record(**ROW, seed=0, seconds=1.0)
    lab.record(**{**ROW, "value": np.float32(0.75)}, seed=np.int64(0), seconds=2.0)
    lab.record(**ROW, seed=1)
    lab.record(**ROW, variant="normalized")
    other.record(**ROW, seed=0)
    setup("standard").record(**ROW)
    frame = lab.results()
    assert len(frame) == 4
    assert list(frame["value"][:2]) == [0.75, 0.5]
    assert set(frame["profile"]) == {"pocket"}
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('\n{"row": {"noteb')  # a notebook that was killed
    lab.record(**ROW, seed=2)
    assert len(lab.results()) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "kmeans"}, "method is 'kmeans'. Expected one of zero-shot, text-gaussians, k-means"),
        ({"metric": "acc"}, "metric is 'acc'. Expected one of accuracy"),
        ({"value": 72.0}, "value is 72.0. Expected a fraction"),
        ({"value": float("nan")}, "value is nan"),
        ({"spaces": "pixels"}, r"Expected a list of backbone names: \['pixels'\]"),
    ],
)
def test_bad_rows_are_refused_and_leave_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabkitError, match=message):
        setup("pocket").record(**{**ROW, **changes})
    assert not (tmp_path / "results.jsonl").exists()


def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_RESULTS", str(tmp_path / "file" / "results.jsonl"))
    with pytest.raises(DataError, match="LABKIT_RESULTS"):
        setup("pocket").record(**ROW)


def test_everybody_has_an_own_table_where_all_share_a_cache_that_they_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABKIT_RESULTS")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "shared"))
    for name in ("ada", "bob"):
        monkeypatch.setattr("labkit._files.user_cache_dir", lambda app, name=name: str(tmp_path / name / app))
        lab = setup("pocket")
        assert lab.results_path == tmp_path / name / "labkit" / "results" / "pocket.jsonl"
        lab.record(**ROW)
        assert len(lab.results()) == 1
    assert not (tmp_path / "shared").exists()


def test_the_results_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LABKIT_RESULTS", "~/table.jsonl")
    assert setup("pocket").results_path == tmp_path / "table.jsonl"
    monkeypatch.setenv("LABKIT_RESULTS", "~nobody-of-that-name/table.jsonl")
    assert setup("pocket").results_path == Path("~nobody-of-that-name/table.jsonl")


def test_numbers_and_texts_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    lab = setup("pocket", notebook="04_x")
    for changes, message in (
        ({"value": "much"}, "value is 'much'. Expected a number"),
        ({"seconds": "long"}, "seconds is 'long'. Expected a number"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"dataset": Path("digits")}, "dataset is"),
        ({"spaces": [Path("pixels")]}, "spaces is"),
        ({"method": ["turtle"]}, "method is"),
    ):
        with pytest.raises(LabkitError, match=message):
            lab.record(**{**ROW, **changes})
    for band in ((None, 0, 1), (0.5, "0", []), (0.5, float("nan"), 1)):
        with pytest.raises(LabkitError, match=r"(value|high|low) is"):
            lab.band("loss", *band)
    assert not (tmp_path / "results.jsonl").exists()


def test_bands_print_verdicts_and_show_numbers(capsys: pytest.CaptureFixture[str], shown: list[Any]) -> None:
    lab = setup("pocket", notebook="04_x")
    capsys.readouterr()
    lab.band("TURTLE accuracy", 0.7312, 0.7, 0.8)
    lab.band("TURTLE accuracy ", 0.65, 0.7, 0.8)
    lab.band("loss", float("nan"), 0, 0.725)
    assert capsys.readouterr().out == (
        "TURTLE accuracy: within 0.70 to 0.80\nTURTLE accuracy : OUTSIDE 0.70 to 0.80\nloss: OUTSIDE 0.00 to 0.725\n"
    )
    assert shown[0][0] == {"text/html": "TURTLE accuracy: <b>0.7312</b>", "text/plain": "<HTML>"}
    setup("standard").band("TURTLE accuracy", 0.1, 0.7, 0.8)
    assert capsys.readouterr().out.endswith("TURTLE accuracy: no band for profile standard\n")
    _, bands = _results.read_results(lab.results_path)
    assert [band["verdict"] for band in bands] == ["within", "outside", "outside", "no band"]
    assert bands[2]["value"] is None
    lab.band("TURTLE accuracy", 0.1, 0.7, 0.8)  # run again: the last verdict counts
    assert _results.read_results(lab.results_path)[1][0]["verdict"] == "outside"


def test_the_table_that_people_read(shown: list[Any]) -> None:
    lab = setup("pocket", notebook="04_x")
    for seed, value in enumerate((0.70, 0.72, 0.74)):
        lab.record(**{**ROW, "value": value}, seed=seed, seconds=2.0)
    lab.record(**{**ROW, "value": 0.735}, seed=2, selected_without_labels=True)
    setup("pocket", notebook="05_y").record(**{**ROW, "value": 0.74}, seed=2)  # measured again: not a fourth seed
    lab.record(**{**ROW, "method": "linear-probe", "value": 0.9}, labels_used=True)
    lab.record(**{**ROW, "method": "zero-shot", "spaces": ["pocket-vit"], "value": 0.8})
    table = _results.summarize(lab.results()).set_index(["method", "notes"])
    assert table.loc[("turtle", ""), "value (%)"] == "72.0 ± 2.0 (3 seeds)"
    assert table.loc[("turtle", "chosen without labels"), "value (%)"] == "73.5"
    assert table.loc[("turtle", ""), "seconds"] == "2.0"
    assert table.loc[("linear-probe", "labels used"), "value (%)"] == "90.0"
    assert table.loc[("zero-shot", "pretraining saw target images"), "value (%)"] == "80.0"
    lab.show_results("digits")
    assert "72.0 ± 2.0" in shown[-1][0]["text/html"]
    assert shown[-1][0]["text/plain"] == "<HTML>"


def test_check_prints_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    classroom.check("00.1", lambda probs: classroom.TODO)
    classroom.check("00.1", exercises.get("00.1").reference)
    assert capsys.readouterr().out == "Exercise 00.1: not attempted yet\nExercise 00.1: correct\n"


def test_hints_come_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):
        classroom.hint("00.1")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines] == ["Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "No more hin"]


def test_show_stores_the_alt_text(shown: list[Any]) -> None:
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    classroom.show(figure, alt="A rising line.")
    [(data, metadata)] = shown
    assert metadata == {"image/png": {"alt": "A rising line."}}
    assert data["text/plain"] == "<Figure>"
    assert data["image/png"].startswith("iVBOR")
    with pytest.raises(LabkitError, match="alt is ' '"):
        classroom.show(figure, alt=" ")


def test_progress_is_silent_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(setup("pocket").progress(range(3), "steps")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_names_agree_with_the_schema() -> None:
    schema = json.loads(Path(classroom.__file__).with_name("results.schema.json").read_text("utf-8"))["$defs"]
    row = schema["row"]["properties"]
    assert tuple(row["method"]["enum"]) == _results.METHODS
    assert tuple(row["metric"]["enum"]) == _results.METRICS
    assert set(row) == set(_results.ROW_KEYS)
    assert set(schema["row"]["required"]) == set(row) - {"variant"}
    assert schema["profile"]["enum"] == list(PROFILES) == list(_results.PROFILE_NAMES)


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": "x"},
        {"seed": float("nan")},
        {"seed": 1.5},
        {"seed": True},
        {"spaces": 5},
        {"spaces": {"a", "b"}},
        {"spaces": [1]},
        {"value": "0.5"},
        {"value": True},
        {"labels_used": "no"},
        {"selected_without_labels": 1},
    ],
)
def test_a_result_that_is_none_is_not_recorded(odd: dict[str, object]) -> None:
    lab = setup("pocket", notebook="n")
    with pytest.raises(LabkitError, match=f"{next(iter(odd))} is"):
        lab.record(**{**ROW, **odd})  # type: ignore[arg-type]
    assert len(lab.results()) == 0


@pytest.mark.parametrize("band", [(None, 1, 0, 2), ("n", 1, 2, 0), ("n", "1", 0, 2), ("n", 1, True, 2)])
def test_a_band_that_is_none_is_refused(band: tuple[object, ...]) -> None:
    lab = setup("pocket", notebook="n")
    with pytest.raises(LabkitError, match=r" is "):
        lab.band(*band)  # type: ignore[arg-type]
