"""Profiles: which models and data a notebook runs with, from a laptop without downloads to a large GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

from labkit.errors import LabkitError, quote


@dataclass(frozen=True)
class Profile:
    """Where a notebook runs: a profile only chooses names and sizes, the code is the same.

    Attributes:
        name: "pocket", "photos", "standard" or "paper".
        summary: what it means, in a few words.
        backbones: names for `load_backbone`; several make several feature spaces.
        datasets: names for `load_manifest`; the first is the main one, the last a small one for experiments.
        image_size: side in pixels of what networks see; None is each model's own. Edges, pixels and the pocket models
            always have their own.
        image_text: the image-text model, for zero-shot classification.
        student: the image-text model with a vision transformer, which masked self-training starts from.
    """

    name: str
    summary: str
    backbones: tuple[str, ...]
    datasets: tuple[str, ...]
    image_size: int | None
    image_text: str
    student: str


_BENCHMARKS = ("cifar10", "stl10", "oxford-pets", "dtd")
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "pocket",
            "small models and data that need no download",
            ("efficientnet-lite0", "pixels"),
            ("fashion-mini", "digits"),
            96,
            "pocket-clip",
            "pocket-vit",
        ),
        # The digits come with scikit-learn, so that one download is all: CIFAR-10 would be 170 MB more, and an hour of
        # features on two cores.
        Profile(
            "photos",
            "real photographs with small models, for a laptop after one download of 100 MB",
            ("efficientnet-lite0", "efficientnet-lite2"),
            ("clothing-small", "digits"),
            224,
            "pocket-clip",
            "pocket-vit",
        ),
        Profile(
            "standard",
            "ViT-B models and public benchmarks, for one small GPU",
            ("clip-vit-b32", "dinov2-vit-b14"),
            _BENCHMARKS,
            None,
            "clip-vit-b32",
            "clip-vit-b16",
        ),
        Profile(
            "paper",
            "the models of the papers, for a large GPU",
            ("clip-vit-l14", "dinov2-vit-g14"),
            _BENCHMARKS,
            None,
            "clip-vit-l14",
            "clip-vit-l14",
        ),
    )
}


def pick_profile(name: str = "auto") -> Profile:
    """The profile with this name; "auto" is $LABKIT_PROFILE, else "standard" with a CUDA device, else "pocket".

    Raises:
        LabkitError: there is no such profile.
    """
    asked, given_by = name, "profile"
    if name == "auto":
        asked, given_by = os.environ.get("LABKIT_PROFILE", ""), "the environment variable LABKIT_PROFILE"
        if not asked:
            import torch

            asked = "standard" if torch.cuda.is_available() else "pocket"
    if not isinstance(asked, str) or asked not in PROFILES:
        raise LabkitError(f'{given_by} is {quote(asked)}. Expected one of {", ".join(PROFILES)}, or "auto".')
    return PROFILES[asked]


def headless() -> bool:
    """Whether $LABKIT_HEADLESS is set: no progress bars, and widgets become static figures."""
    return os.environ.get("LABKIT_HEADLESS", "") not in ("", "0")
