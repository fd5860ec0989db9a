"""Extraction in shards against `extract_features`, side by side in one run: python tests/benchmarks/bench_shards.py

Both read the same JPEG files, encode them and keep the features, each time anew. Then what a million images take beside
the forward pass: to be told from others, to be read back the first time, with the digests, and again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Result, arguments, finish, made_up_features, medians, ratio, seconds, side_by_side
from PIL import Image

import labkit as lk
from labkit.spaces.shards import ShardedFeatures

WIDTH, HEIGHT = 400, 300  # of an image, about as in ImageNet


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rows", type=int, default=262_144, help="of features that are read back, 768 wide")


def write_images(folder: Path, n: int) -> lk.ImageDataset:
    """JPEG files of smooth noise."""
    rng = np.random.default_rng(0)
    for i in range(n):
        noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / f"{i:06d}.jpg", quality=90)
    return lk.ImageDataset.from_files(sorted(folder.iterdir()))


def main() -> None:
    given = arguments(__doc__, options)
    n, rows = (24, 4096) if given.quick else (given.images, given.rows)
    backbone = lk.load_backbone(given.backbone)
    with tempfile.TemporaryDirectory() as name:
        folder, number = Path(name), itertools.count()
        (folder / "images").mkdir()
        images = write_images(folder / "images", n)
        os.environ["LABKIT_CACHE"] = str(folder / "cache")

        def whole() -> None:
            os.environ["LABKIT_CACHE"] = str(folder / f"cache-{next(number)}")
            lk.extract_features(backbone, images, dtype="float16")

        def shards() -> None:
            lk.extract_shards(backbone, images, folder / f"shards-{next(number)}", shard=max(8, n // 4))

        whole()  # the first pass of a network is slower
        times = side_by_side(given.rounds, whole=whole, shards=shards)
        begun = time.process_time()
        shards()
        processor = (time.process_time() - begun) / n
        identity = seconds(lambda: images.identity) / n
        blocks = np.array_split(made_up_features(rows, 768, "float16"), 8)
        features = ShardedFeatures.write(folder / "features", blocks)
        first, again = (seconds(lambda: [block.sum() for _, block in features.blocks(8192)]) for _ in range(2))
        on_disk = sum(path.stat().st_size for path in (folder / "features").iterdir())
    details = {
        "backbone": f"{given.backbone} on {backbone.device}, {backbone.dtype}",
        "seconds a million images": medians(times, 1e6 / n),
        "processor seconds a million images": 1e6 * processor,  # which other programs on the machine disturb least
        "ratio of the fastest rounds": min(times["whole"]) / min(times["shards"]),
    }
    speed = ratio(times["whole"], times["shards"])
    million = 1e6 / rows
    results = [
        Result("shards: speed of extract_shards / extract_features", speed, 0.97, details=details),
        Result("shards: seconds to tell a million files from others", 1e6 * identity),
        Result("shards: seconds to read a million x 768, first", first * million, details={"again": again * million}),
        Result("shards: bytes on disk / 2 n d", on_disk / (2 * rows * 768), 1.001, "at most"),
    ]
    finish("shards", results, given)


if __name__ == "__main__":
    main()
