"""Folders: what `plain_image` makes of an image (whole folders are in test_datasets.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.data.decoding import plain_image, read_image


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_plain_picture_is_not_copied(mode: str) -> None:
    image = Image.new(mode, (3, 2), 9)
    assert plain_image(image) is image


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16"])
def test_any_other_picture_becomes_plain(mode: str) -> None:
    plain = plain_image(Image.new(mode, (3, 2)))
    assert (plain.mode in ("L", "RGB"), plain.size) == (True, (3, 2))
    assert plain_image(plain) is plain


def test_one_color_of_rgb_can_be_transparent() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (40, 50, 60))
    image.info["transparency"] = (10, 20, 30)
    assert [plain_image(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_what_is_read_is_plain_rgb_and_outlives_its_file(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (3, 2)).save(path)
    image = read_image(path)
    path.unlink()
    assert (image.mode, np.asarray(image).shape) == ("RGB", (2, 3, 3))
    assert plain_image(image) is image
