"""What a reproduction runs: datasets, spaces and settings, of the papers and, by profile, of smaller machines.

TURTLE: Gadetsky, Jiang, Brbić, ICML 2024 (arXiv 2406.07236), sections 4 and 5, and its code. Features are fitted as
they are; the fit sees the train split without labels, and is scored on the test split. The paper sweeps inner and
outer learning rate and start, and keeps the labeling with the best generalization score.
MUST: Li, Savarese, Hoi, ICLR 2023 (arXiv 2206.02967): one preset a dataset and model, its last epoch is scored.

A profile changes models, settings and the grid, here and nowhere else; the code that runs is the same. The names of
models are those of `labkit.course.profiles`, which stands above this wing (a test holds that they agree).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from labkit.data.schema import Manifest
from labkit.devices import pick_device
from labkit.errors import DataError, FitError, quote
from labkit.must import PRESETS, MustConfig, preset_key
from labkit.must.presets import PUBLISHED
from labkit.papers.published import TURTLE
from labkit.turtle import PAPER_GRID, Turtle

SEED = 42  # the authors'
PAPERS = ("turtle", "must")
DATASETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "turtle": TURTLE,
        "must": ("imagenet", "sun397", "food101", "gtsrb", "dtd", "ucf101", "oxford-pets", "caltech101"),
    }
)
PUBLISHED_SPACES = ("clip-vit-l14", "dinov2-vit-g14")  # of TURTLE's headline row
MEAN_PER_CLASS = ("oxford-pets", "caltech101")  # whose published numbers of MUST are mean-per-class accuracies
NOT_SETTINGS = ("n_clusters", "random_state", "device", "progress", "race", "n_restarts")


def _official() -> dict[str, Any]:
    """The settings of the authors' code, but for what the grid and the dataset decide."""
    settings = Turtle.official(2).get_params()
    return {name: value for name, value in settings.items() if name not in (*NOT_SETTINGS, *PAPER_GRID)}


@dataclass(frozen=True)
class Scale:
    """The size of a reproduction.

    Attributes:
        name, summary: of the profile.
        spaces: backbones whose features K-means, the linear probe and TURTLE get.
        image_size: side in pixels of what networks see; None is each model's own (see `labkit.course.profiles`).
        image_text: the image-text model of zero-shot.
        students: image-text models that MUST starts from.
        turtle: settings of `Turtle` that all runs share.
        grid: the sweep, values by names; all combinations.
        must: what is changed in the preset of MUST.
        n_scored: rows of the train split, at most, that a generalization score is taken on (or 20 a cluster).
        half: whether networks compute in float16 on a GPU, and features are kept in it, as CLIP's own weights are;
            else all is in float32, to the same numbers on every machine.
    """

    name: str
    summary: str
    spaces: tuple[str, ...]
    image_size: int | None
    image_text: str
    students: tuple[str, ...]
    turtle: Mapping[str, Any]
    grid: Mapping[str, list[Any]]
    must: Mapping[str, Any] = field(default_factory=dict)
    n_scored: int = 2000
    half: bool = False

    def runs(self) -> list[dict[str, Any]]:
        """The settings of every run of the sweep."""
        points: list[dict[str, Any]] = [{}]
        for name, values in self.grid.items():
            points = [{**point, name: value} for point in points for value in values]
        return [{**self.turtle, **point} for point in points]

    def forward_dtype(self) -> str:
        """Of networks: float16 on a GPU where the scale asks for it."""
        return "float16" if self.half and pick_device().type == "cuda" else "float32"

    @property
    def feature_dtype(self) -> str:
        return "float16" if self.half else "float32"

    def must_config(self, manifest: Manifest, student: str) -> MustConfig | None:
        """The settings of MUST for a dataset and a student; None where nobody chose any, or where, with the paper's
        students, nothing was published.
        """
        try:
            key = preset_key(manifest.id, student)
        except FitError:
            return None
        if self.name == "paper" and key not in PUBLISHED:
            return None
        config = PRESETS[key].replace(**self.must)
        n = manifest.splits["train"].size
        return config if config.batch_size <= n else config.replace(batch_size=n, accumulate=1)


_SMALL = {"entropy_weight": 10.0, "batch_size": 2000, "n_components": 128, "whitening": 0.5, "feature_scale": 8.0}
SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        scale.name: scale
        for scale in (
            Scale(
                "pocket",
                "small models, few settings and steps: a rehearsal for two cores, far from the papers' numbers",
                ("efficientnet-lite0", "pixels"),
                96,
                "pocket-clip",
                ("pocket-vit",),
                {**_SMALL, "n_outer_steps": 60, "n_inner_steps": 3, "dtype": "float32"},
                {"outer_lr": [5e-3, 1e-2], "inner_lr": [5e-3], "inner_start": ["warm", "cold"]},
                {"epochs": 1},
            ),
            Scale(
                "photos",
                "small models on real photographs, labkit's own settings of both methods",
                ("efficientnet-lite0", "efficientnet-lite2"),
                224,
                "pocket-clip",
                ("pocket-vit",),
                {**_SMALL, "n_outer_steps": 250, "n_inner_steps": 3, "dtype": "float32"},
                {"outer_lr": [2.5e-3, 5e-3, 1e-2], "inner_lr": [2.5e-3, 1e-2], "inner_start": ["warm", "cold"]},
            ),
            Scale(
                "standard",
                "the published settings with ViT-B models, for one small GPU",
                ("clip-vit-b32", "dinov2-vit-b14"),
                None,
                "clip-vit-b32",
                ("clip-vit-b16",),
                _official(),
                PAPER_GRID,
                n_scored=10_000,
                half=True,
            ),
            Scale(
                "paper",
                "the published models and settings, for a large GPU",
                PUBLISHED_SPACES,
                None,
                "clip-vit-l14",
                ("clip-vit-b16", "clip-vit-l14"),
                _official(),
                PAPER_GRID,
                n_scored=10_000,
                half=True,
            ),
        )
    }
)


def pick_scale(profile: str) -> Scale:
    """The scale of a profile.

    Raises:
        DataError: there is no such profile.
    """
    if not isinstance(profile, str) or profile not in SCALES:
        raise DataError(f"profile is {quote(profile)}. Expected one of {', '.join(SCALES)}.")
    return SCALES[profile]


def device_name() -> str:
    """What computes here, as results name it."""
    device = pick_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
