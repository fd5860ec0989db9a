"""`labkit cluster` and what comes after it, on a folder of many formats, damaged files, names and no files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.cli import main
from labkit.own.clustering import load_clustering
from labkit.own.files import FORMULA
from tests.unit.own.hostile import FEW, Hostile, make_hostile, snapshot

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere are other names, and no /proc"),
    pytest.mark.timeout(600),
]
ROOT = Path(__file__).parents[3]
MEMORY = 2 << 30  # bytes above those of an interpreter
RUN = """
import pathlib, sys
from labkit.cli import main
status = main(sys.argv[2:])
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
pathlib.Path(sys.argv[1]).write_text(peak.split()[1])
sys.exit(status)
"""


class Place:
    """A hostile folder and what `labkit cluster` in a process of its own makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hostile: Hostile = make_hostile(folder / "photos", FEW)
        self.before = snapshot(self.hostile.root)
        self.out = folder / "out"
        command = ["cluster", "photos", "--out", "out", "--backbone", "pixels", "--restarts", "2"]
        environment = os.environ | {"LABKIT_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", RUN, "peak", *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said[-3000:]
        self.peak = int((folder / "peak").read_text()) << 10  # bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def call(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Any other command, in this process."""
    monkeypatch.setenv("LABKIT_CACHE", str(place.folder / "cache"))
    monkeypatch.chdir(place.folder)

    def called(*command: str) -> None:
        assert main(command) == 0

    return called


def test_a_label_for_every_image_and_a_reason_for_every_other(place: Place) -> None:
    found = load_clustering(place.out)
    assert {os.fsencode(path.relative_to(found.root)) for path in found.paths} == place.hostile.readable
    assert len(found.paths) == len(place.hostile.readable)
    assert set(found.labels) == set(found.clusters["cluster"])
    assert found.images["confidence"].between(0, 1).all()
    left_out = found.report["left_out"]
    assert left_out.keys() == {name.decode("utf-8", "backslashreplace") for name in place.hostile.broken}
    for name, why in place.hostile.broken.items():
        assert why in left_out[name.decode("utf-8", "backslashreplace")]
    assert found.report["other_endings"] == place.hostile.others
    assert found.images["flags"].str.contains("near").any()


def test_what_is_said_steers_no_terminal(place: Place) -> None:
    assert all(c.isprintable() or c in "\n\r" for c in place.said.replace("\x1b[A", ""))
    assert f"{len(place.hostile.readable)} images in " in place.said


def test_its_memory(place: Place) -> None:
    bare = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/status').read())"], capture_output=True, text=True, check=True
    )
    [least] = [int(line.split()[1]) << 10 for line in bare.stdout.splitlines() if line.startswith("VmHWM")]
    assert place.peak - least < MEMORY


def test_the_tables(place: Place) -> None:
    found = load_clustering(place.out)
    table = pd.read_csv(place.out / "labels.csv", keep_default_na=False)
    images = pd.read_parquet(place.out / "labels.parquet")
    assert len(table) == len(images) == len(place.hostile.readable)
    for column in ("cluster", "name", "flags"):
        assert table[column].tolist() == images[column].tolist()
    np.testing.assert_allclose(table["confidence"], images["confidence"], atol=1e-4)
    shown = [file.removeprefix("./") for file in table["file"]]
    assert shown == images["file"].tolist()
    assert [os.fsencode(path.relative_to(found.root)) for path in found.paths] == images["path"].tolist()
    with (place.out / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == table["file"].tolist()
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULA)]


def test_nothing_in_the_folder_is_changed(place: Place) -> None:
    assert snapshot(place.hostile.root) == place.before
    assert not list(place.folder.rglob("ran"))


def test_other_images_are_predicted(place: Place, call: Callable[..., None]) -> None:
    call("predict", "out", "photos", "--out", "later.csv")
    table = pd.read_csv(place.folder / "later.csv", keep_default_na=False)
    found = pd.read_csv(place.out / "labels.csv", keep_default_na=False)
    assert table["file"].tolist() == found["file"].tolist()
    assert (table["cluster"] == found["cluster"]).mean() > 0.95
    assert not table.map(lambda cell: str(cell).startswith(FORMULA)).any(axis=None)


def test_a_review_is_carried_out_and_undone(place: Place, call: Callable[..., None]) -> None:
    found = load_clustering(place.out)
    files = {name: (place.out / name).read_bytes() for name in ("labels.csv", "clusters.html", "map.html")}
    operations = [
        {"do": "rename", "cluster": int(found.labels[0]), "name": "=cmd()|'A0'!"},
        {"do": "reject", "files": [name for name in found.images["file"] if "script" in name]},
        {"do": "move", "files": found.images["file"][:3].tolist(), "cluster": int(found.labels[-1])},
    ]
    review = {"labkit": "review", "version": 1, "run": found.report["run"], "operations": operations}
    (place.folder / "review.json").write_text(json.dumps(review))
    call("apply", "review.json", "--to", "out")
    reviewed = load_clustering(place.out)
    assert (reviewed.labels == -1).sum() == sum("script" in name for name in found.images["file"]) > 2
    with (place.out / "labels.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=cmd()|'A0'!" in cells
    assert not [cell for cell in cells[4:] if cell.startswith(FORMULA) and cell != "-1"]
    (place.folder / "review.json").write_text(json.dumps(review | {"operations": []}))
    call("apply", "review.json", "--to", "out")
    assert {name: (place.out / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("command", ["sort", "imagefolder", "fiftyone"])
def test_images_are_copied(place: Place, call: Callable[..., None], command: str) -> None:
    to = place.folder / f"{command} here"
    options = ["--copy", "--yes"] if command == "sort" else ["--format", command]
    call("sort" if command == "sort" else "export", "out", "--to", to.name, *options)
    found = load_clustering(place.out)
    copied = [path for path in to.rglob("*") if path.is_file() and path.suffix not in (".json", ".csv", ".jsonl")]
    assert sorted(path.read_bytes() for path in copied) == sorted(path.read_bytes() for path in found.paths)
    assert all(path.is_relative_to(to) for path in copied)
    assert snapshot(place.hostile.root) == place.before
    if command == "sort":
        call("sort", "--undo", to.name)
        assert not to.exists()
