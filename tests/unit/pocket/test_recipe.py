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
from labkit.pocket import BPE, MODELS, NAMES
from labkit.pocket.recipe import corpus, evaluate, pocket_clip, pocket_vit, text_tower
from labkit.pocket.recipe.views import as_written, fill_holes, random_views
from labkit.spaces.backbones import load_backbone


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


def test_sampling_gives_every_kind_its_share_and_rare_captions_more() -> None:
    captions = ["the digit 1", "the digit 1", "dog face", "cat face", "red hat", "align", "align", "sso login"]
    kinds = np.array(
        [
            pocket_clip.KINDS.index(kind)
            for kind in ["digit", "digit", "emoji", "emoji", "clothes", "other", "other", "other"]
        ]
    )
    weights = pocket_clip.sampling_weights(captions, kinds).numpy()
    for kind in ("digit", "emoji", "clothes", "other"):
        number = pocket_clip.KINDS.index(kind)
        assert weights[kinds == number].sum() == pytest.approx(pocket_clip.SHARES[number])
    assert weights[-1] == 0  # a lone caption that names nothing in particular
    uneven = pocket_clip.sampling_weights(["hat", "coat", "coat", "coat", "coat"], np.full(5, 3)).numpy()
    assert uneven[0] == pytest.approx(2 * uneven[1])


def test_kinds_are_told_by_caption() -> None:
    assert pocket_clip.kind_of("winter coat", is_emoji=True) == "clothes"
    assert pocket_clip.kind_of("cat face", is_emoji=True) == "emoji"
    assert pocket_clip.kind_of("cat", is_emoji=False) == "other"


def test_written_characters_are_bent_but_stay_what_they_are() -> None:
    letters = np.zeros((4, 64, 64, 4), np.uint8)
    letters[:, 10:54, 28:36, 3] = 255
    pictures = torch.from_numpy(letters)
    written = as_written(pictures, torch.Generator().manual_seed(0))
    assert written.shape == pictures.shape
    assert written.dtype == torch.uint8
    assert torch.equal(written, as_written(pictures, torch.Generator().manual_seed(0)))
    assert not torch.equal(written[0], written[1])
    overlap = torch.corrcoef(torch.stack([written[..., 3].flatten().float(), pictures[..., 3].flatten().float()]))[0, 1]
    assert 0.5 < overlap < 0.999


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="the recipe needs torch 2.9")
def test_distillation_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)
    pictures = pocket_clip.Pictures(
        rng.randint(0, 256, (12, 64, 64, 4)).astype(np.uint8),
        rng.randint(0, 256, (12, 64, 64)).astype(np.uint8),
        [("cat",)] * 6 + [("dog",)] * 6,
        np.full(12, pocket_clip.KINDS.index("other")),
    )
    maps = [rng.randn(12, 3, 3, 192).astype(np.float16)]
    captions = torch.nn.functional.normalize(torch.randn(5, 256), dim=1)
    monkeypatch.setattr(pocket_vit, "PHOTO_VIEWS", 1)
    monkeypatch.setattr(pocket_vit, "SAVE_EVERY", 2)
    monkeypatch.setattr(pocket_vit, "BATCH", 16)
    alignment = pocket_clip.Alignment().eval()
    scale = pocket_clip.Scale(fraction=0.01, student_steps=4)

    def train(folder: str) -> dict[str, torch.Tensor]:
        work = tmp_path / folder
        work.mkdir(exist_ok=True)
        return pocket_vit.train(alignment, maps, pictures, captions, {}, work, scale)

    whole = train("whole")
    write, calls = pocket_vit.atomic_write, []

    def stop_after_the_first(path: Path) -> object:
        calls.append(path)
        if len(calls) == 3:  # maps of photographs, the first checkpoint, the second
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(pocket_vit, "atomic_write", stop_after_the_first)
    monkeypatch.setattr(pocket_vit, "save_array", lambda path, array: (calls.append(path), np.save(path, array)))
    with pytest.raises(KeyboardInterrupt):
        train("stopped")
    monkeypatch.setattr(pocket_vit, "atomic_write", write)
    again = train("stopped")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_vocabulary_reads_frequent_words_whole(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the recipe learns its vocabulary with tokenizers")
    path = tmp_path / "bpe.txt.gz"
    text_tower.learn_vocabulary(["a photo of a dog", "dog icon", "photo of dogs"] * 5, path)
    tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=16)
    assert tokenizer.vocab_size == pocket_clip.VOCABULARY
    assert len(tokenizer.encode("photo dog")) == 2
    assert tokenizer.decode(tokenizer.encode("photo of a dog")).strip() == "photo of a dog"


def test_the_assembled_model_sees_what_the_trained_parts_see() -> None:
    alignment = pocket_clip.Alignment().eval()
    text = {k: v for k, v in open_clip.CLIP(**pocket_clip.CONFIG).state_dict().items() if not k.startswith("visual.")}
    model = open_clip.CLIP(**pocket_clip.CONFIG).eval()
    model.load_state_dict(text_tower.assemble(alignment, text))
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


@pytest.mark.skipif(shutil.which("npm") is None, reason="the recipe fetches its images with npm")
def test_the_whole_recipe_runs_on_a_hundredth_of_the_data(tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="drawing needs pyvips")
    from labkit.pocket.recipe.__main__ import make

    try:
        corpus.fetch("emojibase-data", corpus.PACKAGES["emojibase-data"], tmp_path / "work" / "packages")
    except DataError:
        if os.environ.get("CI"):
            raise
        pytest.skip("the packages of the recipe cannot be reached")
    facts = make(tmp_path / "work", tmp_path / "out", pocket_clip.SMOKE)
    of_clip = facts["pocket-clip"]
    assert 800 < of_clip["n_pictures"] < 3000
    assert not any(entry["set"].startswith(corpus.HELD_OUT) for entry in of_clip["sets"])
    assert {entry["license"] for entry in of_clip["sets"]} <= corpus.LICENSES
    for name in NAMES:
        config = json.loads((tmp_path / "out" / f"{name}.json").read_text("utf-8"))
        open_clip.load_checkpoint(open_clip.CLIP(**config), str(tmp_path / "out" / f"{name}.safetensors"))
    again = make(tmp_path / "work", tmp_path / "out", pocket_clip.SMOKE)  # every stage is there: nothing is trained
    for name in NAMES:
        assert again[name]["sha256"] == facts[name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_are_those_of_the_card(name: str) -> None:
    facts = json.loads((MODELS / f"{name}.facts.json").read_text("utf-8"))
    for file in (f"{name}.json", f"{name}.safetensors", BPE):
        assert facts["sha256"][file] == file_sha256(MODELS / file)
    assert evaluate.CARDS[name](facts) == (MODELS / f"{name}.md").read_text("utf-8")
    assert facts["sha256"][f"{name}.safetensors"] in (MODELS / f"{name}.md").read_text("utf-8")
    for entry in facts.get("sets", ()):
        assert entry["license"] in corpus.LICENSES


@pytest.mark.parametrize("name", NAMES)
def test_the_card_states_what_the_shipped_weights_score(name: str) -> None:
    facts = json.loads((MODELS / f"{name}.facts.json").read_text("utf-8"))
    measured = evaluate.scores(load_backbone(name), "digits")
    assert measured["zero_shot"] == pytest.approx(facts["scores"]["digits"]["zero_shot"], abs=0.02)


def test_the_models_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 25e6
