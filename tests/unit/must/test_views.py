"""Weak and strong views: a function of seed, epoch and image alone, for images of any size and kind."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from labkit.data.images import ImageDataset
from labkit.errors import DataError, FitError
from labkit.must import Views
from labkit.must.views import RATIOS, _window
from tests import tiny

SIZE = 16


def views(images: ImageDataset | None = None, seed: int = 0, **settings: object) -> Views:
    return Views(tiny.images(8) if images is None else images, SIZE, seed, **settings)  # type: ignore[arg-type]


def of(*images: Image.Image) -> ImageDataset:
    return ImageDataset(np.full(len(images), -1), [], decode=lambda i: images[i])


def same(first: tuple, second: tuple) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True)) and first[0] == second[0]


# ------------------------------------------------------------------------------------------------------------- chance


def test_a_view_depends_on_seed_epoch_and_picture_alone() -> None:
    expected = {(epoch, i): views()[epoch, i] for epoch in range(3) for i in range(8)}
    again = views()
    for key in random.Random(1).sample(sorted(expected), len(expected)):  # in another order
        random.seed(str(key))
        np.random.seed(key[1])  # noqa: NPY002
        torch.manual_seed(key[0])
        assert same(again[key], expected[key])


def test_other_seeds_epochs_and_pictures_give_other_views() -> None:
    one = of(small_image("RGB", 200, 100), small_image("RGB", 200, 100))  # the same image twice
    made = [views(one)[0, 0], views(one)[1, 0], views(one)[0, 1], views(one, seed=1)[0, 0]]
    for kind in (1, 2):
        assert len({view[kind].numpy().tobytes() for view in made}) == 4


def test_the_global_random_state_is_left_alone() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for i in range(8):
        views()[0, i]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_the_global_random_state_is_left_alone_when_an_augmentation_fails() -> None:
    broken = views()

    def fail(image: Image.Image) -> Image.Image:
        random.random()
        raise OSError("broken")

    broken.augment = fail
    before = random.getstate()
    with pytest.raises(OSError, match="broken"):
        broken[0, 0]
    assert random.getstate() == before


def test_workers_draw_the_same_views() -> None:
    keys = [[(1, 3), (1, 0)], [(1, 7), (1, 2)]]
    here, there = (list(DataLoader(views(), batch_sampler=keys, num_workers=n)) for n in (0, 2))
    for (rows, *mine), (other_rows, *others) in zip(here, there, strict=True):
        assert rows.tolist() == other_rows.tolist()
        assert all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))
    assert here[0][0].tolist() == [3, 0]
    assert same((3, here[0][1][0], here[0][2][0]), views()[1, 3])


def test_labels_are_not_read() -> None:
    images = tiny.images(8)
    other = ImageDataset(images.labels[::-1].copy(), images.classes, array=images.array)
    assert all(same(views(images)[0, i], views(other)[0, i]) for i in range(8))


# ------------------------------------------------------------------------------------------------ all kinds of images


def small_image(mode: str, width: int = 30, height: int = 20) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (1, 40), (16, 16), (17, 15), (300, 200)])
def test_pictures_of_any_size_give_views_of_one_size(size: tuple[int, int]) -> None:
    made = views(of(small_image("RGB", *size)))
    for epoch in range(5):
        i, weak, strong = made[epoch, 0]
        assert i == 0
        assert weak.shape == strong.shape == (3, SIZE, SIZE)
        assert weak.dtype == strong.dtype == torch.uint8
        assert weak.is_contiguous()


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_pictures_of_any_kind_become_rgb(mode: str) -> None:
    image = Image.fromarray(np.full((20, 30), 40000, np.uint16)) if mode == "I;16" else small_image(mode)
    _, weak, strong = views(of(image))[0, 0]
    assert weak.shape == strong.shape == (3, SIZE, SIZE)
    if mode in ("L", "I;16"):
        assert torch.equal(weak[0], weak[1])


def test_what_is_transparent_is_white() -> None:
    _, weak, _ = views(of(Image.new("RGBA", (20, 20), (255, 0, 0, 0))))[0, 0]
    assert (weak == 255).all()


def test_one_pixel_fills_the_views() -> None:
    _, weak, strong = views(of(Image.new("RGB", (1, 1), (10, 20, 30))), augment=None)[0, 0]
    for view in (weak, strong):
        assert torch.equal(view, torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, SIZE, SIZE))


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    images = ImageDataset(np.array([-1]), [], files=[tmp_path / "broken.png"])
    with pytest.raises(DataError, match=r"broken\.png"):
        views(images)[0, 0]


# --------------------------------------------------------------------------------------------------------------- crops


def resized(image: Image.Image) -> np.ndarray:
    """What the published weak view crops from: torchvision's Resize of the shorter side."""
    return np.asarray(transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC)(image)).astype(int)


@pytest.mark.parametrize("size", [(200, 100), (47, 101), (10, 9), (64, 64)])
def test_the_weak_view_is_a_crop_of_the_published_resize(size: tuple[int, int]) -> None:
    image = small_image("RGB", *size)
    whole, made, found = resized(image), views(of(image)), set()
    places = [(top, left) for top in range(whole.shape[0] - SIZE + 1) for left in range(whole.shape[1] - SIZE + 1)]
    for epoch in range(40):
        weak = made[epoch, 0][1].permute(1, 2, 0).numpy()
        gaps = {
            place: np.abs(whole[place[0] : place[0] + SIZE, place[1] : place[1] + SIZE] - weak).max()
            for place in places
        }
        best = min(gaps, key=gaps.__getitem__)
        assert gaps[best] <= 1  # Pillow keeps boxes in single precision
        found.add(best)
    assert len(found) >= min(len(places), 12)


def test_the_weak_view_of_a_square_image_is_all_of_it() -> None:
    image = small_image("RGB", 64, 64)
    for epoch in range(3):
        np.testing.assert_array_equal(views(of(image))[epoch, 0][1].permute(1, 2, 0).numpy(), resized(image))


def test_augmentation_resamples_bicubically(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm draws between bilinear and bicubic where it is not told."""
    used = set()
    rotate = Image.Image.rotate
    monkeypatch.setattr(Image.Image, "rotate", lambda self, *a, **k: used.add(k["resample"]) or rotate(self, *a, **k))
    made = views(of(small_image("RGB")))
    for epoch in range(40):
        made[epoch, 0]
    assert used == {Image.Resampling.BICUBIC}


@pytest.mark.parametrize("size", [(200, 100), (64, 64), (100, 120)])
@pytest.mark.parametrize("smallest", [0.3, 0.9])
def test_the_strong_view_shows_at_least_the_area_asked_for(size: tuple[int, int], smallest: float) -> None:
    rng = random.Random(0)
    left, top, right, bottom = np.array([_window(size, smallest, rng) for _ in range(500)]).T
    area, ratio = (right - left) * (bottom - top) / np.prod(size), (right - left) / (bottom - top)
    assert min(left.min(), top.min()) >= 0
    assert right.max() <= size[0] + 1e-9
    assert bottom.max() <= size[1] + 1e-9
    assert RATIOS[0] - 1e-9 <= ratio.min()
    assert ratio.max() <= RATIOS[1] + 1e-9
    largest = min(size[0] * size[1], (4 / 3 * min(size)) * min(size)) / np.prod(size)
    assert area.min() >= min(smallest, largest) - 1e-9
    assert area.max() > 0.9 * min(1, largest)


def test_a_strip_gives_the_largest_part_in_its_middle() -> None:
    for _ in range(20):
        assert _window((500, 3), 0.3, random.Random(0)) == (248, 0, 252, 3)
        assert _window((3, 500), 0.3, random.Random(0)) == (0, 248, 3, 252)


def test_mirror_and_augmentation_can_be_switched_off() -> None:
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None], 32, 0)
    image = Image.fromarray(ramp)
    plain = [views(of(image), augment=None, flip=False)[epoch, 0][2].float() for epoch in range(20)]
    assert all(view[0, 0, -1] > view[0, 0, 0] for view in plain)
    mirrored = [views(of(image), augment=None)[epoch, 0][2].float() for epoch in range(60)]
    assert 15 < sum(bool(view[0, 0, -1] < view[0, 0, 0]) for view in mirrored) < 45
    everything = [views(of(image), crop=1.0, augment=None, flip=False)[epoch, 0][2] for epoch in range(20)]
    assert max(view[0, 0, 0].item() for view in everything) < 60  # near whole: the dark end is still there


def test_augmentation_fills_with_the_mean_color() -> None:
    made = views(of(Image.new("RGB", (32, 32))), mean=(1.0, 0.0, 0.5), augment="rand-m9-n1-p1.0-inc1")
    colors = {tuple(c) for e in range(60) for c in made[e, 0][2].flatten(1).T.tolist()}
    assert (255, 0, 128) in colors


@pytest.mark.parametrize("augment", ["rand-m9-mstd0.5-inc1", "rand-m10-mstd2-inc1"])
def test_the_strongest_augmentation_works_on_every_picture(augment: str) -> None:
    made = views(of(small_image("RGB")), augment=augment)
    assert all(made[epoch, 0][2].shape == (3, SIZE, SIZE) for epoch in range(300))


@pytest.mark.parametrize("augment", ["strong", "rand-q7", "rand-m9x"])
def test_an_unknown_augmentation_is_explained(augment: str) -> None:
    with pytest.raises(FitError, match=f"augment is '{augment}'.*rand-m9-mstd0.5-inc1"):
        views(augment=augment)
