"""Figures for tests: small ones, and ones of the sizes that the notebooks draw."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from labkit import plots

RNG = np.random.default_rng(0)
GRAY = [Image.fromarray(RNG.integers(0, 255, (8, 8), dtype=np.uint8)) for _ in range(12)]
NAMES = ["ant", "bee", "cat"]
Y = np.repeat([0, 1, 2], 10)


def results() -> pd.DataFrame:
    row = {"variant": "", "selected_without_labels": False, "labels_used": False}
    runs = [{**row, "method": "turtle", "spaces": ["a", "b"], "value": v, "seed": i} for i, v in enumerate((0.6, 0.7))]
    chosen = {**row, "method": "turtle", "spaces": ["a", "b"], "value": 0.68, "selected_without_labels": True}
    kmeans = {**row, "method": "k-means", "variant": "raw", "spaces": ["a"], "value": 0.5, "seed": 0}
    probe = {**row, "method": "linear-probe", "spaces": ["a"], "value": 0.9, "labels_used": True}
    return pd.DataFrame([kmeans, *runs, chosen, probe])


def history() -> dict[str, np.ndarray]:
    return {name: RNG.random((20, 4)) for name in ("inner_loss", "entropy", "outer_loss")}


def counting() -> pd.DataFrame:
    tried = np.unique(np.geomspace(2, 200, 40).round()).astype(int)
    scores = {name: RNG.random(len(tried)) for name in ("silhouette", "gap", "stability", "score")}
    return pd.DataFrame({"n_clusters": tried, **scores})


SCORES = pd.DataFrame({"confidence": [0.5, 0.6, 0.7, 0.8], "agreement": [1.0, 1.0, 1.0, 1.0]})


class Swept:
    """What a figure needs of a sweep: 36 runs of which two have collapsed, and labels that they fit more or less."""

    labels = np.arange(300) % 5
    criteria = ("generalization", "consensus", "stability", "silhouette", "confidence", "agreement", "fit")

    def __init__(self, n_criteria: int = 7) -> None:
        rng = np.random.default_rng(0)
        self.criteria = self.criteria[:n_criteria]
        wrong = np.where(np.arange(36) < 2, 0.8, rng.uniform(0.05, 0.4, 36))
        self.labelings = np.stack([np.where(rng.random(300) < share, 4, self.labels) for share in wrong])
        scores = {name: 0.6 - wrong * 0.3 + 0.04 * rng.normal(size=36) for name in self.criteria}
        self.table = pd.DataFrame({"outer_lr": 5e-3, "n_found": np.where(wrong == 0.8, 3, 5), **scores})


CONFIDENCE = np.linspace(0.3, 1, 50)
FIGURES = {
    "image_grid": lambda: plots.image_grid(GRAY, [f"image {i}" for i in range(12)], n_cols=5, title="Twelve"),
    "cluster_gallery": lambda: plots.cluster_gallery(GRAY, np.arange(12) % 3, np.linspace(0, 1, 12), NAMES, n=5),
    "confusion": lambda: plots.confusion(Y, (Y + 1) % 3, NAMES),
    "embedding": lambda: plots.embedding(RNG.normal(size=(30, 2)), Y, NAMES, title="Points"),
    "training_curves": lambda: plots.training_curves(history(), best=2, title="A run"),
    "counting_curve": lambda: plots.counting_curve(counting(), 10, (8, 14), title="Classes"),
    "criteria": lambda: plots.criteria(SCORES, [0.5, 0.55, 0.65, 0.7], chosen=3),
    "sweep": lambda: plots.sweep(Swept(3), Swept.labels, title="A sweep"),
    "strips": lambda: plots.strips({"turtle": [0.6, 0.7, 0.8], "k-means": [0.5, 0.6]}, title="Seeds"),
    "bars": lambda: plots.bars({"before": [0.5, 0.25], "after": [0.75, 1.0]}, NAMES[:2], title="Bars"),
    "results_bars": lambda: plots.results_bars(results(), title="Results"),
    "reliability": lambda: plots.reliability(CONFIDENCE, CONFIDENCE > 0.6, title="Zero-shot"),
}

CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
EMOJI = [
    "face", "person", "hand or body part", "animal", "plant", "food or drink", "vehicle", "place", "sky or weather",
    "clock", "clothing", "sport, game or party", "object", "sign",
]  # fmt: skip
BREEDS = [
    f"{kind} of some length {i}" for i, kind in enumerate(["terrier", "shorthair cat", "Saint Bernard", "pug"] * 9)
]
METRICS = ("self_training", "fairness", "masked_image", "kept", "confidence", "agreement")


def images(n: int, side: int) -> list[Image.Image]:
    return [Image.fromarray(RNG.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(n)]


def table() -> pd.DataFrame:
    """The results of a whole series."""
    networks = ["efficientnet-lite0", "pixels"]
    rows = []
    for method, variant, spaces, n_seeds in [
        ("zero-shot", "all words, all templates", ["pocket-clip"], 1),
        *(("k-means", form, used, 5) for form in ("raw", "normalized") for used in (networks[:1], networks)),
        *(("turtle", "", used, 8) for used in (networks[:1], networks)),
        ("must", "from zero-shot", ["pocket-vit"], 3),
        ("linear-probe", "", ["clip-vit-l14", "dinov2-vit-g14"], 1),
    ]:
        row = {"method": method, "variant": variant, "spaces": spaces, "labels_used": method == "linear-probe"}
        seeds = [{**row, "value": RNG.uniform(0.6, 1), "selected_without_labels": False} for _ in range(n_seeds)]
        rows += [*seeds, *([{**seeds[0], "selected_without_labels": True}] if method == "turtle" else [])]
    return pd.DataFrame(rows)


def confused(names: list[str]) -> Figure:
    true = np.repeat(np.arange(len(names)), 20)
    return plots.confusion(true, np.where(RNG.random(len(true)) < 0.3, RNG.permutation(true), true), names)


def maps() -> Figure:
    """Two embeddings side by side whose groups lie upon each other."""
    fig, axes = plots.figure(1, 2, width=10.5, height=4)
    for ax in axes[0]:
        ax.set_title("efficientnet-lite0: 23 % of the variance", fontsize=10)
        plots.draw_embedding(ax, RNG.normal(size=(500, 2)), np.arange(500) % 10, CLOTHES)
    return fig


def records() -> list[dict[str, float]]:
    return [{"epoch": i / 8, **{name: RNG.random() for name in METRICS}} for i in range(1, 25)]


def scores(*names: str) -> Figure:
    frame = pd.DataFrame({name: RNG.random(8) for name in names})
    return plots.criteria(frame, RNG.uniform(0.7, 0.8, 8), chosen=3, title="fashion-mini, both spaces")


WRONG = [f"woman with long white hair\nis {a}\nsaid {b}" for a, b in zip(EMOJI[:12], EMOJI[2:], strict=True)]
MATCHED = [f"{a}\n→ {b}" for a, b in zip(CLOTHES * 2, [*CLOTHES[1:], *CLOTHES, *CLOTHES[:1]], strict=True)]
SEEDS = {
    name: RNG.uniform(0.5, 1, 8) for name in ("zero-shot", "k-means", "turtle", "TURTLE, raw features, cold start")
}
TYPICAL = {
    **FIGURES,
    "grid of many": lambda: plots.image_grid(images(45, 28), n_cols=15, size=0.62, title="Unlabeled images"),
    "grid, two lines": lambda: plots.image_grid(images(20, 28), MATCHED, n_cols=10, size=1.05),
    "grid, long names": lambda: plots.image_grid(images(12, 64), WRONG, n_cols=6, size=1.6, title="Wrong"),
    "gallery of clothes": lambda: plots.cluster_gallery(
        images(200, 28), np.arange(200) % 10, RNG.random(200), [f"{name} (+2.4)" for name in CLOTHES], title="Clusters"
    ),
    "gallery of emoji": lambda: plots.cluster_gallery(
        images(200, 64), np.arange(200) % 14, RNG.random(200), [f"{name} and all such" for name in EMOJI], n=12
    ),
    "gallery of numbers": lambda: plots.cluster_gallery(images(60, 8), np.arange(60) % 10, RNG.random(60), n=5),
    "confusion of digits": lambda: confused([str(digit) for digit in range(10)]),
    "confusion of clothes": lambda: confused(CLOTHES),
    "confusion of emoji": lambda: confused(EMOJI),
    "confusion of 36": lambda: confused(BREEDS),
    "confusion of 100": lambda: confused([f"some class {i}" for i in range(100)]),
    "two embeddings": maps,
    "metric_curves": lambda: plots.metric_curves(records(), METRICS, title="MUST"),
    "one metric": lambda: plots.metric_curves(records(), METRICS[:1]),
    "four metrics": lambda: plots.metric_curves(records(), METRICS[:4]),
    "sweep, seven criteria": lambda: plots.sweep(Swept(), Swept.labels, title="fashion-mini, both spaces"),
    "sweep without labels": lambda: plots.sweep(Swept(), title="36 runs"),
    "sweep, one criterion": lambda: plots.sweep(Swept(1), Swept.labels),
    "one criterion": lambda: scores("confidence"),
    "three criteria": lambda: scores("confidence", "agreement", "fit"),
    "four criteria": lambda: scores("confidence", "agreement", "fit", "generalization_score"),
    "results of a series": lambda: plots.results_bars(table(), title="fashion-mini, test split"),
    "bars of datasets": lambda: plots.bars(
        {"k-means, no labels": RNG.random(3), "linear probe, all labels": RNG.random(3), "all of them": RNG.random(3)},
        ["fashion-mini", "digits", "emoji-unseen"],
    ),
    "bars of classes": lambda: plots.bars({"before": RNG.random(14), "after": RNG.random(14)}, EMOJI, title="Classes"),
    "bars of one": lambda: plots.bars({"right": RNG.random(10)}, CLOTHES),
    "strips of methods": lambda: plots.strips(SEEDS, title="Eight restarts"),
}


def texts(fig: Figure) -> str:
    """All texts of a drawn figure, one a line."""
    fig.canvas.draw()
    return "\n".join(text.get_text() for text in fig.findobj(mpl.text.Text) if text.get_visible())
