"""An image-text model and images small enough for tests: random weights, true architecture, a step in no time."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from labkit import pocket
from labkit.data.images import ImageDataset
from labkit.must import MUST, MustConfig
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.zeroshot.prompts import Prompts

NAME = "pocket-tiny"
VISION = {"patch_size": 4, "width": 32, "layers": 2, "head_width": 16, "image_size": 16}
TEXT = {"context_length": 16, "vocab_size": 512 + 4 + 2, "width": 32, "heads": 2, "layers": 1}
WORDS = ("red", "green", "blue")


def write_model(folder: Path) -> Path:
    """Write the files of the model as those of a pocket model, and return the folder."""
    (folder / pocket.BPE).write_bytes(gzip.compress(b"#version: 0.2\nc a\nca t</w>\nd o\ndo g</w>"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = open_clip.CLIP(16, VISION, TEXT).state_dict()
    for name in state:  # so that images differ more than an untrained tower lets them
        if name.startswith("visual") and name.endswith(("conv1.weight", "in_proj_weight", "out_proj.weight")):
            state[name] *= 20 if "conv1" in name else 2.5
    save_file(state, folder / f"{NAME}.safetensors")
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    (folder / f"{NAME}.json").write_text(json.dumps(config), "utf-8")
    return folder


def use_model(folder: Path) -> None:
    """Make `load_backbone(NAME)` find the model in this folder, for good; tests that share a process monkeypatch."""
    pocket.MODELS, pocket.NAMES = folder, (NAME,)
    pocket.register.cache_clear()


def backbone(dtype: torch.dtype = torch.float32) -> Backbone:
    """The model, computing the same on every CPU."""
    return dataclasses.replace(load_backbone(NAME, device="cpu"), dtype=dtype)


def images(n: int = 24, seed: int = 0) -> ImageDataset:
    """Noisy images of 20 x 18 pixels in one of three colors, by turns."""
    noise = np.random.default_rng(seed).integers(0, 120, (n, 18, 20, 3), dtype=np.uint8)
    labels = np.arange(n, dtype=np.int64) % len(WORDS)
    noise[np.arange(n), :, :, labels] += 120
    return ImageDataset(labels, list(WORDS), array=noise)


def config(**changes: Any) -> MustConfig:
    """Settings for these images: three steps an epoch, two epochs."""
    settings = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "threshold": 0.7, "mask_block": 4, "ema_decay": 0.5}
    return MustConfig(**{**settings, **changes})  # type: ignore[arg-type]


def must(model: Backbone | None = None, **changes: Any) -> MUST:
    """The estimator with these settings."""
    return MUST(backbone() if model is None else model, Prompts.from_words(WORDS), config(**changes), device="cpu")
