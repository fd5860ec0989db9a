"""What all backbones share: the frozen encoder itself, and how a network with its preprocessing becomes one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from labkit._inputs import is_whole
from labkit.devices import autocast, autocast_dtype, is_out_of_memory, pick_device
from labkit.errors import BackboneError, DataError, quote
from labkit.spaces.geometry import LONGEST, Geometry, Middle, Preprocess
from labkit.spaces.weights import fingerprint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGEST_SIDE = 8192  # pixels of what a model sees, far beyond any
TO_RGB = ("MaybeConvertMode()", "_convert_to_rgb")  # the step of open_clip (and of its older versions)


@dataclass(frozen=True)
class Backbone:
    """A frozen image encoder, with a text tower where the model has one.

    Attributes:
        name: as given to `load_backbone`.
        dim: d, the length of a feature.
        fingerprint: SHA-256 of the weights, of what is done to the pixels before, and of pooling and activation where
            they are not the weights' own. The cache of features keeps the dtype beside it.
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

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        transform: Any,
        *,
        name: str = "own",
        dtype: str | None = None,
        device: str = "auto",
    ) -> Backbone:
        """A backbone of a network of your own.

        Args:
            model: normalized pixels (B, 3, h, w) -> features (B, d). It is frozen, and moved to the device.
            transform: its preprocessing as torchvision, timm and open_clip write it: a Compose of resize and crop,
                ToTensor and Normalize. Steps that work on floats are none of it.
            name: under which features are kept; the weights and the preprocessing tell networks of one name apart.
            dtype, device: as in `load_backbone`.

        Raises:
            BackboneError: the model or the transform is none, or they do not fit together.
        """
        if not isinstance(model, nn.Module):
            raise BackboneError(f"model is {quote(model)}. Expected a torch.nn.Module.")
        if not isinstance(name, str) or not name:
            raise BackboneError(f"name is {quote(name)}. Expected a text.")
        mean, std = _normalization(transform)
        settings = Settings(pick_device(device), None, None, None, dtype)
        return freeze(name, model, model, transform, mean, std, settings, beside=f" {model!r}")

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features of a batch: uint8 pixels (B, h, w, c or 1) -> float32 (B, d) on the backbone's device.

        Raises:
            DataError: the pixels are of another type, shape or size.
        """
        self._check_pixels(pixels)
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # channels last in memory: no copy
        scale = torch.tensor(self.std, device=self.device).mul_(255).reciprocal_().view(-1, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)], device=self.device)
        inputs = pixels.float().expand(-1, len(scale), -1, -1).contiguous(memory_format=torch.channels_last)
        inputs = inputs.mul_(scale).sub_(shift.view(-1, 1, 1))
        try:
            with autocast(self.device, self.dtype):
                features = self.model(inputs).float()
        except (RuntimeError, AssertionError, ValueError) as error:
            if not is_out_of_memory(error):
                self._check_size(pixels.shape[2:], error)
            raise
        if features.shape[1:] != (self.dim,):
            self._check_size(pixels.shape[2:])
        return features

    def _check_pixels(self, pixels: Any) -> None:
        channels = " or ".join(map(str, sorted({1, len(self.std)})))
        expected = f"Expected a tensor of uint8, (B, h, w, {channels}): torch.from_numpy(np.stack(images))."
        if not isinstance(pixels, Tensor):
            raise DataError(f"pixels is {quote(pixels)}. {expected}")
        if pixels.dtype != torch.uint8 or pixels.is_meta or pixels.layout != torch.strided:
            raise DataError(f"pixels is a tensor of {pixels.dtype}, {pixels.layout} on {pixels.device}. {expected}")
        if pixels.ndim != 4 or 0 in pixels.shape or pixels.shape[3] not in (1, len(self.std)):
            raise DataError(f"pixels has shape {tuple(pixels.shape)}. {expected}")

    def _check_size(self, size: Sequence[int], cause: Exception | None = None) -> None:
        """Raise a DataError where images are not of the size that `preprocess` makes; many models take no other."""
        height, width = self.preprocess(Image.new("L", (8, 8))).shape[:2]
        if tuple(size) != (height, width):
            raise DataError(
                f"pixels has images of {size[0]} x {size[1]} pixels. {self.name!r} expected {height} x {width}: what "
                "backbone.preprocess makes of an image."
            ) from cause

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
        """Embeddings of texts in the space of the images, L2-normalized: float32 (n, d) on the backbone's device.

        Texts longer than the model's context are cut off.

        Raises:
            BackboneError: the backbone has no text tower, its tokenizer cannot be had, or what is given are no texts.
        """
        clip, tokenize = self._image_text_model()
        is_list = isinstance(texts, Collection) and not isinstance(texts, str | bytes | Set | Mapping)
        is_list = is_list and getattr(texts, "ndim", 1) == 1
        if not is_list or len(texts) == 0 or not all(isinstance(text, str) for text in texts):
            raise BackboneError(f"texts is {quote(texts)}. Expected a list of at least one text.")
        if not is_whole(batch_size, 1):
            raise BackboneError(f"batch_size is {quote(batch_size)}. Expected a whole number of at least 1.")
        texts, parts = list(texts), []
        with autocast(self.device, self.dtype):
            for start in range(0, len(texts), batch_size):
                tokens = tokenize(texts[start : start + batch_size]).to(self.device)
                parts.append(clip.encode_text(tokens).float())
        return nn.functional.normalize(torch.cat(parts), dim=-1)

    @property
    def logit_scale(self) -> float:
        """The inverse temperature that the model learned for cosine similarities of images and texts.

        Raises:
            BackboneError: the backbone has no text tower.
        """
        return float(self._image_text_model()[0].logit_scale.exp())

    def _image_text_model(self) -> tuple[Any, Callable[[list[str]], Tensor]]:
        if self.tokenize is None or not isinstance(self.model, ImageTower):
            raise BackboneError(
                f'{self.name!r} has no text tower: it cannot embed texts. Use "pocket-clip" (needs no '
                'download) or "open_clip:MODEL/PRETRAINED".'
            )
        return self.model.clip, self.tokenize


class ImageTower(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)


@dataclass(frozen=True)
class Settings:
    """What the caller of `load_backbone` chose; None is the model's own."""

    device: torch.device
    image_size: int | None
    geometry: Geometry | None
    pooling: str | None
    dtype: str | None

    def __post_init__(self) -> None:
        if self.image_size is not None:
            if not is_whole(self.image_size, 1, LARGEST_SIDE):
                raise BackboneError(
                    f"image_size is {quote(self.image_size)}. Expected a whole number of pixels from 1 to "
                    f"{LARGEST_SIDE}, or None."
                )
            object.__setattr__(self, "image_size", int(self.image_size))  # fingerprints write NumPy's in another way
        if self.geometry is not None and not isinstance(self.geometry, Geometry):
            raise BackboneError(
                f"geometry is {quote(self.geometry)}. Expected one, such as Geometry(resize=256, crop=224), or None."
            )
        if self.geometry is not None and self.geometry.resize > LARGEST_SIDE:
            raise BackboneError(f"geometry is {quote(self.geometry)}. Expected a resize of at most {LARGEST_SIDE}.")
        if self.image_size is not None and self.geometry is not None:
            raise BackboneError(
                f"image_size is {self.image_size} and geometry is {self.geometry}. Expected one of them: the crop of "
                "the geometry is the size that the model sees."
            )
        if self.pooling is not None and not isinstance(self.pooling, str):
            raise BackboneError(
                f'pooling is {quote(self.pooling)}. Expected a text, such as "avg" or "token", or None.'
            )
        if self.dtype is not None and (not isinstance(self.dtype, str) or self.dtype not in DTYPES):
            raise BackboneError(f"dtype is {quote(self.dtype)}. Expected one of {', '.join(DTYPES)}, or None.")

    @property
    def input_size(self) -> int | None:
        """Side in pixels of what the model is to see."""
        return self.image_size if self.geometry is None else self.geometry.crop

    @property
    def forward_dtype(self) -> torch.dtype:
        """Of the forward pass of a network."""
        return autocast_dtype(self.device) if self.dtype is None else DTYPES[self.dtype]


def freeze(
    name: str,
    model: nn.Module,
    encoder: nn.Module,
    transform: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    settings: Settings,
    beside: str = "",
) -> Backbone:
    """What all networks share: resize and crop from the library's own transform, weights frozen on the device.

    Args:
        beside: what changes features and is neither in the weights nor done to the pixels.
    """
    preprocess, preprocessing = (
        library_preprocess(transform) if settings.geometry is None else own_preprocess(settings.geometry)
    )
    digest = fingerprint(model, f"{preprocessing} {mean} {std}{beside}")
    device, dtype = settings.device, settings.forward_dtype
    encoder.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    backbone = Backbone(name, 0, digest, preprocess, device, dtype, encoder, tuple(mean), tuple(std))
    probe = backbone.encode_image(torch.from_numpy(preprocess(Image.new("RGB", (256, 256))))[None])
    if probe.ndim != 2:
        raise BackboneError(
            f"{name!r} gives {tuple(probe.shape)} for one image. Expected one vector: choose another pooling, such as "
            '"avg" or "token".'
        )
    return replace(backbone, dim=probe.shape[1])


def _normalization(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (c,) of the Normalize step of a library's transform."""
    from torchvision import transforms

    steps = getattr(transform, "transforms", None)
    if not isinstance(steps, list | tuple):
        raise BackboneError(
            f"transform is {quote(transform)}. Expected a Compose of resize, crop, ToTensor and Normalize, such as "
            "timm.data.create_transform makes."
        )
    found = [step for step in steps if isinstance(step, transforms.Normalize)]
    if len(found) != 1:
        raise BackboneError(f"transform has {len(found)} Normalize steps. Expected one, after ToTensor.")
    channels = len(transform(Image.new("RGB", (256, 256))))
    mean, std = (torch.as_tensor(value).flatten().expand(channels).tolist() for value in (found[0].mean, found[0].std))
    return tuple(mean), tuple(std)


def library_preprocess(transform: Any) -> tuple[Preprocess, list[str]]:
    """The steps of a library's transform that are geometry, and all its steps on pixels in words."""
    from timm.data.transforms import MaybeToTensor
    from torchvision import transforms

    to_floats = (transforms.ToTensor, transforms.PILToTensor, transforms.Normalize, MaybeToTensor)
    steps = [step for step in transform.transforms if not isinstance(step, to_floats)]
    preprocessing = [getattr(step, "__name__", repr(step)) for step in steps]  # a function's repr holds its address
    geometry = [step for step, name in zip(steps, preprocessing, strict=True) if name not in TO_RGB]
    first = [Middle(longest) for step in geometry if (longest := _longest_taken(step))]
    # these two do to one channel what they do to three equal ones; others may pad with a color
    gray_too = all(isinstance(step, transforms.Resize | transforms.CenterCrop) for step in geometry)
    return Preprocess(transforms.Compose([*first, *geometry]), ("L", "RGB") if gray_too else ("RGB",)), preprocessing


def _longest_taken(step: Any) -> int | None:
    """How many times longer than wide an image may be, so that a step makes neither gigabytes nor nothing of it."""
    from torchvision import transforms

    if hasattr(step, "longest"):  # ResizeKeepRatio of timm and of open_clip: 1 is the longer side, 0 the shorter one
        return min(step.size) if step.longest == 1 else LONGEST
    if not isinstance(step, transforms.Resize) or step.max_size is not None:
        return None
    return LONGEST if isinstance(step.size, int) or len(step.size) == 1 else None


def own_preprocess(geometry: Geometry) -> tuple[Preprocess, list[str]]:
    return Preprocess(geometry, ("L", "RGB")), [repr(geometry)]
