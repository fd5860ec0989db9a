"""Geometry: the pixels are those of torchvision, open_clip and timm, bit for bit, step by step, for any image."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
from PIL import Image, ImageFilter
from torchvision import transforms

from labkit.data.decoding import plain_image, read_image
from labkit.errors import BackboneError
from labkit.spaces.encoders import library_preprocess, own_preprocess
from labkit.spaces.geometry import LONGEST, Geometry, Middle, Preprocess, Squash
from labkit.spaces.papers import TURTLE_SPACES

REAL = Path(os.environ.get("LABKIT_REAL") or Path(__file__).parents[4] / "shared" / "real")
SIZES = ((224, 224), (256, 256), (31, 77), (300, 225), (225, 300), (640, 480), (12, 100), (257, 255))  # width, height
MODES = ("RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16")


def image_of(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise over a gradient, so that every way of resampling gives other pixels."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 155, size[0])[None, :, None]
    pixels = (ramp + rng.integers(0, 100, (size[1], size[0], 4))).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


def all_images() -> Iterator[Image.Image]:
    """Images of odd sizes and all modes, and some real photographs where they are."""
    for size in SIZES:
        yield image_of("RGB", size)
    for mode in MODES:
        yield image_of(mode, (131, 77))
    for folder in ("clothing-small", "caltech101"):
        for path in sorted((REAL / "photos" / folder).rglob("*.jpg"))[:40:10]:
            yield read_image(path)


def by_hand(image: Image.Image, resize: int, crop: int) -> list[np.ndarray]:
    """What the papers state, with Pillow alone: the shorter side bicubic to `resize`; then the center of it."""
    width, height = image.size
    long = int(resize * max(width, height) / min(width, height))
    size = (resize, long) if width <= height else (long, resize)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return [np.array(resized), np.array(resized.crop((left, top, left + crop, top + crop)))]


def test_geometry_is_what_the_papers_state() -> None:
    """CLIP: resize = crop = the model's size. DINOv2: 256, then 224."""
    for space in {(space.geometry.resize, space.geometry.crop) for space in TURTLE_SPACES.values()}:
        geometry = Geometry(*space)
        for image in map(plain_image, all_images()):
            resized, cropped = by_hand(image, *space)
            assert min(resized.shape[:2]) == space[0]
            np.testing.assert_array_equal(np.array(geometry(image)), cropped)


@pytest.mark.parametrize("size", [224, 288])
def test_geometry_is_open_clips_preprocessing_step_by_step(size: int) -> None:
    steps = open_clip.image_transform(size, is_train=False, resize_mode="shortest", interpolation="bicubic").transforms
    ours = Preprocess(Geometry(size, size), ("L", "RGB"))
    for given in all_images():
        image = plain_image(given)  # we resolve palettes and transparency before the resize; open_clip after it
        resized, cropped = by_hand(image, size, size)
        theirs = steps[0](image)
        np.testing.assert_array_equal(np.array(theirs), resized)
        theirs = steps[1](theirs)
        np.testing.assert_array_equal(np.array(theirs), cropped)
        expected = np.array(steps[2](theirs))  # to RGB
        np.testing.assert_array_equal(np.broadcast_to(ours(given), expected.shape), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_without_palette_or_transparency_need_no_other_preprocessing(mode: str) -> None:
    transform = open_clip.image_transform(224, is_train=False, resize_mode="shortest", interpolation="bicubic")
    to_pixels = transforms.Compose(transform.transforms[:3])
    for size in SIZES:
        image = image_of(mode, size)
        expected = np.array(to_pixels(image))
        np.testing.assert_array_equal(
            np.broadcast_to(Preprocess(Geometry(224, 224), ("L", "RGB"))(image), expected.shape), expected
        )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_geometry_is_timms_preprocessing(interpolation: str) -> None:
    steps = timm.data.create_transform(224, crop_pct=0.875, interpolation=interpolation, crop_mode="center").transforms
    for size in SIZES:
        image = image_of("RGB", size)
        expected = np.array(steps[1](steps[0](image)))
        np.testing.assert_array_equal(np.array(Geometry(256, 224, interpolation)(image)), expected)


def test_transparency_is_white_before_the_resize() -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert Preprocess(Geometry(8, 8))(image).min() == 255


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0), "resize is 0. Expected a whole number of pixels from 1 on"),
        ((256, 224.0), "crop is 224.0. Expected a whole number of pixels from 1 on"),
        ((True, 1), "resize is True. Expected"),
        ((224, 256), r"crop is 256 and resize is 224.*Geometry\(resize=256, crop=256\)"),
        ((256, 224, "cubic"), "interpolation is 'cubic'. Expected one of nearest, bilinear, bicubic, lanczos"),
    ],
)
def test_values_that_no_geometry_has_are_explained(values: tuple, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        Geometry(*values)


@pytest.mark.parametrize("geometry", [Geometry(32, 24), Squash(16), transforms.Compose([transforms.Resize(8)])])
def test_preprocessing_survives_pickle(geometry: object) -> None:
    preprocess = Preprocess(geometry, ("L", "RGB"))  # type: ignore[arg-type]
    image = image_of("RGB", (40, 50))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(preprocess))(image), preprocess(image))


def peak_bytes(run: Callable[[], object]) -> int:
    """What a call needs at most, beyond what was there (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far begins anew
    before = highest()
    run()
    return highest() - before


def highest() -> int:
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux")
@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
@pytest.mark.parametrize("resize_mode", ["own", "timm", "open_clip"])
def test_a_line_is_cropped_before_it_is_enlarged(size: tuple[int, int], resize_mode: str) -> None:
    library = {
        "own": lambda: own_preprocess(Geometry(224, 224)),
        "timm": lambda: library_preprocess(timm.data.create_transform(224)),
        "open_clip": lambda: library_preprocess(open_clip.image_transform(224, is_train=False)),
    }
    preprocess, _ = library[resize_mode]()
    image = image_of("RGB", size)
    assert preprocess(image).shape[:2] == (224, 224)
    assert peak_bytes(lambda: preprocess(image)) < 64e6


def test_the_middle_is_what_a_crop_at_the_centre_shows() -> None:
    for size in ((16, 1), (1, 16), (160, 10), (7, 100), (1, 1)):
        image = image_of("RGB", size)
        assert Middle(16)(image) is image
    assert Middle(16)(image_of("RGB", (1000, 10))).size == (160, 10)
    line = Image.fromarray(np.arange(101, dtype=np.uint8)[None])
    assert np.asarray(Middle(16)(line)).tolist() == [list(range(42, 58))]
    geometry = Geometry(8, 8)
    strip = image_of("RGB", (1200, 20)).filter(ImageFilter.GaussianBlur(9))
    resized = transforms.functional.resize(strip, 8, transforms.InterpolationMode.BICUBIC)
    expected = np.array(transforms.functional.center_crop(resized, 8)).astype(int)
    assert np.abs(np.array(geometry(strip)).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("transform", "longest"),
    [
        (open_clip.image_transform(32, is_train=False, resize_mode="shortest"), LONGEST),
        (open_clip.image_transform(32, is_train=False, resize_mode="longest"), 32),
        (open_clip.image_transform(32, is_train=False, resize_mode="squash"), None),
        (timm.data.create_transform(32, crop_mode="center"), LONGEST),
        (timm.data.create_transform(32, crop_mode="border", crop_pct=1), 32),
        (timm.data.create_transform(32, crop_mode="squash"), None),
    ],
)
def test_a_strip_is_cropped_only_as_far_as_a_librarys_resize_needs_it(transform: Any, longest: int | None) -> None:
    preprocess, preprocessing = library_preprocess(transform)
    first = preprocess.geometry.transforms[0]  # type: ignore[attr-defined]
    assert (first == Middle(longest)) if longest else not isinstance(first, Middle)
    assert "Middle" not in str(preprocessing)  # features of all other images are the same as before
    assert pickle.loads(pickle.dumps(preprocess))(image_of("RGB", (999, 3))).shape[:2] == (32, 32)
