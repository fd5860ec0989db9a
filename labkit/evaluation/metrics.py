"""How well predictions agree with the true classes; labels are used here and nowhere before.

A classifier predicts classes: `accuracy` and `mean_per_class_accuracy` compare them as they are. A labeling numbers its
clusters arbitrarily: `clustering_accuracy` and `clustering_mean_per_class_accuracy` first find the one-to-one matching
of clusters to classes that makes most samples right (Kuhn, 1955: the Hungarian method); NMI and ARI need none. A
classifier that is scored after a matching is flattered.

Everywhere y_true holds classes 0 … C−1 and y_pred classes or clusters 0, 1, …, both (n,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as _sklearn

from labkit._inputs import is_whole, plain_array, real_array
from labkit.errors import DataError, quote

LARGEST_TABLE = 2**28  # entries of a table of classes by clusters: 2 GiB
SMALL_TABLE = 2**22  # beyond, numbers that do not occur are left out where that changes no result
LARGEST_LABEL = 2**63 - 1
MOST_BINS = 10**6


def match_clusters(y_true: ArrayLike, y_pred: ArrayLike, n_classes: int | None = None) -> np.ndarray:
    """The class of each cluster under the one-to-one matching with the most samples right.

    Args:
        y_true: class of each sample, (n,).
        y_pred: cluster of each sample, (n,).
        n_classes: C; needed only where the last classes do not occur in y_true.

    Returns:
        int64 array `mapping`, one entry for each cluster up to the largest in y_pred: `mapping[y_pred]` are the
        predicted classes. A cluster that no class is left for maps to −1.

    Raises:
        DataError: the labels differ in length, are empty, not whole numbers, negative (−1 stands for unknown), or so
            large that a table of all numbers up to them does not fit.
    """
    true, pred = _read(y_true, y_pred)
    found = int(true.max()) + 1
    if n_classes is not None and not is_whole(n_classes, found, LARGEST_LABEL):
        raise DataError(
            f"y_true holds class {found - 1} but n_classes is {quote(n_classes)}. Expected a whole number of at least "
            f"{found}."
        )
    counts = _contingency(true, pred, found if n_classes is None else int(n_classes))  # (C, clusters)
    classes, clusters = linear_sum_assignment(counts, maximize=True)
    mapping = np.full(counts.shape[1], -1, dtype=np.int64)
    mapping[clusters] = classes
    return mapping


def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Fraction of samples whose predicted class is their own, in [0, 1]; nothing is matched.

    Raises:
        DataError: as `match_clusters`.
    """
    true, pred = _read(y_true, y_pred)
    return float(np.mean(pred == true))


def mean_per_class_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Mean over the classes in y_true of the fraction predicted right (balanced accuracy), in [0, 1].

    Large and small classes count the same; nothing is matched.
    """
    true, pred = _read(y_true, y_pred)
    return _mean_per_class(true, pred == true)


def clustering_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Fraction of samples whose cluster is matched to their class, in [0, 1].

    The matching is made on the same samples, as in the TURTLE paper; with few samples a class this flatters.
    """
    true, pred = _renumbered(*_read(y_true, y_pred))
    return float(np.mean(match_clusters(true, pred)[pred] == true))


def clustering_mean_per_class_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Mean over the classes in y_true of the fraction of the class that is right after matching, in [0, 1].

    Large and small classes count the same; the matching is that of `clustering_accuracy`.
    """
    true, pred = _renumbered(*_read(y_true, y_pred))
    return _mean_per_class(true, match_clusters(true, pred)[pred] == true)


def normalized_mutual_info(y_true: ArrayLike, y_pred: ArrayLike, average: str = "geometric") -> float:
    """Mutual information of classes and clusters over the mean of their entropies, in [0, 1].

    `average` is "geometric" (as in the TURTLE paper; Strehl & Ghosh, 2002) or "arithmetic" (scikit-learn's default).
    """
    if not isinstance(average, str) or average not in ("geometric", "arithmetic"):
        raise DataError(f'average is {quote(average)}. Expected "geometric" or "arithmetic".')
    value = _sklearn.normalized_mutual_info_score(*_read(y_true, y_pred), average_method=average)
    return float(np.clip(value, 0.0, 1.0))  # rounding may leave 1 + 1e-16


def adjusted_rand_index(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Rand index adjusted for chance (Hubert & Arabie, 1985): 1 for the same partition, about 0 for a random one.

    The one score here that can be negative: worse than chance goes down to −0.5.
    """
    return float(_sklearn.adjusted_rand_score(*_read(y_true, y_pred)))


def calibration(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often predictions of about the same confidence are right (Guo et al., ICML 2017, section 2).

    Args:
        confidence: probability of the predicted class, (n,) in [0, 1].
        correct: whether the prediction is right, (n,) of bool.
        n_bins: M; bin m holds the confidences in ((m−1)/M, m/M], the first one 0 as well.

    Returns:
        For each bin: how many predictions it holds (M,) int64, their mean confidence (M,) and the fraction that is
        right (M,); NaN where it holds none.

    Raises:
        DataError: the arrays differ in length, are empty, or hold something else.
    """
    conf = real_array("confidence", confidence, "Expected probabilities, (n,).", DataError).astype(np.float64)
    right = plain_array("correct", correct, "Expected whether each prediction is right, (n,) of bool.", DataError)
    if conf.ndim != 1 or len(conf) == 0 or conf.shape != right.shape:
        raise DataError(
            f"confidence has shape {conf.shape} and correct {right.shape}. Expected one number for each prediction, "
            "(n,) with n ≥ 1."
        )
    if right.dtype != bool:
        raise DataError(f"correct holds {right.dtype}. Expected whether each prediction is right: y_pred == y_true.")
    if not (np.isfinite(conf).all() and conf.min() >= 0 and conf.max() <= 1 + 1e-6):
        raise DataError(f"confidence holds numbers from {conf.min()} to {conf.max()}. Expected probabilities.")
    if not is_whole(n_bins, 1, MOST_BINS):
        raise DataError(f"n_bins is {quote(n_bins)}. Expected a whole number from 1 to {MOST_BINS:,}.")
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, conf)
    counts = np.bincount(bins, minlength=n_bins)
    total = np.where(counts > 0, counts, np.nan)
    mean_confidence, accuracy = (np.bincount(bins, values, n_bins) / total for values in (conf, right))
    return counts, mean_confidence, accuracy


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over the bins of `calibration`, each weighted by what it holds.

    ECE = Σ_m |B_m|/n · |acc(B_m) − conf(B_m)| (Guo et al., 2017, equation 3), in [0, 1]; 0 is perfect.
    """
    counts, conf, right = calibration(confidence, correct, n_bins)
    return float(np.nansum(counts * np.abs(right - conf)) / counts.sum())


def _mean_per_class(true: np.ndarray, right: np.ndarray) -> float:
    """Mean over the classes that occur of the fraction of their samples that is right; both (n,)."""
    of_class = np.unique(true, return_inverse=True)[1]
    return float(np.mean(np.bincount(of_class, weights=right) / np.bincount(of_class)))


def _contingency(true: np.ndarray, pred: np.ndarray, n_classes: int) -> np.ndarray:
    """How many samples of each class fell into each cluster, (classes, clusters).

    Raises:
        DataError: there are too many of both for a table.
    """
    n_clusters = int(pred.max()) + 1
    if n_classes * n_clusters > LARGEST_TABLE:
        raise DataError(
            f"the labels ask for a table of {n_classes:,} classes by {n_clusters:,} clusters. Expected at most "
            f"{LARGEST_TABLE:,} entries: number both from 0 without gaps, np.unique(labels, return_inverse=True)[1]."
        )
    return np.bincount(true * n_clusters + pred, minlength=n_classes * n_clusters).reshape(n_classes, n_clusters)


def _renumbered(true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both from 0 without gaps where a table of all numbers would be large; else as they are.

    Not always: of several matchings that are as good, another might be found.
    """
    if (int(true.max()) + 1) * (int(pred.max()) + 1) <= SMALL_TABLE:
        return true, pred
    return np.unique(true, return_inverse=True)[1], np.unique(pred, return_inverse=True)[1]


def read_labels(name: str, given: ArrayLike) -> np.ndarray:
    """Labels as an int64 array (n,), or a DataError that says what is wrong."""
    expected = "Expected whole numbers: np.unique(names, return_inverse=True)[1]."
    array = plain_array(name, given, expected, DataError)
    if array.ndim != 1 or len(array) == 0:
        raise DataError(f"{name} has shape {array.shape}. Expected one label for each sample, (n,) with n ≥ 1.")
    if array.dtype == object:
        array = real_array(name, array, expected, DataError)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} holds {array.dtype}. {expected}")
    if array.min() < 0:
        cure = "−1 stands for an unknown class: score only the samples whose class is known (y >= 0)"
        raise DataError(f"{name} holds {array.min()}. Expected labels from 0; {cure}.")
    if array.max() > LARGEST_LABEL:
        raise DataError(f"{name} holds {array.max()}. Expected labels of at most {LARGEST_LABEL}.")
    return array.astype(np.int64)


def _read(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64 arrays, or a DataError that says what is wrong."""
    true, pred = read_labels("y_true", y_true), read_labels("y_pred", y_pred)
    if len(true) != len(pred):
        raise DataError(
            f"y_true has {len(true)} labels and y_pred {len(pred)}. Expected one of each for every sample: "
            "take both from the same split."
        )
    return true, pred
