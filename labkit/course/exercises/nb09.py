"""Exercises of notebook 09: near duplicates, an interval for an accuracy, a stratified check, and abstention."""

from __future__ import annotations

from functools import partial

import numpy as np

from labkit.course.exercises import Exercise

# ------------------------------------------------------------------------------------------------ 09.1: near duplicates

_RANDOM = np.random.default_rng(9)
_BITS = _RANDOM.integers(0, 2, (5, 64)).astype(bool)  # hashes of five images that have nothing to do with each other
_COPY, _FAR = _BITS[1].copy(), _BITS[0].copy()
_COPY[[3, 40, 41, 60]] ^= True  # four bits away from row 1
_FAR[:9] ^= True  # nine bits away from row 0
_HASHES = np.stack([*_BITS, _COPY, _BITS[1], _FAR, _BITS[3], _COPY])


def _first_alike(hashes: np.ndarray, most: int, *, mistake: str = "") -> np.ndarray:
    apart = (hashes[:, None] != hashes).sum(2)  # (n, n)
    if mistake == "equal bits":
        apart = (hashes[:, None] == hashes).sum(2)
    alike = apart < most if mistake == "strict" else apart == 0 if mistake == "identical" else apart <= most
    if mistake == "later":
        alike = np.triu(alike, 1)
    elif mistake == "any":
        alike = alike & ~np.eye(len(alike), dtype=bool)
    elif mistake != "itself":
        alike = np.tril(alike, -1)
    if mistake == "no -1":
        return np.asarray(alike.argmax(1))
    if mistake == "nearest":
        order = np.where(alike, apart, apart.max() + 1)
        return np.where(alike.any(1), order.argmin(1), -1)
    return np.where(alike.any(1), alike.argmax(1), -1)


# ------------------------------------------------------------------------------------------------ 09.2: Wilson interval


def _wilson(n_right: int, n: int, z: float = 1.96, *, mistake: str = "") -> tuple[float, float]:
    share = n_right / n
    center, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    if mistake == "wald":
        center, half = share * (1 + z**2 / n), z * np.sqrt(share * (1 - share) / n) * (1 + z**2 / n)
    if mistake == "no root":
        half = z * (share * (1 - share) / n + z**2 / (4 * n**2))
    if mistake == "z inside":
        half = np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    if mistake == "around the share":
        center = share * (1 + z**2 / n)
    below = 1.0 if mistake == "not divided" else 1 + z**2 / n
    return float((center - half) / below), float((center + half) / below)


# -------------------------------------------------------------------------------------------- 09.3: a stratified check

_RIGHT = np.array([1, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1]).astype(bool)
_STRATA = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
_SIZES = np.array([160, 30, 10])


def _stratified(right: np.ndarray, strata: np.ndarray, sizes: np.ndarray, *, mistake: str = "") -> tuple[float, float]:
    sizes = np.asarray(sizes, dtype=float)
    n_judged = np.bincount(strata, minlength=len(sizes))
    share = np.bincount(strata, weights=right, minlength=len(sizes)) / n_judged
    weight = sizes / sizes.sum()
    if mistake == "plain mean":
        weight = n_judged / n_judged.sum()
    if mistake == "equal weights":
        weight = np.full(len(sizes), 1 / len(sizes))
    if mistake == "largest weight":
        weight = sizes / sizes.max()
    variance = share * (1 - share) / (n_judged if mistake == "by m" else n_judged - 1)
    if mistake == "not per image":
        variance = variance * n_judged
    total = (weight * variance).sum() if mistake == "weights not squared" else (weight**2 * variance).sum()
    return float((weight * share).sum()), float(total if mistake == "no root" else np.sqrt(total))


# ----------------------------------------------------------------------------------------------------- 09.4: abstention

_CONFIDENCE = np.array([0.71, 0.99, 0.55, 0.93, 0.86, 0.62])
_CORRECT = np.array([0, 1, 0, 1, 1, 1]).astype(bool)


def _coverage(confidence: np.ndarray, right: np.ndarray, *, mistake: str = "") -> tuple[np.ndarray, np.ndarray]:
    n = len(right)
    order = np.argsort(confidence if mistake == "ascending" else -confidence, kind="stable")
    kept = np.arange(1, n + 1)
    hits = np.cumsum(np.sort(right)[::-1] if mistake == "sorted apart" else right[order])
    if mistake == "unsorted":
        hits = np.cumsum(right)
    accuracy = {"counts": hits, "of all": hits / n, "errors": 1 - hits / kept}.get(mistake, hits / kept)
    return np.asarray(kept if mistake == "number" else kept / n), np.asarray(accuracy, dtype=float)


EXERCISES = (
    Exercise(
        id="09.1",
        title="Has this image been here before?",
        cases=[(_HASHES, 4), (_HASHES, 9), (_HASHES[:5], 4)],
        reference=lambda hashes, most: _first_alike(hashes, most),
        mistakes={
            "Every image is its own duplicate: compare with earlier images only.": partial(
                _first_alike, mistake="itself"
            ),
            "You point to later images. The first of several copies should stay unmarked, so look at earlier ones.": (
                partial(_first_alike, mistake="later")
            ),
            "You compare with earlier and later images, so both of a pair are marked. The first one should stay.": (
                partial(_first_alike, mistake="any")
            ),
            "You count the bits that are equal. Two images are alike where few bits differ.": (
                partial(_first_alike, mistake="equal bits")
            ),
            "Only identical hashes count in your answer. A copy that was saved again has a few other bits: at most "
            "`most` of them.": partial(_first_alike, mistake="identical"),
            "Exactly `most` different bits are still alike: use <=.": partial(_first_alike, mistake="strict"),
            "Where there is no copy, argmax of a row of False gives 0. Return -1 there.": (
                partial(_first_alike, mistake="no -1")
            ),
            "You return the nearest earlier image. Return the first one, so that all copies point to the same.": (
                partial(_first_alike, mistake="nearest")
            ),
        },
        hints=(
            "How many bits differ between image i and image j? Which j may image i point to?",
            "apart = (hashes[:, None] != hashes).sum(2) is (n, n). np.tril(..., -1) keeps those below the diagonal.",
            "alike = np.tril(apart <= most, -1); np.where(alike.any(1), alike.argmax(1), -1).",
        ),
        difficulty=2,
        importance=3,
        minutes=10,
    ),
    Exercise(
        id="09.2",
        title="An interval for an accuracy",
        cases=[(45, 50), (50, 50), (0, 20), (7, 10), (180, 200)],
        reference=lambda n_right, n: _wilson(n_right, n),
        mistakes={
            "That is the textbook interval p ± z √(p (1 − p) / n), which has no width when 50 of 50 are right.": (
                partial(_wilson, mistake="wald")
            ),
            "The width is right, but your interval lies around the share itself. Its center moves towards one half.": (
                partial(_wilson, mistake="around the share")
            ),
            "Both ends have to be divided by 1 + z² / n.": partial(_wilson, mistake="not divided"),
            "You left out the square root: a variance is no width.": partial(_wilson, mistake="no root"),
            "The root has to be multiplied by z: yours is an interval of one standard error.": (
                partial(_wilson, mistake="z inside")
            ),
        },
        hints=(
            "Which true accuracies p would have made this count unsurprising: |share − p| ≤ z √(p (1 − p) / n)? The "
            "ends are where both sides are equal.",
            "Squared, that is a quadratic equation in p: (share − p)² = z² p (1 − p) / n.",
            "(share + z²/(2n) ± z √(share (1 − share)/n + z²/(4n²))) / (1 + z²/n).",
        ),
        difficulty=2,
        importance=5,
        minutes=10,
    ),
    Exercise(
        id="09.3",
        title="A check that sees rare clusters",
        cases=[(_RIGHT, _STRATA, _SIZES), (_RIGHT[:8], _STRATA[:8], _SIZES[:2]), (_RIGHT[1:], _STRATA[1:], _SIZES)],
        reference=lambda right, clusters, sizes: _stratified(right, clusters, sizes),
        mistakes={
            "That is the plain share of right ones. Small clusters were judged as often as large ones: weight each "
            "cluster by its size.": partial(_stratified, mistake="plain mean"),
            "You give every cluster the same weight. A cluster of 160 images counts sixteen times as much as one of "
            "10.": partial(_stratified, mistake="equal weights"),
            "Your weights do not sum to 1: divide by all images, not by the largest cluster.": (
                partial(_stratified, mistake="largest weight")
            ),
            "The estimate is right. For its variance the weights are squared.": (
                partial(_stratified, mistake="weights not squared")
            ),
            "The estimate is right. The variance of a share of m judged images is p (1 − p) / (m − 1).": (
                partial(_stratified, mistake="by m")
            ),
            "The estimate is right, and you have the variance of a single image. A mean of m has less.": (
                partial(_stratified, mistake="not per image")
            ),
            "The estimate is right. The second number is a variance: take its square root.": (
                partial(_stratified, mistake="no root")
            ),
        },
        hints=(
            "How accurate is each cluster? How much of the folder is it?",
            "m = np.bincount(clusters, minlength=len(sizes)), share = np.bincount(clusters, weights=right, "
            "minlength=len(sizes)) / m, weight = sizes / sizes.sum().",
            "(weight * share).sum() and np.sqrt((weight**2 * share * (1 - share) / (m - 1)).sum()).",
        ),
        difficulty=3,
        importance=4,
        minutes=15,
    ),
    Exercise(
        id="09.4",
        title="Answer less, and be right more often",
        cases=[(_CONFIDENCE, _CORRECT), (_CONFIDENCE[::-1].copy(), _CORRECT), (_CONFIDENCE[:1], _CORRECT[:1])],
        reference=lambda confidence, right: _coverage(confidence, right),
        mistakes={
            "You keep the least confident images first. Sort by -confidence.": partial(_coverage, mistake="ascending"),
            "You never sort: the first images are not the most confident ones.": partial(_coverage, mistake="unsorted"),
            "You sort right and wrong by themselves, so all the right ones come first. Sort both by confidence.": (
                partial(_coverage, mistake="sorted apart")
            ),
            "The second array has counts. Divide by how many were kept.": partial(_coverage, mistake="counts"),
            "You divide by all images. Accuracy is among those that were kept.": partial(_coverage, mistake="of all"),
            "That is the error, which falls as accuracy rises. Return accuracy.": partial(_coverage, mistake="errors"),
            "The first array has numbers of images. Coverage is their share of all.": (
                partial(_coverage, mistake="number")
            ),
        },
        hints=(
            "If only one image may be answered, which one? And the second?",
            "order = np.argsort(-confidence, kind='stable') has the most confident first; np.cumsum(right[order]) "
            "counts the right ones among the first 1, 2, ….",
            "kept = np.arange(1, n + 1); return kept / n, np.cumsum(right[order]) / kept.",
        ),
        difficulty=2,
        importance=4,
        minutes=8,
    ),
)
