"""Exercises of notebook 05, choosing without labels."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform
from scipy.special import softmax

from labkit.course.exercises import Exercise

# ----------------------------------------------------------------------------------------- 05.1: chance-corrected score


def _corrected(labels: np.ndarray, predicted: np.ndarray, *, mistake: str = "") -> float:
    n = max(labels.max(), predicted.max()) + 1
    shares = np.bincount(labels, minlength=n) / len(labels)
    guessed = shares if mistake == "one labeling" else np.bincount(predicted, minlength=n) / len(predicted)
    by_chance = {"uniform": 1 / n, "majority": shares.max()}.get(mistake, float(shares @ guessed))
    score = float(np.mean(labels == predicted))
    if by_chance == 1:
        return float("nan") if mistake == "nan" else 1.0 if mistake == "perfect" else 0.0
    return (score - by_chance) / (1.0 if mistake == "no rescaling" else 1 - by_chance)


_EVEN, _GUESSED = np.array([0, 0, 1, 1, 2, 2, 2, 3]), np.array([0, 1, 1, 1, 2, 2, 0, 0])
_UNEVEN, _MOSTLY = np.array([0] * 9 + [1, 1, 2]), np.array([0] * 10 + [1, 0])

# --------------------------------------------------------------------------------- 05.2: the gradient of the divergence

_TASK_LOGITS = np.array([[1.0, 0.0, -1.0], [0.2, 0.1, 0.0], [-2.0, 2.0, 0.0], [0.0, 0.5, 1.0]])  # (n, C)
_TAIL = np.log([0.6, 0.3, 0.1])
_TWO = np.log([0.8, 0.2])


def _pull(task_logits: np.ndarray, log_prior: np.ndarray, gamma: float, *, mistake: str = "") -> np.ndarray:
    """Gradient of gamma times KL(mean labeling, prior) for the logits."""
    labeling = softmax(task_logits, axis=1)
    mean = labeling.mean(0)
    price = np.log(mean) - log_prior  # up to a constant, which the softmax takes out
    if mistake == "no prior":
        price = np.log(mean)
    if mistake == "backwards":
        price = -np.exp(log_prior) / mean
    if mistake == "each image":
        price = np.log(labeling) - log_prior
    price = gamma * np.broadcast_to(price, labeling.shape)
    average = (labeling * price).sum(axis=1, keepdims=True)
    average = {"no average": 0 * average, "plain mean": price.mean(axis=1, keepdims=True)}.get(mistake, average)
    grad = (price + gamma if mistake == "for the labeling" else labeling * (price - average)) / len(labeling)
    return {"sign": -grad, "no 1/n": len(labeling) * grad}.get(mistake, grad)


# -------------------------------------------------------------------------------------------- 05.3: shares by consensus


def _runs() -> np.ndarray:
    """Four runs on 24 samples in groups of 12, 8, 4: numbers change, the large group is cut elsewhere each time."""
    truth = np.repeat([0, 1, 2], [12, 8, 4])
    runs = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        labels = truth.copy()
        labels[3 * seed + np.arange(3)] = 2
        runs.append(random.permutation(3)[labels])
    return np.stack(runs)


def _shares(labelings: np.ndarray, n_clusters: int, *, mistake: str = "") -> np.ndarray:
    together = (labelings[:, :, None] == labelings[:, None]).mean(0)  # (n, n)
    counts = np.stack([np.bincount(labels, minlength=labelings.max() + 1) for labels in labelings])
    if mistake == "one run":
        together = (labelings[0][:, None] == labelings[0]).astype(float)
    if mistake == "by number":
        return -np.sort(-counts.mean(0) / labelings.shape[1])
    if mistake == "mean of sorted":
        return np.asarray(-np.sort(-counts, axis=1).mean(0) / labelings.shape[1])
    distances = squareform(together if mistake == "similarity" else 1 - together, checks=False)
    method = "single" if mistake == "single" else "average"
    joined = fcluster(linkage(distances, method), n_clusters, "maxclust") - 1
    sizes = np.bincount(joined, minlength=n_clusters)
    sizes = np.sort(sizes) if mistake == "ascending" else np.sort(sizes)[::-1]
    return np.asarray(sizes / (1 if mistake == "counts" else labelings.shape[1]))


_RUNS = _runs()
_BRIDGE = np.array(
    [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0], [2, 2, 2, 2, 2, 0, 0, 0], [1, 1, 1, 0, 0, 2, 2, 2]]
)

# ------------------------------------------------------------------------------------------ 05.4: stability of two runs

_FIRST = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
_SECOND = np.array([2, 2, 2, 0, 0, 0, 0, 2, 1, 1])
_SPLIT = np.array([3, 3, 3, 4, 4, 0, 0, 0, 1, 2])  # five clusters
_LOST = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])  # two clusters


def _stability(first: np.ndarray, second: np.ndarray, *, mistake: str = "") -> float:
    n = max(first.max(), second.max()) + 1
    table = np.zeros((n, n))
    np.add.at(table, (first, second), 1)  # samples in cluster i of the first and j of the second
    if mistake == "numbers":
        return float(np.mean(first == second))
    if mistake == "many to one":
        return float(table.max(axis=1).sum() / len(first))
    if mistake == "smallest":
        return float(table[linear_sum_assignment(table)].sum() / len(first))
    matched = table[linear_sum_assignment(-table)]
    if mistake == "mean of clusters":
        sizes = table.sum(axis=1)[linear_sum_assignment(-table)[0]]
        return float(np.mean(matched[sizes > 0] / sizes[sizes > 0]))
    return float(matched.sum() / (1 if mistake == "count" else len(first)))


# ---------------------------------------------------------------------------------------- 05.5: the price of the winner

_TRUTH = np.array([0.70, 0.72, 0.64, 0.71])  # (N,)
_SCORES = _TRUTH + 0.05 * np.random.default_rng(0).normal(size=(6, 4))  # (T, N)


def _winner(scores: np.ndarray, truth: np.ndarray, *, mistake: str = "") -> tuple[float, float]:
    """Optimism and regret of the winner by score."""
    if mistake == "axis":
        by_column = scores.argmax(0)
        return float(np.mean(scores.max(0) - truth)), float(np.mean(truth.max() - truth[by_column % len(truth)]))
    chosen = scores.argmax(1)
    won, best = truth[chosen], truth.max()
    optimism = scores.max(1) - (best if mistake == "against the best" else won)
    if mistake == "average score":
        optimism = scores.max(1) - scores.mean(1)
    regret = best - (scores.max(1) if mistake == "regret of the score" else won)
    if mistake == "against the mean":
        regret = truth.mean() - won
    pair = float(optimism.mean()), float(regret.mean())
    return pair[::-1] if mistake == "swapped" else pair


EXERCISES = (
    Exercise(
        id="05.1",
        title="A generalization score that chance does not raise",
        cases=[(_EVEN, _GUESSED), (_UNEVEN, _MOSTLY), (np.zeros(6, int), np.zeros(6, int)), (_EVEN, _EVEN)],
        reference=lambda labels, predicted: _corrected(labels, predicted),
        mistakes={
            "Your chance level is one over the number of clusters, which holds only for clusters of equal size. A "
            "cluster of share 0.9 is right by chance nine times out of ten.": partial(_corrected, mistake="uniform"),
            "Your chance level is the share of the largest cluster. That is what always predicting it would "
            "reach; shuffled predictions have shares of their own.": partial(_corrected, mistake="majority"),
            "You square the shares of the labels. The predictions have shares of their own: multiply the two.": (
                partial(_corrected, mistake="one labeling")
            ),
            "You subtract chance but do not rescale: a perfect prediction should score 1. Divide by 1 − chance.": (
                partial(_corrected, mistake="no rescaling")
            ),
            "A collapsed labeling gives 0 / 0, which is nan. Return 0 where chance is already 1.": (
                partial(_corrected, mistake="nan")
            ),
            "A collapsed labeling scores 1. It is always right by chance, so it should score 0.": (
                partial(_corrected, mistake="perfect")
            ),
        },
        hints=(
            "How often would the two agree if the predictions were shuffled?",
            "Shuffled, an image has label c with probability share_c and prediction c with probability predicted_c, "
            "independently. Both happen with the product.",
            "(accuracy − chance) / (1 − chance), with chance = (share * predicted_share).sum(), and 0 if chance is 1. "
            "np.bincount(x, minlength=n) / len(x) gives shares of equal length.",
        ),
        difficulty=2,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="05.2",
        title="The gradient of the divergence from a prior",
        cases=[(_TASK_LOGITS, _TAIL, 1.0), (_TASK_LOGITS[:3, :2], _TWO, 10.0)],
        reference=lambda task_logits, log_prior, gamma: _pull(task_logits, log_prior, gamma),
        mistakes={
            "The sign is wrong: a cluster that has more than its prior share should lose, so the gradient of its "
            "logits is positive.": partial(_pull, mistake="sign"),
            "You forgot the prior: this is the gradient of −γ · entropy, the even prior. Subtract log_prior from the "
            "logarithm of the mean.": partial(_pull, mistake="no prior"),
            "That is KL(prior ‖ mean labeling). Here the mean labeling comes first: the sum of mean · (log mean − log "
            "prior).": partial(_pull, mistake="backwards"),
            "You compare each image with the prior. Only the mean over the images should match it: take the mean "
            "before the logarithm.": partial(_pull, mistake="each image"),
            "Each image has a share of 1/n in the mean labeling: divide by n.": partial(_pull, mistake="no 1/n"),
            "That is the gradient with respect to the labeling. The softmax lies between it and the logits.": (
                partial(_pull, mistake="for the labeling")
            ),
            "The probabilities of an image sum to one: subtract the average price that it pays, as in 04.1.": (
                partial(_pull, mistake="no average")
            ),
            "You subtract the plain mean of the prices. Weight them by the image's probabilities.": (
                partial(_pull, mistake="plain mean")
            ),
        },
        hints=(
            "Where is the gradient zero? Where the mean labeling equals the prior, whatever the single images are.",
            "First with respect to the labeling τ: d/dτ_ic of Σ_c m_c (log m_c − log π_c), with m_c = mean of τ_ic "
            "over the images, is (log m_c − log π_c + 1) / n. The 1 drops out later. Call it a price.",
            "γ τ_ic (price_c − average_i) / n with price_c = log m_c − log_prior_c and average_i = Σ_c τ_ic price_c.",
        ),
        difficulty=3,
        importance=5,
        minutes=15,
    ),
    Exercise(
        id="05.3",
        title="Class shares from runs that disagree",
        cases=[(_RUNS, 3), (_BRIDGE, 2), (_RUNS[:, 6:], 2)],
        reference=lambda labelings, n_clusters: _shares(labelings, n_clusters),
        mistakes={
            "You average the sizes by cluster number, but number 2 of one run has nothing to do with number 2 of "
            "another.": partial(_shares, mistake="by number"),
            "You average the sorted sizes, so a large class that every run cuts in two stays cut in two. Ask which "
            "images stay together.": partial(_shares, mistake="mean of sorted"),
            "You used the first run only. Average over the runs whether two images share a cluster.": (
                partial(_shares, mistake="one run")
            ),
            "You gave linkage a similarity, so it joins the images that are never together. It wants distances: "
            "1 − together.": partial(_shares, mistake="similarity"),
            "Single linkage chains: one image between two groups joins them. Use method='average'.": (
                partial(_shares, mistake="single")
            ),
            "You return counts. Divide by the number of images.": partial(_shares, mistake="counts"),
            "The largest share comes first.": partial(_shares, mistake="ascending"),
        },
        hints=(
            "Which question about two images has an answer that does not depend on the clusters' numbers?",
            "together = (labelings[:, :, None] == labelings[:, None]).mean(0) is (n, n): how often two images share a "
            "cluster. 1 − together is a distance.",
            "fcluster(linkage(squareform(1 - together, checks=False), 'average'), n_clusters, 'maxclust') gives "
            "clusters from 1; np.sort(np.bincount(...)[1:])[::-1] / n their shares.",
        ),
        difficulty=3,
        importance=4,
        minutes=15,
    ),
    Exercise(
        id="05.4",
        title="Do two runs agree?",
        cases=[(_FIRST, _SECOND), (_FIRST, _SPLIT), (_FIRST, _LOST), (_FIRST, (_FIRST + 1) % 3)],
        reference=lambda first, second: _stability(first, second),
        mistakes={
            "You compare cluster numbers, which mean nothing: match the clusters of the two runs first.": (
                partial(_stability, mistake="numbers")
            ),
            "You match several clusters with the same one, so a run that has lost a cluster agrees too well. Each "
            "cluster may be used once: linear_sum_assignment.": partial(_stability, mistake="many to one"),
            "linear_sum_assignment minimizes: you found the worst matching. Negate the table.": (
                partial(_stability, mistake="smallest")
            ),
            "You count samples. Divide by how many there are.": partial(_stability, mistake="count"),
            "You average over clusters, so a small one counts as much as a large one. Average over samples.": (
                partial(_stability, mistake="mean of clusters")
            ),
        },
        hints=(
            "How many samples are in cluster i of the first run and in cluster j of the second? Make a table.",
            "table = np.zeros((n, n)); np.add.at(table, (first, second), 1), with n large enough for both runs. Then "
            "pick one entry in each row and column so that their sum is largest.",
            "table[linear_sum_assignment(-table)].sum() / len(first).",
        ),
        difficulty=3,
        importance=4,
        minutes=10,
    ),
    Exercise(
        id="05.5",
        title="The winner's score, and what choosing costs",
        cases=[(_SCORES, _TRUTH), (_SCORES[:2, ::-1], _TRUTH)],
        reference=lambda scores, truth: _winner(scores, truth),
        mistakes={
            "Your optimism compares the winner's score with the best true value. Compare it with the winner's own.": (
                partial(_winner, mistake="against the best")
            ),
            "Your optimism compares the winner's score with the average score. Compare it with the winner's true "
            "value.": partial(_winner, mistake="average score"),
            "Your regret uses the winner's score. What you get is its true value: truth[chosen].": (
                partial(_winner, mistake="regret of the score")
            ),
            "Your regret compares with the average candidate. Compare with the best one, truth.max().": (
                partial(_winner, mistake="against the mean")
            ),
            "The two are in the wrong order: return optimism, then regret.": partial(_winner, mistake="swapped"),
            "You choose along the repetitions. Each row is one repetition; choose a candidate in each: argmax(1).": (
                partial(_winner, mistake="axis")
            ),
        },
        hints=(
            "In each row, who wins? Then there are three numbers: the winner's score, its true value, the best true "
            "value.",
            "chosen = scores.argmax(1) has one candidate for each row, and truth[chosen] is what it is worth.",
            "(scores.max(1) - truth[chosen]).mean() and (truth.max() - truth[chosen]).mean().",
        ),
        difficulty=2,
        importance=5,
        minutes=10,
    ),
)
