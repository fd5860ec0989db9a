"""The nine spaces of the TURTLE paper by short names: right models, sizes and outputs, checked without a download."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from labkit.course.profiles import PROFILES
from labkit.spaces import families
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.encoders import Settings
from labkit.spaces.geometry import Geometry
from labkit.spaces.papers import NEWER_SPACES, SPACES, TURTLE_SPACES, Space
from labkit.spaces.positions import resample_positions
from tests.hub import put_into_cache, put_openai_clip, random_state, without_weights

STATED = {  # name: model, resolution, d (Radford et al., table 19 and 20; Oquab et al., table 17)
    "clip-rn50": ("RN50-quickgelu", 224, 1024),
    "clip-rn101": ("RN101-quickgelu", 224, 512),
    "clip-rn50x4": ("RN50x4-quickgelu", 288, 640),
    "clip-rn50x16": ("RN50x16-quickgelu", 384, 768),
    "clip-rn50x64": ("RN50x64-quickgelu", 448, 1024),
    "clip-vit-b32": ("ViT-B-32-quickgelu", 224, 512),
    "clip-vit-b16": ("ViT-B-16-quickgelu", 224, 512),
    "clip-vit-l14": ("ViT-L-14-quickgelu", 224, 768),
    "dinov2-vit-g14": ("vit_giant_patch14_dinov2.lvd142m", 224, 1536),
}
LOADED = ("clip-vit-b32", "clip-rn50")  # with random weights; the others by their configurations alone
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Load = Callable[[str], Backbone]
SMALL = "vit_small_patch14_dinov2.lvd142m"


def test_there_are_the_nine_spaces_of_the_paper() -> None:
    assert {name: (s.model, s.geometry.crop, s.dim) for name, s in TURTLE_SPACES.items()} == STATED
    assert {s.geometry.interpolation for s in TURTLE_SPACES.values()} == {"bicubic"}
    for name, space in TURTLE_SPACES.items():
        assert space.geometry.resize == (space.geometry.crop if name.startswith("clip-") else 256)


@pytest.mark.parametrize("name", [name for name in SPACES if name.startswith("clip-")])
def test_open_clip_has_the_clip_spaces(name: str) -> None:
    space = SPACES[name]
    config = open_clip.get_model_config(space.model)
    assert (config["embed_dim"], config["vision_cfg"]["image_size"]) == (space.dim, space.geometry.crop)
    assert config["quick_gelu"] is True
    weights = open_clip.get_pretrained_cfg(space.model, space.pretrained)
    assert (weights["mean"], weights["std"]) == (OPENAI_MEAN, OPENAI_STD)
    assert (weights["interpolation"], weights["resize_mode"]) == ("bicubic", "shortest")


@pytest.mark.parametrize("name", [name for name in SPACES if name.startswith("dinov2-")])
def test_timm_has_the_dinov2_spaces(name: str) -> None:
    space = SPACES[name]
    config = timm.get_pretrained_cfg(space.model)
    assert (config.input_size[-1], config.mean, config.std) == (518, IMAGENET_MEAN, IMAGENET_STD)
    model = without_weights(space.model)
    assert (model.num_features, model.global_pool, model.num_prefix_tokens) == (space.dim, "token", 1)
    assert isinstance(model.norm, torch.nn.LayerNorm)
    assert isinstance(model.fc_norm, torch.nn.Identity)
    assert model.pos_embed.shape == (1, 1 + 37**2, space.dim)  # as resample_positions expects them


@pytest.mark.parametrize("name", NEWER_SPACES)
def test_the_libraries_have_the_newer_spaces(name: str) -> None:
    """Width and size by the libraries' own configurations: the file that is to be fetched is named there."""
    space = NEWER_SPACES[name]
    if space.library == "timm":
        config = timm.get_pretrained_cfg(space.model)
        model = without_weights(space.model)
        assert (model.num_features, config.hf_hub_id) == (space.dim, f"timm/{space.model}")
    else:
        assert open_clip.get_model_config(space.model)["embed_dim"] == space.dim
        assert open_clip.get_pretrained_cfg(space.model, space.pretrained)["hf_hub"] == f"timm/{space.model}/"


def test_profiles_take_the_spaces_of_the_paper() -> None:
    for name in ("standard", "paper"):
        profile = PROFILES[name]
        assert {*profile.backbones, profile.image_text, profile.student} <= set(SPACES)
    assert PROFILES["paper"].backbones == ("clip-vit-l14", "dinov2-vit-g14")


# loaded, from where the hub's cache would keep them


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the hub with random weights of three models: 0.6 GB, removed afterwards."""
    hub = tmp_path_factory.mktemp("hub")
    for name in LOADED:
        put_openai_clip(hub, SPACES[name].model)
    torch.manual_seed(0)
    state = timm.create_model(SMALL).state_dict()
    state["pos_embed"] = torch.randn(state["pos_embed"].shape) * 0.2
    for name in state:  # untrained, the layers hardly matter
        if name.endswith("gamma"):
            state[name] = torch.ones(state[name].shape)
    put_into_cache(hub, f"timm/{SMALL}", "model.safetensors", state)
    yield hub
    shutil.rmtree(hub)


@pytest.fixture
def hub(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(weights))
    return weights


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """A space in single precision, loaded once."""
    loaded = functools.cache(functools.partial(load_backbone, dtype="float32", device="cpu"))
    yield loaded
    loaded.cache_clear()


def noise(width: int = 250, height: int = 300) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", LOADED)
def test_a_clip_space_is_the_image_embedding_with_quickgelu_not_normalized(name: str, hub: Path, load: Load) -> None:
    space, backbone = SPACES[name], load(name)
    assert (backbone.name, backbone.dim, backbone.dtype) == (name, space.dim, torch.float32)
    assert (backbone.mean, backbone.std) == (OPENAI_MEAN, OPENAI_STD)
    clip = backbone.model.clip
    kinds = {type(part).__name__ for part in clip.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds
    loaded = clip.state_dict()
    for key, tensor in random_state(space.model).items():
        assert torch.equal(loaded[key], tensor.to(loaded[key].dtype)), key
    pixels = backbone.preprocess(noise())
    assert pixels.shape == (space.geometry.crop, space.geometry.crop, 3)
    theirs = open_clip.transform.PreprocessCfg(**clip.visual.preprocess_cfg)
    inputs = open_clip.transform.image_transform_v2(theirs, is_train=False)(noise())
    with torch.inference_mode():
        expected = clip.encode_image(inputs[None], normalize=False)
    features = backbone.encode_image(torch.from_numpy(pixels)[None])
    torch.testing.assert_close(features, expected, atol=1e-3, rtol=1e-4)
    assert features.norm() > 2  # not L2-normalized
    texts = backbone.encode_text(["a cat", "a dog"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))


def test_weights_that_need_quickgelu_get_it_under_every_name(hub: Path, load: Load) -> None:
    short = load("clip-vit-b32")
    plain = load_backbone("open_clip:ViT-B-32/openai", dtype="float32", device="cpu")
    pixels = torch.from_numpy(short.preprocess(noise()))[None]
    assert torch.equal(short.encode_image(pixels), plain.encode_image(pixels))


def test_frozen_attention_in_bfloat16_gives_the_same_embedding_without_copies(hub: Path, load: Load) -> None:
    single, half = load("clip-vit-b32"), load_backbone("clip-vit-b32", dtype="bfloat16", device="cpu")
    attention = [part for part in half.model.modules() if isinstance(part, torch.nn.MultiheadAttention)]
    assert [len(part._forward_pre_hooks) for part in attention] == [1] * 24  # twelve layers in each tower
    tokens = torch.rand(2, 5, 768)
    (query, key), given = families._tokens_first(
        attention[0], (tokens, tokens), {"value": tokens, "need_weights": False}
    )
    assert query is key is given["value"]  # as which attention knows itself as self-attention
    assert torch.equal(query, tokens)
    assert query.transpose(0, 1).is_contiguous()
    pixels = torch.from_numpy(np.stack([single.preprocess(noise(250 + i, 300)) for i in range(3)]))
    similarity = torch.nn.functional.cosine_similarity(single.encode_image(pixels), half.encode_image(pixels))
    assert similarity.min() > 0.999


def bicubic_matrix(old: int, new: int, factor: float) -> np.ndarray:
    """Weights (new, old) of bicubic resampling by a factor, a = −0.75, edges repeated: PyTorch's, written out."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    weights = np.zeros((new, old))
    for i in range(new):
        center = (i + 0.5) / factor - 0.5
        for j in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            weights[i, min(max(j, 0), old - 1)] += kernel(center - j)
    return weights


@pytest.mark.parametrize("grid", [16, 20, 37, 40])
def test_positions_are_resampled_as_by_the_authors_of_dinov2(grid: int) -> None:
    positions = torch.randn(1, 1 + 37**2, 5, generator=torch.Generator().manual_seed(0))
    resampled = resample_positions(positions, grid)
    assert torch.equal(resampled[:, 0], positions[:, 0])
    if grid == 37:
        assert torch.equal(resampled, positions)
        return
    weights = bicubic_matrix(37, grid, (grid + 0.1) / 37)
    patches = positions[0, 1:].reshape(37, 37, 5).double().numpy()
    expected = np.einsum("ip,jq,pqd->ijd", weights, weights, patches).reshape(-1, 5)
    np.testing.assert_allclose(resampled[0, 1:].numpy(), expected, atol=1e-5)


def test_timm_resamples_positions_otherwise() -> None:
    positions = torch.randn(1, 1 + 37**2, 8, generator=torch.Generator().manual_seed(0))
    theirs = timm.layers.resample_abs_pos_embed(positions, [16, 16], [37, 37])
    ours = resample_positions(positions, 16)
    assert (theirs - ours)[:, 1:].abs().mean() > 0.1  # antialiasing smooths noise away
    plain = timm.layers.resample_abs_pos_embed(positions, [16, 16], [37, 37], antialias=False)
    assert (plain - ours)[:, 1:].abs().mean() > 0.001  # and the offset of 0.1 remains


def test_a_dinov2_space_is_the_normalised_class_token_of_the_stated_geometry(hub: Path) -> None:
    """The small model stands for ViT-g/14 and ViT-B/14: the same code, another name."""
    space = Space("timm", SMALL, 384, Geometry(256, 224), pooling="token")
    settings = Settings(torch.device("cpu"), image_size=None, geometry=None, pooling=None, dtype="float32")
    backbone = families.paper_space("dinov2-vit-s14", space, settings)
    assert backbone.dim == 384
    assert (backbone.mean, backbone.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert backbone.preprocess.geometry == Geometry(256, 224, "bicubic")
    reference = timm.create_model(SMALL, pretrained=True).eval()  # at 518 pixels, as the weights are
    model = backbone.model
    torch.testing.assert_close(model.pos_embed, resample_positions(reference.pos_embed, 16))
    pixels = torch.from_numpy(backbone.preprocess(noise()))[None]
    assert pixels.shape == (1, 224, 224, 3)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    inputs = (pixels[0].permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():  # the original forward pass, part by part
        patches = torch.nn.functional.conv2d(
            inputs[None], reference.patch_embed.proj.weight, reference.patch_embed.proj.bias, stride=14
        )
        tokens = torch.cat([reference.cls_token, patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + resample_positions(reference.pos_embed, 16)
        for block in reference.blocks:
            tokens = block(tokens)
        expected = reference.norm(tokens)[:, 0]
    torch.testing.assert_close(backbone.encode_image(pixels), expected, atol=1e-4, rtol=1e-4)
    timms = load_backbone(f"timm:{SMALL}", image_size=224, dtype="float32", device="cpu")
    assert not torch.allclose(timms.encode_image(pixels), expected, atol=1e-2)


def test_a_callers_geometry_replaces_the_papers(hub: Path, load: Load) -> None:
    other = load_backbone("clip-vit-b32", geometry=Geometry(256, 224), device="cpu")
    assert other.preprocess.geometry == Geometry(256, 224)
    assert load("clip-vit-b32").preprocess.geometry == Geometry(224, 224)
    assert other.fingerprint != load("clip-vit-b32").fingerprint
