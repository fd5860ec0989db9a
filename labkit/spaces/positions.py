"""Position embeddings of DINOv2 at another image size, resampled as its authors' code does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OFFSET = 0.1  # patches that the authors add to the new grid, against rounding down; it shifts the samples a little


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, 1 + g², d) of a square grid, class token first -> (1, 1 + grid², d).

    Bicubic, without antialiasing, and by the factor (grid + 0.1) / g instead of grid / g: facebookresearch/dinov2,
    `interpolate_pos_encoding`, with the defaults of its ViT-S, B, L and g without registers. timm resamples by
    grid / g with antialiasing, which smooths a smaller grid: from 37 to 16 patches the two differ visibly.
    """
    old, dim = round((positions.shape[1] - 1) ** 0.5), positions.shape[2]
    if grid == old:
        return positions
    patches = positions[:, 1:].float().reshape(1, old, old, dim).permute(0, 3, 1, 2)  # (1, d, g, g)
    factor = (grid + OFFSET) / old
    patches = nn.functional.interpolate(patches, scale_factor=(factor, factor), mode="bicubic")  # (1, d, grid, grid)
    patches = patches.permute(0, 2, 3, 1).reshape(1, grid * grid, dim)
    return torch.cat([positions[:, :1], patches.to(positions.dtype)], dim=1)


def resize_dinov2(model: Any, image_size: int) -> None:
    """Make a timm DINOv2, loaded at its own size, take images of another one."""
    own = model.pos_embed.detach().clone()  # (1, 1 + 37², d)
    model.set_input_size(img_size=(image_size, image_size))
    model.pos_embed.data.copy_(resample_positions(own, model.patch_embed.grid_size[0]))
