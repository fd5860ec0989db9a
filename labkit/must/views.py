"""Two random views of every image: a weak one for the teacher and a strong one for the student.

A view depends on the seed, the epoch and the number of the image alone. So any number of processes and workers draws
the same ones, and a run that was stopped resumes as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from labkit.data.decoding import plain_image
from labkit.data.images import ImageDataset
from labkit.errors import FitError, quote

RATIOS = (3 / 4, 4 / 3)  # of width to height that the strong view's crop may have


class Views(Dataset[tuple[int, Tensor, Tensor]]):
    """`views[epoch, i]` is i and the weak and the strong view of image i in that epoch, both uint8 (3, size, size).

    Weak: the shorter side is resized to `size`, then a random square is cropped; of a square image that is all of it.
    Strong: a random crop of at least the area `crop`, perhaps mirrored, then RandAugment (Cubuk et al., 2020). Both
    resize bicubically. Labels are not read. The published code crops at whole pixels of the image where we crop
    between them, which matters for tiny images alone.

    Args:
        images: the images.
        size: side of a view in pixels.
        seed: of everything random.
        crop, flip, augment: see `MustConfig`.
        mean: of the pixels, in [0, 1]: the color that fills what RandAugment uncovers.

    Raises:
        FitError: `augment` is no description that timm can read.
    """

    def __init__(
        self,
        images: ImageDataset,
        size: int,
        seed: int,
        *,
        crop: float = 0.3,
        flip: bool = True,
        augment: str | None = "rand-m9-mstd0.5-inc1",
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
    ) -> None:
        from timm.data.auto_augment import rand_augment_transform

        self.images, self.size, self.seed, self.crop, self.flip = images, size, seed, crop, flip
        self.augment: Callable[[Any], Any] | None = None
        if augment is not None:
            fill = tuple(round(255 * channel) for channel in mean)
            # Below 10, where timm asks Pillow to keep 0 bits of a color, which it does not (Pillow from 12 on raises).
            limits = {"translate_const": int(0.45 * size), "img_mean": fill, "magnitude_max": 9.99}
            limits["interpolation"] = Image.Resampling.BICUBIC  # else timm draws bilinear or bicubic at random
            try:
                if not re.fullmatch(r"rand(-[a-z]+[0-9]+(\.[0-9]+)?)*", augment):
                    raise ValueError("timm would pass over a part of it")
                self.augment = rand_augment_transform(augment, limits)
            except (AssertionError, ValueError, TypeError) as error:
                raise FitError(
                    f"augment is {quote(augment)}, which timm cannot read ({error}). Expected a description of "
                    'RandAugment, such as "rand-m9-mstd0.5-inc1", or None.'
                ) from error

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor, Tensor]:
        epoch, i = key
        image = plain_image(self.images[i][0]).convert("RGB")
        rng = random.Random(f"{self.seed} {epoch} {i}")
        weak = self._resize(image, _square(image.size, self.size, rng))
        strong = self._resize(image, _window(image.size, self.crop, rng))
        if self.flip and rng.random() < 0.5:
            strong = strong.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.augment is not None:
            with _seeded(rng.getrandbits(32)):
                strong = self.augment(strong)
        return i, _tensor(weak), _tensor(strong)

    def _resize(self, image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)


def _square(size: tuple[int, int], side: int, rng: random.Random) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of an image of (width, height) that the weak view shows.

    As torchvision's Resize(side) of the shorter side and RandomCrop(side), in the coordinates of the image as it is,
    so that a long strip is never enlarged as a whole.
    """
    box = []
    for length in size:
        resized = side * length // min(size)
        first = rng.randint(0, resized - side)
        box.append((first * length / resized, min(length, (first + side) * length / resized)))
    (left, right), (top, bottom) = box
    return left, top, right, bottom


def _window(size: tuple[int, int], smallest: float, rng: random.Random) -> tuple[float, float, float, float]:
    """The box of a random part of an image: from `smallest` of its area to all of it, its shape within RATIOS.

    As torchvision's RandomResizedCrop: when ten tries do not fit, the largest fitting part in the middle.
    """
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(*map(math.log, RATIOS)))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, top = rng.random() * (width - across), rng.random() * (height - down)
            return left, top, left + across, top + down
    across, down = min(width, height * RATIOS[1]), min(height, width / RATIOS[0])
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators that timm draws from, and leave them afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
