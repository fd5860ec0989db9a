"""The command line: exit statuses, errors in one line, and clusters of a folder of images."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load

import labkit
from labkit import cli
from labkit.cli import options
from labkit.data.datasets import load_dataset
from labkit.errors import FitError
from labkit.must import MUST, PRESETS
from labkit.own.cluster import FILES
from labkit.own.clustering import load_clustering
from labkit.own.self_train import Plan
from labkit.papers.protocol import SCALES
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.papers import SPACES
from labkit.turtle import Turtle
from tests import tiny


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flat folder of 24 images in two obvious classes: dark and bright."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    for module in ("labkit.turtle", "labkit.own.cluster"):
        monkeypatch.setattr(f"{module}.Turtle", functools.partial(Turtle, n_outer_steps=50))  # plenty for this task
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
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cli.__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "cluster", "must", "datasets"):
        assert command in done.stdout


def test_the_help_names_all_spaces_and_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cluster", "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())  # argparse breaks lines at hyphens, too
    assert all(name in said for name in SPACES)
    assert sorted(SPACES) == sorted(options.PAPER_SPACES.split(", "))
    assert tuple(SCALES) == options.PROFILES


def test_no_command_and_bad_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    seed = ["cluster", "folder", "--classes", "2", "--seed", "-1"]
    epochs = ["must", "digits", "--epochs", "0"]
    for arguments in ([], ["cluster"], ["cluster", "folder", "--classes", "two"], seed, epochs):
        assert cli.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("labkit: ")
        assert "--help" in said
        assert said.count("\n") == 1


def test_cluster_writes_a_folder_of_results(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["cluster", str(photos), *CLUSTER, "--out", str(out)]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"24 images in 2 clusters: {out / 'labels.csv'}" in said
    assert {path.name for path in out.iterdir()} == set(FILES)
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert list(rows[0]) == ["file", "cluster", "confidence", "name", "flags"]
    assert [row["file"] for row in rows] == sorted(path.name for path in photos.iterdir())
    dark = {row["cluster"] for row in rows if "dark" in row["file"]}
    bright = {row["cluster"] for row in rows if "bright" in row["file"]}
    assert len(dark) == len(bright) == 1
    assert dark != bright
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in rows)
    table = pd.read_parquet(out / "labels.parquet")
    assert table["cluster"].tolist() == [int(row["cluster"]) for row in rows]
    first = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert cli.main(arguments) == 0  # all is done
    assert first == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert capsys.readouterr().out.splitlines() == said
    shutil.rmtree(out)
    assert cli.main(arguments) == 0  # the same seed gives the same files
    for path, (content, _) in first.items():
        if path.suffix != ".safetensors":
            assert path.read_bytes() == content, path.name
        else:  # whose header has its entries in any order
            before, now = load(content), load(path.read_bytes())
            assert before.keys() == now.keys()
            assert all(np.array_equal(before[name], now[name]) for name in before)


def test_nothing_is_written_among_the_images(photos: Path, capsys: pytest.CaptureFixture[str], no_work: None) -> None:
    before = sorted(photos.iterdir())
    for place in (photos, photos / "clusters", photos / ".." / photos.name / "x"):
        said = refusal(["cluster", str(photos), *CLUSTER, "--out", str(place)], capsys)
        assert "the folder of the images, where nothing is changed" in said
    assert sorted(photos.iterdir()) == before


def test_a_damaged_result_is_made_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["cluster", str(photos), *CLUSTER, "--out", str(out)]
    assert cli.main(arguments) == 0
    labels = (out / "labels.csv").read_bytes()
    (out / "labels.parquet").write_bytes(b"damaged")
    (out / "labels.csv").write_bytes(b"")
    assert cli.main(arguments) == 0
    assert (out / "labels.csv").read_bytes() == labels
    (photos / "bad.png").write_bytes(b"")  # the report is to tell it
    assert cli.main(arguments) == 0
    assert set(load_clustering(out).report["left_out"]) == {"bad.png"}


def test_the_number_of_classes_is_estimated(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(["cluster", str(photos), "--backbone", "pixels", "--out", str(out)]) == 0
    found = load_clustering(out)
    assert found.report["n_classes"]["interval"] is not None
    assert found.report["n_classes"]["used"] >= 2
    assert len(found.paths) == 24


def test_a_result_that_was_reviewed_is_not_replaced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["cluster", str(photos), *CLUSTER, "--out", str(out)]
    assert cli.main(arguments) == 0
    review = {"labkit": "review", "version": 1, "run": load_clustering(out).report["run"]}
    review["operations"] = [{"do": "rename", "cluster": 0, "name": "night"}]
    (tmp_path / "review.json").write_text(json.dumps(review))
    assert cli.main(["apply", str(tmp_path / "review.json"), "--to", str(out)]) == 0
    assert "night" in set(pd.read_csv(out / "labels.csv")["name"])
    before = (out / "labels.csv").read_bytes()
    assert cli.main(arguments) == 0  # of the same images and settings: it is done
    assert "holds clusters that were reviewed" in refusal([*arguments, "--seed", "1"], capsys)
    assert (out / "labels.csv").read_bytes() == before


def test_more_classes_than_images_are_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cluster", str(photos), "--classes", "25", "--backbone", "pixels", "--out", str(tmp_path / "out")]
    assert "--classes is 25, but" in refusal(command, capsys)


def test_files_that_cannot_be_read_are_left_out_or_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "03-dark.png").write_bytes((photos / "03-dark.png").read_bytes()[:100])
    (photos / "08-bright.png").write_text("no image")
    arguments = ["cluster", str(photos), *CLUSTER, "--out", str(tmp_path / "out")]
    said = refusal([*arguments, "--strict"], capsys)
    assert "2 files cannot be read" in said
    assert "03-dark.png" in said
    assert "08-bright.png" in said
    assert not (tmp_path / "out").exists()
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "left out: 03-dark.png" in said
    assert "left out: 08-bright.png" in said
    assert "22 images in 2 clusters" in said
    assert set(load_clustering(tmp_path / "out").report["left_out"]) == {"03-dark.png", "08-bright.png"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"labkit {labkit.__version__}\n"


class Brightness(Backbone):
    """An image-text model that knows only how bright an image is, and what "dark" and "bright" say."""

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

    monkeypatch.setattr("labkit.own.cluster.load_backbone", load)


@pytest.mark.parametrize("words", ["bright & <light>, zebra ,dark,dark," + "x" * 300, "file"])
def test_cluster_names_the_clusters(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], brightness: None, words: str
) -> None:
    if words == "file":
        (tmp_path / "words.txt").write_text("bright & <light>\n\n  zebra\ndark\n", "utf-8-sig")
        words = str(tmp_path / "words.txt")
    out = tmp_path / "out"
    assert cli.main(["cluster", str(photos), *CLUSTER, "--words", words, "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "labels.csv").open()))
    for row in rows:
        assert row["name"] == ("dark" if "dark" in row["file"] else "bright & <light>")
    clusters = load_clustering(out).clusters
    assert set(clusters["name"]) == {"dark", "bright & <light>"}
    assert (clusters["name_confidence"] > 0.5).all()
    said = capsys.readouterr().out
    assert f"cluster {rows[1]['cluster']} (12 images): dark, confidence" in said
    page = (out / "clusters.html").read_text()
    assert "bright & <light>" not in page


def test_bad_input_is_one_line_and_leaves_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    binary = tmp_path / "words.bin"
    binary.write_bytes(b"\xff\xfe")
    for arguments, message in (
        (["cluster", str(tmp_path / "missing"), "--classes", "2"], "is not a folder"),
        (["cluster", str(empty), "--classes", "2", "--backbone", "pixels"], "no images"),
        (
            ["cluster", str(photos), "--classes", "1", "--backbone", "pixels"],
            "'1' is not a whole number of at least 2, or auto",
        ),
        (["cluster", str(photos), "--classes", "99", "--backbone", "pixels"], "--classes is 99, but"),
        (["cluster", str(photos), "--classes", "2", "--backbone", "resnet"], "backbone 'resnet' is unknown"),
        (["cluster", str(photos), "--classes", "2", "--words", ""], "--words is '', which is neither"),
        (
            ["cluster", str(photos), "--classes", "2", "--words", "words.txt"],
            "--words is 'words.txt', which is neither a list nor a file. Expected",
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


def test_datasets_lists_the_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("id ")
    for dataset in ("fashion-mini", "emoji-unseen", "digits"):
        assert f"\n{dataset} " in out
    assert out.splitlines()[0].index("title") <= 100  # columns: a usual terminal has all before the titles


def test_datasets_say_which_papers_report_on_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    column = slice(header.index("paper"), header.index("license"))
    papers = {line.split()[0]: line[column].strip() for line in lines}
    assert papers["imagenet"] == papers["caltech101"] == "TURTLE, MUST"
    assert papers["birdsnap"] == "TURTLE"
    assert papers["digits"] == papers["clothing-small"] == "-"
    assert sum("TURTLE" in paper for paper in papers.values()) == 26
    assert sum("MUST" in paper for paper in papers.values()) == 8

    assert cli.main(["datasets", "show", "dtd", "digits"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  paper:")]
    assert shown == ["  paper: TURTLE, MUST"]


@pytest.mark.parametrize(("failures", "status"), [([], 0), ([{"notebook": "02_x", "cell": 3, "error": "E: e"}], 1)])
def test_run_reports_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failures: list[dict[str, object]], status: int
) -> None:
    asked = {}

    def run_series(out: Path, **options: object) -> dict[str, object]:
        asked.update(options, out=out)
        return {"failures": failures, "timings": {"02_x": {"seconds": 1.5, "cells": []}}, "results": [{}]}

    monkeypatch.setattr("labkit.course.series.run_series", run_series)
    assert cli.main(["run", "--only", "02", "03", "--out", "here"]) == status
    assert asked == {"out": Path("here"), "profile": "pocket", "only": ["02", "03"]}
    captured = capsys.readouterr()
    assert captured.out.startswith(f"1 notebooks in 2 s, 1 results, {len(failures)} failed. See here")
    assert ("FAILED 02_x, code cell 3: E: e" in captured.err) == bool(failures)


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.course.series.run_series", interrupted)
    assert cli.main(["run"]) == 130
    assert "interrupted. The pages of the notebooks that had ended" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["zero-shot", "turtle"])
def test_must_trains_on_a_folder_and_goes_on(
    start: str, photos: Path, tmp_path: Path, tiny_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatched = ["must", str(photos), "--words", "dark,bright", "--backbone", tiny.NAME, "--epochs", "2"]
    arguments = [*monkeypatched, "--batch", "8", "--initial-labels", start, "--space", "pixels"]
    arguments += ["--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 0
    assert "24 images" in capsys.readouterr().out
    with (tmp_path / "run" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["label"] for row in rows} <= {"dark", "bright"}
    assert (photos / rows[0]["file"]).is_file()
    loaded = MUST.load(tmp_path / "run" / "must.safetensors")
    said = loaded.predict(load_dataset(photos, "train"))
    assert [row["label"] for row in rows] == loaded.class_names_[said].tolist()
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

    def self_train(plan: Plan, **options: object) -> None:
        given.append(plan.config)
        raise FitError("seen enough")

    monkeypatch.setattr("labkit.own.self_train.self_train", self_train)
    assert cli.main(["must", *arguments, "--out", str(tmp_path)]) == 2
    assert given == [PRESETS[row].replace(**changes)]


# --------------------------------------------------------------------------------- places, words and names that are odd


CLUSTER = ("--classes", "2", "--backbone", "pixels", "--restarts", "1")


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command says when it refuses."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("labkit")]
    lines = [line for line in lines if not line.startswith("labkit: warning: this run has")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model is loaded: what can be known before is to be said before."""
    for module in ("labkit.own.cluster", "labkit.spaces.backbones"):
        monkeypatch.setattr(f"{module}.load_backbone", None)
    monkeypatch.setattr("labkit.must.MUST", None)


def test_places_that_cannot_be_written_are_said_before_the_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_work: None
) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "labels.csv").write_text("")
    (tmp_path / "locked" / "labels.csv").chmod(0o400)
    (tmp_path / "device").symlink_to(os.devnull)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    here = {path.name for path in tmp_path.iterdir()}
    for name in ("file", "file/x", "pipe", "locked", "device", "loop", "x" * 300):
        said = refusal(["cluster", str(photos), *CLUSTER, "--out", str(tmp_path / name)], capsys)
        assert name in said
        assert "cannot be written" in said
        assert "Choose another place" in said
    assert {path.name for path in tmp_path.iterdir()} == here


def test_nothing_that_was_given_is_replaced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_work: None
) -> None:
    words = tmp_path / "clusters.html"
    words.write_text("dark\nbright\n")
    (tmp_path / "link").symlink_to(tmp_path)
    command = ["cluster", str(photos), *CLUSTER, "--words", str(words), "--out"]
    for place in (tmp_path, tmp_path / "link", tmp_path / "link" / "."):
        assert "which is the file of words" in refusal([*command, str(place)], capsys)
    assert words.read_text() == "dark\nbright\n"
    run = tmp_path / "run"
    run.mkdir()
    (run / "labels.csv").write_text("dark\nbright\n")
    command = ["must", str(photos), "--words", str(run / "labels.csv"), "--out", str(run)]
    assert "--out (labels.csv) would replace" in refusal(command, capsys)


def test_must_tries_its_folder_before_anything_is_loaded(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_work: None
) -> None:
    (tmp_path / "file").write_text("")
    command = ["must", str(photos), "--words", "dark,bright", "--out", str(tmp_path / "file")]
    assert "cannot be written" in refusal(command, capsys)


def test_paths_may_begin_with_a_tilde(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["cluster", "~/photos", *CLUSTER, "--out", "~/out"]
    assert cli.main(command) == 0
    assert (tmp_path / "out" / "labels.csv").exists()
    parse = cli.make_parser().parse_args
    parsed = parse(["must", "~/photos", "--out", "~/run"])
    assert (parsed.data, parsed.out) == (str(photos), tmp_path / "run")
    assert parse(["run", "--out", "~/run"]).out == tmp_path / "run"
    assert parse(["must", "digits"]).data == "digits"
    assert parse(["run", "--out", "~no-such-user/run"]).out == Path("~no-such-user/run")


def test_names_of_all_kinds_make_a_whole_table_and_a_whole_sheet(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], brightness: None
) -> None:
    names = ["new\nline.png", '"quote", comma.png', "=1+1.png", "<img src=x>.png", "-rf.png", "\tt.png", "@a.png"]
    names.append(os.fsdecode(b"caf\xe9.png"))
    for path, name in zip(sorted(photos.iterdir()), names, strict=False):
        path.rename(photos / name)
    out = tmp_path / "out"
    assert cli.main(["cluster", str(photos), *CLUSTER, "--words", "=bright,dark", "--out", str(out)]) == 0
    table = pd.read_csv(out / "labels.csv")
    assert len(table) == 24
    assert set(table["name"]) == {"'=bright", "dark"}
    expected = {"new\nline.png", '"quote", comma.png', "./=1+1.png", "<img src=x>.png", "./-rf.png", "./\tt.png"}
    assert {*expected, "./@a.png", "caf\\xe9.png"} <= set(table["file"])
    assert set(load_clustering(out).paths) == set(photos.iterdir())
    for name in ("clusters.html", "map.html"):
        assert "<img src=x>" not in (out / name).read_text()


def test_a_class_whose_name_is_a_formula_or_not_utf8(photos: Path, tmp_path: Path) -> None:
    for path in list(photos.iterdir()):
        folder = photos / ("=x" if "dark" in path.name else os.fsdecode(b"r\xe9s"))
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    assert cli.main(["cluster", str(photos), *CLUSTER, "--out", str(tmp_path / "out")]) == 0
    assert {name.rsplit("/", 1)[0] for name in pd.read_csv(tmp_path / "out" / "labels.csv")["file"]} == {
        "./=x",
        "r\\xe9s",
    }


def test_words_that_cannot_be_read_are_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_work: None
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"word\n" * 300_000)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for given, message in (
        (str(tmp_path / "pipe"), "pipe, a socket or a device"),
        ("/dev/zero", "pipe, a socket or a device"),
        (str(tmp_path), "it is a folder"),
        (str(tmp_path / "huge"), "larger than 1 MB"),
        (str(tmp_path / "gone"), "No such file"),
        ("\n".join(map(str, range(200))), "neither a list nor a file"),
        (os.fsdecode(b"caf\xe9,dog"), "the word caf\\xe9 is not UTF-8"),
    ):
        said = refusal(["cluster", str(photos), *CLUSTER, "--words", given, "--out", str(tmp_path / "l.csv")], capsys)
        assert message in said
        assert len(said) < 600


def test_a_file_of_words_with_a_comma_in_its_name_is_a_file(photos: Path, tmp_path: Path, brightness: None) -> None:
    (tmp_path / "dark,bright.txt").write_text("zebra\nbright\ndark\n")
    out = tmp_path / "out"
    words = str(tmp_path / "dark,bright.txt")
    assert cli.main(["cluster", str(photos), *CLUSTER, "--words", words, "--out", str(out)]) == 0
    assert set(pd.read_csv(out / "labels.csv")["name"]) == {"dark", "bright"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cluster", "", "--classes", "2"], "folder: it is empty"),
        (["must", ""], "data: it is empty"),
        (["run", "--out", ""], "--out: it is empty"),
        (["cluster", ".", "--classes", "2.5"], "--classes: '2.5' is not a"),
        (["cluster", ".", "--classes", "2", "--seed", "x"], "--seed: 'x' is not a whole number from 0 to"),
        (["cluster", ".", "--classes", "2", "--restarts", "0"], "--restarts: '0' is not a whole number of at"),
        (["cluster", ".", "--classes", "2", "--restarts", "9" * 5000], "--restarts: '9999"),
    ],
)
def test_arguments_that_are_none_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(arguments, capsys)
    assert message in said
    assert len(said) < 200


# -------------------------------------------------------------------------------------- words that nobody reads or can


def in_shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line in which `labkit` is this one."""
    labkit_here = f"{sys.executable} -m labkit.cli "
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), "OMP_NUM_THREADS": "1", **environment}
    env["LABKIT_CACHE"] = environment.get("LABKIT_CACHE", str(folder / "cache"))
    full = command.replace("labkit ", labkit_here, 1)
    return subprocess.run(["bash", "-c", full], cwd=folder, env=env, capture_output=True, text=True, errors="replace")


RUN = "labkit cluster photos --classes 2 --backbone pixels --restarts 1"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (f"mv photos/00-bright.png photos/球.png; {RUN} --words 球,箱 --strict", 0, "24 images"),
        (f"echo no > photos/球.png; {RUN}", 0, "\\u"),
        (f"{RUN} >&-", 0, ""),
        (f"{RUN} >&- 2>&- <&-", 0, ""),
        (f"{RUN} >/dev/full", 2, "standard output cannot be written"),
        (f"{RUN} 2>&1 | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("labkit --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("labkit --help >/dev/full", 2, "standard output cannot be written"),
        ("labkit datasets | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("labkit nonsense 2>/dev/full", 2, ""),
        ("COLUMNS=0 labkit cluster --help", 0, "folder of results"),
    ],
)
def test_words_that_cannot_be_written_cost_no_result(
    command: str, status: int, said: str, photos: Path, tmp_path: Path
) -> None:
    done = in_shell(command, tmp_path, PYTHONIOENCODING="cp1252")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stdout + done.stderr
    if RUN in command:
        assert len(pd.read_csv(tmp_path / "clusters" / "labels.csv")) == 24


def test_a_folder_that_is_gone_is_one_line(photos: Path, tmp_path: Path) -> None:
    done = in_shell(f"mkdir gone && cd gone && rmdir ../gone && {RUN}", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("labkit: the folder that labkit was started in is gone")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    assert in_shell(RUN, tmp_path).returncode == 0  # features are kept
    out = tmp_path / "clusters"
    before = {path: path.read_bytes() for path in out.iterdir()}
    done = in_shell(f"trap '' XFSZ; ulimit -f 0; {RUN} --seed 1 2>&1", tmp_path)
    assert done.returncode == 2
    assert "can be written: the disk may be full" in done.stdout.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.iterdir()}


def test_a_user_without_a_home(photos: Path, tmp_path: Path) -> None:
    code = (
        "import os, pwd, sys\n"
        "def nobody(who):\n    raise KeyError(who)\n"
        "pwd.getpwuid = pwd.getpwnam = nobody\n"
        "from labkit.cli import main\nsys.exit(main())"
    )
    (tmp_path / "labkit_of_nobody.py").write_text(code)
    nobody = f"env -u HOME -u LABKIT_CACHE -u XDG_CACHE_HOME {sys.executable} labkit_of_nobody.py"
    run = RUN.replace("labkit ", "", 1)
    for command, status in (
        (f"{nobody} --help", 0),
        (f"{nobody} datasets", 0),
        (f"LABKIT_CACHE={tmp_path}/cache {nobody.replace('-u LABKIT_CACHE', '')} {run}", 0),
        (f"{nobody} {run}", 2),
    ):
        done = in_shell(command, tmp_path)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert status == 0 or "Set the environment variable LABKIT_CACHE" in done.stderr
