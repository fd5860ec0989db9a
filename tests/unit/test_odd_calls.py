"""Odd calls of the public API: each ends in a result that is right, or in one clear LabkitError."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.datasets import make_blobs

import labkit as lk
from labkit.must.presets import describe, preset_for, preset_source
from labkit.turtle.selection import generalization_score, label_free_scores
from labkit.zeroshot.naming import name_by_model
from tests import tiny

mpl.use("agg")
X, Y = make_blobs(48, 5, centers=3, cluster_std=0.4, random_state=1)
X32 = X.astype(np.float32)
FRAME = pd.DataFrame(X, columns=list("abcde"))
HUGE_ROW = X.copy()
HUGE_ROW[7] = 1e30
WEIGHTS = np.stack([X[c == Y].mean(0) for c in range(3)])
PROBS = np.full((48, 3), 0.1) + 0.7 * np.eye(3)[Y]
CONFIDENCE, RIGHT = PROBS.max(1), np.arange(48) % 4 > 0
WORDS = ["ant", "bee", "cat"]
GRAY = [np.full((4, 4), i, np.uint8) for i in range(48)]
PIXELS = torch.zeros(2, 28, 28, 1, dtype=torch.uint8)
LONG = "x" * 1000
SQUARES = np.eye(3)[np.arange(60) % 3] + 0.01 * np.arange(60)[:, None] % 0.05


def turtle(**changes: Any) -> lk.Turtle:
    options = {"n_restarts": 2, "n_outer_steps": 60, "outer_lr": 0.02, "inner_lr": 0.02, "random_state": 0}
    return lk.Turtle(**{"n_clusters": 3, "device": "cpu", **options, **changes})


def official(**changes: Any) -> lk.Turtle:
    return lk.Turtle.official(3, **{"n_outer_steps": 20, "device": "cpu", **changes})


def sweep(x: Any) -> lk.turtle.Sweep:
    rates = {"outer_lr": [0.02], "inner_lr": [0.02]}
    return lk.sweep(x, 3, rates, n_outer_steps=60, random_state=0, device="cpu")


def unit_kmeans(x: Any) -> lk.KMeans:
    return lk.KMeans(3, normalize=True, random_state=0).fit(x)


FITTED = turtle().fit(X)
FITTED_FRAME = turtle().fit(FRAME)
TWO_FRAMES = turtle().fit([FRAME, FRAME])
KMEANS = lk.KMeans(3, random_state=0).fit(X)
PROBE = lk.LinearProbe().fit(X, Y)
SWEPT = sweep(X)
ZERO = lk.ZeroShot(WEIGHTS, 10.0)
PIXEL = lk.load_backbone("pixels", device="cpu")
REFUSED = None  # what is expected of a call: a LabkitError


def equals(expected: Any) -> Callable[[Any], bool]:
    return lambda found: bool(np.array_equal(np.asarray(found), np.asarray(expected)))


def near(expected: Any, tolerance: float = 1e-5) -> Callable[[Any], bool]:
    return lambda found: bool(np.allclose(found, expected, atol=tolerance, rtol=tolerance))


def drawn(found: Any) -> bool:
    return isinstance(found, Figure)


def labels_of(found: Any) -> bool:
    """Whether a fitted Turtle says what it says of the features as they are."""
    return equals(FITTED.labels_)(found.labels_) and bool(np.isfinite(found.restarts_[0][0]).all())


def quietly(call: Callable[[], Any]) -> Callable[[], Any]:
    def silent() -> Any:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return call()

    return silent


def meta(x: np.ndarray = X32) -> torch.Tensor:
    return torch.empty(x.shape, device="meta")


def tensor_that_learns(x: np.ndarray = X32) -> torch.Tensor:
    return torch.tensor(x, requires_grad=True)


def quantized(x: np.ndarray = X32) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.tensor(x), 0.1, 0, torch.qint8)


def masked(x: np.ndarray, n: int = 3) -> np.ma.MaskedArray:
    mask = np.zeros(x.shape, bool)
    mask.flat[:n] = True
    return np.ma.MaskedArray(x, mask)


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


class Hostile:
    """An object whose every conversion fails."""

    def __len__(self) -> int:
        return 48

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise KeyError("no")

    def __repr__(self) -> str:
        raise OSError("no")


GOOD_FEATURES: dict[str, Callable[[], Any]] = {
    "float32": lambda: X32,
    "tensor": lambda: torch.tensor(X),
    "a tensor that learns": tensor_that_learns,
    "a list of lists": lambda: X.tolist(),
    "a list of rows": lambda: list(X),
    "a tuple of tuples": lambda: tuple(map(tuple, X.tolist())),
    "a frame": lambda: FRAME,
    "a list of one": lambda: [X],
    "read-only": lambda: read_only(X),
    "Fortran order": lambda: np.asfortranarray(X),
    "every second row and column": lambda: np.repeat(np.repeat(X, 2, 0), 2, 1)[::2, ::2],
    "backwards twice": lambda: X[::-1].copy()[::-1],
    "big-endian": lambda: X.astype(">f8"),
    "float128": lambda: X.astype(np.longdouble),
    "objects": lambda: X.astype(object),
    "masked, nothing hidden": lambda: np.ma.MaskedArray(X, np.zeros(X.shape, bool)),
    "a conjugate view": lambda: torch.tensor(X).to(torch.complex128).conj().real,
}
BAD_FEATURES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "text": lambda: LONG,
    "bytes": lambda: b"x" * 500,
    "a number": lambda: 3.0,
    "a set": lambda: {1.0, 2.0},
    "a mapping": lambda: {"a": 1},
    "a generator": lambda: (row for row in X),
    "nothing": lambda: [],
    "no rows": lambda: X[:0],
    "no columns": lambda: X[:, :0],
    "0-d": lambda: np.array(1.0),
    "1-d": lambda: X[0],
    "a series": lambda: FRAME["a"],
    "3-d": lambda: X[None],
    "texts": lambda: X.astype(str),
    "texts as objects": lambda: X.astype(str).astype(object),
    "records": lambda: np.zeros(48, [("a", float), ("b", float)]),
    "dates": lambda: np.zeros((48, 2), "M8[s]"),
    "complex": lambda: X + 1j,
    "a complex tensor": lambda: torch.tensor(X) + 1j,
    "booleans": lambda: X > 0,
    "booleans among objects": lambda: np.array([[True, 1.0]] * 48, dtype=object),
    "pandas' NA": lambda: pd.DataFrame({"a": pd.array([1, None] * 24, "Int64"), "b": ["q"] * 48}),
    "NaN": lambda: np.where(X > 3, np.nan, X),
    "infinity": lambda: np.where(X > 3, np.inf, X),
    "masked": lambda: masked(X),
    "a list of masked": lambda: [masked(X), X],
    "a meta tensor": meta,
    "a sparse tensor": lambda: torch.tensor(X32).to_sparse(),
    "a quantized tensor": quantized,
    "a sparse matrix": lambda: sparse.csr_matrix(X),
    "a sparse array": lambda: sparse.coo_array(X),
    "ragged": lambda: [[1.0, 2.0], [3.0]],
    "beyond doubles": lambda: [[10**400, 1.0]] * 48,
    "float128 beyond doubles": lambda: X.astype(np.longdouble) * np.longdouble("1e400"),
    "decimals": lambda: np.array([[Decimal(1), Decimal(2)]] * 48),
    "objects": lambda: np.array([[object(), object()]] * 48),
    "hostile": Hostile,
    "unequal spaces": lambda: [X, X[:-1]],
    "a space and a row": lambda: [X, X[0]],
    "tensors that learn, in a list": lambda: [tensor_that_learns()[0], tensor_that_learns()[1]],
}
GOOD_LABELS: dict[str, Callable[[], Any]] = {
    "a list": lambda: Y.tolist(),
    "a tensor": lambda: torch.tensor(Y),
    "a series": lambda: pd.Series(Y, index=range(100, 148)),
    "objects": lambda: Y.astype(object),
    "uint8": lambda: Y.astype(np.uint8),
    "big-endian": lambda: Y.astype(">i4"),
    "read-only": lambda: read_only(Y),
    "nullable": lambda: pd.Series(Y, dtype="Int64"),
}
BAD_LABELS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "floats": lambda: Y + 0.5,
    "whole floats": lambda: Y.astype(float),
    "booleans": lambda: Y > 0,
    "complex": lambda: Y + 1j,
    "unknown": lambda: Y - 1,
    "masked": lambda: masked(Y),
    "2-d": lambda: Y[:, None],
    "short": lambda: Y[:-1],
    "empty": lambda: Y[:0],
    "0-d": lambda: np.array(1),
    "text": lambda: LONG,
    "a set": lambda: set(Y.tolist()),
    "a generator": lambda: (label for label in Y),
    "a meta tensor": lambda: torch.empty(48, dtype=torch.int64, device="meta"),
    "mixed": lambda: [1, "a"] * 24,
    "pandas' NA": lambda: pd.Series([1, None] * 24, dtype="Int64"),
    "hostile": Hostile,
}
Case = tuple[str, Callable[[], Any], Callable[[Any], bool] | None]


def feature_cases() -> Iterator[Case]:
    """Features of every kind, for everything that takes features."""
    takers: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
        "Turtle.fit": (lambda x: turtle().fit(x), labels_of),
        "Turtle.predict": (lambda x: FITTED.predict(x), equals(FITTED.labels_)),
        "kmeans": (lambda x: lk.KMeans(3, random_state=0).fit(x).predict(X), equals(KMEANS.predict(X))),
        "Baseline.predict": (lambda x: KMEANS.predict(x), equals(KMEANS.predict(X))),
        "linear_probe": (lambda x: lk.LinearProbe().fit(x, Y).predict(X), equals(Y)),
        "kmeans, normalized": (lambda x: unit_kmeans(x).predict(X), equals(unit_kmeans(X).labels_)),
        "generalization_score": (lambda x: generalization_score(x, Y, n_folds=3), near(1.0)),
        "label_free_scores": (lambda x: label_free_scores(FITTED, x)["agreement"], near(np.ones(2))),
        "sweep": (lambda x: lk.clustering_accuracy(Y, sweep(x).best().labels_), near(1.0)),
        "ZeroShot.predict": (lambda x: ZERO.predict(x), equals(ZERO.predict(X))),
        "ZeroShot.fit": (lambda x: lk.ZeroShot(WEIGHTS, center=True).fit(x).centered_, equals(True)),
    }
    for taker, (call, check) in takers.items():
        for kind, make in GOOD_FEATURES.items():
            zero_shot_of_one = taker.startswith("ZeroShot") and kind == "a list of one"  # it knows one space alone
            yield f"{taker}: {kind}", lambda c=call, m=make: c(m()), REFUSED if zero_shot_of_one else check
        for kind, make in BAD_FEATURES.items():
            yield f"{taker}: {kind}", lambda c=call, m=make: c(m()), REFUSED


def label_cases() -> Iterator[Case]:
    """Labels of every kind, for everything that takes labels."""
    takers: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
        "linear_probe": (lambda y: lk.LinearProbe().fit(X, y).predict(X), equals(Y)),
        "generalization_score": (lambda y: generalization_score(X, y, n_folds=3), near(1.0)),
        "clustering_accuracy": (lambda y: lk.clustering_accuracy(y, (Y + 1) % 3), near(1.0)),
        "y_pred": (lambda y: lk.clustering_accuracy(Y, y), near(1.0)),
        "accuracy": (lambda y: lk.accuracy(y, Y), near(1.0)),
        "mean_per_class_accuracy": (lambda y: lk.mean_per_class_accuracy(y, Y), near(1.0)),
        "clustering, per class": (lambda y: lk.clustering_mean_per_class_accuracy(y, (Y + 1) % 3), near(1.0)),
        "normalized_mutual_info": (lambda y: lk.normalized_mutual_info(Y, y), near(1.0)),
        "adjusted_rand_index": (lambda y: lk.adjusted_rand_index(y, Y), near(1.0)),
        "regret": (lambda y: SWEPT.regret(y)["best"].iloc[0], near(1.0)),
        "match_clusters": (lambda y: lk.match_clusters(Y, y), equals([0, 1, 2])),
    }
    for taker, (call, check) in takers.items():
        for kind, make in GOOD_LABELS.items():
            yield f"{taker}: {kind}", lambda c=call, m=make: c(m()), check
        for kind, make in BAD_LABELS.items():
            yield f"{taker}: {kind}", lambda c=call, m=make: c(m()), REFUSED


def scale_cases() -> Iterator[Case]:
    """Numbers of any scale."""
    pattern = lk.LinearProbe().fit(X, Y).predict(X)
    for scale in (1e-300, 1e-150, 1e-25, 1e-19, 1e19, 1e30, 1e150, 1e300):
        x = X * scale
        yield f"Turtle x {scale}", lambda x=x: turtle().fit(x), labels_of
        yield f"sweep x {scale}", lambda x=x: lk.clustering_accuracy(Y, sweep(x).best().labels_), near(1.0)
        yield f"official x {scale}", lambda x=x: official().fit(x), REFUSED
        yield f"official in float64 x {scale}", lambda x=x: official(dtype="float64").fit(x), REFUSED
        yield f"kmeans x {scale}", lambda x=x: lk.KMeans(3, random_state=0).fit(x).predict(x), equals(KMEANS.predict(X))
        yield f"linear_probe x {scale}", lambda x=x: lk.LinearProbe().fit(x, Y).predict(x), equals(pattern)
        yield f"generalization x {scale}", lambda x=x: generalization_score(x, Y, n_folds=3), near(1.0)
        yield f"ZeroShot.logits x {scale}", lambda x=x: ZERO.logits(x), near(ZERO.logits(X), 1e-4)
        yield f"weights x {scale}", lambda s=scale: lk.ZeroShot(WEIGHTS * s, 10.0).logits(X), near(ZERO.logits(X), 1e-4)
        yield f"top_k x {scale}", lambda x=x: ZERO.top_k(x, 2)[0], equals(ZERO.top_k(X, 2)[0])
        yield (
            f"center x {scale}",
            lambda x=x: lk.ZeroShot(WEIGHTS, 10.0, center=True).fit(x).predict(X),
            equals(lk.ZeroShot(WEIGHTS, 10.0, center=True).fit(X).predict(X)),
        )
        yield f"kmeans, normalized x {scale}", lambda x=x: unit_kmeans(x).labels_, equals(unit_kmeans(X).labels_)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.tensor(X).to(dtype)
        yield f"Turtle of {dtype}", lambda x=x: turtle().fit(x), labels_of
        yield f"official of {dtype}", lambda x=x: official().fit(x), lambda t: np.isfinite(t.predict_proba(X)).all()
    yield "sweep: one huge row", lambda: sweep(HUGE_ROW), "row 7"
    for name, make in (("Turtle", turtle), ("official", official)):
        yield f"{name}: one huge row", lambda m=make: m().fit(HUGE_ROW), "row 7"
    yield "official of zeros", lambda: official().fit(np.zeros((9, 2))), lambda t: np.isfinite(t.restarts_[0][0]).all()
    yield "kmeans: one huge row", lambda: lk.KMeans(3).fit(HUGE_ROW), "row 7"
    yield "linear_probe: one huge row", lambda: lk.LinearProbe().fit(HUGE_ROW, Y), "row 7"
    yield (
        "Turtle.predict: one huge row",
        lambda: np.delete(FITTED.predict(HUGE_ROW), 7),
        equals(np.delete(FITTED.labels_, 7)),
    )
    yield "kmeans.predict: a larger row", lambda: KMEANS.predict(X * 1e35), REFUSED
    yield "kmeans.predict: doubles", lambda: KMEANS.predict(X * 1e200), REFUSED
    yield "linear_probe.predict: doubles", lambda: PROBE.predict(X * 1e200), REFUSED
    yield "Turtle.predict: doubles", lambda: FITTED.predict(X * 1e300), REFUSED
    yield (
        "spaces of two scales",
        lambda: lk.LinearProbe().fit([X * 1e200, X * 1e-200], Y).predict([X * 1e200, X * 1e-200]),
        equals(Y),
    )
    yield (
        "Turtle: spaces of two scales",
        lambda: turtle().fit([X * 1e200, X * 1e-200]).labels_,
        equals(turtle().fit([X, X]).labels_),
    )


def column_cases() -> Iterator[Case]:
    """Frames whose columns come in another order."""
    other = FRAME[list("edcba")]
    frame_probe, frame_means = lk.LinearProbe().fit([FRAME], Y), lk.KMeans(3, random_state=0).fit(FRAME)
    yield "Turtle: columns in another order", lambda: FITTED_FRAME.predict(other), REFUSED
    yield "Turtle: columns of one of two spaces", lambda: TWO_FRAMES.predict([FRAME, other]), REFUSED
    yield "Turtle: other columns", lambda: FITTED_FRAME.predict(FRAME.rename(columns={"a": "z"})), REFUSED
    yield "Turtle: the same columns", lambda: TWO_FRAMES.predict([FRAME, FRAME]), equals(TWO_FRAMES.labels_)
    yield "kmeans: columns in another order", lambda: frame_means.predict(other), REFUSED
    yield "linear_probe: columns in another order", lambda: frame_probe.predict([other]), REFUSED
    yield "linear_probe: the same columns", lambda: frame_probe.predict([FRAME]), equals(Y)
    yield "other widths", lambda: lk.KMeans(3).fit([X, X[:, :2]]).predict([X[:, :2], X]), REFUSED


def setting_cases() -> Iterator[Case]:
    """Every setting with values that are none."""
    none_of_all = (True, "3", 2.5, -1, 0, float("nan"), float("inf"), 10**30, [3], {3}, Hostile(), 1j, Decimal(3))
    for name in ("n_clusters", "n_restarts", "n_outer_steps", "n_inner_steps", "batch_size", "n_components"):
        for value in none_of_all:
            yield f"Turtle({name}={type(value).__name__})", lambda n=name, v=value: turtle(**{n: v}).fit(X), REFUSED
    for name in ("n_clusters", "n_restarts", "n_outer_steps", "n_inner_steps"):
        yield f"Turtle({name}=None)", lambda n=name: turtle(**{n: None}).fit(X), REFUSED
    for name in ("outer_lr", "inner_lr", "entropy_weight", "feature_scale", "whitening"):
        for value in (True, "1", -1.0, float("nan"), 10**400, [1.0], 1j, Fraction(1, 2), np.ones(1), Hostile()):
            yield f"Turtle({name}={type(value).__name__})", lambda n=name, v=value: turtle(**{n: v}).fit(X), REFUSED
    for name in ("inner_start", "dtype", "device", "progress", "random_state"):
        for value in (3.5, LONG, [1], np.array(["cold", "warm"]), {}, Hostile(), torch.float32):
            yield f"Turtle({name}={type(value).__name__})", lambda n=name, v=value: turtle(**{n: v}).fit(X), REFUSED
    for value in (None, 3, True, "meta", "cuda:99", "", torch.device("meta")):
        yield f"Turtle(device={value!r})", lambda v=value: turtle(device=v).fit(X), REFUSED
    yield "Turtle(random_state=True)", lambda: turtle(random_state=True).fit(X), REFUSED
    numpys = {
        "n_clusters": np.int64(3),
        "n_restarts": np.uint8(2),
        "outer_lr": np.float32(0.02),
        "n_outer_steps": np.int16(60),
    }
    yield "Turtle of NumPy's numbers", lambda: turtle(**numpys).fit(X), labels_of
    yield "Turtle(whitening=1)", lambda: turtle(whitening=1).fit(X), lambda t: len(t.labels_) == 48
    yield "Turtle(device=torch.device)", lambda: turtle(device=torch.device("cpu")).fit(X), labels_of
    for restart in (2, -1, 9, 1.0, True, "0", [0], np.array(0)):
        yield f"restart={restart!r}", lambda r=restart: FITTED.predict(X, restart=r), REFUSED
    yield "restart of NumPy", lambda: FITTED.predict(X, restart=np.int64(FITTED.best_restart_)), equals(FITTED.labels_)
    yield "not fitted", lambda: turtle().predict(X), REFUSED

    for name, good in (("n_clusters", np.int64(3)), ("n_init", np.int64(10)), ("random_state", np.int64(0))):
        options = {"n_clusters": 3, "random_state": 0, name: good}
        yield f"kmeans({name} of NumPy)", lambda o=options: lk.KMeans(**o).fit(X).predict(X), equals(KMEANS.predict(X))
        for value in (True, 2.5, "3", -1, 10**30, [3], Hostile()):
            options = {"n_clusters": 3, "random_state": 0, name: value}
            yield f"kmeans({name}={type(value).__name__})", lambda o=options: lk.KMeans(**o).fit(X), REFUSED
    yield "kmeans(n_clusters=3.7)", lambda: lk.KMeans(3.7).fit(X), REFUSED
    for value in (3, LONG, ["raw"], None):
        yield f"kmeans(variant={type(value).__name__})", lambda v=value: lk.KMeans(3, normalize=v).fit(X), REFUSED
    for value in (True, "1", 0, -1, float("nan"), 1e300, 10**400, None, [1]):
        yield f"inverse_penalty={value!r}"[:40], lambda v=value: lk.LinearProbe(inverse_penalty=v).fit(X, Y), REFUSED
    yield (
        "linear_probe of texts",
        lambda: lk.LinearProbe().fit(X, np.array(WORDS)[Y]).predict(X),
        equals(np.array(WORDS)[Y]),
    )
    yield (
        "linear_probe of a list of texts",
        lambda: lk.LinearProbe().fit(X, [WORDS[y] for y in Y]).predict(X),
        equals(np.array(WORDS)[Y]),
    )
    yield (
        "linear_probe of categories",
        lambda: lk.LinearProbe().fit(X, pd.Categorical.from_codes(Y, WORDS)).predict(X),
        equals(np.array(WORDS)[Y]),
    )
    yield "linear_probe of one class", lambda: lk.LinearProbe().fit(X, np.zeros(48, int)), REFUSED
    yield "labels near 2**29", lambda: lk.LinearProbe().fit(X, Y + 2**29).predict(X), equals(Y + 2**29)

    for name, value in (
        ("n_folds", 2.5),
        ("n_folds", 1),
        ("n_folds", True),
        ("max_samples", 2.5),
        ("max_samples", -1),
        ("random_state", True),
        ("random_state", -1),
        ("random_state", "0"),
    ):
        yield (
            f"generalization_score({name}={value!r})",
            lambda n=name, v=value: generalization_score(X, Y, **{n: v}),
            REFUSED,
        )
    yield "generalization_score of texts", lambda: generalization_score(X, np.array(WORDS)[Y], n_folds=3), near(1.0)
    for value in (None, "turtle", turtle(), KMEANS):
        yield f"label_free_scores({type(value).__name__})", lambda v=value: label_free_scores(v, X), REFUSED


def zero_shot_cases() -> Iterator[Case]:
    for k in (2.5, True, 0, 4, -1, "2", None, 10**30):
        yield f"top_k({k!r})", lambda k=k: ZERO.top_k(X, k), REFUSED
    yield "top_k of NumPy", lambda: ZERO.top_k(X, np.int64(2))[0], equals(ZERO.top_k(X, 2)[0])
    for scale in (True, "7", 0, -1.0, float("nan"), float("inf"), 1e300, 10**400, None, [7.0], 1j):
        yield f"logit_scale={scale!r}"[:40], lambda s=scale: lk.ZeroShot(WEIGHTS, s).predict(X), REFUSED
    for center in (1, 0, None, "always", [True], np.array([True]), 0.5):
        yield f"center={center!r}", lambda c=center: lk.ZeroShot(WEIGHTS, center=c).fit(X).predict(X), REFUSED
    for class_of in (
        [0, 1],
        [0.0, 1.0, 1.0],
        ["a", "b", "c"],
        [True, False, True],
        [-1, 0, 1],
        3,
        "abc",
        [0, 2, 2],
        None,
    ):
        expected = equals(ZERO.predict(X)) if class_of is None else REFUSED
        yield f"class_of={class_of!r}", lambda c=class_of: lk.ZeroShot(WEIGHTS, 10.0, class_of=c).predict(X), expected
    for kind in ("None", "text", "1-d", "NaN", "masked", "a meta tensor", "complex", "texts", "nothing"):
        yield f"weights: {kind}", lambda m=BAD_FEATURES[kind]: lk.ZeroShot(m()).predict(X), REFUSED
    yield "center without fit", lambda: lk.ZeroShot(WEIGHTS, center=True).predict(X), REFUSED
    refitted = lk.ZeroShot(WEIGHTS, center=True).fit(X).set_params(weights=np.ones((3, 4)))
    yield "other weights than in fit", lambda: refitted.predict(X[:, :4]), REFUSED
    words = lk.Prompts.from_words(WORDS)
    for backbone in (None, "pocket-clip", 3, PIXEL):
        yield (
            f"text_classifier({type(backbone).__name__})",
            lambda b=backbone: lk.text_classifier(b, words, cache=False),
            REFUSED,
        )
        yield (
            f"ZeroShot.from_prompts({type(backbone).__name__})",
            lambda b=backbone: lk.ZeroShot.from_prompts(b, words, cache=False),
            REFUSED,
        )
        yield (
            f"name_by_model({type(backbone).__name__})",
            lambda b=backbone: name_by_model(PROBS, b, X, words),
            REFUSED,
        )
    for prompts in (None, WORDS, LONG, {}):
        yield f"prompts={type(prompts).__name__}", lambda p=prompts: lk.text_classifier(PIXEL, p), REFUSED


def metric_cases() -> Iterator[Case]:
    far = Y + 2**29
    yield "ids near 2**29", lambda: lk.clustering_accuracy(far, far), near(1.0)
    yield "clusters near 2**62", lambda: lk.clustering_accuracy(Y, (Y + 2**62)), near(1.0)
    yield "ids near 2**29, per class", lambda: lk.clustering_mean_per_class_accuracy(Y, far), near(1.0)
    yield "ids near 2**29, NMI", lambda: lk.normalized_mutual_info(far, Y), near(1.0)
    yield "ids near 2**29, ARI", lambda: lk.adjusted_rand_index(far, Y), near(1.0)
    yield "matching ids near 2**29", lambda: lk.match_clusters(Y, far), REFUSED
    yield "ids beyond int64", lambda: lk.clustering_accuracy(Y, Y.astype(np.uint64) + np.uint64(2**63)), REFUSED
    for n_classes in (True, 2.5, "3", 0, 2, -1, 10**12, 10**30, [3]):
        yield f"n_classes={n_classes!r}", lambda n=n_classes: lk.match_clusters(Y, Y, n), REFUSED
    yield "n_classes of NumPy", lambda: lk.match_clusters(Y, Y, np.int64(4)), equals([0, 1, 2])
    for average in (None, 3, "mean", ["geometric"], np.array(["geometric"])):
        yield f"average={average!r}", lambda a=average: lk.normalized_mutual_info(Y, Y, a), REFUSED
    for n_bins in (2.5, True, "3", 0, -1, 10**12, None, [10]):
        yield f"n_bins={n_bins!r}", lambda n=n_bins: lk.calibration(CONFIDENCE, RIGHT, n), REFUSED
        yield f"ECE of n_bins={n_bins!r}", lambda n=n_bins: lk.expected_calibration_error(CONFIDENCE, RIGHT, n), REFUSED
    yield (
        "n_bins of NumPy",
        lambda: lk.calibration(CONFIDENCE, RIGHT, np.int64(10))[0],
        equals(lk.calibration(CONFIDENCE, RIGHT)[0]),
    )
    for kind, confidence in {
        "text": LONG,
        "texts": CONFIDENCE.astype(str),
        "booleans": CONFIDENCE > 0,
        "complex": CONFIDENCE + 0j,
        "masked": masked(CONFIDENCE),
        "NaN": CONFIDENCE * np.nan,
        "above 1": CONFIDENCE * 1e300,
        "below 0": -CONFIDENCE,
        "2-d": CONFIDENCE[:, None],
        "short": CONFIDENCE[:-1],
        "empty": CONFIDENCE[:0],
        "None": None,
    }.items():
        yield f"confidence: {kind}", lambda s=confidence: lk.calibration(s, RIGHT), REFUSED
    for kind, right in {
        "ints": RIGHT.astype(int),
        "texts": RIGHT.astype(str),
        "masked": masked(RIGHT),
        "None": None,
        "objects": RIGHT.astype(object),
    }.items():
        yield f"correct: {kind}", lambda r=right: lk.calibration(CONFIDENCE, r), REFUSED
    expected = lk.calibration(CONFIDENCE, RIGHT)[0]
    yield (
        "calibration of tensors",
        lambda: lk.calibration(tensor_that_learns(CONFIDENCE), torch.tensor(RIGHT))[0],
        equals(expected),
    )
    yield "calibration of series", lambda: lk.calibration(pd.Series(CONFIDENCE), pd.Series(RIGHT))[0], equals(expected)


def naming_cases() -> Iterator[Case]:
    names = lk.name_clusters(PROBS, PROBS)
    for kind, probs in {
        "None": None,
        "text": LONG,
        "texts": PROBS.astype(str),
        "1-d": PROBS[0],
        "empty": PROBS[:0],
        "masked": masked(PROBS),
        "complex": PROBS + 0j,
        "booleans": PROBS > 0.5,
        "NaN": PROBS * np.nan,
        "not normalized": PROBS * 1e300,
        "tiny": PROBS * 1e-300,
        "ragged": [[1.0], [0.5, 0.5]],
        "a meta tensor": meta(PROBS),
        "sparse": sparse.csr_matrix(PROBS),
        "a generator": (row for row in PROBS),
        "short": PROBS[:-1],
    }.items():
        yield f"name_clusters: {kind}", lambda p=probs: lk.name_clusters(p, PROBS), REFUSED
        yield f"zero_shot_probs: {kind}", lambda p=probs: lk.name_clusters(PROBS, p), REFUSED
    for n in (2.5, True, "3", -1, None):
        yield f"n_evidence={n!r}", lambda n=n: lk.name_clusters(PROBS, PROBS, n_evidence=n), REFUSED
    yield (
        "n_evidence of NumPy",
        lambda: lk.name_clusters(PROBS, PROBS, n_evidence=np.int64(4)).evidence.shape,
        equals((3, 4)),
    )
    yield (
        "more evidence than images",
        lambda: lk.name_clusters(PROBS, PROBS, n_evidence=10**6).evidence.shape,
        equals((3, 48)),
    )
    yield "Names.predict: other clusters", lambda: names.predict(np.full((4, 2), 0.5)), REFUSED
    yield "Names.predict of a tensor", lambda: names.predict(torch.tensor(PROBS, requires_grad=True)), equals(Y)
    yield "Names.predict of a frame", lambda: names.predict(pd.DataFrame(PROBS)), equals(Y)


def prompt_cases() -> Iterator[Case]:
    for kind, classes in {
        "a set": {"ant", "bee"},
        "a frozenset": frozenset(WORDS),
        "None": None,
        "a number": 3,
        "text": LONG,
        "bytes": b"ant",
        "numbers": [1, 2],
        "a generator": (word for word in WORDS),
        "blanks": ["ant", " "],
        "twice": ["ant", "ant"],
        "lists": [["ant"], ["bee"]],
        "2-d": np.array([WORDS]),
        "sets of words": {"ant": {"a", "b"}, "bee": {"c"}},
        "no words": {"ant": []},
        "a text of words": {"ant": "bee"},
        "None among": ["ant", None],
        "hostile": Hostile(),
        "0-d": np.array("ant"),
        "no words at all": {"ant": None},
    }.items():
        yield f"Prompts.from_words({kind})", lambda c=classes: lk.Prompts.from_words(c), REFUSED
    for templates in ({"a {}."}, "a {}.", ["a"], [], [3], None, (t for t in ["{}"]), 3):
        yield f"templates={type(templates).__name__}", lambda t=templates: lk.Prompts.from_words(WORDS, t), REFUSED
    for words in (None, 3, "others", ["synonyms"], np.array(["synonyms", "members"])):
        yield f"relation={type(words).__name__}", lambda w=words: lk.Prompts.from_words(WORDS, relation=w), REFUSED
    for classes in (np.array(WORDS), pd.Series(WORDS), pd.Index(WORDS), tuple(WORDS), dict.fromkeys(WORDS).keys()):
        yield (
            f"Prompts.from_words({type(classes).__name__})",
            lambda c=classes: lk.Prompts.from_words(c).classes,
            equals(WORDS),
        )
    for arguments in (
        (None, None),
        ("ab", ["a", "b"]),
        (["a", "b"], [["a"]]),
        (["a"], ["a"]),
        (["a"], [[1]]),
        (["a"], [["a"]], "{}"),
    ):
        yield f"Prompts{arguments}", lambda a=arguments: lk.Prompts(*a), REFUSED
    for manifest in (None, 3, "", LONG, "no such", Path("/no/such.yaml"), [], b"digits"):
        yield f"load_prompts({str(manifest)[:20]!r})", lambda m=manifest: lk.load_prompts(m), REFUSED


def backbone_cases() -> Iterator[Case]:
    for name in (
        None,
        7,
        "",
        LONG,
        "open_clip:",
        "open_clip:x",
        "open_clip:/",
        "open_clip:no/such",
        "timm:",
        "timm:../x",
        "timm:no_such",
        b"pixels",
        ["pixels"],
        ":",
        "pixels ",
        "\0",
    ):
        yield f"load_backbone({str(name)[:20]!r})", lambda n=name: lk.load_backbone(n, device="cpu"), REFUSED
    odd = {
        "image_size": (-1, 0, True, 2.5, "28", 10**9, 10**30, float("nan"), [28], None, np.int64(28)),
        "geometry": ("x", 28, [28, 28], True, None),
        "pooling": (3, "avg", True, None),
        "dtype": (7, "int8", True, [], torch.float32, None),
        "device": (None, 3, "cuda:99", "", True, "meta", [], "abacus", LONG),
    }
    for setting, values in odd.items():
        for value in values:
            fine = (value is None and setting != "device") or (isinstance(value, np.integer))
            expected = (lambda found: found.fingerprint == PIXEL.fingerprint) if fine else REFUSED
            options = {"device": "cpu", setting: value}
            yield (
                f"load_backbone({setting}={str(value)[:20]!r})",
                lambda o=options: lk.load_backbone("pixels", **o),
                expected,
            )
    for name, options in (
        ("hog", {"image_size": 0}),
        ("hog", {"image_size": 33}),
        ("efficientnet-lite0", {"pooling": 3}),
        ("efficientnet-lite0", {"geometry": lk.Geometry(10**9, 10**9)}),
    ):
        yield (
            f"load_backbone({name}, {options})",
            lambda n=name, o=options: lk.load_backbone(n, device="cpu", **o),
            REFUSED,
        )
    for kind, pixels in {
        "floats": PIXELS.float(),
        "ints": PIXELS.int(),
        "booleans": PIXELS.bool(),
        "a list": [1, 2],
        "an array": PIXELS.numpy(),
        "None": None,
        "text": LONG,
        "3-d": PIXELS[0],
        "5-d": PIXELS[None],
        "three channels": PIXELS.expand(-1, -1, -1, 3),
        "channels first": PIXELS.permute(0, 3, 1, 2),
        "another size": PIXELS[:, :20, :20],
        "no images": PIXELS[:0],
        "meta": PIXELS.to("meta"),
        "sparse": PIXELS.to_sparse(),
        "an image": GRAY[0],
    }.items():
        yield f"encode_image({kind})", lambda p=pixels: PIXEL.encode_image(p), REFUSED
    yield "encode_image(not contiguous)", lambda: PIXEL.encode_image(PIXELS.transpose(1, 2)), equals(np.zeros((2, 784)))
    for texts in ("a cat", [], ["a", 3], None, 3, {"a"}, [None], b"a"):
        yield f"encode_text({texts!r}) without texts", lambda t=texts: PIXEL.encode_text(t), REFUSED
    yield "logit_scale without texts", lambda: PIXEL.logit_scale, REFUSED
    for arguments in ((0, 0), (True, True), (8.0, 8), ("8", 8), (8, 9), (8, 8, "cubic"), (None, 8), (-1, -1)):
        yield f"Geometry{arguments}", lambda a=arguments: lk.Geometry(*a), REFUSED


def must_cases() -> Iterator[Case]:
    whole = ("epochs", "batch_size", "accumulate", "mask_block", "ema_warmup", "patience")
    shares = ("threshold", "ema_decay", "ema_decay_end", "mask_ratio", "fairness_momentum", "layer_decay", "crop")
    weights = (
        "self_training_weight",
        "fairness_weight",
        "masked_image_weight",
        "alignment_weight",
        "weight_decay",
        "lr",
    )
    for name in whole:
        for value in (True, 2.5, "3", -1, 10**30, float("nan"), [3], np.float64(2)):
            yield f"MustConfig({name}={value!r})", lambda n=name, v=value: lk.MustConfig(**{n: v}), REFUSED
    for name in (*shares, *weights):
        for value in (True, "0.5", -0.1, float("inf"), 10**400, [0.5], 0.5j, Fraction(1, 2)):
            yield f"MustConfig({name}={str(value)[:9]!r})", lambda n=name, v=value: lk.MustConfig(**{n: v}), REFUSED
    for name in ("flip", "slow_mask_token", "prior", "augment"):
        for value in (1, 0.5, ["uniform"], np.array(["uniform", "estimated"]), Hostile()):
            yield f"MustConfig({name}={type(value).__name__})", lambda n=name, v=value: lk.MustConfig(**{n: v}), REFUSED
    yield "MustConfig.replace(unknown)", lambda: lk.MustConfig().replace(**{LONG: 3}), REFUSED
    for dataset, backbone in (
        (None, None),
        (3, "clip-vit-b16"),
        ("digits", 3),
        ([], "pocket-vit"),
        ("", ""),
        (LONG, LONG),
        ("digits", PIXEL),
        (None, "pixels"),
    ):
        yield (
            f"preset_for({str(dataset)[:9]!r}, {str(backbone)[:9]!r})",
            lambda d=dataset, b=backbone: preset_for(d, b),
            REFUSED,
        )
    for key in (None, "nonsense", 3, [], LONG):
        yield f"preset_source({str(key)[:9]!r})", lambda k=key: preset_source(k), REFUSED
    yield "describe(None)", lambda: describe(None), REFUSED
    for images in (None, 3, [], X, GRAY, "digits", lk.Prompts.from_words(WORDS)):
        yield (
            f"MUST.fit({type(images).__name__})",
            lambda i=images: lk.MUST(PIXEL, lk.Prompts.from_words(WORDS)).fit(i),
            REFUSED,
        )
    for arguments in (
        (None, None),
        ("pixels", WORDS),
        (3, lk.Prompts.from_words(WORDS)),
        (PIXEL, None),
        (PIXEL, lk.Prompts.from_words(WORDS), "config"),
    ):
        yield f"MUST({[type(a).__name__ for a in arguments]})", lambda a=arguments: lk.MUST(*a).fit(IMAGES), REFUSED
    for options in (
        {"random_state": True},
        {"random_state": "0"},
        {"n_workers": -1},
        {"n_workers": 2.5},
        {"device": None},
        {"device": 3},
    ):
        yield (
            f"MUST({options})",
            lambda o=options: lk.MUST(PIXEL, lk.Prompts.from_words(WORDS), **o).fit(IMAGES),
            REFUSED,
        )
    yield "MUST.predict before fit", lambda: lk.MUST(PIXEL, lk.Prompts.from_words(WORDS)).predict(IMAGES), REFUSED
    yield "MUST.save before fit", lambda: lk.MUST(PIXEL, lk.Prompts.from_words(WORDS)).save("x"), REFUSED
    yield "Turtle.save before fit", lambda: turtle().save("x"), REFUSED
    for path in (None, 3, "", "/no/such/file", LONG, b"x", Path(tempfile.gettempdir()), "\0", []):
        yield f"Turtle.load({str(path)[:9]!r})", lambda p=path: lk.Turtle.load(p), REFUSED
        yield f"MUST.load({str(path)[:9]!r})", lambda p=path: lk.MUST.load(p), REFUSED
    for path in (None, 3, "", "\0", Path(tempfile.gettempdir())):
        yield f"Turtle.save({str(path)[:9]!r})", lambda p=path: FITTED.save(p), REFUSED


IMAGES = lk.ImageDataset(array=np.zeros((4, 28, 28), np.uint8), labels=np.arange(4) % 2, classes=["a", "b"])


def data_cases() -> Iterator[Case]:
    for name in (
        None,
        3,
        "",
        LONG,
        "no such",
        "../x",
        "\0",
        Path("/no/such.yaml"),
        b"digits",
        [],
        Path(__file__).parent,
    ):
        yield f"load_manifest({str(name)[:9]!r})", lambda n=name: lk.load_manifest(n), REFUSED
        yield f"load_dataset({str(name)[:9]!r})", lambda n=name: lk.load_dataset(n, "train"), REFUSED
    for split in (None, 3, "", "validation", LONG, ["train"]):
        yield f"load_dataset(split={str(split)[:9]!r})", lambda s=split: lk.load_dataset("digits", s), REFUSED
    for split in (3, "", "validation", LONG, ["train"]):
        yield (
            f"extract_features(split={str(split)[:9]!r})",
            lambda s=split: lk.extract_features(PIXEL, lk.load_manifest("digits"), split=s, cache=False),
            REFUSED,
        )
    for options in (
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"dtype": "int8"},
        {"dtype": None},
        {"dtype": []},
    ):
        yield (
            f"extract_features({options})",
            lambda o=options: lk.extract_features(PIXEL, lk.load_manifest("digits"), cache=False, **o),
            REFUSED,
        )
    for backbone, manifest in (
        (None, "digits"),
        ("pixels", lk.load_manifest("digits")),
        (PIXEL, None),
        (PIXEL, 3),
        (PIXEL, X),
    ):
        yield (
            f"extract_features({type(backbone).__name__}, {type(manifest).__name__})",
            lambda b=backbone, m=manifest: lk.extract_features(b, m, cache=False),
            REFUSED,
        )
    for options in (
        {},
        {"array": X},
        {"array": "x", "labels": [0], "classes": []},
        {"array": np.zeros((2, 4, 4), np.uint8), "labels": [0], "classes": ["a"]},
        {"array": np.zeros((1, 4, 4), np.uint8), "labels": [0.5], "classes": ["a"]},
        {"array": np.zeros((1, 4, 4), np.uint8), "labels": [7], "classes": ["a"]},
        {"array": None, "labels": None, "classes": None},
        {"array": np.zeros((1, 4, 4)), "labels": [0], "classes": ["a"]},
    ):
        yield (
            f"ImageDataset({sorted(options)})",
            lambda o=options: lk.ImageDataset(**{"labels": [0], "classes": ["a"], **o}),
            REFUSED,
        )
    for profile in (None, 3, "", LONG, ["pocket"]):
        yield f"setup({str(profile)[:9]!r})", lambda p=profile: lk.setup(p), REFUSED
    for exercise in (None, 3, "", LONG, "99.9"):
        yield f"check({str(exercise)[:9]!r})", lambda e=exercise: lk.check(e, 3), REFUSED
        yield f"hint({str(exercise)[:9]!r})", lambda e=exercise: lk.hint(e), REFUSED
    for figure, alt in ((None, "text"), (Figure(), ""), (Figure(), None), ("figure", "text")):
        yield f"show({type(figure).__name__}, {alt!r})", lambda f=figure, a=alt: lk.show(f, alt=a), REFUSED


def plot_cases() -> Iterator[Case]:
    plots, points = lk.plots, X[:, :2]
    history = {name: np.ones((5, 2)) for name in ("inner_loss", "entropy", "outer_loss")}
    scores = pd.DataFrame({"confidence": [0.5, 0.6], "agreement": [1.0, 1.0]})
    bars = pd.DataFrame(
        [
            {
                "method": "turtle",
                "variant": "",
                "spaces": ["a"],
                "value": 0.5,
                "selected_without_labels": False,
                "labels_used": False,
            }
        ]
    )
    refused: dict[str, Callable[[], Any]] = {
        "image_grid of nothing": lambda: plots.image_grid([]),
        "image_grid of None": lambda: plots.image_grid(None),
        "image_grid of text": lambda: plots.image_grid(LONG),
        "image_grid of texts": lambda: plots.image_grid(["x"]),
        "image_grid of rows": lambda: plots.image_grid(X),
        "image_grid of complex": lambda: plots.image_grid([X + 1j]),
        "image_grid of five channels": lambda: plots.image_grid([np.zeros((4, 4, 5))]),
        "image_grid of empty images": lambda: plots.image_grid([np.zeros((0, 0))]),
        "image_grid, few titles": lambda: plots.image_grid(GRAY, ["one"]),
        "image_grid, n_cols": lambda: plots.image_grid(GRAY[:2], n_cols=2.5),
        "image_grid, no n_cols": lambda: plots.image_grid(GRAY[:2], n_cols=0),
        "image_grid, size": lambda: plots.image_grid(GRAY[:2], size=-1),
        "image_grid, size of NaN": lambda: plots.image_grid(GRAY[:2], size=float("nan")),
        "gallery of nothing": lambda: plots.cluster_gallery([], [], []),
        "gallery, short labels": lambda: plots.cluster_gallery(GRAY, Y[:-1], CONFIDENCE),
        "gallery, long confidence": lambda: plots.cluster_gallery(GRAY[:-1], Y[:-1], CONFIDENCE),
        "gallery, floats": lambda: plots.cluster_gallery(GRAY, Y + 0.5, CONFIDENCE),
        "gallery, NaN": lambda: plots.cluster_gallery(GRAY, Y, CONFIDENCE * np.nan),
        "gallery, few names": lambda: plots.cluster_gallery(GRAY, Y, CONFIDENCE, ["a"]),
        "gallery, unknown with names": lambda: plots.cluster_gallery(GRAY, Y - 1, CONFIDENCE, WORDS),
        "gallery, n": lambda: plots.cluster_gallery(GRAY, Y, CONFIDENCE, n=True),
        "confusion of nothing": lambda: plots.confusion([], [], []),
        "confusion, no classes": lambda: plots.confusion(Y, Y, []),
        "confusion, few classes": lambda: plots.confusion(Y, Y, ["a"]),
        "confusion, unknown classes": lambda: plots.confusion(Y - 1, Y, WORDS),
        "confusion, predictions beyond": lambda: plots.confusion(Y, Y + 3, WORDS, matched=False),
        "confusion, short": lambda: plots.confusion(Y, Y[:-1], WORDS, matched=False),
        "confusion, floats": lambda: plots.confusion(Y, Y + 0.5, WORDS, matched=False),
        "confusion, numbers as names": lambda: plots.confusion(Y, Y, [1, 2, 3]),
        "embedding of nothing": lambda: plots.embedding([], []),
        "embedding in three directions": lambda: plots.embedding(X[:, :3], Y),
        "embedding, short": lambda: plots.embedding(points, Y[:-1]),
        "embedding, NaN": lambda: plots.embedding(points * np.nan, Y),
        "embedding, few names": lambda: plots.embedding(points, Y, ["a"]),
        "embedding, texts": lambda: plots.embedding(points.astype(str), Y),
        "curves of nothing": lambda: plots.training_curves({}),
        "curves of None": lambda: plots.training_curves(None),
        "curves, 1-d": lambda: plots.training_curves({name: np.ones(5) for name in history}),
        "curves, best": lambda: plots.training_curves(history, best=2),
        "curves, best of half": lambda: plots.training_curves(history, best=0.5),
        "curves of unequal length": lambda: plots.training_curves({**history, "entropy": np.ones((4, 2))}),
        "metric_curves of None": lambda: plots.metric_curves(None, ["loss"]),
        "metric_curves without epochs": lambda: plots.metric_curves([{"loss": 1.0}], ["loss"]),
        "metric_curves, a text": lambda: plots.metric_curves([{"epoch": 1, "loss": 1.0}], "loss"),
        "criteria of nothing": lambda: plots.criteria(pd.DataFrame(), []),
        "criteria of None": lambda: plots.criteria(None, [0.5]),
        "criteria, short": lambda: plots.criteria(scores, [0.5]),
        "criteria, texts": lambda: plots.criteria(scores.astype(str), [0.5, 0.6]),
        "criteria, chosen": lambda: plots.criteria(scores, [0.5, 0.6], chosen=2),
        "bars of None": lambda: plots.results_bars(None),
        "bars without columns": lambda: plots.results_bars(pd.DataFrame({"method": ["turtle"]})),
        "reliability of nothing": lambda: plots.reliability([], []),
        "reliability, n_bins": lambda: plots.reliability(CONFIDENCE, RIGHT, n_bins=2.5),
        "reliability, short": lambda: plots.reliability(CONFIDENCE, RIGHT[:-1]),
        "figure without rows": lambda: plots.figure(0, 1),
        "figure of a million": lambda: plots.figure(1000, 1000),
        "figure of NaN": lambda: plots.figure(width=float("nan")),
        "to_png of None": lambda: plots.to_png(None),
        "color of text": lambda: plots.color("red"),
        "color of half": lambda: plots.color(0.5),
        "explore nothing": lambda: lk.widgets.explore(None, alt="x"),
        "explore without values": lambda: lk.widgets.explore(lambda step: Figure(), alt="x", step=[]),
        "explore a generator": lambda: lk.widgets.explore(lambda step: Figure(), alt="x", step=(i for i in range(3))),
        "explore a number": lambda: lk.widgets.explore(lambda step: Figure(), alt="x", step=3),
        "LiveCurves of a text": lambda: lk.widgets.LiveCurves("loss"),
        "LiveCurves of no time": lambda: lk.widgets.LiveCurves(seconds=None),
    }
    for name, call in refused.items():
        yield name, call, REFUSED
    yield "image_grid of tensors", lambda: plots.image_grid(torch.zeros(2, 4, 4)), drawn
    yield "image_grid of NaN", lambda: plots.image_grid([np.full((4, 4), np.nan)]), drawn
    yield "gallery of tensors", lambda: plots.cluster_gallery(GRAY, torch.tensor(Y), torch.tensor(CONFIDENCE)), drawn
    yield "gallery of unknown", lambda: plots.cluster_gallery(GRAY, Y - 1, CONFIDENCE), drawn
    yield "confusion of tensors", lambda: plots.confusion(torch.tensor(Y), Y.tolist(), WORDS), drawn
    yield "embedding of one point", lambda: plots.embedding(points[:1], [-1], ["a"]), drawn
    yield "embedding of unknown points", lambda: plots.embedding(points, np.full(48, -1), WORDS), drawn
    yield "curves of a list", lambda: plots.training_curves({name: [[1.0, 2.0]] for name in history}), drawn
    yield "metric_curves of nothing", lambda: plots.metric_curves([], []), drawn
    yield "bars of nothing", lambda: plots.results_bars(bars[:0]), drawn
    yield "criteria, chosen of NumPy", lambda: plots.criteria(scores, [0.5, 0.6], chosen=np.int64(1)), drawn


CASES = [
    case
    for cases in (
        feature_cases,
        label_cases,
        scale_cases,
        column_cases,
        setting_cases,
        zero_shot_cases,
        metric_cases,
        naming_cases,
        prompt_cases,
        backbone_cases,
        must_cases,
        data_cases,
        plot_cases,
    )
    for case in cases()
]

PARAMETERS = [pytest.param(*case[1:], id=case[0]) for case in CASES]


def is_clear(message: str) -> bool:
    """Whether a message is one to three sentences, and quotes at most 60 characters of what was given."""
    ends = re.findall(r"[.?!](?=\s+[A-Z]|\s*$)", message)
    return 1 <= len(ends) <= 3 and not re.search(r"(.)\1{60}", message) and len(message) < 1200


@pytest.mark.parametrize(("call", "expected"), PARAMETERS)
def test_an_odd_call_ends_in_what_is_right_or_in_one_clear_error(
    call: Callable[[], Any], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    if callable(expected):
        assert expected(quietly(call)())
        return
    with pytest.raises(lk.LabkitError) as caught:
        quietly(call)()
    assert is_clear(str(caught.value)), str(caught.value)
    assert expected is None or expected in str(caught.value)


def test_an_image_text_model_refuses_odd_pixels_and_texts(tiny_model: Path) -> None:
    backbone = lk.load_backbone(tiny.NAME, device="cpu")
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    assert backbone.encode_image(pixels[..., :1]).shape == (2, backbone.dim)
    for wrong in (pixels[:, :8], pixels[..., :2], pixels.float(), pixels.numpy(), [pixels]):
        with pytest.raises(lk.LabkitError) as caught:
            backbone.encode_image(wrong)  # type: ignore[arg-type]
        assert is_clear(str(caught.value))
    expected = backbone.encode_text(["a cat", "a dog"])
    for texts in (("a cat", "a dog"), np.array(["a cat", "a dog"]), pd.Series(["a cat", "a dog"], index=[5, 6])):
        assert torch.equal(backbone.encode_text(texts), expected)
    for odd in (
        "a cat",
        [],
        {"a cat"},
        {"a cat": 1},
        ["a cat", None],
        [["a cat"]],
        3,
        None,
        np.array("a cat"),
        iter("a"),
    ):
        with pytest.raises(lk.LabkitError, match="Expected a list of at least one text"):
            backbone.encode_text(odd)  # type: ignore[arg-type]
    for size in (0, True, 2.5, None):
        with pytest.raises(lk.LabkitError, match="batch_size is"):
            backbone.encode_text(["a cat"], batch_size=size)
