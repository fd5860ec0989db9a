"""Every space with a short name, at its full size: true architecture, random weights in the hub's layout, a few images.

    python tests/benchmarks/bench_models.py                          # half an hour on two cores, 10 GB of memory
    python tests/benchmarks/bench_models.py --spaces pe-core-l14

Each is written where the hub's cache would keep the published weights, loaded by its name, and given four images.
Checked are the width of its features and the size that it sees; told are parameters and seconds, of the first pass of
four images and of loading. Random weights say nothing about quality.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Result, arguments, finish
from PIL import Image

sys.path.insert(0, str(ROOT))

from labkit.spaces.backbones import load_backbone
from labkit.spaces.papers import SPACES
from tests.hub import put_space


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES), metavar="NAME")


def bench(name: str) -> Result:
    """Load a space and encode four images: seconds, with what was seen."""
    from huggingface_hub import constants

    space = SPACES[name]
    with tempfile.TemporaryDirectory() as folder:
        parameters = put_space(Path(folder), space)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = folder, True
        start = time.perf_counter()
        backbone = load_backbone(name, device="cpu")
        loaded = time.perf_counter()
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)) for _ in range(4)]
    pixels = torch.from_numpy(np.stack([backbone.preprocess(image) for image in images]))
    begin = time.perf_counter()
    features = backbone.encode_image(pixels)
    seconds = time.perf_counter() - begin
    side = pixels.shape[1]
    if features.shape != (4, space.dim) or not features.isfinite().all():
        raise SystemExit(f"{name} gives {tuple(features.shape)}, expected {(4, space.dim)}, all finite")
    if space.geometry is not None and side != space.geometry.crop:
        raise SystemExit(f"{name} sees {side} pixels, expected {space.geometry.crop}")
    if (features[0] - features[1]).abs().max() == 0:
        raise SystemExit(f"{name} gives one feature for two images")
    details = {"parameters": parameters, "width": space.dim, "pixels": side, "load_seconds": loaded - start}
    size = f"{parameters / 1e6:,.0f} million parameters, {side} pixels, {space.dim} features"
    return Result(f"models: seconds for four images, {name} ({size})", seconds, details=details)


def main() -> None:
    given = arguments(__doc__, options)
    names = given.spaces[:1] if given.quick else given.spaces
    finish("models", [bench(name) for name in names], given)


if __name__ == "__main__":
    main()
