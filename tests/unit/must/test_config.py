"""The settings of MUST: what is refused and how, and how rates follow the batch."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from labkit.errors import FitError, quote
from labkit.must import MustConfig

WHOLE, SHARE = "a whole number from 1 to 1,000,000,000", "a number from 0 to below 1"
WEIGHT, RATE = "a number from 0 on", "a number above 0"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, WHOLE),
        ("epochs", 2.0, WHOLE),
        ("epochs", True, WHOLE),
        ("batch_size", -1, WHOLE),
        ("accumulate", 0, WHOLE),
        ("mask_block", "16", WHOLE),
        ("patience", 0, WHOLE),
        ("ema_warmup", -1, "a whole number from 0 to 1,000,000,000"),
        ("threshold", 1.0, SHARE),
        ("threshold", math.nan, SHARE),
        ("ema_decay", 1, SHARE),
        ("ema_decay_end", 1.5, SHARE),
        ("mask_ratio", -0.1, SHARE),
        ("mask_ratio", 1.0, SHARE),
        ("fairness_momentum", 1.0, SHARE),
        ("self_training_weight", -1.0, WEIGHT),
        ("fairness_weight", math.inf, WEIGHT),
        ("masked_image_weight", "1", WEIGHT),
        ("alignment_weight", math.nan, WEIGHT),
        ("weight_decay", -0.1, WEIGHT),
        ("lr", 0, RATE),
        ("lr", math.inf, RATE),
        ("layer_decay", 0, "a number above 0 and up to 1"),
        ("layer_decay", 1.1, "a number above 0 and up to 1"),
        ("crop", 0.0, "a number above 0 and up to 1"),
        ("prior", "flat", '"uniform" or "estimated"'),
        ("epochs", 10**30, WHOLE),
        ("lr", 10**400, RATE),
        ("flip", 1, "True or False"),
        ("slow_mask_token", None, "True or False"),
        ("augment", 7, 'a description of RandAugment, such as "rand-m9-mstd0.5-inc1", or None'),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(name: str, value: object, expected: str) -> None:
    with pytest.raises(FitError) as caught:
        MustConfig(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name} is {quote(value)}. Expected {expected}."


def test_numbers_of_numpy_become_plain_ones_which_a_checkpoint_can_hold() -> None:
    config = MustConfig(epochs=np.int64(3), lr=np.float32(0.5), flip=np.bool_(False))  # type: ignore[arg-type]
    assert json.dumps(dataclasses.asdict(config)) == json.dumps(
        dataclasses.asdict(MustConfig(epochs=3, lr=0.5, flip=False))
    )


def test_parts_of_a_batch_are_equal() -> None:
    with pytest.raises(FitError, match=r"accumulate is 3. Expected a divisor of 8"):
        MustConfig(batch_size=8, accumulate=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1, "batch_size": 1, "mask_block": 1},
        {"threshold": 0, "ema_decay": 0, "ema_decay_end": 0, "ema_warmup": 0, "mask_ratio": 0, "fairness_momentum": 0},
        {"self_training_weight": 0, "fairness_weight": 0, "masked_image_weight": 0, "alignment_weight": 0},
        {"weight_decay": 0, "layer_decay": 1, "crop": 1, "augment": None, "flip": False, "patience": 1},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(changes: dict) -> None:
    config = MustConfig(**changes)
    assert config == MustConfig().replace(**changes)
    for step in (0, 1, 10**6):
        assert 0 <= config.ema_decay_at(step) < 1


def test_replace_changes_names_it_knows() -> None:
    assert MustConfig().replace(lr=1.0, epochs=3) == MustConfig(lr=1.0, epochs=3)
    with pytest.raises(FitError, match=r"no setting 'learning_rate'. Expected some of epochs, batch_size"):
        MustConfig().replace(learning_rate=1.0)
    with pytest.raises(FitError, match="epochs is 0"):
        MustConfig().replace(epochs=0)


@pytest.mark.parametrize("batch_size", [32, 256, 1024])
def test_the_learning_rate_is_half_a_cosine_in_proportion_to_the_batch(batch_size: int) -> None:
    config = MustConfig(lr=2e-5, batch_size=batch_size)
    peak, end = 2e-5 * batch_size / 256, 1e-6 * batch_size / 256
    assert config.peak_lr == pytest.approx(peak, rel=1e-12)
    assert config.lr_at(0) == pytest.approx(peak, rel=1e-12)
    assert config.lr_at(1) == pytest.approx(end, rel=1e-12)
    assert config.lr_at(0.5) == pytest.approx((peak + end) / 2, rel=1e-12)
    assert config.lr_at(0.25) == pytest.approx(end + (peak - end) * (2 + math.sqrt(2)) / 4, rel=1e-12)


def test_a_tiny_learning_rate_does_not_grow() -> None:
    config = MustConfig(lr=1e-8)
    assert config.lr_at(0) == config.lr_at(1) == config.peak_lr


def test_the_decay_grows_as_published_for_the_published_batch() -> None:
    config = MustConfig(ema_decay=0.999, ema_decay_end=0.9998, ema_warmup=2000, batch_size=1024)
    for step, decay in ((0, 0.999), (1000, 0.9994), (2000, 0.9998), (5000, 0.9998)):
        assert config.ema_decay_at(step) == pytest.approx(decay, rel=1e-12)


def test_a_smaller_batch_forgets_as_much_in_as_many_images() -> None:
    large, small = MustConfig(batch_size=1024), MustConfig(batch_size=128)
    for step in (0, 100, 5000):
        assert small.ema_decay_at(8 * step) ** 8 == pytest.approx(large.ema_decay_at(step), rel=1e-12)


def test_decay_zero_is_no_average_at_any_step() -> None:
    config = MustConfig(ema_decay=0)
    assert [config.ema_decay_at(step) for step in (0, 1, 10**6)] == [0, 0, 0]


def test_a_decay_above_its_end_stays() -> None:
    assert MustConfig(ema_decay=0.9999).ema_decay_at(10**6) == pytest.approx(0.9999)
