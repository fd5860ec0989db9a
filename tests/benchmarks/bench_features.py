"""Feature extraction against the bare forward pass, side by side in one run: python tests/benchmarks/bench_features.py

The bare pass has its batches ready in memory, with all channels of the model; extraction also decodes, resizes,
collects and checks. Reported is the ratio of their times in each round, so that a machine whose speed drifts does not
decide the result, and the ratio of their fastest rounds, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from measure import Result, arguments, finish, medians, ratio, side_by_side

import labkit as lk
from labkit.spaces.features import encode_images


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--image-size", type=int, default=96)


def main() -> None:
    given = arguments(__doc__, options)
    backbone = lk.load_backbone(given.backbone, image_size=given.image_size)
    dataset = lk.load_dataset("fashion-mini", "test")
    if given.quick:
        dataset = dataset.subset(range(20))
    images = [backbone.preprocess(image) for image, _ in dataset]
    images = [np.broadcast_to(image, (*image.shape[:2], len(backbone.mean))) for image in images]
    batches = [torch.from_numpy(np.stack(images[first : first + 250])) for first in range(0, len(images), 250)]
    backbone.encode_image(batches[0])
    times = side_by_side(
        given.rounds,
        bare=lambda: [backbone.encode_image(batch).cpu() for batch in batches],
        extraction=lambda: encode_images(backbone, dataset, batch_size=250),
    )
    details = {
        "backbone": f"{given.backbone} at {given.image_size} px on {backbone.device}",
        "images a second": {name: len(images) / median for name, median in medians(times).items()},
        "ratio of the fastest rounds": min(times["extraction"]) / min(times["bare"]),
    }
    value = ratio(times["extraction"], times["bare"])
    finish("features", [Result("features: extraction / bare forward pass", value, details=details)], given)


if __name__ == "__main__":
    main()
