"""The numbers of both papers, as the shipped manifests quote them, and those of others to set beside them.

TURTLE: Gadetsky et al., ICML 2024, arXiv:2406.07236, on CLIP ViT-L/14 + DINOv2 ViT-g/14. MUST: Li et al., ICLR 2023,
arXiv:2206.02967, on CLIP ViT-B/16 and ViT-L/14. A number stands in the manifest of its dataset, with its source.
"""

from __future__ import annotations

import math

import pandas as pd

from labkit.data.manifests import load_manifest, manifests_dir
from labkit.data.schema import Manifest, Published

TURTLE = (
    "birdsnap", "caltech101", "cifar10", "cifar100", "clevr-counts", "country211", "dtd", "eurosat", "fer2013",
    "fgvc-aircraft", "flowers102", "food101", "gtsrb", "hateful-memes", "imagenet", "kinetics700", "kitti-distance",
    "mnist", "oxford-pets", "pcam", "rendered-sst2", "resisc45", "stanford-cars", "stl10", "sun397", "ucf101",
)  # fmt: skip
MUST = ("imagenet", "sun397", "food101", "gtsrb", "dtd", "ucf101")  # those with published numbers for both models
MUST_PAPER = "Li et al., ICLR 2023, arXiv:2206.02967"
BESIDE = {"zero_shot": "zero-shot", "linear_probe": "linear probe", "kmeans": "K-means"}  # by column the method
MODELS = {"clip-vit-b16": "CLIP ViT-B/16", "clip-vit-l14": "CLIP ViT-L/14"}


def turtle_rows() -> pd.DataFrame:
    """TURTLE's results, a row for each of its 26 datasets, with what else is published for CLIP ViT-L/14.

    Returns:
        Columns dataset, n_classes, n_train, n_test, accuracy, nmi, ari (of TURTLE), zero_shot, linear_probe, kmeans
        (accuracies of others): fractions from 0 to 1, NaN where nobody published them, or where we found no public
        source (none for K-means). `.attrs["sources"][column][dataset]` says where each of the last three is from, and
        whether it is on another draw of the test images.
    """
    rows, sources = [], {column: {} for column in BESIDE}  # type: ignore[var-annotated]
    for name in TURTLE:
        manifest = _shipped(name)
        row = {"dataset": name, "n_classes": manifest.n_classes}
        row |= {f"n_{split}": manifest.splits[split].size for split in ("train", "test")}
        for metric in ("accuracy", "nmi", "ari"):
            found = _first(manifest, "TURTLE, CLIP ViT-L/14 + DINOv2 ViT-g/14", metric)
            row[metric] = found.value if found else math.nan
        for column, method in BESIDE.items():
            found = _first(manifest, f"{method}, CLIP ViT-L/14", "accuracy")
            row[column] = found.value if found else math.nan
            if found:
                sources[column][name] = found.source
        rows.append(row)
    table = pd.DataFrame(rows)
    table.attrs["sources"] = sources
    return table


def must_rows() -> pd.DataFrame:
    """MUST's results, a row for each of its six datasets and two models.

    Returns:
        Columns dataset, model ("clip-vit-b16" or "clip-vit-l14"), zero_shot, must: accuracies from 0 to 1, both as
        MUST's authors measured them.
    """
    rows = []
    for name in MUST:
        manifest = _shipped(name)
        for model, words in MODELS.items():
            row: dict[str, str | float] = {"dataset": name, "model": model}
            for column, method in (("zero_shot", "zero-shot"), ("must", "MUST")):
                found = _first(manifest, f"{method}, {words}", "accuracy", source=MUST_PAPER)
                row[column] = found.value if found else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _shipped(name: str) -> Manifest:
    """The manifest of the dataset itself, also where the data folder holds a miniature of it."""
    return load_manifest(manifests_dir() / f"{name}.yaml")


def _first(manifest: Manifest, method: str, metric: str, source: str | None = None) -> Published | None:
    """The first result that a manifest quotes for a method, of one source or of any."""
    for found in manifest.published:
        if (found.method, found.metric) == (method, metric) and source in (None, found.source):
            return found
    return None
