"""Feature extraction against the bare forward pass, side by side in one run: python tests/benchmarks/bench_features.py

The bare pass has its batches ready in memory, with all channels of the model; extraction also decodes, resizes,
collects and checks. Reported is the ratio of their times in each round, so that a machine whose speed drifts does not
decide the result, and the ratio of their fastest rounds, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

import labkit as lk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backbone = lk.load_backbone(arguments.backbone, image_size=arguments.image_size)
    manifest = lk.load_manifest("fashion-mini")
    images = [backbone.preprocess(image) for image, _ in manifest.images("test")]
    images = [np.broadcast_to(image, (*image.shape[:2], len(backbone.mean))) for image in images]
    batches = [torch.from_numpy(np.stack(images[first : first + 250])) for first in range(0, len(images), 250)]
    backbone.encode_image(batches[0])
    bare, ours = [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for batch in batches:
            backbone.encode_image(batch).cpu()
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        lk.extract_features(backbone, manifest, split="test", batch_size=250, cache=False)
        ours.append(time.perf_counter() - start)
    ratios = [extraction / forward for extraction, forward in zip(ours, bare, strict=True)]
    print(f"{arguments.backbone} at {arguments.image_size} px on {backbone.device}, {torch.get_num_threads()} threads")
    print(f"extraction: median {len(images) / statistics.median(ours):.0f} images/s")
    print(
        f"time of extraction / time of the bare forward pass: median {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {arguments.rounds} rounds), fastest {min(ours) / min(bare):.3f}"
    )


if __name__ == "__main__":
    main()
