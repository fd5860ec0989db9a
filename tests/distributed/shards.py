"""One process of an extraction in shards for the tests to start: `shards.py IMAGES OUT NAME [MACHINE] [SHARD]`.

It is slow, so that others have their part; writes the numbers of the images that it has encoded to OUT.NAME; and, where
SHARD is given, stands still for ever in the middle of it, its heart beating. MACHINE makes it one on another machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import labkit as lk
from labkit.spaces import claims
from labkit.spaces.backbones import Backbone

SHARD = 16
LOST = 1.0  # seconds


def images(folder: Path) -> lk.ImageDataset:
    return lk.ImageDataset.from_files(sorted(folder.iterdir()))


def main(folder: Path, out: Path, name: str, machine: str, stop: int) -> None:
    claims.BEAT, claims.LOST = 0.1, LOST
    sign = claims.machine_sign()
    claims.machine_sign = lambda: f"{sign[:6]}{machine:0>6}"
    encode = Backbone.encode_image

    def slow(self: Backbone, pixels: torch.Tensor) -> torch.Tensor:
        values = pixels[:, 0, 0, 0].tolist()
        with out.with_suffix(f".{name}").open("a") as file:
            file.writelines(f"{value}\n" for value in values)
        time.sleep(0.15)
        while stop in values:
            time.sleep(1)
        return encode(self, pixels)

    Backbone.encode_image = slow  # type: ignore[method-assign]
    lk.extract_shards(lk.load_backbone("pixels", device="cpu"), images(folder), out, shard=SHARD, batch_size=8)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
