"""How fast this machine is at what a reproduction does: a few batches and a few steps, measured; the rest is scaled.

Nothing is downloaded for it. A network that comes with labkit is run; of one from the hub the operations are known, and
the rate of this device's matrix products is measured.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from labkit.data.images import ImageDataset
from labkit.devices import exact_products, pick_device
from labkit.errors import CollapseWarning
from labkit.evaluation import large
from labkit.evaluation.baselines import KMeans, LinearProbe
from labkit.evaluation.probe import pays_in_blocks
from labkit.papers.job import Backbones
from labkit.papers.protocol import SEED, Scale, device_name
from labkit.spaces.features import encode_images
from labkit.spaces.papers import SPACES
from labkit.turtle import Turtle

# Of the networks from the hub: 1e9 operations (a product and a sum are two) of the image tower for one image at the
# size that the paper used, counted with torch.utils.flop_counter; and the weights in gigabytes, in float32.
NETWORKS: Mapping[str, tuple[float, float]] = {
    "clip-rn50": (12.2, 0.41),
    "clip-rn101": (19.5, 0.48),
    "clip-rn50x4": (42.6, 0.71),
    "clip-rn50x16": (149.4, 1.16),
    "clip-rn50x64": (529.1, 2.49),
    "clip-vit-b32": (8.8, 0.61),
    "clip-vit-b16": (35.1, 0.60),
    "clip-vit-l14": (162.0, 1.71),
    "dinov2-vit-g14": (598.8, 4.54),
    "dinov2-vit-b14": (46.3, 0.34),
}
REACHED = 0.4  # of the rate of large matrix products, in a whole network
# Of a linear probe in blocks. On CLIP's features of four datasets (10 to 100 classes) fits took 11 to 28 gradients, and
# 30 to 56 to a tenth of the tolerance, which is that of 1000 classes.
GRADIENTS = 50
READING = 16  # classes: on one core so many take as long as reading and standardizing
ROWS, FEW, MANY = 1024, 4, 64  # rows and clusters of what is measured
MEASURED_IMAGES = 64
STEPS = (1, 4)  # outer steps of two fits: the difference is without what happens once
ROWS_ON_GPU, STEPS_ON_GPU = 8192, (1, 31)  # where a step of fewer rows takes no less time, and a few steps take none


@dataclass(frozen=True)
class Rates:
    """Seconds that work takes on one device.

    Attributes:
        device: its name.
        image: of one image through a network, by the network's name; reading and decoding files is not in it.
        counted: networks whose rate follows from their operations; the others were run.
        turtle: (a, b): an outer step takes a + b · C for each row of the batch.
        k_means, probe: of a fit, for each row and class.
        width: Σ d_k of the spaces that are fitted.
        product: operations a second of a product of large matrices in float32.
    """

    device: str
    image: Mapping[str, float]
    counted: frozenset[str]
    turtle: tuple[float, float] = (0.0, 0.0)
    k_means: float = 0.0
    probe: float = 0.0
    width: int = 0
    product: float = 0.0

    def k_means_seconds(self, n: int, n_classes: int) -> float:
        """Of K-means on n rows, of which it takes a sample where they are many."""
        return self.k_means * n_classes * (large.sample_size(n, n_classes) if n * self.width > large.LARGE else n)

    def probe_seconds(self, n: int, n_classes: int) -> float:
        """Of a linear probe on n rows; a rough estimate where it is fitted in blocks, from its operations."""
        numbers = n * self.width
        if numbers > large.LARGE or pays_in_blocks(numbers, n_classes):
            return GRADIENTS * 4 * numbers * (n_classes + READING) / self.product
        return self.probe * n * n_classes


def width(name: str, backbones: Backbones) -> int:
    """d of a space; a network is loaded only where it comes with labkit."""
    return SPACES[name].dim if name in SPACES else backbones[name].dim


def measure(paper: str, scale: Scale, backbones: Backbones) -> Rates:
    """Measure on this machine what the plan of a paper's reproduction needs; a few seconds.

    Raises:
        BackboneError: a network that comes with labkit is not there.
    """
    names = (*scale.spaces, scale.image_text) if paper == "turtle" else scale.students
    counted = frozenset(name for name in names if name in NETWORKS)
    image = {name: _seconds_an_image(name, backbones) for name in names if name not in counted}
    if counted:
        per_second = REACHED * _operations_a_second(getattr(torch, scale.forward_dtype()))
        image |= {name: NETWORKS[name][0] * 1e9 / per_second for name in counted}
    if paper == "must":
        return Rates(device_name(), image, counted)
    rng = np.random.default_rng(0)
    on_gpu = pick_device().type != "cpu"
    many_rows, steps = (ROWS_ON_GPU, STEPS_ON_GPU) if on_gpu else (ROWS, STEPS)
    spaces = [rng.standard_normal((many_rows, width(name, backbones)), np.float32) for name in scale.spaces]
    turtle = _per_row({n: _outer_step(spaces, scale, n, steps) for n in (FEW, MANY)})
    spaces = [space[:ROWS] for space in spaces]  # K-means and the probe compute on the CPU
    labels = np.arange(ROWS) % FEW
    k_means = _seconds(lambda: KMeans(FEW, normalize=True, random_state=SEED).fit(spaces)) / (ROWS * FEW)
    probe = _seconds(lambda: LinearProbe().fit(spaces, labels)) / (ROWS * FEW)
    features = sum(space.shape[1] for space in spaces)
    with exact_products():
        product = _operations_a_second(torch.float32)
    return Rates(device_name(), image, counted, turtle, k_means, probe, features, product)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _seconds_an_image(name: str, backbones: Backbones) -> float:
    """Through the network and its preprocessing, of invented images as large as most photographs are resized to."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (MEASURED_IMAGES, 256, 256, 3), np.uint8)
    images = ImageDataset(np.full(len(pixels), -1), [], array=pixels)
    encode_images(backbones[name], images.subset(range(2)))  # the first pass also allocates
    return _seconds(lambda: encode_images(backbones[name], images)) / len(images)


def _operations_a_second(dtype: torch.dtype) -> float:
    """Of a product of two large matrices."""
    device = pick_device()
    size = 4096 if device.type == "cuda" else 1024
    matrix = torch.ones(size, size, dtype=dtype, device=device)

    def multiply() -> None:
        for _ in range(3):
            matrix @ matrix
        matrix[0, 0].item()  # waits for the device

    multiply()
    return 3 * 2 * size**3 / _seconds(multiply)


def _outer_step(spaces: list[np.ndarray], scale: Scale, n_clusters: int, steps: tuple[int, int]) -> float:
    """Seconds of one outer step for each row."""
    settings = {**scale.runs()[0], "batch_size": None, "random_state": SEED}

    def fit(n_steps: int) -> float:
        turtle = Turtle(n_clusters, n_restarts=1, race=False, **{**settings, "n_outer_steps": n_steps})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # there is nothing to find
            return _seconds(lambda: turtle.fit(spaces))

    fit(1)
    few, many = steps
    return max(0.0, fit(many) - fit(few)) / ((many - few) * len(spaces[0]))


def _per_row(measured: Mapping[int, float]) -> tuple[float, float]:
    """a and b of a + b · C through two measurements, neither below 0."""
    (few, fast), (many, slow) = sorted(measured.items())
    slope = max(0.0, slow - fast) / (many - few)
    return max(0.0, fast - slope * few), slope
