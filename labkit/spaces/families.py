"""Families of backbones: open_clip's models, timm's, the spaces of the TURTLE paper, and encoders without a network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit import pocket
from labkit.data.hub import cache_only_if_unreachable
from labkit.errors import BackboneError
from labkit.spaces.encoders import Backbone, ImageTower, Settings, freeze
from labkit.spaces.geometry import Preprocess, Squash
from labkit.spaces.nearest import ask_which
from labkit.spaces.papers import SPACES, Space
from labkit.spaces.positions import resize_dinov2
from labkit.spaces.weights import EFFICIENTNETS, expect_in_cache

KNOWN = (*pocket.NAMES, *EFFICIENTNETS, "hog", "pixels", *SPACES)
NAMES_HELP = ", ".join(f'"{name}"' for name in (*KNOWN, "timm:MODEL"))
NAMES_HELP += ' or "open_clip:MODEL/PRETRAINED"'


def without_network(name: str, size: int, settings: Settings, encoder: nn.Module) -> Backbone:
    """The gray image, resized and described: a space that knows nothing of the world and so errs differently."""
    if settings.geometry is not None:
        raise BackboneError(
            f"{name!r} takes no geometry: it resizes the whole image to a square. Give image_size instead."
        )
    if settings.dtype not in (None, "float32"):
        raise BackboneError(f"dtype is {settings.dtype!r}, but {name!r} computes in float32.")
    preprocess = Preprocess(Squash(size), ("L",))
    digest = hashlib.sha256(f"{name} {size}".encode()).hexdigest()
    dim = encoder(torch.zeros(1, 1, size, size)).shape[1]
    return Backbone(name, dim, digest, preprocess, settings.device, torch.float32, encoder)


def paper_space(name: str, space: Space, settings: Settings) -> Backbone:
    """A space with a short name; a size or geometry of the caller's replaces the space's own."""
    if settings.input_size is None:
        settings = replace(settings, geometry=space.geometry)
    if space.library == "open_clip":
        return open_clip_model(name, space.model, space.pretrained, settings)
    settings = replace(settings, pooling=settings.pooling or space.pooling)
    return timm_model(name, space.model, settings, dinov2="dinov2" in space.model)


def timm_model(
    name: str,
    model_name: str,
    settings: Settings,
    *,
    state: dict[str, Tensor] | None = None,
    dinov2: bool = False,
) -> Backbone:
    """Any timm model without its classifier head.

    Args:
        state: weights to load instead of the hub's.
        dinov2: bring the model to the asked size as the authors of DINOv2 do, not as timm does.
    """
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    size = settings.input_size
    asks = size is not None and not dinov2 and _takes_img_size(model_name)  # a DINOv2 is resized once it is loaded
    sizing: dict[str, Any] = {"img_size": size} if asks else {}
    with weights_or_explain(name, from_hub=state is None):
        config = timm.get_pretrained_cfg(model_name) if state is None else None
        if config is not None and config.hf_hub_id:
            expect_in_cache(config.hf_hub_id)
        classes = 0 if state is None else 1000
        model: Any = timm.create_model(model_name, pretrained=state is None, num_classes=classes, **sizing)
        if state is not None:
            own = model.state_dict()
            model.load_state_dict(dict(zip(own, state.values(), strict=True)))  # same tensors and order, other names
        if state is not None or settings.pooling is not None:
            model.reset_classifier(0, *([] if settings.pooling is None else [settings.pooling]))  # older timm: no None
        if dinov2 and size is not None:
            resize_dinov2(model, size)
    data = resolve_data_config({} if size is None else {"img_size": size, "crop_pct": 1.0}, model=model)
    beside = "" if settings.pooling is None else f" pooling {settings.pooling}"
    return freeze(name, model, model, create_transform(**data), data["mean"], data["std"], settings, beside)


def open_clip_model(name: str, model_name: str, pretrained: str, settings: Settings) -> Backbone:
    """Any open_clip model: its image tower after the projection, and its text tower."""
    import open_clip

    known = open_clip.list_models()
    if model_name not in known and ":" not in model_name:
        raise BackboneError(
            f"open_clip has no model {model_name!r}.{ask_which(name, KNOWN)} Expected one of "
            'open_clip.list_models(), for instance "open_clip:ViT-B-32/laion2b_s34b_b79k".'
        )
    # Weights that were trained with QuickGELU get it whatever the configuration says, where open_clip only warns.
    quick = bool(open_clip.get_pretrained_cfg(model_name, pretrained).get("quick_gelu"))
    with weights_or_explain(name, from_hub=not Path(pretrained).exists()):
        model, _, transform = open_clip.create_model_and_transforms(
            model_name, pretrained=pretrained, force_image_size=settings.input_size, force_quick_gelu=quick
        )
    if name not in pocket.NAMES and settings.device.type == "cpu" and settings.forward_dtype is torch.bfloat16:
        _spare_copies(model)  # which the small pocket models do not notice
    config = open_clip.get_model_preprocess_cfg(model)
    beside = " QuickGELU" if any(isinstance(part, open_clip.transformer.QuickGELU) for part in model.modules()) else ""
    tower = ImageTower(model)
    backbone = freeze(name, model, tower, transform, config["mean"], config["std"], settings, beside)
    return replace(backbone, tokenize=Tokenizer(name, model_name))


def _spare_copies(model: nn.Module) -> None:
    """Give attention its tokens in the order in memory that it reads them in.

    It transposes (n, tokens, d) to (tokens, n, d). A frozen projection of what is then not contiguous becomes, in
    bfloat16 on a CPU, a batched product for which the weights are copied once a token: ten times the time of ViT-B/16.
    """
    for part in model.modules():
        if isinstance(part, nn.MultiheadAttention) and part.batch_first:
            part.register_forward_pre_hook(_tokens_first, with_kwargs=True)


def _tokens_first(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    query = args[0] if args else kwargs["query"]
    ordered = query.transpose(0, 1).contiguous().transpose(0, 1)
    # one and the same tensor again for query, key and value, by which attention knows itself as self-attention
    given = {name: ordered if value is query else value for name, value in kwargs.items()}
    return tuple(ordered if value is query else value for value in args), given


class Tokenizer:
    """Texts -> tokens (n, context). Made at first use: some tokenizers come from the hub, and images do not need them.

    Worker processes that are sent one make their own.
    """

    def __init__(self, backbone: str, model: str) -> None:
        self.backbone, self.model = backbone, model

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str, str]]:
        return Tokenizer, (self.backbone, self.model)

    def __call__(self, texts: list[str]) -> Tensor:
        return self._tokenizer(texts)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        import open_clip

        text = (open_clip.get_model_config(self.model) or {}).get("text_cfg", {})
        with weights_or_explain(
            f"{self.backbone}, tokenizer", from_hub="hf_tokenizer_name" in text or ":" in self.model
        ):
            return open_clip.get_tokenizer(self.model)


def _takes_img_size(model_name: str) -> bool:
    """Whether a timm model is built for one image size (vision transformers are, convolutional networks are not)."""
    import timm

    config = timm.get_pretrained_cfg(model_name)
    return bool(config and config.fixed_input_size)


@contextlib.contextmanager
def weights_or_explain(name: str, *, from_hub: bool) -> Iterator[None]:
    """Turn the many ways in which weights cannot be had into one clear error."""
    try:
        with cache_only_if_unreachable() if from_hub else contextlib.nullcontext():
            yield
    except (OSError, RuntimeError, ValueError, AssertionError) as error:  # hub and network errors are OSErrors
        if isinstance(error, OSError) or "download" in str(error):
            raise BackboneError(
                f"the weights of {name!r} are not in the hub's cache on this machine and could not be downloaded "
                f"({type(error).__name__}). Connect once to fetch them, copy the cache of a machine that has them "
                '(see HF_HOME), or use "efficientnet-lite0", which needs no download.'
            ) from error
        near = ask_which(name, KNOWN) if "nknown model" in str(error) else ""
        raise BackboneError(f"backbone {name!r} cannot be built: {error}.{near} Expected {NAMES_HELP}.") from error
