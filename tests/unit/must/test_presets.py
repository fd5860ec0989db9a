"""Presets of MUST: the published table, one way from a dataset and a backbone to settings, what `labkit must` says."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import yaml
from PIL import Image

from labkit import cli, pocket
from labkit.course.profiles import PROFILES
from labkit.data.images import ImageDataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.errors import FitError
from labkit.must import MUST, PRESETS, MustConfig, preset_for, preset_key, preset_source
from labkit.must.model import check_maskable
from labkit.must.presets import BORROWED, MODELS, PUBLISHED, describe
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.papers import SPACES
from tests.hub import put_openai_clip

TABLE = """
| dataset | model | mask patch | ratio | w_align | w_fair | τ | lr | epochs | d0 | warm_it |
|---|---|---|---|---|---|---|---|---|---|---|
| imagenet | B/16 | 32 | .3 | .2 | 1 | .7 | 2e-5 | 30 | .999 | 2000 |
| imagenet | L/14 | 56 | .3 | .5 | 1 | .5 | 4e-5 | 20 | .999 | 2000 |
| sun397 | B/16 | 32 | .1 | 1 | .2 | .4 | 1e-4 | 20 | .99 | 500 |
| sun397 | L/14 | 28 | .2 | .5 | .2 | .3 | 2e-4 | 20 | .99 | 500 |
| food101 | B/16 | 32 | .1 | .1 | 1 | .7 | 2e-5 | 40 | .999 | 2000 |
| food101 | L/14 | 56 | .1 | .1 | 1 | .7 | 4e-5 | 40 | .999 | 2000 |
| gtsrb | B/16 | 32 | .5 | .5 | 1 | .3 | 2e-5 | 20 | .99 | 500 |
| gtsrb | L/14 | 56 | .3 | .5 | 1 | .2 | 4e-5 | 20 | .99 | 500 |
| dtd | B/16 | 32 | .1 | .2 | 1 | .4 | 2e-5 | 60 | .99 | 100 |
| dtd | L/14 | 56 | .1 | .5 | 1 | .5 | 4e-5 | 60 | .99 | 100 |
| ucf101 | B/16 | 16 | .1 | .5 | 1 | .5 | 1e-5 | 60 | .99 | 500 |
| ucf101 | L/14 | 28 | .1 | .5 | 1 | .6 | 2e-5 | 60 | .99 | 500 |
| pets | B/16 | 32 | .1 | .2 | 1 | .7 | 1e-5 | 60 | .99 | 100 |
| caltech101 | B/16 | 32 | .1 | .2 | 1 | .7 | 1e-5 | 60 | .99 | 100 |
"""
ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in TABLE.strip().splitlines()[2:]]
SHORT = {"B/16": "clip-vit-b16", "L/14": "clip-vit-l14"}
by_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1].replace('/', '')}")


def settings_of(config: MustConfig) -> list[float]:
    """Those of the table, in its order."""
    return [
        config.mask_block, config.mask_ratio, config.alignment_weight, config.fairness_weight, config.threshold,
        config.lr, config.epochs, config.ema_decay, config.ema_warmup,
    ]  # fmt: skip


def grid_of(backbone: str) -> tuple[int, int]:
    """Image size and patch size of a backbone, from its configuration alone."""
    if backbone in pocket.NAMES:
        pocket.register()
        name = backbone
    else:
        name = SPACES[backbone].model
    vision = open_clip.get_model_config(name)["vision_cfg"]
    return vision["image_size"], vision["patch_size"]


# the table


@by_row
def test_presets_are_the_published_configurations(row: list[str]) -> None:
    dataset, model, *cells = row
    config = preset_for(dataset, SHORT[model])
    assert settings_of(config) == list(map(float, cells))
    assert config is PUBLISHED[f"{dataset}/ViT-{model.replace('/', '-')}"]
    shared = (
        config.batch_size, config.weight_decay, config.layer_decay, config.ema_decay_end, config.masked_image_weight,
        config.self_training_weight, config.crop, config.flip, config.augment, config.prior,
    )  # fmt: skip
    assert shared == (1024, 0.05, 0.65, 0.9998, 1, 1, 0.3, True, "rand-m9-mstd0.5-inc1", "uniform")
    assert config.peak_lr == pytest.approx(4 * config.lr)  # cfg · B / 256


def test_all_fourteen_published_configurations_are_there_and_cannot_be_changed() -> None:
    assert {f"{dataset}/ViT-{model.replace('/', '-')}" for dataset, model, *_ in ROWS} == set(PUBLISHED) <= set(PRESETS)
    assert len(PUBLISHED) == 14
    with pytest.raises(TypeError):
        PRESETS["imagenet/ViT-B-16"] = MustConfig()  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["imagenet/ViT-B-16"].lr = 1.0  # type: ignore[misc]


def test_the_step_to_the_large_model_is_what_the_published_rows_share() -> None:
    rows = [(PUBLISHED[f"{name}/ViT-B-16"], PUBLISHED[f"{name}/ViT-L-14"]) for name, model, *_ in ROWS if "L" in model]
    assert len(rows) == 6
    assert all(large.lr == 2 * base.lr for base, large in rows)
    assert [large.mask_block for base, large in rows if base.mask_block == 32].count(56) == 4
    assert {large.alignment_weight for base, large in rows if base.alignment_weight == 0.2} == {0.5}
    for dataset in ("pets", "caltech101"):
        base, large = PRESETS[f"{dataset}/ViT-B-16"], PRESETS[f"{dataset}/ViT-L-14"]
        assert large == base.replace(lr=2e-5, mask_block=56, alignment_weight=0.5)


# pairs


@pytest.mark.parametrize(
    ("profile", "dataset"), [(profile, dataset) for profile in PROFILES for dataset in PROFILES[profile].datasets]
)
def test_every_pair_of_a_profile_has_settings_whose_masks_fit(profile: str, dataset: str) -> None:
    student = PROFILES[profile].student
    config = preset_for(dataset, student)
    size, patch = grid_of(student)
    assert config.mask_block % patch == 0
    assert size % config.mask_block == 0
    assert (preset_key(dataset, student) == "pocket") == (dataset == "clothing-small")  # which nobody has tuned


@pytest.mark.parametrize("key", [key for key in PRESETS if key.partition("/")[2] in MODELS.values()])
def test_the_masks_of_every_pair_fit_its_model(key: str) -> None:
    size, patch = grid_of({"ViT-B-16": "clip-vit-b16", "ViT-L-14": "clip-vit-l14"}[key.partition("/")[2]])
    block = PRESETS[key].mask_block
    assert block % patch == 0
    assert size % block == 0


@pytest.mark.parametrize(
    ("dataset", "backbone", "key"),
    [
        ("oxford-pets", "clip-vit-b16", "pets/ViT-B-16"),
        ("oxford-pets", "open_clip:ViT-B-16-quickgelu/openai", "pets/ViT-B-16"),
        ("oxford-pets", "open_clip:ViT-L-14-quickgelu/openai", "pets/ViT-L-14"),
        ("dtd", "open_clip:ViT-B-16/openai", "dtd/ViT-B-16"),
        ("food-101", "clip-vit-l14", "food101/ViT-L-14"),
        ("caltech-101", "clip-vit-b16", "caltech101/ViT-B-16"),
        ("cifar10", "clip-vit-b16", "cifar10/ViT-B-16"),
        ("stl10", "open_clip:ViT-L-14/openai", "stl10/ViT-L-14"),
        ("digits", "pocket-vit", "digits/pocket-vit"),
        ("emoji-unseen", "pocket-vit", "pocket"),
        ("pets", "pocket-vit", "pocket"),
        (None, "pocket-vit", "pocket"),
    ],
)
def test_all_names_of_a_dataset_and_a_model_lead_to_one_key(dataset: str | None, backbone: str, key: str) -> None:
    assert preset_key(dataset, backbone) == key
    assert preset_for(dataset, backbone) is PRESETS[key]


def test_the_short_names_are_the_models_that_presets_mean() -> None:
    for name in ("clip-vit-b16", "clip-vit-l14"):
        space = SPACES[name]
        assert MODELS[name] == MODELS[f"open_clip:{space.model}/{space.pretrained}"]


@pytest.mark.parametrize(
    ("dataset", "backbone", "named"),
    [
        ("dtd", "clip-vit-b32", "the dataset 'dtd' with the backbone 'clip-vit-b32'"),
        ("dtd", "open_clip:ViT-L-14-336-quickgelu/openai", "'open_clip:ViT-L-14-336-quickgelu/openai'"),
        ("dtd", "open_clip:ViT-B-16/laion2b_s34b_b88k", "laion2b_s34b_b88k"),
        ("digits", "clip-vit-b16", "the dataset 'digits'"),
        (None, "clip-vit-b16", "images of your own with the backbone 'clip-vit-b16'"),
        ("pocket", "clip-vit-b16", "the dataset 'pocket'"),
    ],
)
def test_an_unknown_pair_lists_the_pairs_and_the_way_out(dataset: str | None, backbone: str, named: str) -> None:
    with pytest.raises(FitError) as caught:
        preset_for(dataset, backbone)
    message = str(caught.value)
    assert named in message
    assert all(key in message for key in (*PUBLISHED, *BORROWED))
    assert "pocket-vit" not in message
    assert "--preset pets/ViT-B-16" in message


def test_what_is_not_published_says_so() -> None:
    assert preset_source("dtd/ViT-B-16") == "published, Li et al. 2023"
    for key, (after, _) in BORROWED.items():
        assert key not in PUBLISHED
        assert after in PUBLISHED
        assert preset_source(key) == f"ours after the published {after}, not tried on real weights"
    assert all(preset_source(key).startswith("ours") for key in PRESETS if key not in PUBLISHED)


def test_settings_in_lines() -> None:
    lines = describe(PRESETS["dtd/ViT-B-16"].replace(batch_size=256, patience=3))
    assert lines == [
        "epochs 60, patience 3, batch 256, learning rate 2e-05 (2e-05 for 256 images), layer decay 0.65",
        "threshold 0.4, masks of 32 x 32 pixels over 10% of the image",
        "weights: self-training 1, fairness 1, masked image 1, alignment 0.2",
        "EMA decay 0.99 to 0.9998 over 100 steps of 1,024 images",
    ]
    assert "no masks" in describe(MustConfig(mask_ratio=0))[1]


# the command line, with random weights where the hub's cache keeps the real ones


@pytest.fixture(scope="module")
def openai_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the hub with the paper's two models, in half precision: 1.2 GB, removed afterwards."""
    hub = tmp_path_factory.mktemp("hub")
    for name in SHORT.values():
        put_openai_clip(hub, SPACES[name].model)
    yield hub
    shutil.rmtree(hub)


@pytest.fixture(scope="module")
def loaded() -> Iterator[functools._lru_cache_wrapper]:
    """`load_backbone` that keeps the last model: the rows below are sorted by model, so each is loaded once."""
    keep = functools.lru_cache(maxsize=1)(load_backbone)
    yield keep
    keep.cache_clear()


@pytest.fixture
def hub(openai_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(openai_weights))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return openai_weights


def write_dataset(folder: Path, name: str) -> Path:
    """A manifest of this id beside four images in two folders of classes."""
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (folder / "images" / kind).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / kind / f"{i}.png")
    manifest = {
        "id": name, "title": name, "task": "a test", "classes": ["cat", "dog"], "license": "unknown",
        "splits": {"train": {"size": 4, "how": "all"}}, "source": {"kind": "folder", "path": "images"},
        "citation": "unknown", "homepage": "unknown",
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    return folder / f"{name}.yaml"


@pytest.mark.parametrize(
    "row", sorted(ROWS, key=lambda row: row[1]), ids=lambda row: f"{row[0]}-{row[1].replace('/', '')}"
)
def test_must_starts_each_published_pair_with_the_papers_settings(
    row: list[str],
    hub: Path,
    loaded: functools._lru_cache_wrapper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset, model, *cells = row
    started = []

    def fit(must: MUST, images: ImageDataset, **options: object) -> None:
        backbone = must.backbone
        assert isinstance(backbone, Backbone)
        check_maskable(backbone.model.clip.visual)
        assert backbone.model.clip.visual.image_size[0] % must.config.mask_block == 0
        started.append(must.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(MUST, "fit", fit)
    monkeypatch.setattr("labkit.own.self_train.load_backbone", lambda name: loaded(name, device="cpu"))
    manifest = write_dataset(tmp_path, dataset)
    name = f"open_clip:{SPACES[SHORT[model]].model}/openai"
    assert cli.main(["must", str(manifest), "--backbone", name, "--out", str(tmp_path / "run")]) == 130
    assert [settings_of(config) for config in started] == [list(map(float, cells))]
    block, ratio, align, fair, threshold, lr, epochs, decay, warmup = map(float, cells)
    assert capsys.readouterr().out.splitlines()[1:-1] == [  # between the classes and the steps
        f"settings: {dataset}/ViT-{model.replace('/', '-')} (published, Li et al. 2023)",
        "  a batch is all 4 images: there are no 1,024 of them",
        f"  epochs {epochs:g}, batch 4, learning rate {lr * 4 / 256:g} ({lr:g} for 256 images), layer decay 0.65",
        f"  threshold {threshold:g}, masks of {block:g} x {block:g} pixels over {ratio:.0%} of the image",
        f"  weights: self-training 1, fairness {fair:g}, masked image 1, alignment {align:g}",
        f"  EMA decay {decay:g} to 0.9998 over {warmup:,.0f} steps of 1,024 images",
    ]


def test_must_takes_a_step_with_the_papers_model(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_dataset(tmp_path, "imagenet")
    options = ["--backbone", "clip-vit-b16", "--epochs", "1", "--batch", "4", "--out", str(tmp_path / "run")]
    assert cli.main(["must", str(manifest), *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "classes: cat, dog (2, of the dataset)\n"
        "settings: imagenet/ViT-B-16 (published, Li et al. 2023; changed by options)\n"
    )
    assert "4 images of train" in out
    assert (tmp_path / "run" / "must.safetensors").stat().st_size > 300e6
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_folder_is_no_dataset_whatever_it_is_called(
    as_folder: bool,
    hub: Path,
    loaded: functools._lru_cache_wrapper,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labkit.own.self_train.load_backbone", lambda name: loaded(name, device="cpu"))
    monkeypatch.setattr(MUST, "fit", lambda must, images, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    manifest = write_dataset(tmp_path / "dtd", "dtd")
    data = str(tmp_path / "dtd" if as_folder else manifest)
    words = ["--words", "cat,dog"]
    assert cli.main(["must", data, *words, "--backbone", "clip-vit-b16"]) == (2 if as_folder else 130)
    captured = capsys.readouterr()
    assert ("images of your own" in captured.err) == as_folder
    assert cli.main(["must", data, *words, "--backbone", "clip-vit-b16", "--preset", "pets/ViT-B-16"]) == 130
    assert "\nsettings: pets/ViT-B-16 (published" in capsys.readouterr().out
    assert cli.main(["must", data, *words]) == 130
    assert "\nsettings: pocket (ours, for images that the pocket models" in capsys.readouterr().out


def test_one_process_of_several_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.own.self_train.self_train", lambda plan, **options: None)
    for rank, printed in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(["must", "digits"]) == 0
        assert bool(capsys.readouterr().out) == printed


def test_the_datasets_of_profiles_are_manifests() -> None:
    assert {name for profile in PROFILES.values() for name in profile.datasets} <= set(list_manifests())
    assert load_manifest("oxford-pets").id == "oxford-pets"
