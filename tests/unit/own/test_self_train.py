"""`labkit must`: what it says before a run, what it refuses, and who changed class."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit import cli
from labkit.errors import DataError
from labkit.must import MUST, PRESETS, MustConfig
from labkit.must.length import epochs_needed, length_of
from labkit.own.self_train import plan, self_train
from labkit.zeroshot.prompts import Prompts
from tests import tiny


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 images, dark and bright by turns, no sub-folders."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.normal(40 if i % 2 else 215, 15, (24, 24, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def command(photos: Path, out: Path, *more: str) -> list[str]:
    given = ["must", str(photos), "--words", "dark,bright", "--backbone", tiny.NAME, "--epochs", "2", "--batch", "8"]
    return [*given, "--out", str(out), *more]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------------------- length


@pytest.mark.parametrize("n", [5, 24, 240, 1437])
@pytest.mark.parametrize("batch", [8, 128])
def test_the_length_of_a_run(n: int, batch: int) -> None:
    config = PRESETS["pocket"].replace(batch_size=batch)
    own, teacher = min(batch, n), 1.0
    steps = config.epochs * (n // own)
    for step in range(steps):  # t <- decay t + (1 - decay) s, whose first term is all that is left of the start
        grown = min(1.0, step * (own / 1024) / config.ema_warmup)
        teacher *= (config.ema_decay + (config.ema_decay_end - config.ema_decay) * grown) ** (own / 1024)
    length = length_of(config, n)
    assert (length.steps, length.per_epoch, length.unused) == (steps, n // own, n % own)
    assert length.left == pytest.approx(teacher)
    enough = epochs_needed(config, n)
    assert not length_of(config.replace(epochs=enough), n).is_too_short
    assert enough == 1 or length_of(config.replace(epochs=enough - 1), n).is_too_short


def test_no_published_run_and_none_of_ours_counts_as_too_short() -> None:
    images = {"imagenet": 1_281_167, "sun397": 19_850, "food101": 75_750, "gtsrb": 26_640, "dtd": 3_760}
    images |= {"ucf101": 7_639, "pets": 3_680, "caltech101": 3_060, "cifar10": 50_000, "stl10": 5_000}
    images |= {"digits": 1_437, "fashion-mini": 16_000, "pocket": 1_560}
    for key, config in PRESETS.items():
        assert not length_of(config, images[key.partition("/")[0]]).is_too_short, key


def test_a_teacher_without_memory_is_never_too_short() -> None:
    assert not length_of(MustConfig(epochs=1, ema_decay=0.0), 10).is_too_short


# ----------------------------------------------------------------------------------------------------------------- plan


def test_a_run_with_too_few_steps_is_said_before_and_after(
    photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(photos, tmp_path / "run")) == 0
    said = capsys.readouterr()
    needed = epochs_needed(PRESETS["pocket"].replace(batch_size=8), 24)
    assert "  6 steps, 3 in an epoch of 24 images" in said.out
    assert "labkit: warning: this run has 6 steps, after which" in said.err
    assert f"Set --epochs {needed} or more" in said.err
    assert "Too few steps: this run has 6 steps, after which the model that predicts is still almost wholly" in said.out
    assert plan(str(photos), tiny.NAME, words=["dark", "bright"], batch_size=8, epochs=needed).warning == ""


def test_images_that_a_batch_leaves_out_are_said(photos: Path) -> None:
    lines = plan(str(photos), "pocket-vit", words=["dark", "bright"], batch_size=15, epochs=3).settings
    assert lines[-1] == "  3 steps, 1 in an epoch of 24 images, of which each leaves out 9: --batch 12 would use all"
    lines = plan(str(photos), "pocket-vit", words=["dark", "bright"], batch_size=12, epochs=3).settings
    assert lines[-1] == "  6 steps, 2 in an epoch of 24 images"


def test_the_words_and_where_they_are_from_are_said(photos: Path, tmp_path: Path) -> None:
    given = plan(str(photos), "pocket-vit", words=["dark", "bright"])
    assert given.settings[0] == "classes: dark, bright (2, from --words)"
    assert any("a batch is all 24 images" in line for line in given.settings)
    assert given.config.batch_size == 24
    for path in list(photos.iterdir()):
        (photos / path.name[1]).mkdir(exist_ok=True)
        path.rename(photos / path.name[1] / path.name)
    assert plan(str(photos), "pocket-vit").settings[0].endswith("(10, the names of its sub-folders)")
    other = plan(str(photos), "pocket-vit", words=["a", "b"], words_file=tmp_path / "w.txt")
    assert other.settings[0] == f"classes: a, b (2, from {tmp_path / 'w.txt'}, not the names of its sub-folders)"
    assert plan("digits", "pocket-vit").settings[0].endswith("(10, of the dataset)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", *map(str, range(23))], "24 images for 25 classes"),
        (None, "has no class names"),
        (["a"], "has one class, 'a'"),
    ],
)
def test_nonsense_is_refused_before_the_work(words: list[str] | None, message: str, photos: Path) -> None:
    with pytest.raises(DataError, match=message):
        plan(str(photos), "pocket-vit", words=words)


def test_one_folder_is_no_choice(photos: Path) -> None:
    (photos / "only").mkdir()
    for path in photos.glob("*.png"):
        path.rename(photos / "only" / path.name)
    with pytest.raises(DataError, match="has one class, 'only'"):
        plan(str(photos), "pocket-vit")


@pytest.mark.parametrize("given", ["1", "1.5", "-0.1", "nan", "much"])
def test_a_threshold_is_a_share(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["must", "digits", f"--threshold={given}"]) == 2
    assert "is not a number from 0 to below 1" in capsys.readouterr().err


def test_a_preset_that_is_misspelled(photos: Path) -> None:
    with pytest.raises(DataError, match=r"Did you mean .?pets/ViT-B-16"):
        plan(str(photos), "pocket-vit", words=["a", "b"], preset="pets/ViT-B16")


# -------------------------------------------------------------------------------------------------------------- the run


def test_labels_tell_who_changed(photos: Path, tmp_path: Path, tiny_model: Path) -> None:
    given = plan(str(photos), tiny.NAME, words=["dark", "bright"], batch_size=8, epochs=4)
    config = tiny.config(epochs=4, lr=0.1, threshold=0.0)  # so that something changes
    trained = self_train(type(given)(**{**vars(given), "config": config}), out=tmp_path / "run")
    assert trained is not None
    rows = rows_of(tmp_path / "run")
    names = np.array(["dark", "bright"])
    assert [row["label"] for row in rows] == names[trained.after].tolist()
    assert [row["before"] for row in rows] == names[trained.before].tolist()
    changed = [row for row in rows if row["label"] != row["before"]]
    assert len(changed) > 0
    assert f"{len(changed)} of 24 images changed class, the most confident:" in trained.story
    listed = [line for line in trained.story if " -> " in line]
    assert len(listed) == min(10, len(changed))
    best = max(changed, key=lambda row: float(row["confidence"]))
    assert listed[0] == f"  {best['file']}: {best['before']} -> {best['label']} ({float(best['confidence']):.2f})"
    before = [row["before"] for row in rows].count("dark")
    assert trained.story[0] == f"dark: {before} images before, {[r['label'] for r in rows].count('dark')} after"


def test_before_is_zero_shot(photos: Path, tmp_path: Path, tiny_model: Path) -> None:
    given = plan(str(photos), tiny.NAME, words=["dark", "bright"], batch_size=8, epochs=1)
    still = type(given)(**{**vars(given), "config": tiny.config(epochs=1, lr=1e-12)})
    trained = self_train(still, out=tmp_path / "run")
    assert trained is not None
    np.testing.assert_array_equal(trained.before, trained.after)  # a model that learns nothing predicts as before
    assert "0 of 24 images changed class." in trained.story


def test_images_that_cannot_be_read_are_left_out(
    photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "03.png").write_bytes((photos / "03.png").read_bytes()[:100])
    (photos / "08.png").write_text("no image")
    (photos / "more").mkdir()
    shutil.copy(photos / "00.png", photos / "more" / "a.png")
    assert cli.main(command(photos, tmp_path / "run", "--initial-labels", "turtle", "--space", "pixels,hog")) == 0
    said = capsys.readouterr().err
    assert "labkit: left out: 03.png: " in said
    assert "labkit: left out: 08.png: " in said
    files = {row["file"] for row in rows_of(tmp_path / "run")}
    assert len(files) == 23
    assert "more/a.png" in files
    assert not {"03.png", "08.png"} & files
    assert cli.main(command(photos, tmp_path / "strict", "--strict")) == 2
    said = capsys.readouterr().err
    assert "03.png" in said
    assert "08.png" in said
    assert not (tmp_path / "strict" / "labels.csv").exists()


def test_other_images_with_the_same_names_are_never_answered_by_the_model_of_the_first(
    photos: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(photos, tmp_path / "run")) == 0
    other = tmp_path / "other"
    other.mkdir()
    for path in photos.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(other / path.name)
    before = (tmp_path / "run" / "labels.csv").read_bytes()
    capsys.readouterr()
    assert cli.main(command(other, tmp_path / "run")) == 2
    assert "belongs to a run with other settings: other images. Choose another folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("start", ["zero-shot", "turtle"])
def test_the_image_text_model_is_loaded_once(
    start: str, photos: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.spaces import backbones

    loaded = []
    load = backbones.load_backbone

    def count(name: str, **options: object) -> backbones.Backbone:
        loaded.append(name)
        return load(name, **options)  # type: ignore[arg-type]

    for module in ("labkit.own.self_train", "labkit.must.estimator", "labkit.must.saved"):
        monkeypatch.setattr(f"{module}.load_backbone", count)
    assert cli.main(command(photos, tmp_path / "run", "--initial-labels", start, "--space", "pixels")) == 0
    assert loaded.count(tiny.NAME) == 1


def test_the_model_is_that_of_the_library(photos: Path, tmp_path: Path, tiny_model: Path) -> None:
    from labkit.data.datasets import load_dataset

    assert cli.main(command(photos, tmp_path / "run")) == 0
    config = PRESETS["pocket"].replace(epochs=2, batch_size=8)
    must = MUST(tiny.NAME, Prompts.from_words(["dark", "bright"]), config).fit(load_dataset(photos))
    words = must.class_names_[must.predict(load_dataset(photos))].tolist()
    assert [row["label"] for row in rows_of(tmp_path / "run")] == words
