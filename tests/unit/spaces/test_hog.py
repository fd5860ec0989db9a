"""Histograms of oriented gradients against loops over pixels, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import labkit as lk
from labkit.errors import BackboneError
from labkit.spaces.hog import HOG


def pictures(n: int = 2, height: int = 24, width: int = 16) -> torch.Tensor:
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_loops(picture: np.ndarray) -> np.ndarray:
    """The descriptor of one image (h, w), pixel by pixel and block by block."""
    height, width = picture.shape
    cells = np.zeros((height // 8, width // 8, 9))
    for y in range(height):
        for x in range(width):
            across = picture[y, min(x + 1, width - 1)] - picture[y, max(x - 1, 0)]
            down = picture[min(y + 1, height - 1), x] - picture[max(y - 1, 0), x]
            length, degrees = np.hypot(across, down), np.degrees(np.arctan2(down, across)) % 180
            for orientation in range(9):
                center = 10 + 20 * orientation
                gap = min(abs(degrees - center), 180 - abs(degrees - center))
                cells[y // 8, x // 8, orientation] += length * max(0, 1 - gap / 20)
    blocks = []
    for y in range(height // 8 - 1):
        for x in range(width // 8 - 1):
            block = cells[y : y + 2, x : x + 2].transpose(2, 0, 1).ravel()  # orientation by orientation
            block = np.minimum(block / (np.linalg.norm(block) + 0.1), 0.2)
            blocks.append(block / np.linalg.norm(block))
    return np.concatenate(blocks)


def test_it_equals_loops_over_pixels() -> None:
    images = pictures()
    expected = np.stack([by_loops(image[0].numpy()) for image in images])
    assert expected.shape == (2, 2 * 1 * 36)
    np.testing.assert_allclose(HOG()(images).numpy(), expected, atol=1e-12)


def test_it_sees_neither_brightness_nor_which_side_is_dark() -> None:
    images, encode = pictures(), HOG()
    torch.testing.assert_close(encode(images + 3), encode(images))
    torch.testing.assert_close(encode(1 - images), encode(images))


def test_a_flat_picture_has_no_edges() -> None:
    assert HOG()(torch.full((1, 1, 32, 32), 0.7)).eq(0).all()


def test_it_is_a_backbone_without_network() -> None:
    backbone = lk.load_backbone("hog", device="cpu")
    edge = Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 32)[None].repeat(64, 0))
    features = backbone.encode_image(torch.from_numpy(backbone.preprocess(edge))[None])
    assert features.shape == (1, backbone.dim) == (1, 324)
    by_orientation = features.view(3, 3, 9, 4).sum((0, 1, 3))  # a vertical edge: 0 degrees, between the last and first
    assert by_orientation[[0, 8]].min() > 0
    assert by_orientation[1:8].max() == 0
    assert backbone.fingerprint != lk.load_backbone("hog", image_size=64, device="cpu").fingerprint


@pytest.mark.parametrize("size", [8, 30])
def test_a_size_that_has_no_whole_cells_is_named(size: int) -> None:
    with pytest.raises(BackboneError, match=f"image_size is {size}.*multiple of 8 from 16"):
        lk.load_backbone("hog", image_size=size)
