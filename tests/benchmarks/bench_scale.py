"""More features than memory holds: memory and time of fits on 80,000 to 1,280,000 samples in half precision on disk.

    python tests/benchmarks/bench_scale.py [--quick] [--folder FOLDER] [--figure docs/scale_turtle.png]
    python tests/benchmarks/bench_scale.py --methods probe

The features are made up, 768 + 1536 of them a sample as of CLIP ViT-L/14 and DINOv2 ViT-g/14: 5.9 GB, which are
written to a temporary folder and removed. Every fit has a process of its own. What is held against a limit: the peak of
resident memory of every fit at the largest size, and how well a line fits its time over the number of samples: the
processor's, on which other programs and the disk have less of an influence than on the clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import Result, arguments, finish

SIZES, DIMS = (80_000, 160_000, 320_000, 640_000, 1_280_000), (768, 1536)
QUICK_SIZES, QUICK_DIMS = (2000, 4000), (24, 48)
METHODS = ("turtle", "official", "kmeans", "probe")
IN_FIGURE = METHODS[:3]
NAMES = {
    "turtle": "Turtle, default settings",
    "official": "Turtle.official, 20 of 6,000 steps, from disk",
    "kmeans": "K-means, normalized, on a sample",
    "probe": "linear probe",
}
COLORS = {"turtle": "#0072B2", "official": "#D55E00", "kmeans": "#009E73", "probe": "#CC79A7"}  # Okabe and Ito's
MARKERS = {"turtle": "o", "official": "s", "kmeans": "^", "probe": "D"}
MOST_MEMORY = 6e9  # bytes
HERE = Path(__file__).parent
BLOCK = 2**15  # rows that are written at a time; the noise of all blocks is that of the first, in another order


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="where the features are written (default: a temporary folder)")
    parser.add_argument("--figure", type=Path, help="where the figure goes (default: scale.png in --out)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=IN_FIGURE)


def classes(rows: int) -> np.ndarray:
    """Of all samples in a file of so many rows, (n,)."""
    return np.random.default_rng(0).integers(10, size=rows)


def write_features(path: Path, rows: int, width: int, seed: int) -> Path:
    """Ten blobs in half precision as a .npy file, block by block; the same samples in every file."""
    rng = np.random.default_rng(seed)
    centers, noise = rng.normal(size=(10, width)), rng.normal(size=(min(rows, BLOCK), width)).astype(np.float32)
    labels = classes(rows)
    file = np.lib.format.open_memmap(path, "w+", np.float16, (rows, width))
    for start in range(0, rows, BLOCK):
        some = labels[start : start + BLOCK]
        file[start : start + BLOCK] = centers.astype(np.float32)[some] + np.roll(noise, start // BLOCK, 0)[: len(some)]
    file.flush()
    return path


def fit(method: str, rows: int, files: list[Path]) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "scale_fit.py"), method, str(rows), *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"rows": rows, **json.loads(done.stdout.splitlines()[-1])}


def line(runs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Seconds of the processor as a line over rows: of a million, of none, and the share of variance it explains."""
    rows, seconds = (np.array([run[name] for run in runs], float) for name in ("rows", "cpu"))
    slope, constant = np.polyfit(rows / 1e6, seconds, 1)
    rest = seconds - slope * rows / 1e6 - constant
    return float(slope), float(constant), float(1 - rest.var() / seconds.var())


def draw(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Seconds and peak of memory over the number of samples."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for method, of_method in runs.items():
        rows = np.array([run["rows"] for run in of_method]) / 1e6
        look = {"color": COLORS[method], "marker": MARKERS[method]}
        slope, constant, _ = line(of_method)
        axes[0].plot(rows, [run["cpu"] for run in of_method], ls="", label=NAMES[method], **look)
        axes[0].plot(rows, slope * rows + constant, color=COLORS[method], lw=1)
        axes[1].plot(rows, [run["peak"] / 1e9 for run in of_method], label=NAMES[method], **look)
    axes[0].set(xlabel="samples (millions)", ylabel="processor seconds of a fit, and a line", ylim=(0, None))
    axes[1].axhline(MOST_MEMORY / 1e9, color="black", lw=1, ls="--")
    axes[1].annotate("limit", (0, MOST_MEMORY / 1e9), (2, -11), textcoords="offset points", fontsize=8)
    size = max(run["rows"] for of_method in runs.values() for run in of_method)
    axes[1].set(xlabel="samples (millions)", ylabel="peak of resident memory (GB)", ylim=(0, 6.5))
    axes[1].plot([0, size / 1e6], [0, size * sum(DIMS) * 2 / 1e9], color="gray", ls=":", label="the features on disk")
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    given = arguments(__doc__, options)
    sizes, dims = (QUICK_SIZES, QUICK_DIMS) if given.quick else (SIZES, DIMS)
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in given.methods}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files = [write_features(Path(folder, f"{k}.npy"), sizes[-1], width, k) for k, width in enumerate(dims)]
        for rows in sizes:
            for method in given.methods:
                runs[method].append(fit(method, rows, files))
                print(f"{method:9} {rows:8}  {runs[method][-1]}", flush=True)
    results = []
    for method, of_method in runs.items():
        slope, constant, explained = line(of_method)
        details = {"runs": of_method, "seconds per million": slope, "seconds at none": constant}
        peak = max(run["peak"] for run in of_method) / MOST_MEMORY
        results.append(Result(f"{method}: peak memory, of 6 GB", peak, 1.0, "at most", details))
        results.append(Result(f"{method}: how linear seconds are (R²)", explained, 0.95, "at least", details))
    draw(runs, given.figure or given.out / "scale.png")
    finish("scale", results, given)


if __name__ == "__main__":
    main()
