"""Fixtures that several test files share."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from labkit import pocket
from tests import tiny

TEXT = {"context_length": 16, "vocab_size": 512 + 4 + 2, "width": 128, "heads": 2, "layers": 2}
VISION = {
    "pocket-clip": {"timm_model_name": "tf_efficientnet_lite0", "timm_proj": "linear", "image_size": 80},
    "pocket-vit": {"patch_size": 8, "width": 192, "layers": 6, "image_size": 48},
}


@pytest.fixture(scope="session")
def pocket_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two pocket models, one of each kind of image tower: true shapes, random weights in half precision."""
    folder = tmp_path_factory.mktemp("models")
    merges = "#version: 0.2\nc a\nca t</w>\nd o\ndo g</w>"
    (folder / "pocket-bpe.txt.gz").write_bytes(gzip.compress(merges.encode()))
    for name, vision in VISION.items():
        torch.manual_seed(0)
        model = open_clip.CLIP(256, {"timm_pool": "avg", **vision}, TEXT)
        state = {key: x.half() if x.is_floating_point() else x for key, x in model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        config = {"embed_dim": 256, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.fixture
def pocket_models(pocket_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As if these were the models that ship."""
    yield from _shipping(pocket_files, tuple(VISION), monkeypatch)


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of an image-text model whose steps take no time."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_model(tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As if the tiny model were the one that ships; an empty cache."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    yield from _shipping(tiny_files, (tiny.NAME,), monkeypatch)


def _shipping(folder: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While this waits, the pocket models are those in a folder."""
    monkeypatch.setattr(pocket, "MODELS", folder)
    monkeypatch.setattr(pocket, "NAMES", names)
    pocket.register.cache_clear()
    yield folder
    pocket.register.cache_clear()
