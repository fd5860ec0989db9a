"""Two datasets and a profile so small that a whole reproduction takes a second or two."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.data import manifests
from labkit.papers import protocol
from labkit.papers.protocol import Scale
from tests import tiny

N = {"train": 60, "test": 24}
MANIFEST = """
id: {id}
title: Noisy colors
task: which color an image has
classes: [blue, green, red]
splits:
  train: {{size: {train}, how: invented}}
  test: {{size: {test}, how: invented}}
source: {{kind: folder, path: {path}}}
license: none
citation: unknown
homepage: unknown
"""
SCALE = Scale(
    "pocket",
    "very small",
    ("pixels", "hog"),
    None,
    tiny.NAME,
    (tiny.NAME,),
    {
        "n_outer_steps": 15,
        "n_inner_steps": 2,
        "entropy_weight": 10.0,
        "batch_size": None,
        "n_components": 8,
        "whitening": 0.5,
        "feature_scale": 8.0,
        "dtype": "float32",
    },
    {"outer_lr": [5e-3, 2e-2], "inner_lr": [1e-2], "inner_start": ["warm", "cold"]},
    {"epochs": 2, "batch_size": 16, "mask_block": 4},
)


def write_datasets(folder: Path, ids: tuple[str, ...] = ("colors", "shades")) -> None:
    """Manifests in folder/manifests, their images beside it; files always of the same times."""
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(ids):
        for split, n in N.items():
            images = tiny.images(n, seed=10 * k + len(split))
            for i in range(n):
                image, label = images[i]
                path = folder / name / split / tiny.WORDS[label] / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
                os.utime(path, (10**9, 10**9))
        text = MANIFEST.format(id=name, path=folder / name, **N)
        (folder / "manifests" / f"{name}.yaml").write_text(text, "utf-8")


def use(folder: Path) -> None:
    """Make these the only datasets, and the profile pocket small, for good; tests in one process monkeypatch."""
    manifests.manifests_dir = lambda: folder / "manifests"
    protocol.SCALES = {**protocol.SCALES, "pocket": SCALE}
