"""The profiles for GPUs, whole: published settings, real prompts, float16 features, models as the hub's cache has them.

Nobody here has run them at full size. What is smaller here: networks have one layer and random weights, datasets are
stand-ins, fits have few steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import timm
import torch
from safetensors import safe_open

import labkit as lk
from labkit.cli import main
from labkit.errors import DataError
from labkit.must import MUST, PRESETS, checkpoint
from labkit.must.trainer import Trainer
from labkit.papers import protocol, throughput
from labkit.papers import reproduce as module
from labkit.papers.protocol import SCALES
from labkit.papers.reproduce import reproduce
from labkit.papers.results import read_rows
from labkit.papers.standins import write_stand_ins
from labkit.spaces.backbones import load_backbone
from labkit.spaces.papers import SPACES
from labkit.turtle import Turtle
from labkit.zeroshot.prompts import load_prompts
from tests.hub import put_space

NETWORKS = ("clip-vit-b32", "clip-vit-b16", "clip-vit-l14", "dinov2-vit-b14", "dinov2-vit-g14")
PROFILES = ("standard", "paper")
FITTED, TRAINED = "rendered-sst2", "gtsrb"  # 2 and 43 classes
STEPS, BATCH = 6, 40


@pytest.fixture(scope="module")
def models() -> Iterator[None]:
    """The libraries' models with one narrow layer; features, patches and images are as large as they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in NETWORKS:
            model = SPACES[name].model
            if SPACES[name].library == "timm":
                entries = timm.models._registry._model_entrypoints
                architecture = model.partition(".")[0]
                small = functools.partial(entries[architecture], depth=1, mlp_ratio=0.25)
                patch.setitem(entries, architecture, small)
            else:
                config = open_clip.get_model_config(model)
                config["vision_cfg"] |= {"layers": 1, "width": 64}
                config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
                patch.setitem(open_clip.factory._MODEL_CONFIGS, model, config)
        yield


@pytest.fixture(scope="module")
def places(models: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache with random weights, and a data folder with two stand-ins."""
    folder = tmp_path_factory.mktemp("places")
    for name in NETWORKS:
        put_space(folder / "hub", SPACES[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_DATA", str(folder / "nothing"))
        write_stand_ins(folder / "data", [FITTED], per_class=(24, 6))
        write_stand_ins(folder / "data", [TRAINED])
    return folder


@pytest.fixture(autouse=True)
def offline(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network and no GPU; settings of the profiles but for the numbers of steps and of images in one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(places / "hub"))
    monkeypatch.setenv("LABKIT_DATA", str(places / "data"))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(throughput, "ROWS", throughput.MANY)  # of what a plan measures
    changed = {
        name: dataclasses.replace(
            SCALES[name],
            turtle={**SCALES[name].turtle, "n_outer_steps": STEPS},
            must={"epochs": 1, "batch_size": BATCH},
        )
        for name in PROFILES
    }
    monkeypatch.setattr(protocol, "SCALES", {**SCALES, **changed})


def labkit(*arguments: str, out: Path) -> pd.DataFrame:
    assert main(["reproduce", *arguments, "--out", str(out), "--yes"]) == 0
    return read_rows(out)


def rows_of(paper: str, out: Path) -> pd.DataFrame:
    """Of the profile standard, without a plan."""
    dataset = {"turtle": FITTED, "must": TRAINED}[paper]
    assert reproduce(paper, out, datasets=[dataset], profile="standard").failed == {}
    return read_rows(out)


def row(table: pd.DataFrame, method: str, *spaces: str) -> Any:
    is_it = (table["method"] == method) & (table["metric"] == "accuracy")
    [found] = [one for one in table[is_it].itertuples() if not spaces or tuple(one.spaces) == spaces]
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_turtle_from_the_plan_to_the_table(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = labkit("turtle", "--profile", profile, "--datasets", FITTED, out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"18 fits of {STEPS} outer steps" in printed
    assert f"{FITTED} (stand-in)" in printed
    assert f"{FITTED} (stand-in)" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "NaN" not in (tmp_path / "out" / "results.jsonl").read_text("utf-8")  # which JSON has not
    scale, turtle = protocol.SCALES[profile], row(table, "turtle")
    official = Turtle.official(2).get_params()
    assert {name for name in scale.turtle if turtle.settings[name] != official[name]} == {"n_outer_steps"}
    assert (turtle.settings["features"], turtle.chosen["by"], turtle.n_train) == ("float16", "generalization", 48)
    assert 0.5 < turtle.chosen["score"] <= 1
    assert len(list((tmp_path / "out" / "fits").glob("*/turtle-*"))) == 18
    kept = []
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            kept += [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
    features = {tuple(found.get_shape()) for found in kept if found.get_dtype() == "F16"}
    assert features == {(n, SPACES[name].dim) for n in (48, 12) for name in scale.spaces}


def test_features_in_float16_give_the_rows_of_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_report", lambda *_, **__: [])
    half = rows_of("turtle", tmp_path / "half")
    single = dataclasses.replace(protocol.SCALES["standard"], half=False)
    monkeypatch.setattr(protocol, "SCALES", {**protocol.SCALES, "standard": single})
    whole = rows_of("turtle", tmp_path / "whole")
    for method in ("zero-shot", "k-means", "linear-probe"):
        assert row(half, method).value == pytest.approx(row(whole, method).value, abs=1 / 12)  # an image
    ours, theirs = row(half, "turtle").chosen, row(whole, "turtle").chosen
    assert ours["score"] == pytest.approx(theirs["score"], abs=0.02)
    fits = [
        {run_of(path): Turtle.load(path) for path in folder.rglob("turtle-*")} for folder in tmp_path.glob("*/fits")
    ]
    assert len(fits[0]) == len(fits[1]) == 18
    same = [np.mean(fits[0][run].labels_ == fits[1][run].labels_) for run in fits[0]]
    assert np.mean(same) > 0.95


def run_of(path: Path) -> str:
    turtle = Turtle.load(path)
    return f"{turtle.outer_lr} {turtle.inner_lr} {turtle.inner_start}"


@pytest.mark.parametrize(("profile", "students"), [("standard", 1), ("paper", 2)])
def test_must_from_the_plan_to_the_table(
    profile: str, students: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = labkit("must", "--profile", profile, "--datasets", TRAINED, out=tmp_path)
    assert f"{TRAINED} (stand-in)" in capsys.readouterr().out
    names = protocol.SCALES[profile].students
    assert len(names) == students
    for name in names:
        must = row(table, "must", name)
        published = PRESETS[f"gtsrb/{name.replace('clip-vit-b', 'ViT-B-').replace('clip-vit-l', 'ViT-L-')}"]
        expected = dataclasses.asdict(published.replace(epochs=1, batch_size=BATCH))
        assert {key: must.settings[key] for key in expected} == expected
        assert row(table, "zero-shot", name).n_test == must.n_test == 43
        assert MUST.load(tmp_path / must.chosen["fit"]).best_epoch_ == 1


def test_must_goes_on_in_micro_batches_where_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, sizes = Trainer.step, []

    def full(self: Trainer, weak: torch.Tensor, strong: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(weak) // self.config.accumulate)
        if sizes[-1] > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return step(self, weak, strong)

    monkeypatch.setattr(module, "write_report", lambda *_, **__: [])
    monkeypatch.setattr(Trainer, "step", full)
    must = row(rows_of("must", tmp_path), "must")
    assert sizes == [40, 20, 10, 10]  # two steps an epoch
    assert (
        "A batch of 40 images in 2 micro-batches does not fit into memory: MUST of gtsrb goes on with 4." in caplog.text
    )
    assert must.settings["accumulate"] == 1  # what the result follows from
    backbone = load_backbone("clip-vit-b16", dtype="float32")
    config = PRESETS["gtsrb/ViT-B-16"].replace(epochs=1, batch_size=BATCH)
    images, test = (lk.load_dataset(TRAINED, split) for split in ("train", "test"))
    monkeypatch.setattr(Trainer, "step", step)
    whole = MUST(backbone, load_prompts(TRAINED), config, random_state=protocol.SEED).fit(images.without_labels())
    found = MUST.load(tmp_path / must.chosen["fit"]).predict_proba(test)
    assert np.abs(found - whole.predict_proba(test)).max() < 1e-4


def test_memory_may_be_full_after_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that were taken before are not taken again."""
    step, taken = Trainer.step, []

    def full(self: Trainer, weak: torch.Tensor, strong: torch.Tensor) -> dict[str, torch.Tensor]:
        if taken and self.config.accumulate == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        taken.append(self.config.accumulate)
        return step(self, weak, strong)

    monkeypatch.setattr(module, "write_report", lambda *_, **__: [])
    monkeypatch.setattr(checkpoint, "SAVE_EVERY", -1.0)  # after each step
    monkeypatch.setattr(Trainer, "step", full)
    rows_of("must", tmp_path / "out")
    assert taken == [1, 2]  # two steps an epoch
    assert [path.name for path in (tmp_path / "out").rglob("*.safetensors")] == ["must.safetensors"]


def test_not_even_one_image_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def full(self: Trainer, weak: torch.Tensor, strong: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(weak) // self.config.accumulate)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(Trainer, "step", full)
    done = reproduce("must", tmp_path, datasets=[TRAINED], profile="standard")
    assert sizes == [40, 20, 10, 5, 2, 1]
    assert "memory" in done.failed[TRAINED]


def test_under_a_launcher_of_several_processes_it_says_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ["reproduce", "must", "--profile", "standard", "--datasets", TRAINED, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--yes"]) == 2
    assert "a reproduction runs in one process, and a launcher has started several" in capsys.readouterr().err
    with pytest.raises(DataError, match="runs in one process"):
        reproduce("must", tmp_path / "out", datasets=[TRAINED], profile="standard")
    assert not (tmp_path / "out").exists()
