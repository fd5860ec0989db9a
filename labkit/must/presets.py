"""Presets: the settings of MUST for a dataset and a model, the published ones and ours.

Li, Savarese, Hoi, "Masked Unsupervised Self-training for Label-free Image Classification", ICLR 2023 (arXiv
2206.02967), appendix, and the configurations of its code. `preset_for` is the one way from a dataset and a backbone's
name to settings; there is no default for a pair that nobody chose settings for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from labkit import pocket
from labkit.errors import FitError, quote
from labkit.must.config import PUBLISHED_BATCH, MustConfig

DATASETS = {  # other names of the published datasets
    "caltech-101": "caltech101",
    "food-101": "food101",
    "imagenet-1k": "imagenet",
    "imagenet1k": "imagenet",
    "oxford-pets": "pets",
    "ucf-101": "ucf101",
}
MODELS = {  # the two models of the paper: OpenAI's weights at 224 pixels, under all their names
    "clip-vit-b16": "ViT-B-16",
    "open_clip:ViT-B-16-quickgelu/openai": "ViT-B-16",
    "open_clip:ViT-B-16/openai": "ViT-B-16",
    "clip-vit-l14": "ViT-L-14",
    "open_clip:ViT-L-14-quickgelu/openai": "ViT-L-14",
    "open_clip:ViT-L-14/openai": "ViT-L-14",
}


def _published(
    mask_block: int,
    mask_ratio: float,
    alignment_weight: float,
    fairness_weight: float,
    threshold: float,
    lr: float,
    epochs: int,
    ema_decay: float,
    ema_warmup: int,
) -> MustConfig:
    return MustConfig(
        mask_block=mask_block,
        mask_ratio=mask_ratio,
        alignment_weight=alignment_weight,
        fairness_weight=fairness_weight,
        threshold=threshold,
        lr=lr,
        epochs=epochs,
        ema_decay=ema_decay,
        ema_warmup=ema_warmup,
    )


PUBLISHED: Mapping[str, MustConfig] = MappingProxyType(
    {
        #                           block ratio align fair  tau   lr  epochs decay warm-up
        "imagenet/ViT-B-16": _published(32, 0.3, 0.2, 1.0, 0.7, 2e-5, 30, 0.999, 2000),
        "imagenet/ViT-L-14": _published(56, 0.3, 0.5, 1.0, 0.5, 4e-5, 20, 0.999, 2000),
        "sun397/ViT-B-16": _published(32, 0.1, 1.0, 0.2, 0.4, 1e-4, 20, 0.99, 500),
        "sun397/ViT-L-14": _published(28, 0.2, 0.5, 0.2, 0.3, 2e-4, 20, 0.99, 500),
        "food101/ViT-B-16": _published(32, 0.1, 0.1, 1.0, 0.7, 2e-5, 40, 0.999, 2000),
        "food101/ViT-L-14": _published(56, 0.1, 0.1, 1.0, 0.7, 4e-5, 40, 0.999, 2000),
        "gtsrb/ViT-B-16": _published(32, 0.5, 0.5, 1.0, 0.3, 2e-5, 20, 0.99, 500),
        "gtsrb/ViT-L-14": _published(56, 0.3, 0.5, 1.0, 0.2, 4e-5, 20, 0.99, 500),
        "dtd/ViT-B-16": _published(32, 0.1, 0.2, 1.0, 0.4, 2e-5, 60, 0.99, 100),
        "dtd/ViT-L-14": _published(56, 0.1, 0.5, 1.0, 0.5, 4e-5, 60, 0.99, 100),
        "ucf101/ViT-B-16": _published(16, 0.1, 0.5, 1.0, 0.5, 1e-5, 60, 0.99, 500),
        "ucf101/ViT-L-14": _published(28, 0.1, 0.5, 1.0, 0.6, 2e-5, 60, 0.99, 500),
        "pets/ViT-B-16": _published(32, 0.1, 0.2, 1.0, 0.7, 1e-5, 60, 0.99, 100),
        "caltech101/ViT-B-16": _published(32, 0.1, 0.2, 1.0, 0.7, 1e-5, 60, 0.99, 100),
    }
)


def _as_for_l14(config: MustConfig) -> MustConfig:
    """The step from ViT-B/16 to ViT-L/14 that the published rows of one dataset share, or share mostly.

    The learning rate doubles in all six; blocks of 2 patches (32 pixels) become blocks of 4 (56 pixels) in four of
    five; and an alignment of 0.2 becomes 0.5 in both.
    """
    return config.replace(lr=2 * config.lr, mask_block=56, alignment_weight=0.5)


# Pairs that the paper does not have, with the settings of the nearest row that it has. None was ever run on real
# weights. A new dataset takes the row of a published one that zero-shot CLIP knows as well (about nine in ten, so the
# threshold is 0.7) and that is nearest in train images, which decides how fast the teacher may be: CIFAR-10 (50,000)
# that of Food-101 (75,750), STL-10 (5,000) that of Caltech-101 (3,060; Pets has the same row).
BORROWED: Mapping[str, tuple[str, MustConfig]] = MappingProxyType(
    {
        "cifar10/ViT-B-16": ("food101/ViT-B-16", PUBLISHED["food101/ViT-B-16"]),
        "cifar10/ViT-L-14": ("food101/ViT-L-14", PUBLISHED["food101/ViT-L-14"]),
        "stl10/ViT-B-16": ("caltech101/ViT-B-16", PUBLISHED["caltech101/ViT-B-16"]),
        "stl10/ViT-L-14": ("caltech101/ViT-B-16", _as_for_l14(PUBLISHED["caltech101/ViT-B-16"])),
        "pets/ViT-L-14": ("pets/ViT-B-16", _as_for_l14(PUBLISHED["pets/ViT-B-16"])),
        "caltech101/ViT-L-14": ("caltech101/ViT-B-16", _as_for_l14(PUBLISHED["caltech101/ViT-B-16"])),
    }
)
_POCKET = MustConfig(
    epochs=10,
    batch_size=128,
    lr=8e-4,
    layer_decay=0.85,
    mask_block=8,
    mask_ratio=0.1,
    threshold=0.5,
    fairness_weight=2.0,
    ema_decay=0.9,
    ema_decay_end=0.97,
    ema_warmup=20,
    crop=0.6,
    flip=False,
    augment=None,
)
PRESETS: Mapping[str, MustConfig] = MappingProxyType(
    {
        "pocket": _POCKET,  # the pocket models on any other images
        "digits/pocket-vit": _POCKET.replace(lr=1.6e-3, epochs=12),
        "fashion-mini/pocket-vit": _POCKET.replace(threshold=0.8, epochs=3),
        **PUBLISHED,
        **{key: config for key, (_, config) in BORROWED.items()},
    }
)


def preset_for(dataset: str | None, backbone: str) -> MustConfig:
    """The settings of MUST for a dataset and a backbone: `PRESETS[preset_key(dataset, backbone)]`.

    Args:
        dataset: a manifest's id, such as "oxford-pets"; None for images of your own.
        backbone: a name that `load_backbone` takes, such as "clip-vit-b16".

    Raises:
        FitError: nobody has chosen settings for this pair.
    """
    return PRESETS[preset_key(dataset, backbone)]


def preset_key(dataset: str | None, backbone: str) -> str:
    """The key in `PRESETS` of the settings for a dataset and a backbone (see `preset_for`).

    The pocket models have one preset for all images that they have no own one for; every other model needs a pair.

    Raises:
        FitError: nobody has chosen settings for this pair.
    """
    if not isinstance(backbone, str) or not isinstance(dataset, str | None):
        raise FitError(
            f"got the dataset {quote(dataset)} and the backbone {quote(backbone)}. Expected the name of a dataset, or "
            'None, and that of a backbone: preset_for("oxford-pets", "clip-vit-b16").'
        )
    model = backbone if backbone in pocket.NAMES else MODELS.get(backbone)
    key = f"{DATASETS.get(dataset, dataset) if dataset else None}/{model}"
    if key in PRESETS:
        return key
    if backbone in pocket.NAMES:
        return "pocket"
    what = f"the dataset {quote(dataset)}" if dataset else "images of your own"
    raise FitError(
        f"MUST has no settings for {what} with the backbone {quote(backbone)}. It has them for "
        f"{', '.join(_pairs())} (with OpenAI's weights at 224 pixels: clip-vit-b16, clip-vit-l14). Take those of "
        "the pair most like yours: "
        'PRESETS["pets/ViT-B-16"] in Python, --preset pets/ViT-B-16 on the command line.'
    )


def _pairs() -> list[str]:
    return [key for key in PRESETS if key.partition("/")[2] in MODELS.values()]


def preset_source(key: str) -> str:
    """Where the settings with this key in `PRESETS` are from, in a few words.

    Raises:
        FitError: there is no such key.
    """
    if not isinstance(key, str) or key not in PRESETS:
        raise FitError(f"there is no preset {quote(key)}. Expected one of {', '.join(PRESETS)}.")
    if key in PUBLISHED:
        return "published, Li et al. 2023"
    if key in BORROWED:
        return f"ours after the published {BORROWED[key][0]}, not tried on real weights"
    if key == "pocket":
        return "ours, for images that the pocket models have no own settings for"
    return "ours, chosen by the labels of the train split"


def describe(config: MustConfig) -> list[str]:
    """The settings that distinguish presets, in lines for people."""
    if not isinstance(config, MustConfig):
        raise FitError(f"config is {quote(config)}. Expected a MustConfig, such as PRESETS[…].")
    stopping = "" if config.patience is None else f", patience {config.patience}"
    masks = "no masks"
    if config.mask_ratio:
        masks = f"masks of {config.mask_block} x {config.mask_block} pixels over {config.mask_ratio:.0%} of the image"
    return [
        f"epochs {config.epochs}{stopping}, batch {config.batch_size:,}, "
        f"learning rate {config.peak_lr:g} ({config.lr:g} for 256 images), layer decay {config.layer_decay:g}",
        f"threshold {config.threshold:g}, {masks}",
        f"weights: self-training {config.self_training_weight:g}, fairness {config.fairness_weight:g}, "
        f"masked image {config.masked_image_weight:g}, alignment {config.alignment_weight:g}",
        f"EMA decay {config.ema_decay:g} to {config.ema_decay_end:g} over {config.ema_warmup:,} steps of "
        f"{PUBLISHED_BATCH:,} images",
    ]
