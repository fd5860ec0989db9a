"""A folder of photographs: python tests/benchmarks/bench_folder.py

Images a second, in a process of its own, with the peak of its memory above an interpreter that has imported torch and
labkit; then the same folder again, of which nothing needs to be decoded. The photographs are made here: 12 megapixels,
a JPEG each, and every tenth a PNG. To time other photographs, give --folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import Result, arguments, finish, seconds
from PIL import Image

WORST_GROWTH = 1.5  # GB above the interpreter, whatever the number of photographs
SIZE = (4000, 3000)  # pixels, 12 megapixels
MANY = 10_000  # photographs for which seconds are told as well


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="of photographs, instead of those made here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)


def make_photographs(folder: Path, n: int, size: tuple[int, int]) -> None:
    """Photographs of soft shapes with the grain of a sensor, which fill a JPEG as real ones do."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (size[1] + 64, size[0] + 64, 1)).astype(np.float32)
    for i in range(n):
        shapes = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        pixels = np.asarray(shapes.resize(size, Image.Resampling.BICUBIC), np.float32)
        top, left = rng.integers(0, 64, 2)
        noisy = (pixels + grain[top : top + size[1], left : left + size[0]]).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:05d}.{'png' if i % 10 == 9 else 'jpg'}", quality=88, compress_level=1)


def read_once(backbone: str, folder: Path) -> dict[str, float]:
    """Seconds of reading a folder, and bytes of memory above what torch and labkit took; of this process."""
    from peak_memory import resident

    import labkit as lk

    before = resident()["now"]
    from labkit.own.reading import read_folder

    loaded = lk.load_backbone(backbone)
    found: list[Any] = []
    took = seconds(lambda: found.append(read_folder(folder, [loaded])))
    features = sum(part.nbytes for part in found[0].features.values())
    return {"images": len(found[0].files), "seconds": took, "growth": resident()["peak"] - before - features}


def in_a_process(backbone: str, folder: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", "--folder", str(folder), "--backbone", backbone]
    environment = os.environ | {"LABKIT_CACHE": str(cache)}
    outcome = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(outcome.stdout.splitlines()[-1])
    return measured


def main() -> None:
    given = arguments(__doc__, options)
    if given.child:
        print(json.dumps(read_once(given.backbone, given.folder)))
        return
    first, again = [], []
    with tempfile.TemporaryDirectory(prefix="photographs-") as place:
        folder = given.folder or Path(place, "photographs")
        if given.folder is None:
            folder.mkdir()
            make_photographs(folder, 4 if given.quick else given.images, (400, 300) if given.quick else SIZE)
        for i in range(min(given.rounds, 2)):
            first.append(in_a_process(given.backbone, folder, Path(place, f"cache-{i}")))
            again.append(in_a_process(given.backbone, folder, Path(place, f"cache-{i}")))
    rate = statistics.median(run["images"] / run["seconds"] for run in first)
    growth = max(run["growth"] for run in first) / 1e9
    repeated = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(first, again, strict=True))
    details = {"backbone": given.backbone, "first": first, "again": again, f"seconds for {MANY}": MANY / rate}
    name = f"folder ({given.backbone}): "
    results = [
        Result(f"{name}images a second", rate, details=details),
        Result(f"{name}GB of memory above the interpreter", growth, WORST_GROWTH, "at most"),
        Result(f"{name}second run / first", repeated, 0.1, "at most"),
    ]
    finish("folder", results, given)


if __name__ == "__main__":
    main()
