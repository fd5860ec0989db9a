"""Profiles: known by the same names everywhere, and what the one for photographs promises a laptop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from labkit import cli
from labkit.course import results, series, setup
from labkit.course.profiles import PROFILES, pick_profile
from labkit.data.manifests import load_manifest
from labkit.data.schema import Builtin
from labkit.pocket import NAMES
from labkit.spaces.weights import EFFICIENTNETS


def test_every_place_knows_the_same_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads((Path(results.__file__).parent / "results.schema.json").read_text(encoding="utf-8"))
    assert schema["$defs"]["profile"]["enum"] == list(PROFILES) == list(results.PROFILE_NAMES)
    for text in (setup.setup.__doc__, series.run_series.__doc__):
        assert text is not None
        assert all(f'"{name}"' in text for name in PROFILES)
    assert cli.main(["run", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in PROFILES)


def test_photos_needs_one_download_and_no_hub() -> None:
    profile = pick_profile("photos")
    local = {*EFFICIENTNETS, *NAMES, "hog", "pixels"}
    assert {*profile.backbones, profile.image_text, profile.student} <= local
    first, *others = [load_manifest(name) for name in profile.datasets]
    assert first.id == "clothing-small"
    assert first.download_gb == 0.1
    assert others
    assert all(isinstance(manifest.source, Builtin) for manifest in others), "a second download"


def test_photographs_are_shown_small_and_not_class_by_class(tmp_path: Path) -> None:
    lab = setup.setup("photos")
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (300, 200), (i, 0, 0)).save(tmp_path / f"photos/{name}/{i:02d}.png")
    folder = str(tmp_path / "photos")
    shown = lab.thumbnails(folder, side=60)
    assert [image.size for image in shown] == [(60, 40)] * 40
    assert lab.images(folder)[0][0].size == (300, 200)
    rows = lab.some_rows(folder, 10)
    assert len(set(rows.tolist())) == 10
    assert set(lab.labels(folder)[rows]) == {0, 1}
    assert lab.some_rows("digits", 10, "test").tolist() == list(range(10))  # no order of classes to break
    assert len(lab.some_rows("digits", 10**6, "test")) == 360
    assert [image.size for image in lab.thumbnails("digits", "test")[:2]] == [(8, 8)] * 2
