"""A vision transformer whose patches can be masked, and the classifier that MUST trains on it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from labkit.devices import full_precision
from labkit.errors import BackboneError
from labkit.must.losses import to_float32

if TYPE_CHECKING:
    from labkit.spaces.encoders import Backbone


class Output(NamedTuple):
    """What the classifier predicts for B images of N patches; the last two only where patches may be masked.

    Attributes:
        logits: (B, C), float32 whatever the autocast (float64 where the weights are).
        embedding: the image in the joint space of images and texts, before L2 normalization, (B, D).
        patches: every patch in that space, (B, N, D).
        reconstruction: normalized RGB predicted for every pixel, (B, 3, h, w).
    """

    logits: Tensor
    embedding: Tensor
    patches: Tensor | None = None
    reconstruction: Tensor | None = None


class MaskedVisual(nn.Module):
    """open_clip's VisionTransformer with a mask token, a LayerNorm of patches and a decoder of their pixels.

    With nothing masked, `encode` computes what the tower itself does, bit by bit. Its own parts are new and untrained:
    the mask token that stands for a masked patch, the LayerNorm of patches, which feeds both the alignment and the
    reconstruction, and the decoder, one linear layer from a patch to its pixels.

    Args:
        visual: the image tower of an open_clip model with a native ViT; it is used as it is, not copied.

    Attributes:
        grid: rows and columns of patches.
        patch: side of a patch in pixels.

    Raises:
        BackboneError: the tower is another architecture, or pools or drops patches in a way that leaves none to hide.
    """

    visual: Any  # as nn.Module knows no names of parts

    def __init__(self, visual: Any) -> None:
        super().__init__()
        check_maskable(visual)
        self.visual = visual
        width: int = visual.conv1.out_channels
        self.grid: tuple[int, int] = tuple(visual.grid_size)
        self.patch: int = visual.patch_size[0]
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))  # of three dimensions, so weight decay takes it
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.ln_patch = nn.LayerNorm(width)
        self.decoder = nn.Sequential(nn.Conv2d(width, 3 * self.patch**2, 1), nn.PixelShuffle(self.patch))

    def tokens(self, images: Tensor, masked: Tensor | None = None) -> Tensor:
        """The transformer's last states before its final LayerNorm: class token and patches, (B, 1 + N, width).

        Args:
            images: normalized RGB, (B, 3, h, w), of the tower's own size.
            masked: patches that the mask token stands for, bool (B, N); None hides none.
        """
        tower = self.visual
        patches = tower.conv1(images).flatten(2).transpose(1, 2)  # (B, N, width)
        if masked is not None:
            patches = torch.where(masked[..., None], self.mask_token.to(patches.dtype), patches)
        first = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        states = torch.cat([first, patches], 1) + tower.positional_embedding.to(patches.dtype)
        return tower.transformer(tower.ln_pre(states))

    def pool(self, tokens: Tensor) -> Tensor:
        """The embedding of images from `tokens`: (B, 1 + N, width) -> (B, D), not of unit length."""
        pooled, _ = self.visual._pool(tokens)
        return pooled @ self.visual.proj

    def encode(self, images: Tensor, masked: Tensor | None = None) -> Tensor:
        """Embeddings of images, (B, 3, h, w) -> (B, D): the tower's own when nothing is masked."""
        return self.pool(self.tokens(images, masked))

    def patches(self, tokens: Tensor) -> Tensor:
        """The patches of `tokens` after their own LayerNorm: (B, 1 + N, width) -> (B, N, width)."""
        return self.ln_patch(tokens[:, 1:])

    def project(self, patches: Tensor) -> Tensor:
        """Patches in the joint space of images and texts: (B, N, width) -> (B, N, D)."""
        return patches @ self.visual.proj

    def reconstruct(self, patches: Tensor) -> Tensor:
        """Pixels predicted from patches: (B, N, width) -> normalized RGB (B, 3, h, w)."""
        return self.decoder(patches.transpose(1, 2).unflatten(2, self.grid))


class MaskedClassifier(nn.Module):
    """An image tower and a linear head over its normalized embeddings: logits = scale · normalize(embedding) · Wᵀ.

    Args:
        visual: see `MaskedVisual`; copied, and its parameters are made trainable.
        weights: a zero-shot classifier, unit vectors (C, D): where the head starts.
        logit_scale: the model's inverse temperature; fixed.
        masked_image: whether masked patches are decoded into pixels.
        alignment: whether they are projected, to be compared with the image.
    """

    def __init__(
        self,
        visual: nn.Module,
        weights: Tensor,
        logit_scale: float,
        *,
        masked_image: bool = True,
        alignment: bool = True,
    ) -> None:
        super().__init__()
        check_maskable(visual)
        self.backbone = MaskedVisual(copy.deepcopy(visual).float().requires_grad_(True))
        self.head = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
        self.head.weight.data.copy_(weights)
        self.logit_scale = logit_scale
        self.masked_image, self.alignment = masked_image, alignment
        self.backbone.decoder.requires_grad_(masked_image)  # distributed training waits for all that can learn
        self.backbone.ln_patch.requires_grad_(masked_image or alignment)

    def forward(self, images: Tensor, masked: Tensor | None = None) -> Output:
        """Normalized RGB (B, 3, h, w), and which patches are masked, bool (B, N), or None."""
        backbone = self.backbone
        tokens = backbone.tokens(images, masked)
        with full_precision(images.device):  # bfloat16 has steps of 0.125 at a logit of 25
            embedding = backbone.pool(to_float32(tokens))
            logits = self.logit_scale * self.head(nn.functional.normalize(embedding, dim=-1))
        if masked is None or not (self.alignment or self.masked_image):
            return Output(logits, embedding)
        patches = backbone.patches(tokens)
        return Output(
            logits,
            embedding,
            backbone.project(patches) if self.alignment else None,
            backbone.reconstruct(patches) if self.masked_image else None,
        )


def image_tower(backbone: Backbone) -> Any:
    """The image tower of an image-text model, whose patches MUST can hide, or a BackboneError."""
    clip = getattr(backbone.model, "clip", None)
    if clip is None:
        raise BackboneError(f'{backbone.name!r} has no text tower. MUST starts from an image-text model: "pocket-vit".')
    check_maskable(clip.visual)
    return clip.visual


def check_maskable(visual: nn.Module) -> None:
    """Raise a BackboneError unless patches of this image tower can be masked."""
    from open_clip.transformer import VisionTransformer

    kind = type(visual).__name__
    advice = (
        'Use a model with open_clip\'s own vision transformer: "pocket-vit", "open_clip:ViT-B-32/…", '
        '"open_clip:ViT-B-16-quickgelu/…", "open_clip:ViT-L-14-CLIPA/…".'
    )
    if not isinstance(visual, VisionTransformer):
        raise BackboneError(f"this image tower is a {kind}: it has no patches that could be masked here. {advice}")
    if visual.attn_pool is not None or visual.pool_type == "none":
        raise BackboneError(f"this {kind} pools its patches by attention, which MUST does not know. {advice}")
    if not isinstance(visual.patch_dropout, nn.Identity):
        raise BackboneError(f"this {kind} drops patches at random, so none can be masked by choice. {advice}")
    if visual.proj is None:
        raise BackboneError(f"this {kind} has no projection into a space of images and texts. {advice}")
    if visual.patch_size[0] != visual.patch_size[1]:
        raise BackboneError(f"this {kind} has patches of {visual.patch_size} pixels. Expected square ones. {advice}")
