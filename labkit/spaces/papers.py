"""The representation spaces of the TURTLE paper by short names, each as the paper used it, and some newer ones.

Gadetsky, Jiang, Brbić, "Let Go of Your Labels with Unsupervised Transfer", ICML 2024 (arXiv 2406.07236), section 4.1
and its code. CLIP (Radford et al., ICML 2021): OpenAI's weights with QuickGELU, the image embedding after the
projection, not normalized, at each model's own resolution. DINOv2 (Oquab et al., TMLR 2024): the normalized class token
of ViT-g/14 at 224 pixels; timm's own default for the same weights is 518.

Newer than the paper, with the resize and crop that their library gives them: DINOv3 (Siméoni et al., 2025, arXiv
2508.10104; the class token, under Meta's own license), SigLIP 2 (Tschannen et al., 2025, arXiv 2502.14786) and
Perception Encoder (Bolya et al., 2025, arXiv 2504.13181), whose image tower has attention pooling: no tower for MUST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from labkit.spaces.geometry import Geometry


@dataclass(frozen=True)
class Space:
    """How a space is made.

    Attributes:
        library: which library has the network.
        model: its name there.
        dim: d, the length of a feature.
        geometry: what is done to the pixels before; None is what the library does for these weights.
        pretrained: open_clip's tag of the weights; timm's is part of the model's name.
        pooling: timm's name for what becomes the feature: "token" is the class token after the last LayerNorm.
    """

    library: Literal["open_clip", "timm"]
    model: str
    dim: int
    geometry: Geometry | None
    pretrained: str = ""
    pooling: str | None = None

    @property
    def repo(self) -> str:
        """The repository of the hub that its library fetches the weights from."""
        if self.library == "timm":
            return f"timm/{self.model}"
        import open_clip

        return open_clip.get_pretrained_cfg(self.model, self.pretrained)["hf_hub"].rstrip("/")


def _clip(model: str, dim: int, size: int) -> Space:
    return Space("open_clip", f"{model}-quickgelu", dim, Geometry(size, size, "bicubic"), "openai")


def _dinov2(model: str, dim: int) -> Space:
    return Space("timm", f"{model}_dinov2.lvd142m", dim, Geometry(256, 224, "bicubic"), pooling="token")


TURTLE_SPACES: Mapping[str, Space] = MappingProxyType(
    {
        "clip-rn50": _clip("RN50", 1024, 224),
        "clip-rn101": _clip("RN101", 512, 224),
        "clip-rn50x4": _clip("RN50x4", 640, 288),
        "clip-rn50x16": _clip("RN50x16", 768, 384),
        "clip-rn50x64": _clip("RN50x64", 1024, 448),
        "clip-vit-b32": _clip("ViT-B-32", 512, 224),
        "clip-vit-b16": _clip("ViT-B-16", 512, 224),
        "clip-vit-l14": _clip("ViT-L-14", 768, 224),
        "dinov2-vit-g14": _dinov2("vit_giant_patch14", 1536),
    }
)
NEWER_SPACES: Mapping[str, Space] = MappingProxyType(
    {
        "dinov3-vit-b16": Space("timm", "vit_base_patch16_dinov3.lvd1689m", 768, None, pooling="token"),
        "dinov3-vit-l16": Space("timm", "vit_large_patch16_dinov3.lvd1689m", 1024, None, pooling="token"),
        "siglip2-vit-b16": Space("open_clip", "ViT-B-16-SigLIP2", 768, None, "webli"),
        "siglip2-vit-l16": Space("open_clip", "ViT-L-16-SigLIP2-256", 1024, None, "webli"),
        "pe-core-b16": Space("open_clip", "PE-Core-B-16", 1024, None, "meta"),
        "pe-core-l14": Space("open_clip", "PE-Core-L-14-336", 1024, None, "meta"),
    }
)
# Beside the paper's nine, a small DINOv2 treated alike: for one small GPU.
SPACES: Mapping[str, Space] = MappingProxyType(
    {**TURTLE_SPACES, "dinov2-vit-b14": _dinov2("vit_base_patch14", 768), **NEWER_SPACES}
)
