"""The gallery of clusters: one page to look through them and to name, merge, split and reject; see `labkit apply`.

The page is one file that needs no network. What it shows is in it as data; its one script and its one style are the
only ones that its policy lets a browser run.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit._scales import unit_rows
from labkit.errors import shown
from labkit.own.clustering import REJECTED, Clustering
from labkit.own.joined import SHORTEST
from labkit.own.pages import apply_command, link, policy_hash, script_json, source, template

PER_STRIP = (16, 14, 12, 10, 8, 6, 5, 4, 3, 2, 1)  # images in each strip of a cluster; the first that fits is taken
LARGEST_PAGE = 22_000_000  # bytes of thumbnails in base64, and of the names of all files
SEED = 0  # of the random images


def gallery_page(
    clustering: Clustering, thumbnails: Sequence[bytes], features: Mapping[str, np.ndarray], out: Path
) -> bytes:
    """The page clusters.html: for every cluster its most confident, random and odd images.

    Odd are those that are both unconfident and far from the mean of their cluster in the feature spaces. Where there
    are many clusters, fewer images of each are shown, so that the page stays below 25 MB.

    Args:
        clustering: n images and their clusters; the operations of an applied review are in its report.
        thumbnails: n JPEGs; an empty one leaves a blank tile.
        features: n rows in each space; not looked at where the images have a column `distance` (as
            `center_distances`). Without both, odd images are the unconfident ones.
        out: the folder that the page is for: the links to the originals are relative to it.
    """
    known = clustering.images.get("distance")
    distance = center_distances(clustering.labels, features) if known is None else known.to_numpy()
    strips, rows = _fitting(clustering, thumbnails, distance)
    place = {row: i for i, row in enumerate(rows)}
    images = list(_images(clustering, rows, thumbnails, out))
    strips = {
        cluster: {name: [place[row] for row in members] for name, members in of.items()}
        for cluster, of in strips.items()
    }
    data = {
        "run": clustering.report.get("run", ""),
        "applied": clustering.report.get("review", []),
        "total": len(clustering.paths),
        "rejected": int((clustering.labels == REJECTED).sum()),
        "rejectedRows": strips.get(REJECTED, {}),
        "clusters": list(_clusters(clustering, strips)),
        "images": images,
        "elsewhere": _elsewhere(clustering, rows),
    }
    style, script = source("gallery.css"), source("review.js", "gallery.js")
    left_out, flags = clustering.report.get("left_out", {}), _flag_counts(clustering)
    values = {
        "title": shown(clustering.root.name or str(clustering.root)),
        "n_images": len(clustering.paths),
        "n_clusters": len(data["clusters"]),
        "n_flags": sum(flag["count"] for flag in flags),
        "n_left_out": len(left_out),
        "left_out": _by_reason(left_out, clustering.root),
        "others": sorted(clustering.report.get("other_endings", {}).items()),
        "flags": flags,
        "note": _note(strips),
        "command": apply_command(out),
        "style": style,
        "style_hash": policy_hash(style),
        "script": script,
        "script_hash": policy_hash(script),
        "data": script_json(data),
    }
    return template("gallery.html.j2").render(values).encode("utf-8", "backslashreplace")


# ------------------------------------------------------------------------------------------------- which images to show


def center_distances(labels: np.ndarray, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """How far each image is from the mean of its cluster: cosine distance, the mean over spaces, (n,) float64.

    Args:
        labels: the cluster of each of n images.
        features: n rows in each space; without any, all distances are 0.
    """
    distances = np.zeros(len(labels))
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        for space in features.values():
            rows = unit_rows(space[members].astype(np.float64), SHORTEST)
            center = rows.mean(0)
            distances[members] += 1 - rows @ center / max(float(np.linalg.norm(center)), SHORTEST)
    return distances / max(len(features), 1)


def _fitting(
    clustering: Clustering, thumbnails: Sequence[bytes], distance: np.ndarray
) -> tuple[dict[int, dict[str, list[int]]], list[int]]:
    """The strips of each cluster with as many images as fit in the page, and all rows that are shown, sorted."""
    orders = {cluster: _orders(clustering, cluster, distance) for cluster in np.unique(clustering.labels).tolist()}
    sizes: dict[int, int] = {}
    room = LARGEST_PAGE - int(clustering.images["file"].str.len().sum())
    for n in PER_STRIP:
        strips = {cluster: _cut(order, n) for cluster, order in orders.items()}
        rows = sorted({row for of in strips.values() for members in of.values() for row in members})
        for row in set(rows) - set(sizes):
            sizes[row] = 4 * len(thumbnails[row]) // 3
        if sum(sizes[row] for row in rows) <= room:
            break
    return strips, rows


def _orders(clustering: Clustering, cluster: int, distance: np.ndarray) -> dict[str, np.ndarray]:
    """The first images of a cluster in each order: confident, random, odd."""
    members, most = clustering.members(cluster), PER_STRIP[0]
    oddity = _ranks(-clustering.images["confidence"].to_numpy()[members]) + _ranks(distance[members])
    orders = {
        "confident": members,
        "random": np.random.default_rng([SEED, cluster - REJECTED]).permutation(members),
        "odd": members[np.argsort(-oddity, kind="stable")],
    }
    return {name: order[: most + 1] for name, order in orders.items()}  # one more tells whether all of them fit


def _cut(orders: Mapping[str, np.ndarray], n: int) -> dict[str, list[int]]:
    """At most n images in each order; one strip where that is all of them."""
    if len(orders["confident"]) <= n:
        return {"all": orders["confident"].tolist()}
    return {name: order[:n].tolist() for name, order in orders.items()}


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, 0 for the smallest, (m,)."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


# -------------------------------------------------------------------------------------------------- what the page holds


def _images(
    clustering: Clustering, rows: Sequence[int], thumbnails: Sequence[bytes], out: Path
) -> Iterator[dict[str, Any]]:
    labels = clustering.labels
    columns = (clustering.images[name].tolist() for name in ("file", "confidence", "flags"))
    files, confidence, flags = columns
    for row in rows:
        yield {
            "file": files[row],
            "href": link(clustering.paths[row], out),
            "confidence": round(float(confidence[row]), 4),
            "flags": flags[row],
            "kinds": flag_kinds(flags[row]),
            "cluster": int(labels[row]),
            "thumbnail": base64.b64encode(thumbnails[row]).decode(),
        }


def _elsewhere(clustering: Clustering, rows: Sequence[int]) -> dict[str, list[Any]]:
    """Name and cluster of the images that are not shown: the map can move these too, in the same review."""
    others = clustering.images.drop(index=clustering.images.index[list(rows)])
    return {"files": others["file"].tolist(), "clusters": others["cluster"].tolist()}


def _clusters(clustering: Clustering, strips: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    labels, confidence = clustering.labels, clustering.images["confidence"].to_numpy()
    for cluster in clustering.clusters.to_dict("records"):
        number, sure = int(cluster["cluster"]), float(cluster["name_confidence"])
        if number not in strips:  # it has no images
            continue
        yield {
            "cluster": number,
            "size": int(cluster["size"]),
            "name": cluster["name"],
            "nameConfidence": None if np.isnan(sure) else round(sure, 4),
            "suggestions": list(cluster["suggestions"]),
            "confidence": round(float(confidence[labels == number].mean()), 4),
            "rows": strips[number],
        }


def flag_kinds(flags: str) -> list[str]:
    """The kinds of flags in their words: "blurred; near duplicate of a.jpg" has two."""
    return [kind for kind in flags.split(" of ", 1)[0].split("; ") if kind]


def _flag_counts(clustering: Clustering) -> list[dict[str, Any]]:
    counts = Counter(kind for flags in clustering.images["flags"] if flags for kind in flag_kinds(flags))
    return [{"name": name, "count": count} for name, count in sorted(counts.items())]


def _by_reason(left_out: Mapping[str, str], root: Path) -> list[tuple[str, list[str]]]:
    """Reasons, most frequent first, each with its files as they are called below the root."""
    reasons: dict[str, list[str]] = {}
    for file, reason in sorted(left_out.items()):
        reasons.setdefault(reason, []).append(file.removeprefix(f"{shown(root)}{os.sep}"))
    return sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))


def _note(strips: Mapping[int, Mapping[str, Sequence[int]]]) -> str:
    longest = max((len(rows) for of in strips.values() for rows in of.values()), default=0)
    return (
        f"Each strip shows at most {longest} images of a cluster; “odd” are unconfident and far from its center. "
        "Confidence says how clearly an image is within its cluster, not how often a cluster is right."
    )
