"""The maskable tower: bit by bit open_clip's own where nothing is hidden; and a clear word where nothing can be."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from labkit.errors import BackboneError
from labkit.must import MaskedClassifier, MaskedVisual
from labkit.spaces.backbones import load_backbone
from tests import tiny


def tower(**changes: object) -> nn.Module:
    """A small native vision transformer of open_clip."""
    torch.manual_seed(0)
    return open_clip.CLIP(16, {**tiny.VISION, **changes}, tiny.TEXT).visual.eval()


def noise(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------ nothing hidden


def published(name: str) -> Any:
    """A model of open_clip with random weights and a tiny text tower; made without its own slow initialization."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        quick_gelu = config.get("quick_gelu", False)
        model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], tiny.TEXT, quick_gelu=quick_gelu)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    values = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for parameter in model.visual.parameters():
        scale = 1.0 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.copy_(
            (scale * values).repeat(parameter.numel() // len(values) + 1)[: parameter.numel()].view_as(parameter)
        )
    return model


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14-CLIPA"])
def test_with_nothing_hidden_it_is_the_tower_bit_by_bit(name: str) -> None:
    model = published(name)
    masked, images = MaskedVisual(model.visual), noise(1, model.visual.image_size[0])
    hidden = torch.zeros(1, masked.grid[0] * masked.grid[1], dtype=torch.bool)
    with torch.no_grad():
        expected = model.encode_image(images)
        assert torch.equal(masked.encode(images), expected)
        assert torch.equal(masked.encode(images, hidden), expected)
    assert expected.std() > 0.1
    del model, masked
    gc.collect()  # 1.2 GB of ViT-L


def test_the_pocket_model_and_its_classifier_too(pocket_models: Path) -> None:
    backbone = load_backbone("pocket-vit", device="cpu")
    clip = backbone.model.clip  # type: ignore[union-attr]
    images = noise(3, 48)
    classifier = MaskedClassifier(clip.visual, torch.randn(5, 256), 30.0).eval()
    classifier.requires_grad_(False)  # as the tower's; PyTorch picks other kernels for weights that are trained
    with torch.no_grad():
        output, expected = classifier(images), clip.encode_image(images)
    assert torch.equal(output.embedding, expected)
    expected_logits = 30 * nn.functional.normalize(expected, dim=-1) @ classifier.head.weight.T
    torch.testing.assert_close(output.logits, expected_logits, rtol=1e-5, atol=1e-5)
    assert output.patches is None
    assert output.reconstruction is None


@pytest.mark.parametrize(
    "changes", [{"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}, {"no_ln_pre": True}]
)
def test_other_ways_to_pool_and_normalise_are_the_towers_own(changes: dict) -> None:
    visual = tower(**changes)
    with torch.no_grad():
        assert torch.equal(MaskedVisual(visual).encode(noise(2, 16)), visual(noise(2, 16)))


def test_a_tower_that_gives_its_tokens_out_gives_its_embedding_here() -> None:
    visual = tower(output_tokens=True)
    with torch.no_grad():
        assert torch.equal(MaskedVisual(visual).encode(noise(2, 16)), visual(noise(2, 16))[0])


# -------------------------------------------------------------------------------------------------------------- hidden


def test_what_is_hidden_is_not_seen_and_the_rest_is() -> None:
    masked = MaskedVisual(tower())
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 5] = hidden[1, 6] = True  # row 1, columns 1 and 2 of 4 x 4
    images = noise(2, 16)
    with torch.no_grad():
        before = masked.tokens(images, hidden)
        changed = images.clone()
        changed[0, :, 4:8, 4:8] += 1
        changed[1, :, 4:8, 8:12] += 1
        assert torch.equal(masked.tokens(changed, hidden), before)
        assert not torch.equal(masked.tokens(changed), masked.tokens(images))
        changed[0, :, 4:8, 8] += 1
        after = masked.tokens(changed, hidden)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_hidden_patches_carry_the_mask_token_before_their_position_is_added() -> None:
    masked, images = MaskedVisual(tower()), noise(1, 16)
    hidden = torch.arange(16)[None] == 3
    seen = {}
    masked.visual.ln_pre.register_forward_hook(lambda _, inputs, __: seen.update(states=inputs[0]))
    with torch.no_grad():
        masked.tokens(images, hidden)
        embedded = masked.visual.conv1(images)[0].flatten(1).T + masked.visual.positional_embedding[1:]
    expected = masked.mask_token[0, 0] + masked.visual.positional_embedding[4]
    torch.testing.assert_close(seen["states"][0, 4], expected)
    torch.testing.assert_close(seen["states"][0, 1:4], embedded[:3])
    torch.testing.assert_close(seen["states"][0, 5:], embedded[4:])


def test_the_mask_token_is_small_and_random() -> None:
    torch.manual_seed(0)
    tokens = torch.stack([MaskedVisual(tower(width=256)).mask_token.detach() for _ in range(2)])
    torch.manual_seed(1)
    other = MaskedVisual(tower(width=256)).mask_token
    assert tokens.std().item() == pytest.approx(0.02, rel=0.15)
    assert other.abs().max() > 0


def test_patches_are_decoded_each_into_its_own_place() -> None:
    masked = MaskedVisual(tower(image_size=(8, 16)))  # type: ignore[arg-type]
    assert (masked.grid, masked.patch) == ((2, 4), 4)
    patches = torch.randn(1, 8, 32)
    with torch.no_grad():
        before = masked.reconstruct(patches)
        assert before.shape == (1, 3, 8, 16)
        for patch in range(8):
            row, column = divmod(patch, 4)
            changed = patches.clone()
            changed[0, patch] += 1
            moved = (masked.reconstruct(changed) != before).any(1)[0]
            place = torch.zeros(8, 16, dtype=torch.bool)
            place[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
            assert not (moved & ~place).any()
            assert moved[place].float().mean() > 0.9


def test_one_layer_norm_of_their_own_feeds_alignment_and_reconstruction() -> None:
    classifier = MaskedClassifier(tower(), torch.randn(3, 16), 10.0)
    backbone, images, hidden = classifier.backbone, noise(2, 16), torch.arange(16).expand(2, 16) < 5
    with torch.no_grad():
        backbone.ln_patch.weight.uniform_()
        patches = backbone.ln_patch(backbone.tokens(images, hidden)[:, 1:])
        expected = patches @ backbone.visual.proj, backbone.decoder(patches.transpose(1, 2).view(2, 32, 4, 4))
        for _ in range(2):
            output = classifier(images, hidden)
            torch.testing.assert_close((output.patches, output.reconstruction), expected)
            backbone.visual.ln_post.weight.fill_(7.0)  # the LayerNorm of the class token is not theirs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_in_full_precision_under_autocast(dtype: torch.dtype) -> None:
    """In bfloat16 logits of 100 times a cosine come in steps of 0.125 and more: ties, and other thresholds."""
    torch.manual_seed(0)
    classifier = MaskedClassifier(tower(), nn.functional.normalize(torch.randn(50, 16), dim=-1), 100.0).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        output = classifier(noise(64, 16))
    assert output.logits.dtype == output.embedding.dtype == torch.float32
    assert (output.logits != output.logits.to(dtype)).float().mean() > 0.9
    with torch.no_grad():
        expected = 100 * nn.functional.normalize(output.embedding, dim=-1) @ classifier.head.weight.T
        torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=0)
        assert (output.logits - classifier(noise(64, 16)).logits).abs().max() < 3  # of the tower, which is in `dtype`


# ---------------------------------------------------------------------------------------------------------- classifier


def test_the_classifier_copies_the_tower_and_trains_all_of_the_copy() -> None:
    visual = tower().half().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    classifier = MaskedClassifier(visual, torch.randn(3, 16), 10.0)
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in visual.state_dict().items())
    assert not any(parameter.requires_grad for parameter in visual.parameters())


@pytest.mark.parametrize(("masked_image", "alignment"), [(True, False), (False, True), (False, False), (True, True)])
def test_parts_that_no_loss_uses_are_neither_computed_nor_trained(masked_image: bool, alignment: bool) -> None:
    classifier = MaskedClassifier(tower(), torch.randn(3, 16), 10.0, masked_image=masked_image, alignment=alignment)
    output = classifier(noise(2, 16), torch.zeros(2, 16, dtype=torch.bool))
    assert (output.reconstruction is not None) is masked_image
    assert (output.patches is not None) is alignment
    trained = {name.split(".")[1] for name, p in classifier.named_parameters() if p.requires_grad}
    assert ("decoder" in trained, "ln_patch" in trained) == (masked_image, masked_image or alignment)


# ------------------------------------------------------------------------------------------- towers that cannot be used


def build(name: str) -> nn.Module:
    """The image tower of an open_clip model, with random weights."""
    config = open_clip.get_model_config(name)
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    return open_clip.model._build_vision_tower(config["embed_dim"], vision)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("RN50", "ModifiedResNet"), ("convnext_base", "TimmModel"), ("EVA02-B-16", "TimmModel")],
)
def test_other_architectures_are_refused(name: str, kind: str) -> None:
    with pytest.raises(BackboneError, match=rf"{kind}: it has no patches that could be hidden here.*pocket-vit"):
        MaskedVisual(build(name))


def test_the_pocket_clip_is_refused(pocket_models: Path) -> None:
    backbone = load_backbone("pocket-clip", device="cpu")
    with pytest.raises(BackboneError, match=r"TimmModel: it has no patches.*ViT-B-16-quickgelu"):
        MaskedVisual(backbone.model.clip.visual)  # type: ignore[union-attr]


def test_coca_is_refused() -> None:
    config = open_clip.get_model_config("coca_ViT-B-32")
    with pytest.raises(BackboneError, match="VisionTransformer pools its patches by attention"):
        MaskedVisual(open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"]))


def test_patch_dropout_is_refused() -> None:
    with pytest.raises(BackboneError, match="VisionTransformer drops patches at random"):
        MaskedVisual(tower(patch_dropout=0.5))


def test_a_tower_without_projection_or_with_oblong_patches_is_refused() -> None:
    visual = tower()
    visual.proj = None
    with pytest.raises(BackboneError, match="no projection into a space of images and texts"):
        MaskedVisual(visual)
    oblong = open_clip.transformer.VisionTransformer(16, (4, 8), 32, 1, 2, 4.0, output_dim=16)
    with pytest.raises(BackboneError, match=r"patches of \(4, 8\) pixels. Expected square ones"):
        MaskedClassifier(oblong, torch.randn(3, 16), 10.0)
