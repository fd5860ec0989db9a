"""The command line: exit statuses, errors in one line, and clusters of a folder of images."""

from __future__ import annotations

import csv
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import labkit
from labkit import cli
from labkit.backbones import Backbone, load_backbone
from labkit.errors import DataError, FitError
from labkit.manifests import load_manifest
from labkit.must import MUST, PRESETS, MustConfig
from labkit.papers import SPACES
from labkit.turtle import Turtle
from tests import tiny


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flat folder of 24 images in two obvious classes: dark and bright."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("labkit.turtle.Turtle", functools.partial(Turtle, n_outer_steps=50))  # plenty for this task
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        level = 40 if i % 2 else 215
        pixels = rng.normal(level, 15, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}{'-dark' if i % 2 else '-bright'}.png")
    return folder


def test_help_is_quick() -> None:
    code = (
        "import sys\nfrom labkit.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cli.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "cluster", "must", "datasets"):
        assert command in done.stdout


def test_the_help_names_all_spaces_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["cluster", "--help"])
    said = "".join(capsys.readouterr().out.split())  # argparse breaks lines at hyphens, too
    assert all(name in said for name in SPACES)
    assert sorted(SPACES) == sorted(cli.PAPER_SPACES.split(", "))


def test_no_command_and_bad_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    seed = ["cluster", "folder", "--classes", "2", "--seed", "-1"]
    epochs = ["must", "digits", "--epochs", "0"]
    for arguments in ([], ["sort"], ["cluster", "folder"], ["cluster", "folder", "--classes", "two"], seed, epochs):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2
    assert "usage: labkit" in capsys.readouterr().err


def test_cluster_writes_a_table_and_a_sheet(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, sheet = tmp_path / "labels.csv", tmp_path / "sheet.html"
    arguments = ["cluster", str(photos), "--classes", "2", "--backbone", "pixels", "--restarts", "2"]
    assert cli.main([*arguments, "--out", str(out), "--sheet", str(sheet)]) == 0
    assert capsys.readouterr().out == f"24 images in 2 clusters: {out}\ncontact sheet: {sheet}\n"
    first = out.read_bytes()
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["file", "cluster", "confidence"]
    assert [row["file"] for row in rows] == sorted(path.name for path in photos.iterdir())
    dark = {row["cluster"] for row in rows if "dark" in row["file"]}
    bright = {row["cluster"] for row in rows if "bright" in row["file"]}
    assert len(dark) == len(bright) == 1
    assert dark != bright
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in rows)
    page = sheet.read_text()
    assert page.count("<img alt=") == 24
    assert 'alt="00-bright.png"' in page
    assert cli.main([*arguments, "--out", str(out)]) == 0  # the same seed gives the same file
    assert out.read_bytes() == first


def test_more_classes_than_images_are_refused_before_the_work(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.backbones.load_backbone", None)
    assert cli.main(["cluster", str(photos), "--classes", "25"]) == 2
    assert "--classes is 25, but" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"labkit {labkit.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [["cluster", "--classes", "2", "--backbone", "pixels"], ["must", "--words", "a,b", "--backbone", tiny.NAME]],
)
def test_all_images_that_cannot_be_read_are_named_at_once(
    command: list[str], photos: Path, tmp_path: Path, tiny_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "03-dark.png").write_bytes((photos / "03-dark.png").read_bytes()[:100])
    arguments = [command[0], str(photos), *command[1:], "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    assert "labkit: the image " in capsys.readouterr().err
    (photos / "08-bright.png").write_text("no image")
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "2 of 24 images cannot be read" in said
    assert "03-dark.png" in said
    assert "08-bright.png" in said
    assert "05-dark.png" not in said


def test_cluster_writes_a_png_sheet(photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["cluster", str(photos), "--classes", "2", "--backbone", "pixels", "--restarts", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path / "labels.csv"), "--sheet", str(sheet)]) == 0
    with Image.open(sheet) as image:
        assert image.width > 100


class Brightness(Backbone):
    """An image-text model that knows only how bright a picture is, and what "dark" and "bright" say."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        level = pixels.float().mean((1, 2, 3)) / 255
        return torch.stack([level, 1 - level, torch.ones(len(level))], 1)

    def encode_text(self, texts: list[str], *, batch_size: int = 256) -> torch.Tensor:
        known = {"bright": [0.7, 0.1, 0.7], "dark": [0.1, 0.7, 0.7]}
        return torch.tensor([next((known[w] for w in known if w in text), [0.0, 0.0, 1.0]) for text in texts])

    @property
    def logit_scale(self) -> float:
        return 10.0


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = load_backbone("pixels", device="cpu")

    def load(name: str) -> Backbone:
        if name != "pocket-clip":
            return load_backbone(name)
        return Brightness(name, 3, "0" * 64, pixels.preprocess, pixels.device, pixels.dtype, pixels.model)

    monkeypatch.setattr("labkit.backbones.load_backbone", load)


@pytest.mark.parametrize("words", ["bright & <light>, zebra ,dark,dark," + "x" * 300, "file"])
def test_cluster_names_the_clusters(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], brightness: None, words: str
) -> None:
    if words == "file":
        (tmp_path / "words.txt").write_text("bright & <light>\n\n  zebra\ndark\n", "utf-8-sig")
        words = str(tmp_path / "words.txt")
    out, sheet = tmp_path / "labels.csv", tmp_path / "sheet.html"
    arguments = ["cluster", str(photos), "--classes", "2", "--backbone", "pixels", "--restarts", "2"]
    assert cli.main([*arguments, "--words", words, "--out", str(out), "--sheet", str(sheet)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["file", "cluster", "confidence", "name"]
    for row in rows:
        assert row["name"] == ("dark" if "dark" in row["file"] else "bright & <light>")
    assert f"Cluster {rows[1]['cluster']}, dark: 12 images" in sheet.read_text()
    assert f"Cluster {rows[0]['cluster']}, bright &amp; &lt;light&gt;: 12 images" in sheet.read_text()
    png = tmp_path / "sheet.png"
    assert cli.main([*arguments, "--words", words, "--out", str(out), "--sheet", str(png)]) == 0
    assert png.stat().st_size > 1000


def test_cluster_names_with_the_pocket_model(photos: Path, tmp_path: Path, pocket_models: Path) -> None:
    out = tmp_path / "labels.csv"
    arguments = ["cluster", str(photos), "--classes", "2", "--backbone", "pixels", "--restarts", "1"]
    assert cli.main([*arguments, "--words", "cat,dog,bird", "--out", str(out)]) == 0
    named = {(row["cluster"], row["name"]) for row in csv.DictReader(out.open())}
    assert len(named) == len({name for _, name in named}) == 2


def test_bad_input_is_one_line_and_leaves_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "labels.csv"
    binary = tmp_path / "words.bin"
    binary.write_bytes(b"\xff\xfe")
    for arguments, message in (
        (["cluster", str(tmp_path / "missing"), "--classes", "2"], "is not a folder"),
        (["cluster", str(empty), "--classes", "2", "--backbone", "pixels"], "no images"),
        (["cluster", str(photos), "--classes", "1", "--backbone", "pixels"], "--classes is 1"),
        (["cluster", str(photos), "--classes", "99", "--backbone", "pixels"], "--classes is 99, but"),
        (["cluster", str(photos), "--classes", "2", "--backbone", "resnet"], "backbone 'resnet' is unknown"),
        (["cluster", str(photos), "--classes", "2", "--sheet", "sheet.gif"], "ends in .html or .png"),
        (["cluster", str(photos), "--classes", "3", "--words", "cat,dog,,cat"], "2 different words for 3 clusters"),
        (["cluster", str(photos), "--classes", "2", "--words", ""], "file of words '' cannot be read"),
        (
            ["cluster", str(photos), "--classes", "2", "--words", "words.txt"],
            "--words is 'words.txt', which is neither a list nor a file. Expected at least 2 words",
        ),
        (["cluster", str(photos), "--classes", "2", "--words", str(binary)], "Expected a word a line in UTF-8"),
        (["run", "--profile", "huge", "--out", str(tmp_path / "run")], "Expected one of pocket"),
    ):
        extra = ["--out", str(out)] if arguments[0] == "cluster" else []
        assert cli.main([*arguments, *extra]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("labkit:")]
        assert len(errors) == 1
        assert message in errors[0]
    assert not out.exists()
    assert not (tmp_path / "run").exists()


def test_cluster_into_a_place_that_cannot_be_written(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        cli._write(tmp_path / "file" / "labels.csv", b"")


def test_datasets_lists_the_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("id ")
    for dataset in ("fashion-mini", "emoji-unseen", "digits"):
        assert f"\n{dataset} " in out


@pytest.mark.parametrize(("failures", "status"), [([], 0), ([{"notebook": "02_x", "cell": 3, "error": "E: e"}], 1)])
def test_run_reports_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failures: list[dict[str, object]], status: int
) -> None:
    asked = {}

    def run_series(out: Path, **options: object) -> dict[str, object]:
        asked.update(options, out=out)
        return {"failures": failures, "timings": {"02_x": {"seconds": 1.5, "cells": []}}, "results": [{}]}

    monkeypatch.setattr("labkit.series.run_series", run_series)
    assert cli.main(["run", "--only", "02", "03", "--out", "here"]) == status
    assert asked == {"out": Path("here"), "profile": "pocket", "only": ["02", "03"]}
    captured = capsys.readouterr()
    assert captured.out.startswith(f"1 notebooks in 2 s, 1 results, {len(failures)} failed. See here")
    assert ("FAILED 02_x, code cell 3: E: e" in captured.err) == bool(failures)


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.series.run_series", interrupted)
    assert cli.main(["run"]) == 130
    assert "interrupted. The pages of the notebooks that had ended" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["prompts", "turtle"])
def test_must_trains_on_a_folder_and_goes_on(
    start: str, photos: Path, tmp_path: Path, tiny_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatched = ["must", str(photos), "--words", "dark,bright", "--backbone", tiny.NAME, "--epochs", "2"]
    arguments = [*monkeypatched, "--batch", "8", "--start", start, "--space", "pixels", "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 0
    assert "24 images" in capsys.readouterr().out
    with (tmp_path / "run" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["label"] for row in rows} <= {"dark", "bright"}
    assert (photos / rows[0]["file"]).is_file()
    loaded = MUST.load(tmp_path / "run" / "must.safetensors")
    said = loaded.predict(load_manifest(photos).images("train"))
    assert [row["label"] for row in rows] == loaded.classes_[said].tolist()
    before = (tmp_path / "run" / "labels.csv").read_bytes()
    assert cli.main(arguments) == 0  # from its checkpoint: nothing is left to train
    assert (tmp_path / "run" / "labels.csv").read_bytes() == before
    assert cli.main([*arguments, "--seed", "1"]) == 2
    assert "random_state (there 0, now 1)" in capsys.readouterr().err


def test_must_explains_what_it_cannot_use(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert cli.main(["must", str(photos), *out]) == 2
    assert "Give them, such as --words cat,dog,bird" in capsys.readouterr().err
    assert cli.main(["must", str(photos), "--words", "dark,bright", "--preset", "quick", *out]) == 2
    assert "imagenet/ViT-B-16" in capsys.readouterr().err
    assert cli.main(["must", str(photos), "--words", "dark,bright", "--backbone", "pocket-clip", *out]) == 2
    assert "pocket-vit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "row", "changes"),
    [
        (["digits"], "digits/pocket-vit", {}),
        (["fashion-mini", "--epochs", "1"], "fashion-mini/pocket-vit", {"epochs": 1}),
        (["digits", "--preset", "pocket", "--threshold", "0.4"], "pocket", {"threshold": 0.4}),
        (["emoji-unseen"], "pocket", {}),
        (["dtd", "--backbone", "open_clip:ViT-B-16/openai", "--batch", "256"], "dtd/ViT-B-16", {"batch_size": 256}),
        (["oxford-pets", "--backbone", "clip-vit-l14"], "pets/ViT-L-14", {}),
    ],
)
def test_must_takes_the_settings_of_its_dataset_and_model(
    arguments: list[str], row: str, changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def must(backbone: str, prompts: object, config: MustConfig, random_state: int) -> None:
        given.append(config)
        raise FitError("seen enough")

    monkeypatch.setattr("labkit.must.MUST", must)
    monkeypatch.setattr("labkit.manifests.Manifest.images", lambda manifest, split: None)
    assert cli.main(["must", *arguments, "--out", str(tmp_path)]) == 2
    assert given == [PRESETS[row].replace(**changes)]
