"""Histograms of oriented gradients: a space of edges, in which nothing was learned.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8  # pixels, a side of the square over which gradients are counted
ORIENTATIONS = 9  # of 0 to 180 degrees: a gradient and its opposite are the same
LARGEST = 0.2  # value that a normalized block may hold


class HOG(nn.Module):
    """Gray images (B, 1, h, w) from 0 to 1 -> features (B, (h/8 − 1) · (w/8 − 1) · 36), with the paper's constants.

    Gradients by (−1, 0, 1). Each pixel's length of gradient goes to the two nearest orientations of its cell. Blocks of
    2 x 2 cells overlap by half; each is normalized, clipped and normalized again. Unlike the paper, cells do not share
    their votes and the middle of a block weighs no more than its rim; and the norm of a block grows by 0.1, so that the
    noise of a flat surface stays small.
    """

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        angle = torch.atan2(down, across).remainder(math.pi) * (ORIENTATIONS / math.pi)  # 0 to 9
        lower = (angle - 0.5).floor()  # the centers of the orientations are at 0.5, 1.5, …
        share = angle - 0.5 - lower
        length = (across.square() + down.square()).sqrt()
        votes = length.new_zeros(len(images), ORIENTATIONS, *images.shape[2:])
        for orientation, vote in ((lower, length * (1 - share)), (lower + 1, length * share)):
            votes.scatter_add_(1, orientation.long().remainder(ORIENTATIONS), vote)
        cells = F.avg_pool2d(votes, CELL) * CELL**2
        blocks = F.unfold(cells, 2)  # (B, 36, blocks)
        blocks = (blocks / (blocks.norm(dim=1, keepdim=True) + 0.1)).clamp(max=LARGEST)
        return F.normalize(blocks, dim=1).transpose(1, 2).flatten(1)
