"""Random views of icons and glyphs: what makes drawings look a little more like the world.

Photographs of clothes, handwriting and emoji differ from icons in polarity, resolution, shading and color, so all of
these are drawn at random; whatever stays the same is what the caption names.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BEND = 0.14  # how far a written stroke may be bent, in halves of an image
RESOLUTIONS = (7, 8, 10, 14, 20, 28, 28, 48, 64)  # sides in pixels to which an image is reduced before it is enlarged


def fill_holes(alpha: np.ndarray) -> np.ndarray:
    """The silhouettes of images: alpha (n, h, w) uint8 with everything enclosed made opaque."""
    from scipy.ndimage import binary_fill_holes

    return np.stack([np.maximum(a, 255 * binary_fill_holes(a > 96).astype(np.uint8)) for a in alpha])


def as_written(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Characters as hands write them: strokes thinner or thicker, and everything a little bent.

    Args:
        images: RGBA uint8 (B, h, w, 4).
        generator: source of all randomness.

    Returns:
        RGBA uint8 of the same shape.
    """
    n = len(pictures)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    rgba = pictures.permute(0, 3, 1, 2).float() / 255
    color, alpha = rgba[:, :3], rgba[:, 3:]
    blurred = F.avg_pool2d(alpha, 5, stride=1, padding=2)
    changed = ((blurred - 0.15 - 0.6 * uniform(1, 1, 1)) * 6 + 0.5).clamp(0, 1)
    alpha = torch.where(uniform(1, 1, 1) < 0.5, changed, alpha)
    shift = BEND * uniform(1, 1, 1) * (2 * uniform(2, 4, 4) - 1)
    shift = F.interpolate(shift, alpha.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    straight = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), list(alpha.shape), align_corners=False)
    bent = F.grid_sample(torch.cat([color, alpha], 1), straight + shift, align_corners=False)
    return bent.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def random_views(
    pictures: Tensor, silhouettes: Tensor, size: int, generator: torch.Generator, hard_share: Tensor | float = 0.25
) -> Tensor:
    """One random view of each image.

    Args:
        images: RGBA uint8 (B, h, w, 4), as drawn.
        silhouettes: their filled outlines, uint8 (B, h, w); see `fill_holes`.
        size: side of the result in pixels.
        hard_share: how likely a view differs much from the drawing, for all or each image (B,).
        generator: source of all randomness.

    Returns:
        RGB in [0, 1], float32 (B, 3, size, size).
    """
    n = len(pictures)
    hard = torch.rand(n, generator=generator) < hard_share  # the others stay close to what was drawn

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def chance(p: float) -> Tensor:
        return (torch.rand(n, generator=generator) < p)[:, None, None, None]

    rgba = pictures.permute(0, 3, 1, 2).float() / 255
    color, alpha = rgba[:, :3], rgba[:, 3:]
    solid = silhouettes[:, None].float() / 255
    # Ink: as drawn; or one random color; or a silhouette with soft shading, the drawing faintly on it.
    flat = uniform(0, 1, 3, 1, 1)
    flat = torch.where(chance(0.6), flat.mean(1, keepdim=True).expand_as(flat), flat)
    color, is_solid = torch.where(chance(0.4), flat, color), chance(0.6) & hard[:, None, None, None]
    shading = F.interpolate(uniform(-0.25, 0.25, 1, 4, 4), color.shape[-2:], mode="bicubic", align_corners=False)
    faint = uniform(-0.4, 0.4, 1, 1, 1) * alpha
    color = torch.where(is_solid, (flat + shading + faint).clamp(0, 1), color)
    alpha = torch.where(is_solid, solid, alpha)
    # Ground: black, white or any color, but never so close to the ink that nothing can be seen.
    ink = (color * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp_min(1e-3)
    ground = torch.where(chance(0.5), chance(0.5).float().expand(-1, 3, 1, 1), uniform(0, 1, 3, 1, 1))
    close = (ground - ink).abs().mean(1, keepdim=True) < 0.25
    ground = torch.where(close, (ink.mean(1, keepdim=True) < 0.5).float().expand_as(ground), ground)
    # Place: turned, scaled, sheared and moved.
    strength = torch.where(hard, 1.0, 0.4)
    angle, shear = uniform(-0.26, 0.26) * strength, uniform(-0.25, 0.25) * strength
    scale, stretch = 1 + uniform(-0.3, 0.15) * strength, uniform(0.8, 1.25) ** (strength / 2)
    rotation = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(-1, 2, 2)
    skew = torch.stack([stretch, shear, torch.zeros(n), 1 / stretch], 1).view(-1, 2, 2)
    matrix = torch.cat([rotation @ skew / scale[:, None, None], uniform(-0.12, 0.12, 2, 1)], 2)  # (B, 2, 3)
    grid = F.affine_grid(matrix, [n, 4, *color.shape[-2:]], align_corners=False)
    warped = F.grid_sample(torch.cat([color * alpha, alpha], 1), grid, align_corners=False)
    image = warped[:, :3] + ground * (1 - warped[:, 3:])
    # Camera: gray or colored, and at some resolution.
    image = torch.where(chance(0.5), image.mean(1, keepdim=True).expand_as(image), image)
    image = (image + uniform(0, 0.04, 1, 1, 1) * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    resolution = torch.randint(len(RESOLUTIONS), (n,), generator=generator)
    resolution[~hard] = len(RESOLUTIONS) - 1
    views = torch.empty(n, 3, size, size)
    for i in range(len(RESOLUTIONS)):
        rows = (resolution == i).nonzero().flatten()
        if len(rows):
            small = F.interpolate(image[rows], (RESOLUTIONS[i],) * 2, mode="bilinear", antialias=True)
            views[rows] = F.interpolate(small, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    return views
