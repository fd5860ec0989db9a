"""The recipe of Pocket CLIP: its parts against plain NumPy, and all of it on a hundredth of the data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from scipy.special import log_softmax

from labkit._files import file_sha256
from labkit.errors import DataError
from labkit.pocket import BPE, MODELS
from labkit.pocket.recipe import corpus, pocket_clip
from labkit.pocket.recipe.views import fill_holes, random_views


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("t-shirt-outline", "t shirt"),
        ("shopping-bag-24-filled", "shopping bag"),
        ("outline-home", "home"),
        ("number-7-bold", "number 7"),
        ("arrow-left2", "arrow left"),
        ("24-filled", ""),
    ],
)
def test_captions_lose_the_words_of_style_and_size(name: str, caption: str) -> None:
    assert corpus.caption_of(name) == caption


def test_filling_closes_what_is_enclosed_and_nothing_else() -> None:
    ring = np.zeros((2, 9, 9), np.uint8)
    ring[0, 2:7, 2:7] = 255
    ring[0, 3:6, 3:6] = 0
    ring[1, 4, :] = 255
    filled = fill_holes(ring)
    assert filled[0, 4, 4] == 255
    assert filled[0, 0, 0] == 0
    np.testing.assert_array_equal(filled[1], ring[1])


def test_a_view_is_the_same_at_every_size_and_differs_between_generators() -> None:
    rng = np.random.RandomState(0)
    pictures = torch.from_numpy(rng.randint(0, 256, (6, 64, 64, 4)).astype(np.uint8))
    outlines = pictures[..., 3].contiguous()

    def view(size: int, seed: int) -> torch.Tensor:
        return random_views(pictures, outlines, size, torch.Generator().manual_seed(seed))

    large, small = view(96, 0), view(48, 0)
    assert large.shape == (6, 3, 96, 96)
    assert large.min() >= 0
    assert large.max() <= 1
    assert torch.equal(large, view(96, 0))
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    assert torch.corrcoef(torch.stack([pooled.flatten(), small.flatten()]))[0, 1] > 0.95
    assert not torch.allclose(large, view(96, 1), atol=0.1)


def test_contrastive_loss_equals_numpy() -> None:
    rng = np.random.RandomState(0)
    images, texts = rng.randn(5, 4), rng.randn(5, 4)
    caption = np.array([0, 1, 0, 2, 1])
    logits = 7.0 * images @ texts.T
    same = (caption[:, None] == caption).astype(float)
    target = same / same.sum(1, keepdims=True)
    rows, columns = (-(target * log_softmax(matrix, axis=1)).sum(1).mean() for matrix in (logits, logits.T))
    loss = pocket_clip.contrastive_loss(*map(torch.tensor, (images, texts, caption)), torch.tensor(7.0))
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_sampling_leaves_out_lone_captions_that_name_nothing_to_be_seen() -> None:
    captions = [("dog",), ("dog",), ("sso login",), ("cat", "pet"), ("align left",), ("align left",)]
    weights = pocket_clip.sampling_weights(captions, {"dog", "cat"}).tolist()
    assert weights[2] == 0
    assert weights[3] == 3
    assert weights[0] == pytest.approx(3 * weights[4])


def test_the_vocabulary_reads_frequent_words_whole(tmp_path: Path) -> None:
    path = tmp_path / "bpe.txt.gz"
    pocket_clip.learn_vocabulary(["a photo of a dog", "dog icon", "photo of dogs"] * 5, path)
    tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=16)
    assert tokenizer.vocab_size == pocket_clip.VOCABULARY
    assert len(tokenizer.encode("photo dog")) == 2
    assert tokenizer.decode(tokenizer.encode("photo of a dog")).strip() == "photo of a dog"


def test_the_assembled_model_sees_what_the_trained_parts_see() -> None:
    alignment = pocket_clip.Alignment().eval()
    text = {k: v for k, v in open_clip.CLIP(**pocket_clip.CONFIG).state_dict().items() if not k.startswith("visual.")}
    model = open_clip.CLIP(**pocket_clip.CONFIG).eval()
    model.load_state_dict(pocket_clip.assemble(alignment, text))
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(images, (80, 80), mode="bicubic").clamp(0, 1)
    backbone, lower, _ = pocket_clip.split_trunk()
    with torch.inference_mode():
        expected = alignment.encode_maps(torch.from_numpy(pocket_clip.encode_lower(backbone, lower, images)))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in _clip_mean_and_std())
        seen = model.encode_image((images - mean) / std, normalize=True)
    assert (seen * expected).sum(1).min() > 0.98


def _clip_mean_and_std() -> tuple[tuple[float, ...], tuple[float, ...]]:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return OPENAI_DATASET_MEAN, OPENAI_DATASET_STD


@pytest.mark.skipif(shutil.which("npm") is None, reason="the recipe fetches its pictures with npm")
def test_the_whole_recipe_runs_on_a_hundredth_of_the_data(tmp_path: Path) -> None:
    from labkit.pocket.recipe.__main__ import make

    try:
        corpus.fetch("emojibase-data", corpus.PACKAGES["emojibase-data"], tmp_path / "work" / "packages")
    except DataError:
        if os.environ.get("CI"):
            raise
        pytest.skip("the packages of the recipe cannot be reached")
    facts = make(tmp_path / "work", tmp_path / "out", pocket_clip.SMOKE)
    assert 800 < facts["n_pictures"] < 3000
    assert not any(entry["set"].startswith(corpus.HELD_OUT) for entry in facts["sets"])
    assert {entry["licence"] for entry in facts["sets"]} <= corpus.LICENCES
    config = json.loads((tmp_path / "out" / "pocket-clip.json").read_text("utf-8"))
    model = open_clip.CLIP(**config)
    open_clip.load_checkpoint(model, str(tmp_path / "out" / "pocket-clip.safetensors"))
    again = make(tmp_path / "work", tmp_path / "out", pocket_clip.SMOKE)  # every stage is there: nothing is trained
    assert again["sha256"] == facts["sha256"]


def test_the_shipped_files_are_those_of_the_card() -> None:
    facts = json.loads((MODELS / "pocket-clip.facts.json").read_text("utf-8"))
    for name in ("pocket-clip.json", "pocket-clip.safetensors", BPE):
        assert facts["sha256"][name] == file_sha256(MODELS / name)
    card = (MODELS / "pocket-clip.md").read_text("utf-8")
    assert facts["sha256"]["pocket-clip.safetensors"] in card
    for entry in facts["sets"]:
        assert entry["licence"] in corpus.LICENCES


def test_the_card_states_what_the_shipped_weights_score() -> None:
    from labkit.backbones import load_backbone
    from labkit.pocket.recipe import evaluate

    facts = json.loads((MODELS / "pocket-clip.facts.json").read_text("utf-8"))
    measured = evaluate.scores(load_backbone("pocket-clip"), "digits")
    assert measured["zero_shot"] == pytest.approx(facts["scores"]["digits"]["zero_shot"], abs=0.02)
    assert evaluate.card(facts) == (MODELS / "pocket-clip.md").read_text("utf-8")
