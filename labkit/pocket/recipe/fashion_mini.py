"""Make fashion-mini, the class-balanced subset of Fashion-MNIST that labkit ships.

    python -m labkit.pocket.recipe.fashion_mini SOURCE_DIR [OUT_DIR]

SOURCE_DIR holds the four files of Fashion-MNIST (train-images-idx3-ubyte and so on, plain or .gz); their content must
have the sha256 that the manifest fashion-mnist gives. Writes train.png, test.png and index.csv: a rerun chooses the
same images, and writes the same bytes where Pillow has the same zlib.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from labkit import pocket
from labkit._files import atomic_write
from labkit.data.datasets import FASHION_FILES, read_idx
from labkit.data.manifests import load_manifest

SEED = 0
PER_CLASS = {"train": 1600, "test": 200}
N_COLUMNS = 100  # images in a row of the mosaic
OUT = pocket.DATA / "fashion-mini"


def choose(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Positions (10 * per_class,) of a class-balanced draw, in the source's order (which is not sorted by class)."""
    # RandomState, because its stream is frozen for good, while that of default_rng may change (NEP 19)
    order = np.random.RandomState(seed).permutation(len(labels))
    drawn = [order[labels[order] == label][:per_class] for label in range(10)]
    return np.sort(np.concatenate(drawn))


def mosaic(images: np.ndarray, n_columns: int) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, 3) as one image, row by row; what is left of the last row is black."""
    n, h, w, *channels = images.shape
    n_rows = -(-n // n_columns)
    tiles = np.zeros((n_rows * n_columns, h, w, *channels), images.dtype)
    tiles[:n] = images
    grid = tiles.reshape(n_rows, n_columns, h, w, *channels).swapaxes(1, 2)  # (rows, h, columns, w, ...)
    return grid.reshape(n_rows * h, n_columns * w, *channels)


def write_index(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Write the rows of a table, its header first, as CSV."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def make(source: Path, out: Path = OUT) -> None:
    """Read Fashion-MNIST from `source` and write the mosaics and the index to `out`.

    Raises:
        DataError: a source file is missing or is not the one that the manifest fashion-mnist names.
    """
    sha256 = load_manifest("fashion-mnist").sha256
    rows: list[tuple[str, int, int]] = []
    for split, per_class in PER_CLASS.items():
        names = [f"{FASHION_FILES[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        images, labels = (read_idx(source, name, sha256[name]) for name in names)
        positions = choose(labels, per_class, SEED)
        with atomic_write(out / f"{split}.png") as temporary:
            Image.fromarray(mosaic(images[positions], N_COLUMNS)).save(temporary, format="PNG")
        rows += [(split, int(i), int(labels[i])) for i in positions]
    write_index(out / "index.csv", [("split", "position", "label"), *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE_DIR")
    parser.add_argument("out", type=Path, nargs="?", default=OUT, metavar="OUT_DIR")
    arguments = parser.parse_args()
    make(arguments.source, arguments.out)
