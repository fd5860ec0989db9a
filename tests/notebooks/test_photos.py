"""A notebook of the series on a miniature of real photographs under the profile photos; without them it is skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.course.series import run_series
from labkit.data.layout_kinds import Folders
from labkit.data.manifests import load_manifest
from labkit.data.schema import Archive

REAL = Path(os.environ.get("LABKIT_REAL") or Path(__file__).parents[3] / "shared" / "real") / "photos/clothing-small"

pytestmark = [
    pytest.mark.notebooks,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not REAL.is_dir(), reason="no photographs: set LABKIT_REAL"),
]


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A data folder with some photographs of each class, where the archive would unpack; the sizes of the splits."""
    source = load_manifest("clothing-small").source
    assert isinstance(source, Archive)
    assert isinstance(source.layout, Folders)
    folders = [*source.layout.train, *source.layout.test]
    for below, here, n in zip(folders, ("train", "val", "test"), (12, 6, 6), strict=True):
        for photographs in sorted((REAL / here).iterdir()):
            place = tmp_path / source.path / below / photographs.name
            place.mkdir(parents=True)
            for path in sorted(photographs.iterdir())[:n]:
                (place / path.name).symlink_to(path)
    sizes = {"train": 120, "test": 120}
    (tmp_path / "stand-ins.json").write_text(json.dumps({"format": 1, "splits": {"clothing-small": sizes}}), "utf-8")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return sizes


def test_the_first_notebook_runs_on_photographs(miniature: dict[str, int], tmp_path: Path) -> None:
    report = run_series(tmp_path / "out", profile="photos", only=["00"])
    assert report["failures"] == []
    assert {(row["dataset"], row["profile"]) for row in report["results"]} == {("clothing-small", "photos")}
    assert {band["verdict"] for band in report["bands"]} == {"no band"}
    notebook = (tmp_path / "out" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert f"train: {miniature['train']} images" in notebook
