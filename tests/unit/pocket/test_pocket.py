"""Pocket models: open_clip knows them after `register`, and missing files are explained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from labkit import pocket
from labkit.errors import BackboneError
from labkit.spaces.backbones import load_backbone

SIZES = {"pocket-clip": 80, "pocket-vit": 48}


@pytest.mark.parametrize("name", SIZES)
def test_open_clip_makes_model_and_tokenizer(pocket_models: Path, name: str) -> None:
    pocket.register()
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=pocket.weights_path(name))
    tokens = open_clip.get_tokenizer(name)(["a cat", "dog " * 50])
    image = transform(Image.new("RGB", (100, 90)))
    assert image.shape == (3, SIZES[name], SIZES[name])
    assert tokens.shape == (2, 16)
    assert tokens[0].tolist()[:4] == [516, 64 + 256, 513, 517]  # start, "a", the merge "cat", end
    with torch.inference_mode():
        assert model.eval().encode_image(image[None]).shape == (1, 256)
        assert model.encode_text(tokens).shape == (2, 256)
    kept = load_file(pocket.weights_path(name))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, kept[key].to(value.dtype), rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("name", SIZES)
def test_backbone_equals_open_clip(pocket_models: Path, name: str) -> None:
    backbone = load_backbone(name, device="cpu")
    assert (backbone.name, backbone.dim) == (name, 256)
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=pocket.weights_path(name))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8))
    features = backbone.encode_image(torch.from_numpy(backbone.preprocess(image))[None])
    texts = ["a cat", "a dog", "zebra"]
    embeddings = backbone.encode_text(texts)
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(image)[None])
        expected_texts = model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)
    assert torch.nn.functional.cosine_similarity(features, expected).item() > 0.99  # bfloat16 where it is faster
    assert (embeddings * expected_texts).sum(1).min() > 0.99
    assert backbone.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_register_can_be_called_again(pocket_models: Path) -> None:
    for _ in range(2):
        pocket.register()
    assert set(SIZES) <= set(open_clip.list_models())


@pytest.mark.parametrize("missing", ["pocket-clip.json", "pocket-vit.safetensors", "pocket-bpe.txt.gz"])
def test_a_missing_file_is_explained(
    pocket_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    shutil.copytree(pocket_models, tmp_path / "models")
    (tmp_path / "models" / missing).unlink()
    monkeypatch.setattr(pocket, "MODELS", tmp_path / "models")
    with pytest.raises(BackboneError, match=rf"{missing} is missing.*Install labkit again, or run `make pocket`"):
        load_backbone("pocket-vit", device="cpu")


def test_unknown_pocket_model() -> None:
    with pytest.raises(BackboneError, match=r"no pocket model 'pocket-rnn'\. Expected one of pocket-clip"):
        pocket.weights_path("pocket-rnn")
