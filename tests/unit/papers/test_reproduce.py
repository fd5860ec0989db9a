"""A reproduction: rows are what the parts give by hand, labels change no fit, what is done is not done again."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from scipy.special import softmax
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.preprocessing import normalize

import labkit as lk
from labkit import cli
from labkit._files import locked_folder
from labkit.course.profiles import PROFILES
from labkit.data.images import ImageDataset
from labkit.errors import CollapseWarning, DataError
from labkit.must import PRESETS, checkpoint
from labkit.must.trainer import Trainer
from labkit.papers import job as jobs
from labkit.papers import labelings, protocol
from labkit.papers import reproduce as module
from labkit.papers.protocol import DATASETS, SCALES, pick_scale
from labkit.papers.report import sections
from labkit.papers.reproduce import chosen_datasets, reproduce
from labkit.papers.results import FILE, read_rows
from labkit.spaces import shard_work
from labkit.spaces.shards import ShardedFeatures
from labkit.turtle import PAPER_GRID, Turtle
from tests import tiny
from tests.unit.papers import small

VALUES = ["paper", "dataset", "method", "spaces", "metric", "value", "settings", "chosen", "seed"]


def values(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.drop(columns=["seconds", "date"]).to_dict("records")


def value(table: pd.DataFrame, method: str, metric: str, dataset: str = "colors") -> float:
    [found] = table["value"][(table["method"] == method) & (table["metric"] == metric) & (table["dataset"] == dataset)]
    return float(found)


# ------------------------------------------------------------------------------------------------------------ protocol


def test_the_profiles_name_the_models_of_the_series() -> None:
    for name, profile in PROFILES.items():
        scale = SCALES[name]
        assert (scale.spaces, scale.image_size, scale.image_text) == (
            profile.backbones,
            profile.image_size,
            profile.image_text,
        )
        assert profile.student in scale.students


def test_the_paper_profile_is_what_was_published() -> None:
    scale = pick_scale("paper")
    runs = scale.runs()
    assert scale.spaces == ("clip-vit-l14", "dinov2-vit-g14")
    assert len(runs) == len({json.dumps(run) for run in runs}) == 18
    assert {name: sorted({run[name] for run in runs}) for name in PAPER_GRID} == {
        "outer_lr": [1e-4, 1e-3, 1e-2],
        "inner_lr": [1e-4, 1e-3, 1e-2],
        "inner_start": ["cold", "warm"],
    }
    for run in runs:
        assert (run["n_outer_steps"], run["n_inner_steps"], run["batch_size"]) == (6000, 10, 10_000)
        assert (run["entropy_weight"], run["dtype"]) == (10.0, "float32")
        assert (run["n_components"], run["whitening"], run["feature_scale"]) == (None, 0.0, None)
    official = Turtle.official(5).get_params()
    [same] = [run for run in runs if all(official[name] == run[name] for name in run)]
    assert same["inner_start"] == "cold"
    assert official["random_state"] == protocol.SEED
    manifests = [lk.load_manifest(name) for name in DATASETS["must"]]
    configs = [scale.must_config(manifest, student) for manifest in manifests for student in scale.students]
    assert sum(config is not None for config in configs) == 14  # six datasets with both models, two with one


def test_presets_of_the_paper_are_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))  # where no stand-in makes a split smaller than a batch
    config = pick_scale("paper").must_config(lk.load_manifest("dtd"), "clip-vit-l14")
    assert config == PRESETS["dtd/ViT-L-14"]
    assert pick_scale("paper").must_config(lk.load_manifest("oxford-pets"), "clip-vit-l14") is None  # not published
    assert pick_scale("standard").must_config(lk.load_manifest("digits"), "clip-vit-b16") is None


def test_the_datasets_are_the_papers() -> None:
    assert (len(DATASETS["turtle"]), len(DATASETS["must"])) == (26, 8)
    assert set(DATASETS["must"]) < set(DATASETS["turtle"])
    assert list(DATASETS["turtle"]) == sorted(DATASETS["turtle"])
    assert chosen_datasets("must", None) == list(DATASETS["must"])


# ---------------------------------------------------------------------------------------------------------------- rows


def test_rows_are_what_the_parts_give_by_hand(datasets: Path, tmp_path: Path) -> None:
    done = reproduce("turtle", tmp_path / "out", datasets=["colors"])
    assert done.failed == {}
    table = read_rows(tmp_path / "out")
    train, test = (lk.load_dataset("colors", split) for split in ("train", "test"))
    names = ("pixels", "hog")
    fitted, tested = (
        [lk.extract_features(lk.load_backbone(name, dtype="float32"), split, cache=False) for name in names]
        for split in (train, test)
    )
    joined = [np.hstack([normalize(space) for space in spaces]) for spaces in (fitted, tested)]
    clusters = lk.KMeans(3, random_state=42).fit(joined[0]).predict(joined[1])
    assert value(table, "k-means", "accuracy") == pytest.approx(lk.clustering_accuracy(test.labels, clusters))
    probe = lk.LinearProbe().fit(fitted, train.labels).predict(tested)
    assert value(table, "linear-probe", "accuracy") == np.mean(probe == test.labels)
    clip = lk.load_backbone(tiny.NAME, dtype="float32")
    zero = lk.ZeroShot.from_prompts(clip, lk.load_prompts("colors"))
    predicted = zero.predict(lk.extract_features(clip, test, cache=False))
    assert value(table, "zero-shot", "accuracy") == np.mean(predicted == test.labels)
    # TURTLE: all runs, one by one, and of them the chosen
    chosen = table[table["method"] == "turtle"]["chosen"].iloc[0]
    run = {**small.SCALE.turtle, **{name: chosen[name] for name in small.SCALE.grid}}
    turtle = Turtle(3, n_restarts=1, race=False, random_state=42, **run).fit(fitted)
    labels = turtle.predict(tested)
    assert value(table, "turtle", "accuracy") == lk.clustering_accuracy(test.labels, labels)
    theirs = normalized_mutual_info_score(test.labels, labels, average_method="geometric")
    assert value(table, "turtle", "nmi") == pytest.approx(theirs)
    assert value(table, "turtle", "ari") == pytest.approx(adjusted_rand_score(test.labels, labels))
    saved = Turtle.load(tmp_path / "out" / chosen["fit"])
    assert np.array_equal(saved.labels_, turtle.labels_)
    assert len(list((tmp_path / "out" / "fits" / "colors").glob("turtle-*"))) == 4


def test_a_released_labeling_is_scored_on_our_features(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the authors release them, where it lies in the data folder; nothing is said where it does not."""
    monkeypatch.setattr(labelings, "SPACES", {"pixels": "gray", "hog": "edges"})
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "turtle_tasks" / "2space" / "gray_edges"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, d, generator=generator) for d in (784, 324)]
    layers = {f"phi{k}": {"weight": weight, "bias": torch.zeros(3)} for k, weight in enumerate(weights, 1)}
    torch.save(layers, folder / "colors.pt")
    assert reproduce("turtle", tmp_path / "out", datasets=["colors", "shades"]).failed == {}
    table = read_rows(tmp_path / "out")
    assert table["dataset"][table["method"] == "turtle-published"].unique().tolist() == ["colors"]
    test = lk.load_dataset("colors", "test")
    spaces = [lk.extract_features(lk.load_backbone(name), test, cache=False) for name in ("pixels", "hog")]
    probs = sum(softmax(space @ weight.numpy().T, axis=1) for space, weight in zip(spaces, weights, strict=True))
    expected = lk.clustering_accuracy(test.labels, probs.argmax(1))  # type: ignore[attr-defined]
    assert value(table, "turtle-published", "accuracy") == expected
    [section] = sections(table)
    assert section.columns.count("released labelings, our features") == 1


def test_a_collapse_is_told_and_no_warning(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Turtle.fit

    def collapsing(self: Turtle, *given: Any) -> Turtle:
        fit(self, *given).n_found_ = np.array([2])
        warnings.warn("it collapsed", CollapseWarning, stacklevel=1)  # which here is an error
        return self

    monkeypatch.setattr(Turtle, "fit", collapsing)
    assert reproduce("turtle", tmp_path / "out", datasets=["colors"]).failed == {}
    table = read_rows(tmp_path / "out")
    chosen = table[table["method"] == "turtle"]["chosen"].iloc[0]
    assert (chosen["n_found"], chosen["n_clusters"]) == (2, 3)
    [section] = sections(table)
    assert section.rows[0][-1].endswith(", 2 of 3 clusters")  # what was run comes first


def test_must_takes_the_last_epoch_of_its_preset(datasets: Path, tmp_path: Path) -> None:
    assert reproduce("must", tmp_path / "out", datasets=["shades"]).failed == {}
    table = read_rows(tmp_path / "out")
    settings = table[table["method"] == "must"]["settings"].iloc[0]
    expected = PRESETS["pocket"].replace(epochs=2, batch_size=16, mask_block=4)
    assert {name: settings[name] for name in ("epochs", "lr", "threshold", "patience")} == {
        "epochs": 2,
        "lr": expected.lr,
        "threshold": expected.threshold,
        "patience": None,
    }
    train, test = (lk.load_dataset("shades", split) for split in ("train", "test"))
    backbone = lk.load_backbone(tiny.NAME, dtype="float32")
    must = lk.MUST(backbone, lk.load_prompts("shades"), expected, random_state=42).fit(train.without_labels())
    assert value(table, "must", "accuracy", "shades") == np.mean(must.predict(test) == test.labels)
    kept = table[table["method"] == "must"]["chosen"].iloc[0]
    assert kept["epoch"] == 2
    assert [
        path.name for path in (tmp_path / "out" / kept["fit"]).parent.iterdir() if path.suffix == ".safetensors"
    ] == ["must.safetensors"]
    loaded = lk.MUST.load(tmp_path / "out" / kept["fit"])
    assert np.array_equal(loaded.predict(test), must.predict(test))


def test_labels_change_no_fit_and_no_choice(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images with the labels of others: all that is fitted and chosen without labels is the same."""
    load = jobs.load_dataset

    def permuted(manifest: Any, split: str) -> ImageDataset:
        images = load(manifest, split)
        images.labels[:] = np.random.default_rng(0).permutation(images.labels)
        return images

    def run(folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
        for paper in ("turtle", "must"):
            assert reproduce(paper, folder, datasets=["colors"]).failed == {}
        digests = {}
        for path in sorted(folder.rglob("*.safetensors")):
            with safe_open(path, "numpy") as file:
                digests[path.relative_to(folder).as_posix()] = file.metadata()["sha256"]
        return read_rows(folder), digests

    table, fits = run(tmp_path / "as they are")
    monkeypatch.setattr(jobs, "load_dataset", permuted)
    other, others = run(tmp_path / "permuted")
    assert len(fits) == 5
    assert fits == others
    assert table["chosen"].tolist() == other["chosen"].tolist()
    assert table["settings"].tolist() == other["settings"].tolist()
    assert table["value"].tolist() != other["value"].tolist()


# -------------------------------------------------------------------------------------------------------------- resume


def test_what_is_done_is_not_done_again(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce("turtle", tmp_path / "out", datasets=["colors"])
    before = (tmp_path / "out" / FILE).read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to do")

    for name in ("load_dataset", "load_backbone", "extract_features"):
        monkeypatch.setattr(jobs, name, refuse)
    assert reproduce("turtle", tmp_path / "out", datasets=["colors"]).failed == {}
    assert (tmp_path / "out" / FILE).read_bytes() == before


def test_another_machine_goes_on_from_a_copy(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    reproduce("turtle", whole, datasets=["colors", "shades"])
    fit, fitted = Turtle.fit, []

    def stopped(self: Turtle, *given: Any, **more: Any) -> Turtle:
        if len(fitted) == 6:
            raise KeyboardInterrupt
        fitted.append(1)
        return fit(self, *given, **more)

    monkeypatch.setattr(Turtle, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        reproduce("turtle", tmp_path / "first", datasets=["colors", "shades"])
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "another cache"))  # without the features of the first
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    for path in datasets.rglob("*.png"):
        path.touch()  # as a copy may have other times
    fitted.clear()
    assert reproduce("turtle", tmp_path / "second", datasets=["colors", "shades"]).failed == {}
    assert len(fitted) == 2
    assert values(read_rows(tmp_path / "second")) == values(read_rows(whole))


def test_must_goes_on_elsewhere_too(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce("must", tmp_path / "whole", datasets=["colors"])
    train, trained = Trainer.step, []

    def step(self: Trainer, *given: Any) -> Any:
        if len(trained) == most:
            raise KeyboardInterrupt
        trained.append(1)
        return train(self, *given)

    monkeypatch.setattr(checkpoint, "SAVE_EVERY", -1.0)  # after each step
    monkeypatch.setattr(Trainer, "step", step)
    most = 3
    with pytest.raises(KeyboardInterrupt):
        reproduce("must", tmp_path / "first", datasets=["colors"])
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    for path in datasets.rglob("*.png"):
        path.touch()
    most, trained = 100, []
    assert reproduce("must", tmp_path / "second", datasets=["colors"]).failed == {}
    assert len(trained) == 3  # of six
    assert values(read_rows(tmp_path / "second")) == values(read_rows(tmp_path / "whole"))


def test_a_model_that_must_trained_is_not_trained_again(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where results are lost, or of another profile with the same settings."""
    reproduce("must", tmp_path / "out", datasets=["colors"])
    before = values(read_rows(tmp_path / "out"))
    train = Trainer.step
    for harm in ("none", "damaged"):
        (tmp_path / "out" / FILE).unlink()
        if harm == "none":
            monkeypatch.setattr(Trainer, "step", None)
        else:
            monkeypatch.setattr(Trainer, "step", train)
            [path] = (tmp_path / "out").rglob("must.safetensors")
            path.write_bytes(path.read_bytes()[:-8])
        assert reproduce("must", tmp_path / "out", datasets=["colors"]).failed == {}
        assert values(read_rows(tmp_path / "out")) == before
    assert "It is fitted again." in caplog.text


@pytest.mark.parametrize("paper", ["turtle", "must"])
def test_other_images_under_the_same_names_get_other_fits(
    paper: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce(paper, tmp_path / "out", datasets=["colors"])
    before = {path.name for path in (tmp_path / "out" / "fits" / "colors").iterdir()}
    (tmp_path / "out" / FILE).unlink()
    for split in ("train", "test"):
        files = [sorted((datasets / name / split).rglob("*.png")) for name in ("shades", "colors")]
        for theirs, ours in zip(*files, strict=True):
            shutil.copy2(theirs, ours)
    assert reproduce(paper, tmp_path / "out", datasets=["colors"]).failed == {}
    after = {path.name for path in (tmp_path / "out" / "fits" / "colors").iterdir()}
    assert len(after) == 2 * len(before)


def test_features_in_shards_give_the_same_rows(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce("turtle", tmp_path / "whole", datasets=["colors"])
    folder = tmp_path / "features"
    assert cli.main(["features", "colors", "--profile", "pocket", "--out", str(folder), "--shard", "16"]) == 0
    names = ["test-hog", "test-pixels", f"test-{tiny.NAME}", "train-hog", "train-pixels"]
    assert sorted(path.name for path in (folder / "colors").iterdir()) == names
    assert [line.split(" x ")[0] for line in capsys.readouterr().out.splitlines()] == ["60", "60", "24", "24", "24"]
    monkeypatch.setattr(jobs, "extract_features", None)
    monkeypatch.setattr(shard_work, "write_shard", None)  # they are there
    for path in datasets.rglob("*.png"):
        path.touch()  # as on another machine
    assert reproduce("turtle", tmp_path / "sharded", datasets=["colors"], features=folder).failed == {}
    assert values(read_rows(tmp_path / "sharded")) == values(read_rows(tmp_path / "whole"))


def test_what_is_missing_in_shards_is_made(datasets: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert reproduce("turtle", tmp_path / "out", datasets=["colors"], features=tmp_path / "features").failed == {}
    assert ShardedFeatures.open(tmp_path / "features" / "colors" / "train-hog").shape == (60, 324)
    shutil.rmtree(tmp_path / "features" / "colors" / "test-pixels")
    (tmp_path / "features" / "colors" / "test-hog").rename(tmp_path / "features" / "colors" / "test-pixels")
    (tmp_path / "out" / FILE).unlink()
    done = reproduce("turtle", tmp_path / "out", datasets=["colors"], features=tmp_path / "features")
    assert "has other features" in done.failed["colors"]


def test_a_damaged_fit_is_made_anew(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reproduce("turtle", tmp_path / "whole", datasets=["colors"])
    shutil.copytree(tmp_path / "whole" / "fits", tmp_path / "out" / "fits")
    path = next((tmp_path / "out" / "fits" / "colors").glob("turtle-*"))
    path.write_bytes(path.read_bytes()[:-8])
    assert reproduce("turtle", tmp_path / "out", datasets=["colors"]).failed == {}
    assert "It is fitted again." in caplog.text
    assert values(read_rows(tmp_path / "out")) == values(read_rows(tmp_path / "whole"))


def test_a_stand_in_is_a_row_of_its_own(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce("turtle", tmp_path / "out", datasets=["colors"])
    monkeypatch.setattr(jobs, "is_stand_in", lambda manifest: True)
    reproduce("turtle", tmp_path / "out", datasets=["colors"])
    table = read_rows(tmp_path / "out")
    assert table["stand_in"].value_counts().to_dict() == {False: 10, True: 10}
    assert sorted(path.name for path in (tmp_path / "out" / "fits").iterdir()) == ["colors", "colors (stand-in)"]


# --------------------------------------------------------------------------------------------------------------- faults


def test_a_dataset_that_cannot_be_had_is_said_and_skipped(
    datasets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(datasets / "colors" / "test")
    with caplog.at_level(logging.WARNING):
        done = reproduce("turtle", tmp_path / "out", datasets=["colors", "shades"])
    assert list(done.failed) == ["colors"]
    assert "has no folder test/" in done.failed["colors"]
    assert "colors is skipped: " in caplog.text
    assert set(read_rows(tmp_path / "out")["dataset"]) == {"shades"}


@pytest.mark.parametrize("error", [ValueError("of\na library"), OSError(5, "Input/output error"), RuntimeError()])
def test_no_error_of_one_dataset_stops_the_others(
    error: Exception, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(job: Any) -> None:
        if job.manifest.id == "colors":
            raise error
        job.results.add(RESULT, {"accuracy": 0.5}, seconds=1.0, device="cpu")

    monkeypatch.setitem(module.ROWS, "turtle", row)
    done = reproduce("turtle", tmp_path / "out", datasets=["colors", "shades"])
    assert done.failed == {"colors": " ".join(str(error).split()) or type(error).__name__}
    assert set(read_rows(tmp_path / "out")["dataset"]) == {"shades"}


RESULT = {
    "paper": "turtle",
    "dataset": "shades",
    "stand_in": False,
    "split": "test",
    "method": "turtle",
    "spaces": ["pixels", "hog"],
    "settings": {"profile": "pocket"},
    "seed": 42,
    "n_train": 60,
    "n_test": 24,
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"paper": "clip"}, "the paper is 'clip'. Expected turtle or must"),
        ({"paper": 3}, "the paper is 3"),
        ({"datasets": ["colurs"]}, "there is no dataset 'colurs'. Did you mean 'colors'"),
        ({"datasets": [3]}, "there is no dataset 3"),
        ({"datasets": "colors"}, "datasets is 'colors'. Expected a list of ids"),
        ({"datasets": []}, r"datasets is \[\]. Expected a list of ids"),
        ({"profile": "huge"}, "profile is 'huge'. Expected one of pocket, photos, standard, paper"),
    ],
)
def test_bad_input_is_said(given: dict[str, Any], said: str, datasets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        reproduce(**{"paper": "turtle", "folder": tmp_path / "out", "datasets": ["colors"], **given})
    assert not (tmp_path / "out").exists()


def test_a_folder_that_another_process_holds_is_said(datasets: Path, tmp_path: Path) -> None:
    with locked_folder(tmp_path / "out", wait=True), pytest.raises(DataError, match="another process reproduces into"):
        reproduce("turtle", tmp_path / "out", datasets=["colors"])


def test_a_place_that_is_a_file_is_said(datasets: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="cannot be written to"):
        reproduce("turtle", tmp_path / "out", datasets=["colors"])
